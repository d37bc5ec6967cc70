//! Entry point of Socket.IO clients: checks origins, handles CORS, serves the browser script, assigns connection slots and
//! sessions, and rejects invalid requests.
//!
//! Input: every HTTP request. Output: responses to those under `socketio.path`, and upgraded websockets; all other requests
//! pass through.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse as _;
use tracing::debug;

use super::client_script::ClientScript;
use super::failures::FailedHandshakes;
use super::polling::Polling;
use super::query::{Query, Transport};
use super::session::Session;
use super::upgrade::Carrier;
use super::{SocketIo, compression};

use crate::admission::{Admission, Full, Origins, Slot};
use crate::config::{Config, Cookie};
use crate::metrics::Refusal;
use crate::net::answer::Answer;
use crate::net::connection::ConnectionHandle;
use crate::net::websocket::{HandshakeError, accept_key};
use crate::proxies::TrustedProxies;
use crate::warn_throttled;

/// Seconds after which a client rejected for lack of a slot should retry.
const RETRY_AFTER: &str = "5";

/// Request errors, with Engine.IO's codes.
const UNKNOWN_TRANSPORT: Wrong = Wrong(0, "Transport unknown");
const UNKNOWN_SESSION: Wrong = Wrong(1, "Session ID unknown");
const BAD_METHOD: Wrong = Wrong(2, "Bad handshake method");
const BAD_REQUEST: Wrong = Wrong(3, "Bad request");
const FORBIDDEN: u8 = 4;

struct Wrong(u8, &'static str);

/// The settings and components that the gate uses.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    /// Path of the endpoint, without a trailing slash.
    path: String,
    origins: Origins,
    cookie: Option<Cookie>,
    max_header_bytes: u64,
    compression: Option<compression::Threshold>,
    script: ClientScript,
    socket_io: SocketIo,
    failed: FailedHandshakes,
    admission: Arc<Admission>,
    proxies: TrustedProxies,
}

impl Gate {
    /// Reads `socketio`, `allowedOrigins` and `limits.handshakeHeaders`.
    #[must_use]
    pub fn new(config: &Config, socket_io: SocketIo, admission: Arc<Admission>, proxies: TrustedProxies) -> Self {
        let options = &config.socketio;
        Self(Arc::new(Inner {
            path: format!("/{}", options.path.trim_matches('/')),
            origins: Origins::new(&config.allowed_origins),
            cookie: options.cookie.clone(),
            max_header_bytes: config.limits.handshake_headers,
            compression: options.http_compression.map(compression::Threshold),
            script: ClientScript::new(options.client_path.clone()),
            socket_io,
            failed: FailedHandshakes::default(),
            admission,
            proxies,
        }))
    }

