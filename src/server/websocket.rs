//! Clients that connect by websocket at once, served without the engine: one task a client, and one frame for all
//! receivers of an event.
//!
//! Input: upgrade requests of the gate. Output: [`WebSocket`]s for the hub, and their connections served to the end.
//! Clients that begin by polling are the engine's, also after their upgrade.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use engineioxide_core::{ProtocolVersion, Sid};
use hyper_util::rt::TokioIo;
use socketioxide_core::parser::ParseConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::WebSocketConfig;

use super::admission::Slot;
use super::detach;
use super::engine::READ_BUFFER;
use crate::config::{Config, Limits};
use crate::egress::{ClientSocket, WebSocket};
use crate::event::SocketId;
use crate::hub::Hub;
use crate::net::link::Link;

mod connection;
mod heartbeat;
mod session;

use connection::Connection;

/// Headers of the handshake that are of no use once it is over.
const OF_THE_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
];

/// Headers of the answer to a handshake: those here, and those of CORS that the gate adds.
const ANSWERED: usize = 6;

/// Serves clients that connect by websocket at once; clones belong together.
#[derive(Clone)]
pub struct WebSockets(Arc<Shared>);

/// What all connections have in common.
struct Shared {
    hub: Arc<Hub<ClientSocket>>,
    /// `socketio.pingInterval`.
    interval: Duration,
    /// `socketio.pingTimeout`.
    timeout: Duration,
    /// `socketio.maxHttpBufferSize`, in bytes.
    largest: u64,
    protocol: WebSocketConfig,
    parser: ParseConfig,
    limits: Limits,
    /// Cancelled at the end, for those who have not said CONNECT yet, or have said DISCONNECT: the hub does not know them.
    closing: CancellationToken,
    connections: TaskTracker,
}

impl WebSockets {
    /// Reads `socketio` and `limits.clientQueue`.
    #[must_use]
    pub fn new(config: &Config, hub: Arc<Hub<ClientSocket>>) -> Self {
        let options = &config.socketio;
        let largest = options.max_http_buffer_size.0;
        let most = usize::try_from(largest).unwrap_or(usize::MAX);
        Self(Arc::new(Shared {
            hub,
            interval: Duration::from_millis(options.ping_interval),
            timeout: Duration::from_millis(options.ping_timeout),
            largest,
            protocol: WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER)
                // What the library writes goes through the client's queue, a frame at a time.
                .write_buffer_size(0)
                .max_message_size(Some(most))
                .max_frame_size(Some(most)),
            parser: ParseConfig { max_incoming_binary_buf_size: most, ..ParseConfig::default() },
            limits: config.limits.clone(),
            closing: CancellationToken::new(),
            connections: TaskTracker::new(),
        }))
    }

    /// Takes over the connection of a request that came over `link`, and answers its handshake with `key`, as
    /// [`accept_key`] has it. The connection keeps the client's `slot` for as long as it lasts.
    pub fn accept<B>(
        &self,
        request: &mut Request<B>,
        key: HeaderValue,
        protocol: ProtocolVersion,
        link: &Link,
        slot: Arc<Slot>,
    ) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut *request);
        let id = SocketId::parse(Sid::new().as_str()).expect("the engine's ids have our form");
        let headers = detach::copied(request.headers(), &OF_THE_CONNECTION);
        let client = WebSocket::new(id, protocol, headers, link.peer.ip(), &self.0.limits);
        let shared = Arc::clone(&self.0);
        self.0.connections.spawn(async move {
            let _slot = slot;
            match upgrade.await {
                Ok(stream) => Connection::new(TokioIo::new(stream), client, protocol, shared).run().await,
                Err(error) => debug!(%error, "a websocket was given up during its handshake"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.reserve(ANSWERED);
        headers.extend([
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::SEC_WEBSOCKET_ACCEPT, key),
        ]);
        response
    }

    /// Ends all connections that are left, and waits until they are gone.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.0.connections.close();
        self.0.connections.wait().await;
    }
}

/// The server's key for a request that begins a websocket (RFC 6455, 4.2); `None` for others, in which the engine
/// finds what is wrong.
#[must_use]
pub fn accept_key<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let is_upgrade = headers.get(header::UPGRADE)?.as_bytes().eq_ignore_ascii_case(b"websocket");
    if request.method() != Method::GET || !is_upgrade {
        return None;
    }
    derive_accept_key(headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes()).parse().ok()
}

#[cfg(test)]
mod tests;
