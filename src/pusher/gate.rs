//! Entry point of Pusher clients: checks the app key, the page's origin, and whether there is a free slot.
//!
//! Input: every HTTP request. Output: upgraded websockets at `{pusher.path}/app/{key}`, and responses to
//! `{pusher.path}/broadcasting/auth`; all other requests pass through.
//!
//! A rejected client still gets its websocket, and the reason on it: browsers do not reveal why a handshake failed.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{self, HeaderValue};
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse as _;
use tracing::debug;

use super::session::{Refused, Session};
use super::{App, Pusher, code, endpoint};
use crate::admission::{Admission, Origins};
use crate::config::Config;
use crate::metrics::Refusal;
use crate::net::answer::Answer;
use crate::net::connection::ConnectionHandle;
use crate::net::websocket::{HandshakeError, accept_key};
use crate::proxies::TrustedProxies;
use crate::warn_throttled;

/// The settings and components that the gate uses.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    /// The path before `/app/{key}`, without a trailing slash.
    prefix: String,
    is_enabled: bool,
    origins: Origins,
    apps: Vec<Arc<App>>,
    max_header_bytes: u64,
    pusher: Pusher,
    admission: Arc<Admission>,
    proxies: TrustedProxies,
}

impl Gate {
    /// Reads `pusher`, `clients` and `allowedOrigins`.
    #[must_use]
    pub fn new(config: &Config, pusher: Pusher, admission: Arc<Admission>, proxies: TrustedProxies) -> Self {
        let apps = config.clients.iter().filter_map(|client| {
            let secret = client.secret.clone().filter(|secret| !secret.expose().is_empty())?;
            let key = client.key.expose().to_owned();
            (!key.is_empty()).then(|| Arc::new(App { key, secret }))
        });
        Self(Arc::new(Inner {
            prefix: config.pusher.prefix(),
            is_enabled: config.pusher.enabled,
            origins: Origins::new(&config.allowed_origins),
            apps: apps.collect(),
            max_header_bytes: config.limits.handshake_headers,
            pusher,
            admission,
            proxies,
        }))
    }

    /// Whether the gate answers requests for this path: those for a websocket.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        self.0.is_enabled && path.strip_prefix(&*self.0.prefix).is_some_and(|rest| rest.starts_with("/app/"))
    }

    /// Answers a request that came over `connection`, or returns it if its path is another one.
    ///
    /// # Errors
    /// The request itself, for another handler.
    pub fn answer(&self, request: Request<Body>, connection: &ConnectionHandle) -> Result<Answer, Box<Request<Body>>> {
        let path = request.uri().path();
        let Some(rest) = path.strip_prefix(&*self.0.prefix).filter(|_| self.0.is_enabled) else {
            return Err(Box::new(request));
        };
        if rest == "/broadcasting/auth" && !self.0.apps.is_empty() {
            return Ok(endpoint::answer(self, request, connection));
        }
        if rest.starts_with("/pusher/app/") {
            let hint = "only websockets are supported: set enabledTransports: ['ws', 'wss'] in the options of Echo or pusher-js";
            warn_throttled!(class = 3, key = "", hint, "a Pusher client asks for a transport over HTTP");
        }
        let Some(key) = rest.strip_prefix("/app/").filter(|key| !key.is_empty() && !key.contains('/')).map(str::to_owned) else {
            return Err(Box::new(request));
        };
        let handshake = match accept_key(&request) {
            Ok(handshake) => handshake,
            Err(error) => return Ok(Answer::Ready(no_websocket(error))),
        };
        let origin = request.headers().get(header::ORIGIN).cloned();
        connection.hold_answer();
        let connections = &self.0.pusher.0.connections;
        Ok(Answer::Ready(match self.admit(&key, &request, connection) {
            Ok(session) => connections.carry(&request, handshake, session, connection),
            Err((code, message)) => {
                debug!(code, message, ?origin, "refused a Pusher client");
                let refused = Refused::new(code, message, &self.0.pusher.0);
                connections.carry(&request, handshake, refused, connection)
            }
        }))
    }

    /// Creates a session for the client, or returns the code and message of its rejection. A temporary condition never gets a
    /// code that keeps the client from reconnecting.
    fn admit(&self, key: &str, request: &Request<Body>, connection: &ConnectionHandle) -> Result<Session, (u16, String)> {
        let shared = &self.0.pusher.0;
        let headers = request.headers();
        let Some(app) = self.0.apps.iter().find(|app| app.key == key) else {
            let hint = "if it is one of yours, it needs an entry of `clients` with its key and its secret: PUSHER_APP_KEY and PUSHER_APP_SECRET (or REVERB_…) in Laravel's .env";
            warn_throttled!(class = 0, key = key, key, hint, "a Pusher client asks for an unknown application");
            return Err((code::NO_APP, format!("App key {key} does not exist")));
        };
        if headers.get(header::ORIGIN).is_some_and(|origin| !self.0.origins.allow(origin)) {
            shared.hub.turned_away(Refusal::Origin, headers);
            return Err((code::UNAUTHORIZED, "the origin of the page is not allowed".to_owned()));
        }
        let version = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).find(|(name, _)| name == "protocol");
        if let Some((_, version)) = version.filter(|(_, version)| !matches!(&**version, "" | "5" | "6" | "7")) {
            return Err((code::UNSUPPORTED_VERSION, format!("Protocol {version} is not supported, 5 to 7 are")));
        }
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes as u64 > self.0.max_header_bytes {
            shared.hub.turned_away(Refusal::Headers, headers);
            return Err((code::TRY_LATER, "the headers are over limits.handshakeHeaders".to_owned()));
        }
        let slot = self.0.admission.enter(self.0.proxies.client(connection.peer().ip(), headers)).map_err(|full| {
            shared.hub.turned_away(full.refusal(), headers);
            (code::TRY_LATER, full.to_string())
        })?;
        let origin = shared.connections.origin(request, connection, false);
        Ok(Session::new(Arc::clone(shared), Arc::clone(app), origin, slot))
    }

    pub(super) fn pusher(&self) -> &Pusher {
        &self.0.pusher
    }

    pub(super) fn origins(&self) -> &Origins {
        &self.0.origins
    }

    /// The application whose key signs at the `broadcasting/auth` endpoint for clients of other protocols: the first one.
    pub(super) fn app(&self) -> Option<&Arc<App>> {
        self.0.apps.first()
    }
}

fn no_websocket(error: HandshakeError) -> axum::http::Response<Body> {
    let hint = "a proxy in front of this server has to forward `Upgrade` and `Connection`";
    warn_throttled!(class = 2, key = "", %error, hint, "a Pusher client's request is not a websocket handshake");
    let mut response = (error.status(), error.to_string()).into_response();
    if error.status() == StatusCode::UPGRADE_REQUIRED {
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}
