//! What stands before the Socket.IO engine: the browser's script, origins and CORS, sessions that are closed, and the
//! details in which the engine's answers differ from the original's.
//!
//! Input: every HTTP request. Output: those under `socketio.path`: websockets without a session to [`WebSockets`], before
//! the router has seen them; the rest to the engine, with its answer adapted; all other requests pass.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use tracing::debug;

use super::admission::{Admission, Full};
use super::client_script::ClientScript;
use super::detach::detach;
use super::engine::request_path;
use super::handshakes::FailedHandshakes;
use super::query::Query;
use super::websocket::{self, WebSockets};
use crate::channel::Pattern;
use crate::config::Config;
use crate::egress::socket_io::ClosedSessions;
use crate::egress::{ClientSocket, SocketIoSocket};
use crate::event::SocketId;
use crate::hub::Hub;
use crate::metrics::Refusal;
use crate::net::link::Link;
use crate::proxies::TrustedProxies;

/// Longest answer of the engine that is looked into: its handshakes and errors have some hundred bytes.
const LONGEST_ANSWER: usize = 4096;

/// Seconds after which a client that was turned away should try again.
const RETRY_AFTER: &str = "5";

/// What the gate needs of the settings and of the other parts.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    /// Path of the engine, without a slash at the end.
    path: String,
    origins: Vec<Pattern>,
    cookie: Option<String>,
    has_websocket: bool,
    script: ClientScript,
    hub: Arc<Hub<ClientSocket>>,
    websockets: WebSockets,
    closed: Arc<ClosedSessions>,
    failed: FailedHandshakes,
    admission: Arc<Admission>,
    proxies: TrustedProxies,
}

impl Gate {
    /// Reads `socketio` and `allowedOrigins`.
    #[must_use]
    pub fn new(
        config: &Config,
        hub: Arc<Hub<ClientSocket>>,
        websockets: WebSockets,
        closed: Arc<ClosedSessions>,
        admission: Arc<Admission>,
        proxies: TrustedProxies,
    ) -> Self {
        let options = &config.socketio;
        Self(Arc::new(Inner {
            path: request_path(&options.path),
            // Browsers write scheme and host in lower case.
            origins: config.allowed_origins.0.iter().map(|text| Pattern::new(&text.trim_end_matches('/').to_ascii_lowercase())).collect(),
            cookie: options.cookie.0.clone(),
            has_websocket: options.transports.0.iter().any(|name| name == "websocket"),
            script: ClientScript::new(options.client_path.clone()),
            hub,
            websockets,
            closed,
            failed: FailedHandshakes::default(),
            admission,
            proxies,
        }))
    }

    /// The part of a path below the engine's, without its first slash; `None` for other paths.
    fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&self.0.path)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let text = origin.to_str().unwrap_or_default();
        self.0.origins.iter().any(|pattern| pattern.matches(text))
    }
}

fn link(request: &Request) -> &Arc<Link> {
    request.extensions().get::<Arc<Link>>().expect("every request comes over a link")
}

impl Gate {
    /// Takes over the connection of a request that came over `link` and begins a websocket without a session. `None` for
    /// all other requests, also those that are to be refused: that is [`gate`]'s.
    pub fn upgrade<B>(&self, request: &mut Request<B>, link: &Link) -> Option<Response<Body>> {
        let below = self.below(request.uri().path())?;
        let query = Query::parse(request.uri());
        if !query.is_websocket() || query.has_session || !self.0.has_websocket || ClientScript::is_script(below) {
            return None;
        }
        let (protocol, key) = (query.engine?, websocket::accept_key(request)?);
        let origin = request.headers().get(header::ORIGIN).cloned();
        if origin.as_ref().is_some_and(|origin| !self.allows(origin)) {
            return None;
        }
        let slot = self.0.admission.enter(self.0.proxies.client(link.peer.ip(), request.headers())).ok()?;
        link.upgraded();
        link.hold_answer();
        let mut response = self.0.websockets.accept(request, key, protocol, link, slot);
        allow_origin(response.headers_mut(), origin);
        Some(response)
    }
}

