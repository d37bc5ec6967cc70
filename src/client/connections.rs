//! [`Connections`]: what the websockets of one protocol share, from the upgrade request to the end.
//!
//! Input: upgrade requests that a gate has admitted. Output: their responses, and a task for each websocket.

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Request, Response};
use futures_util::future::{Either, FutureExt as _, ready};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::Origin;
use crate::config::Config;
use crate::event::CloseReason;
use crate::net::connection::ConnectionHandle;
use crate::net::headers::copied;
use crate::net::websocket::{self, Connection, Limits, Protocol};

/// Headers of a handshake that callbacks, hints and the choice of the application can need; `auth.forward` adds to them.
const KEPT_HEADERS: [HeaderName; 5] = [header::COOKIE, header::AUTHORIZATION, header::ORIGIN, header::REFERER, header::USER_AGENT];
const FORWARDED_FOR: &str = "x-forwarded-for";

/// What the websockets of one protocol share.
pub(crate) struct Connections {
    /// How much may wait in a client's outbox.
    pub outbox: Limits,
    /// Maximum size of a client's message, in bytes.
    pub max_message_bytes: usize,
    /// Minimum size of texts that are compressed for clients that accept it, in bytes; `None`: never.
    deflate_from: Option<u32>,
    /// Cancelled at shutdown, for clients that the hub does not know.
    pub closing: CancellationToken,
    kept_headers: Vec<HeaderName>,
    tasks: TaskTracker,
}

impl Connections {
    /// Reads `limits.clientQueue`, `limits.clientQueueBytes`, `socketio.maxHttpBufferSize`,
    /// `socketio.perMessageDeflate` and `auth.forward`.
    #[must_use]
    pub(crate) fn new(config: &Config) -> Self {
        let forwarded = config.auth.forward.iter().filter_map(|name| name.parse().ok());
        Self {
            outbox: Limits {
                frames: usize::try_from(config.limits.client_queue).unwrap_or(usize::MAX),
                bytes: config.limits.client_queue_bytes,
            },
            max_message_bytes: usize::try_from(config.socketio.max_http_buffer_size).unwrap_or(usize::MAX),
            deflate_from: config.socketio.per_message_deflate.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)),
            closing: CancellationToken::new(),
            kept_headers: KEPT_HEADERS.into_iter().chain([HeaderName::from_static(FORWARDED_FOR)]).chain(forwarded).collect(),
            tasks: TaskTracker::new(),
        }
    }

    /// Copies the headers that are needed later.
    #[must_use]
    pub(crate) fn kept(&self, headers: &HeaderMap) -> HeaderMap {
        copied(headers, &self.kept_headers)
    }

    /// Where the client that sent a request connects from.
    #[must_use]
    pub(crate) fn origin(&self, request: &Request<Body>, connection: &ConnectionHandle, is_polling: bool) -> Origin {
        Origin { peer: connection.peer().ip(), handshake: self.kept(request.headers()), is_polling }
    }

    /// Takes over the connection of a request to run `protocol` on it, and answers the handshake with `key`.
    pub(crate) fn carry(
        &self,
        request: &Request<Body>,
        key: HeaderValue,
        mut protocol: impl Protocol + 'static,
        connection: &ConnectionHandle,
    ) -> Response<Body> {
        let agreed = self.deflate_from.and_then(|least| Some((least, websocket::agree_to_deflate(request.headers())?)));
        if let Some((least, _)) = agreed {
            protocol.deflates(least);
        }
        let (max_message_bytes, inflates) = (self.max_message_bytes, agreed.is_some());
        let (writer, upgrade) = (connection.writer(), connection.upgrade());
        // An async block would have room for the protocol twice: as it waits for the stream, and in the connection.
        self.tasks.spawn(upgrade.then(move |stream| match stream {
            Ok(stream) => Either::Left(Connection::new(stream, writer, protocol, max_message_bytes, inflates).run()),
            Err(error) => {
                debug!(%error, "a websocket handshake failed");
                protocol.ended(CloseReason::TransportError);
                Either::Right(ready(()))
            }
        }));
        websocket::switching_protocols(request, key, agreed.map(|(_, extension)| extension))
    }

    /// Waits until all websockets are closed; the caller cancels [`Self::closing`] first.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs a connection, or a part of one, as a task that [`Self::ended`] waits for.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        self.tasks.spawn(connection)
    }
}
