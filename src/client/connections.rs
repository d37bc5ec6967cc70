//! [`Connections`]: what the websockets of one protocol have in common, from the request that begins one to the end.
//!
//! Input: upgrade requests that a gate has let in. Output: their answers, and a task for each websocket.

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;
use tungstenite::protocol::WebSocketConfig;

use super::Origin;
use crate::config::Config;
use crate::event::CloseReason;
use crate::net::connection::ConnectionHandle;
use crate::net::headers::copied;
use crate::net::websocket::{self, Connection, Limits, Protocol};

/// Headers of a handshake that callbacks, hints and the choice of the application can need; `auth.forward` adds to them.
const KEPT_HEADERS: [HeaderName; 5] = [header::COOKIE, header::AUTHORIZATION, header::ORIGIN, header::REFERER, header::USER_AGENT];
const FORWARDED_FOR: &str = "x-forwarded-for";

/// What the websockets of one protocol have in common.
pub(crate) struct Connections {
    /// How much may wait for a client.
    pub outbox: Limits,
    /// Settings of a websocket.
    pub websocket: WebSocketConfig,
    /// Cancelled at the end, for clients that the hub does not know.
    pub closing: CancellationToken,
    kept_headers: Vec<HeaderName>,
    tasks: TaskTracker,
}

impl Connections {
    /// Reads `limits.clientQueue`, `limits.clientQueueBytes`, `socketio.maxHttpBufferSize` and `auth.forward`.
    #[must_use]
    pub(crate) fn new(config: &Config) -> Self {
        let forwarded = config.auth.forward.0.iter().filter_map(|name| name.parse().ok());
        Self {
            outbox: Limits {
                frames: usize::try_from(config.limits.client_queue).unwrap_or(usize::MAX),
                bytes: config.limits.client_queue_bytes.0,
            },
            websocket: websocket::config(config.socketio.max_http_buffer_size.0),
            closing: CancellationToken::new(),
            kept_headers: KEPT_HEADERS.into_iter().chain([HeaderName::from_static(FORWARDED_FOR)]).chain(forwarded).collect(),
            tasks: TaskTracker::new(),
        }
    }

    /// A copy of the headers that are of use later.
    #[must_use]
    pub(crate) fn kept(&self, headers: &HeaderMap) -> HeaderMap {
        copied(headers, &self.kept_headers)
    }

    /// Where the client of a request comes from.
    #[must_use]
    pub(crate) fn origin(&self, request: &Request<Body>, connection: &ConnectionHandle, is_polling: bool) -> Origin {
        Origin { peer: connection.peer().ip(), handshake: self.kept(request.headers()), is_polling }
    }

    /// Takes over the connection of a request for what is spoken on it, and answers its handshake with `key`.
    pub(crate) fn carry(
        &self,
        request: &mut Request<Body>,
        key: HeaderValue,
        mut protocol: impl Protocol + 'static,
        connection: &ConnectionHandle,
    ) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut *request);
        let config = self.websocket;
        connection.upgraded();
        self.tasks.spawn(async move {
            match upgrade.await {
                Ok(stream) => Connection::new(TokioIo::new(stream), protocol, config).run().await,
                Err(error) => {
                    debug!(%error, "a websocket was given up during its handshake");
                    protocol.ended(CloseReason::TransportError);
                }
            }
        });
        websocket::switching_protocols(request, key)
    }

    /// Waits until all websockets are gone; [`Self::closing`] is for the caller to cancel before.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs a connection, or a part of one, as one of these.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        self.tasks.spawn(connection)
    }
}