/// Lets a request through to the engine, or answers it.
pub async fn gate(State(gate): State<Gate>, request: Request, next: Next) -> Response<Body> {
    let Some(below) = gate.below(request.uri().path()) else {
        return next.run(request).await;
    };
    if ClientScript::is_script(below) && matches!(*request.method(), Method::GET | Method::HEAD) {
        return gate.0.script.serve(below, request.headers()).await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    if let Some(origin) = &origin
        && !gate.allows(origin)
    {
        gate.0.hub.metrics().refusal(Refusal::Origin);
        debug!(?origin, "refused a page whose origin is not in allowedOrigins");
        gate.0.failed.count(4, origin.to_str().unwrap_or_default());
        return engine_error(StatusCode::FORBIDDEN, 4, "Forbidden");
    }
    let mut response = if request.method() == Method::OPTIONS { preflight() } else { gate.pass(request, next).await };
    allow_origin(response.headers_mut(), origin);
    response
}

impl Gate {
    async fn pass(&self, mut request: Request, next: Next) -> Response<Body> {
        let query = Query::parse(request.uri());
        let link = Arc::clone(link(&request));
        if !query.has_session {
            let slot = match self.0.admission.enter(self.0.proxies.client(link.peer.ip(), request.headers())) {
                Ok(slot) => slot,
                Err(full) => return self.turn_away(full),
            };
            request.extensions_mut().insert(slot);
        }
        if !query.has_session || query.is_websocket() {
            // The engine keeps the request as long as the session lives.
            detach(&mut request);
        }
        if query.session.is_some_and(|id| self.0.closed.contains(id)) {
            return engine_error(StatusCode::BAD_REQUEST, 1, "Session ID unknown");
        }
        let asked = request.uri().query().unwrap_or_default().to_owned();
        let poll = query.session.filter(|_| !query.is_websocket() && request.method() == Method::GET);
        let poll = poll.map(|id| Poll { gate: self, id });
        if let Some(socket) = poll.as_ref().and_then(|poll| self.engine_socket(poll.id)) {
            socket.polls(Arc::clone(&link));
        }
        let response = next.run(request).await;
        if let Some(poll) = poll {
            poll.answered(&response);
        }
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                link.upgraded();
                // An upgrade: from now on this connection is the client's, not that of the handshake.
                if let Some(socket) = query.session.and_then(|id| self.engine_socket(id)) {
                    socket.set_link(link);
                }
                response
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                self.0.hub.metrics().refusal(Refusal::MessageSize);
                response
            }
            StatusCode::BAD_REQUEST => self.numeric_code(response, &asked).await,
            StatusCode::OK if !query.has_session && !query.is_websocket() => self.handshake(response).await,
            _ => response,
        }
    }

    /// The engine writes the code of an error as text; clients and the original have a number.
    async fn numeric_code(&self, response: Response<Body>, asked: &str) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        let Ok(body) = to_bytes(body, LONGEST_ANSWER).await else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let Ok(mut error) = serde_json::from_slice::<serde_json::Value>(&body) else {
            return Response::from_parts(parts, body.into());
        };
        if let Some(code) = error["code"].as_str().and_then(|code| code.parse::<u64>().ok()) {
            error["code"] = code.into();
            self.0.failed.count(code, asked);
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, error.to_string().into())
    }

    /// A client of the engine.
    fn engine_socket(&self, id: SocketId) -> Option<SocketIoSocket> {
        self.0.hub.socket(id)?.engine().cloned()
    }

    /// Says why there is no place. The client tries again by itself.
    fn turn_away(&self, full: Full) -> Response<Body> {
        self.0.hub.metrics().refusal(full.refusal());
        debug!(%full, "refused a client");
        let status = match full {
            Full::Draining | Full::Connections(_) => StatusCode::SERVICE_UNAVAILABLE,
            Full::ConnectionsPerIp(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        let mut response = engine_error(status, 4, &full.to_string());
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        if full == Full::Draining {
            // A proxy that keeps connections open is to take them elsewhere.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The answer to a polling handshake sets the session's cookie, which load balancers stick to, and offers an
    /// upgrade only where there is one.
    async fn handshake(&self, response: Response<Body>) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        let body = to_bytes(body, LONGEST_ANSWER).await.ok().and_then(|body| String::from_utf8(body.into()).ok());
        let Some(mut body) = body else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        if let (Some(name), Some(session)) = (&self.0.cookie, session_of(&body))
            && let Ok(cookie) = HeaderValue::from_str(&format!("{name}={session}; Path=/; HttpOnly; SameSite=Strict"))
        {
            parts.headers.append(header::SET_COOKIE, cookie);
        }
        if !self.0.has_websocket {
            body = without_upgrade(&body);
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        Response::from_parts(parts, body.into())
    }
}

/// A polling request that waits for messages. A client that goes away while one waits is gone; the engine would
/// notice only when the next heartbeats fail.
struct Poll<'a> {
    gate: &'a Gate,
    id: SocketId,
}

impl Poll<'_> {
    fn answered(self, response: &Response<Body>) {
        if let Some(socket) = self.gate.engine_socket(self.id) {
            socket.polled(response.body().size_hint().exact().unwrap_or_default());
        }
        std::mem::forget(self);
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        // A session that never came as far as the hub has nobody to forget it, and ends by the engine's own clock.
        if self.gate.engine_socket(self.id).is_some() {
            self.gate.0.closed.insert(self.id);
            self.gate.0.hub.disconnect(self.id, "transport close");
        }
    }
}

/// The engine offers `websocket` even where `transports` has none. Engine.IO 3 puts the packet's length before it.
fn without_upgrade(handshake: &str) -> String {
    let packet = handshake.find("0{").map_or(handshake, |at| &handshake[at..]);
    let plain = packet.replacen("\"upgrades\":[\"websocket\"]", "\"upgrades\":[]", 1);
    if packet.len() == handshake.len() { plain } else { format!("{}:{plain}", plain.len()) }
}

/// The id in `…{"sid":"AbC…","upgrades":…`.
fn session_of(handshake: &str) -> Option<&str> {
    let (_, rest) = handshake.split_once("\"sid\":\"")?;
    rest.split_once('"').map(|(session, _)| session)
}

/// `{"code":1,"message":"Session ID unknown"}`
fn engine_error(status: StatusCode, code: u8, message: &str) -> Response<Body> {
    (status, axum::Json(serde_json::json!({ "code": code, "message": message }))).into_response()
}

fn preflight() -> Response<Body> {
    let headers =
        [(header::ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type"), (header::ACCESS_CONTROL_ALLOW_METHODS, "GET,HEAD,PUT,PATCH,POST,DELETE")];
    (StatusCode::OK, headers).into_response()
}

/// Reflects the origin with credentials, as socket.io 2 does: polling requests carry the session cookie.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_in_handshakes_of_both_protocols() {
        assert_eq!(session_of(r#"97:0{"sid":"AbC","upgrades":[]}2:40"#), Some("AbC"));
        assert_eq!(session_of(r#"0{"sid":"AbC"}"#), Some("AbC"));
        assert_eq!(session_of("1"), None);
    }

    #[test]
    fn an_upgrade_is_offered_only_where_there_is_one() {
        assert_eq!(without_upgrade(r#"0{"sid":"A","upgrades":["websocket"]}"#), r#"0{"sid":"A","upgrades":[]}"#);
        assert_eq!(without_upgrade(r#"37:0{"sid":"A","upgrades":["websocket"]}"#), r#"26:0{"sid":"A","upgrades":[]}"#);
    }
}
