//! Engine.IO and Socket.IO: one session for every client, whatever carries it.
//!
//! Input: HTTP requests under `socketio.path`, by way of the [`gate`]; [`crate::hub::Push`]es. Output: calls of the hub,
//! in the order a client sent them; frames and payloads for clients.
//!
//! ```text
//!   GET, POST ─▶ gate ─┬─▶ polling ──┐            what waits for the client:
//!                      ├─▶ upgrade ──┼─▶ Session ─▶ one Outbox, whatever carries it
//!   websocket ─────────┴─▶ Carrier ──┘      └────▶ requests ─▶ Hub
//! ```
//!
//! socketioxide's engine has its own queue for each client, serialises each event for each receiver, and ends a session
//! whose upgrade does not finish, so its protocol crates are used and the engine is not.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Request, Response};
use hyper_util::rt::TokioIo;
use socketioxide_core::parser::ParseConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;
use tungstenite::protocol::WebSocketConfig;

use crate::admission::Slot;
use crate::client::{Client, Origin};
use crate::config::Config;
use crate::hub::Hub;
use crate::net::connection::ConnectionHandle;
use crate::net::websocket::{self, Connection, End, Limits};

mod client_script;
mod compression;
mod dialect;
mod failures;
pub mod gate;
mod heartbeat;
mod payload;
mod pid;
mod polling;
mod query;
mod requests;
mod session;
mod upgrade;
mod version;

#[doc(hidden)]
pub use dialect::encode;
use polling::Sessions;
#[doc(hidden)]
pub use requests::take;
use session::Session;
use upgrade::Carrier;
use version::EngineVersion;

/// Headers of a handshake that callbacks, hints and the choice of the application can need; `auth.forward` adds to them.
const KEPT_HEADERS: [HeaderName; 5] = [header::COOKIE, header::AUTHORIZATION, header::ORIGIN, header::REFERER, header::USER_AGENT];
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Serves Socket.IO clients; clones belong together.
#[derive(Clone)]
pub struct SocketIo(Arc<Shared>);

/// What all sessions have in common.
struct Shared {
    hub: Arc<Hub<Client>>,
    /// `socketio.pingInterval`.
    ping_interval: Duration,
    /// `socketio.pingTimeout`.
    ping_timeout: Duration,
    /// `socketio.maxHttpBufferSize`.
    max_message_bytes: u64,
    /// Most packets in the answer to a poll.
    max_poll_packets: usize,
    has_polling: bool,
    has_websocket: bool,
    kept_headers: Vec<HeaderName>,
    websocket: WebSocketConfig,
    parser: ParseConfig,
    outbox: Limits,
    /// With `recovery.enabled`: by what clients come back.
    pids: Option<pid::Pids>,
    /// Sessions that poll.
    sessions: Sessions,
    /// Cancelled at the end, for those who have not said CONNECT yet, or have said DISCONNECT: the hub does not know them.
    closing: CancellationToken,
    connections: TaskTracker,
}

impl SocketIo {
    /// Reads `socketio`, `auth.forward` and `limits.clientQueue`.
    #[must_use]
    pub fn new(config: &Config, hub: Arc<Hub<Client>>) -> Self {
        let options = &config.socketio;
        let max_message_bytes = options.max_http_buffer_size.0;
        let most = usize::try_from(max_message_bytes).unwrap_or(usize::MAX);
        let has = |name: &str| options.transports.0.iter().any(|transport| transport == name);
        let forwarded = config.auth.forward.0.iter().filter_map(|name| name.parse().ok());
        Self(Arc::new(Shared {
            hub,
            ping_interval: Duration::from_millis(options.ping_interval),
            ping_timeout: Duration::from_millis(options.ping_timeout),
            max_message_bytes,
            max_poll_packets: match options.max_poll_packets {
                0 => usize::MAX,
                most => usize::try_from(most).unwrap_or(usize::MAX),
            },
            has_polling: has("polling") || !has("websocket"),
            has_websocket: has("websocket") || !has("polling"),
            kept_headers: KEPT_HEADERS.into_iter().chain([HeaderName::from_static(FORWARDED_FOR)]).chain(forwarded).collect(),
            websocket: websocket::config(max_message_bytes),
            parser: ParseConfig { max_incoming_binary_buf_size: most, ..ParseConfig::default() },
            outbox: Limits {
                frames: usize::try_from(config.limits.client_queue).unwrap_or(usize::MAX),
                bytes: config.limits.client_queue_bytes.0,
            },
            pids: config.recovery.enabled.0.then(pid::Pids::new),
            sessions: Sessions::default(),
            closing: CancellationToken::new(),
            connections: TaskTracker::new(),
        }))
    }

    /// Takes over the connection of a request that begins a websocket, and answers its handshake with `key`. The
    /// connection keeps the client's `slot` for as long as it lasts.
    fn accept(
        &self,
        request: &mut Request<Body>,
        key: HeaderValue,
        version: EngineVersion,
        peer: &ConnectionHandle,
        slot: Slot,
    ) -> Response<Body> {
        let origin = Origin { peer: peer.peer().ip(), handshake: self.0.kept(request.headers()), is_polling: false };
        let session = Session::new(Arc::clone(&self.0), version, origin);
        self.carry(request, key, Carrier::session(session, Some(slot)), peer)
    }

    /// Takes over the connection of a request, for whatever it carries.
    fn carry(&self, request: &mut Request<Body>, key: HeaderValue, carrier: Carrier, peer: &ConnectionHandle) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut *request);
        let config = self.0.websocket;
        peer.upgraded();
        self.0.connections.spawn(async move {
            match upgrade.await {
                Ok(stream) => Connection::new(TokioIo::new(stream), carrier, config).run().await,
                Err(error) => {
                    debug!(%error, "a websocket was given up during its handshake");
                    carrier.given_up();
                }
            }
        });
        websocket::switching_protocols(request, key)
    }

    /// Ends all connections that are left, and waits until they are gone.
    pub async fn close(&self) {
        self.0.closing.cancel();
        for session in self.0.sessions.drain() {
            session.outbox().end(End::Now);
        }
        self.0.connections.close();
        self.0.connections.wait().await;
    }
}

impl Shared {
    /// A copy of the headers that are of use later.
    fn kept(&self, headers: &HeaderMap) -> HeaderMap {
        crate::net::headers::copied(headers, &self.kept_headers)
    }
}

#[cfg(test)]
mod tests;