    /// The part of a path below the endpoint, without its leading slash; `None` for other paths.
    fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&self.0.path)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }

    /// Whether the gate answers requests for this path.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        self.below(path).is_some()
    }

    fn refused(&self, cause: Refusal, headers: &HeaderMap) {
        self.0.socket_io.0.hub.turned_away(cause, headers);
    }

    /// Answers a request that came over `connection`, or returns it if its path is not below the endpoint.
    ///
    /// # Errors
    /// The request itself, for another handler.
    pub fn answer(&self, request: Request<Body>, connection: &ConnectionHandle) -> Result<Answer, Box<Request<Body>>> {
        let Some(below) = self.below(request.uri().path()) else {
            return Err(Box::new(request));
        };
        if ClientScript::is_script(below) && matches!(*request.method(), Method::GET | Method::HEAD) {
            let (gate, name, headers) = (self.clone(), below.to_owned(), request.headers().clone());
            return Ok(Answer::Later(Box::pin(async move { Ok(gate.0.script.serve(&name, &headers).await) })));
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        if let Some(origin) = &origin
            && !self.0.origins.allow(origin)
        {
            self.refused(Refusal::Origin, request.headers());
            self.0.failed.count(FORBIDDEN.into(), origin.to_str().unwrap_or_default());
            return Ok(Answer::Ready(engine_error(StatusCode::FORBIDDEN, FORBIDDEN, "Forbidden")));
        }
        let answer = if request.method() == Method::OPTIONS {
            Answer::Ready(preflight(request.headers()))
        } else {
            self.serve(&request, connection).unwrap_or_else(|polling| self.poll(polling, request))
        };
        Ok(answer.map(move |response| allow_origin(response.headers_mut(), origin)))
    }

    /// Starts a session or a websocket. Returns the polling session if the request belongs to one.
    fn serve(&self, request: &Request<Body>, connection: &ConnectionHandle) -> Result<Answer, Arc<Polling>> {
        let query = Query::parse(request.uri());
        let shared = &self.0.socket_io.0;
        let is_served = match query.transport {
            Transport::Polling => shared.has_polling,
            Transport::WebSocket => shared.has_websocket,
            Transport::Unknown => false,
        };
        if !is_served {
            return Ok(self.wrong(&UNKNOWN_TRANSPORT, request));
        }
        if query.is_jsonp {
            return Ok(self.wrong(&Wrong(3, "JSONP polling is not supported"), request));
        }
        let session = match query.session.map(|session| shared.sessions.get(session)) {
            Some(Some(polling)) => Some(polling),
            Some(None) => return Ok(self.wrong(&UNKNOWN_SESSION, request)),
            None if query.has_session => return Ok(self.wrong(&UNKNOWN_SESSION, request)),
            None => None,
        };
        if session.is_none() && request.method() != Method::GET {
            return Ok(self.wrong(&BAD_METHOD, request));
        }
        let answer = match (query.transport, session) {
            (Transport::WebSocket, session) => match accept_key(request) {
                Err(error) => self.no_websocket(error, request),
                Ok(key) => match session {
                    None => match self.enter(request, connection) {
                        Err(response) => *response,
                        Ok(slot) => {
                            connection.hold_answer();
                            let session =
                                Session::new(Arc::clone(shared), query.version, shared.connections.origin(request, connection, false));
                            shared.connections.carry(request, key, Carrier::session(session, Some(slot)), connection)
                        }
                    },
                    Some(polling) => match Carrier::probe(polling) {
                        Some(carrier) => shared.connections.carry(request, key, carrier, connection),
                        None => return Ok(self.wrong(&BAD_REQUEST, request)),
                    },
                },
            },
            (_, Some(polling)) => return Err(polling),
            (_, None) => match self.enter(request, connection) {
                Err(response) => *response,
                Ok(slot) => {
                    let session = Session::new(Arc::clone(shared), query.version, shared.connections.origin(request, connection, true));
                    let cookie = self.cookie(&session);
                    match Polling::begin(session, slot) {
                        Ok(mut response) => {
                            if let Some(cookie) = cookie {
                                response.headers_mut().append(header::SET_COOKIE, cookie);
                            }
                            response
                        }
                        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                    }
                }
            },
        };
        Ok(Answer::Ready(answer))
    }

    /// Answers a request of a polling session.
    fn poll(&self, polling: Arc<Polling>, request: Request<Body>) -> Answer {
        let gate = self.clone();
        let (parts, body) = request.into_parts();
        match parts.method {
            Method::GET => {
                let encoding = gate.0.compression.and_then(|threshold| compression::accepted(&parts.headers, threshold));
                // The request's head would keep the buffer alive from which it was read.
                drop((parts, body));
                Answer::Later(Box::pin(async move {
                    let polled = Arc::clone(&polling).poll().await?;
                    Ok(match polled {
                        Some(payload) => compression::compress(polling.answer(payload), encoding).await,
                        None => engine_error(StatusCode::BAD_REQUEST, UNKNOWN_SESSION.0, UNKNOWN_SESSION.1),
                    })
                }))
            }
            Method::POST => Answer::Later(Box::pin(async move {
                Ok(match polling.post(&parts.headers, body).await {
                    Ok(()) => ([(header::CONTENT_TYPE, "text/html")], "ok").into_response(),
                    Err(StatusCode::BAD_REQUEST) => engine_error(StatusCode::BAD_REQUEST, BAD_REQUEST.0, BAD_REQUEST.1),
                    Err(status) => status.into_response(),
                })
            })),
            _ => Answer::Ready(engine_error(StatusCode::BAD_REQUEST, BAD_REQUEST.0, BAD_REQUEST.1)),
        }
    }

    /// Reserves a slot for a client, unless the server is full or the request headers are too large.
    fn enter(&self, request: &Request<Body>, connection: &ConnectionHandle) -> Result<Slot, Box<Response<Body>>> {
        let headers = request.headers();
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes as u64 > self.0.max_header_bytes {
            self.refused(Refusal::Headers, headers);
            debug!(bytes, limit = self.0.max_header_bytes, "refused a client: the headers of its handshake are too large");
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(Box::new(engine_error(status, BAD_REQUEST.0, "the headers are over limits.handshakeHeaders")));
        }
        let client = self.0.proxies.client(connection.peer().ip(), headers);
        self.0.admission.enter(client).map_err(|full| Box::new(self.turn_away(full, headers)))
    }

    /// Reports why there is no slot. Clients retry on their own.
    fn turn_away(&self, full: Full, headers: &HeaderMap) -> Response<Body> {
        self.refused(full.refusal(), headers);
        debug!(%full, "refused a client");
        let status = match full {
            Full::Draining | Full::Connections(_) => StatusCode::SERVICE_UNAVAILABLE,
            Full::ConnectionsPerIp(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        let mut response = engine_error(status, FORBIDDEN, &full.to_string());
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        if full == Full::Draining {
            // Makes a proxy with a keep-alive connection reconnect, to another node if there is one.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The cookie with the session id, which load balancers use for sticky sessions.
    fn cookie(&self, session: &Session) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0.cookie.as_ref()?.render(session.sid())).ok()
    }

    fn no_websocket(&self, error: HandshakeError, request: &Request<Body>) -> Response<Body> {
        debug!(%error, "refused a websocket");
        if error == HandshakeError::NoUpgrade {
            let hint = "a proxy before this server drops it: nginx needs `proxy_http_version 1.1`, `proxy_set_header Upgrade $http_upgrade` and `proxy_set_header Connection \"upgrade\"`; packaging/ has examples";
            warn_throttled!(class = 0, key = "upgrade", %error, hint, "a websocket request came without its Upgrade header");
        }
        self.0.failed.count(BAD_REQUEST.0.into(), request.uri().query().unwrap_or_default());
        let mut response = engine_error(error.status(), BAD_REQUEST.0, BAD_REQUEST.1);
        if error == HandshakeError::Version {
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }

    fn wrong(&self, wrong: &Wrong, request: &Request<Body>) -> Answer {
        self.0.failed.count(wrong.0.into(), request.uri().query().unwrap_or_default());
        Answer::Ready(engine_error(StatusCode::BAD_REQUEST, wrong.0, wrong.1))
    }
}

/// `{"code":1,"message":"Session ID unknown"}`
fn engine_error(status: StatusCode, code: u8, message: &str) -> Response<Body> {
    (status, axum::Json(serde_json::json!({ "code": code, "message": message }))).into_response()
}

/// Allows the headers that the page wants to add, as later versions of socket.io do; the origin was checked before.
fn preflight(asked: &HeaderMap) -> Response<Body> {
    let allowed = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(HeaderValue::from_static("Content-Type"));
    let methods = HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE");
    let headers = [(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed), (header::ACCESS_CONTROL_ALLOW_METHODS, methods)];
    (StatusCode::OK, headers).into_response()
}

/// Reflects the origin and allows credentials, as socket.io 2 does: polling requests carry the session cookie.
fn allow_origin(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    match origin {
        Some(origin) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        None => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
    }
}
