//! Pusher's protocol 7, beside Socket.IO: the same channels, members and whispers.
//!
//! Input: websockets at `{pusher.path}/app/{key}`, and requests to `{pusher.path}/broadcasting/auth`, by way of the [`gate`].
//! Output: calls of the hub; frames for clients.
//!
//! Source: <https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol>, and pusher-js.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tungstenite::protocol::WebSocketConfig;

use crate::auth::Authorizer;
use crate::client::Client;
use crate::config::Config;
use crate::config::value::Secret;
use crate::hub::Hub;
use crate::net::websocket::{self, Limits};

mod dialect;
mod endpoint;
pub mod gate;
mod message;
mod session;
mod signature;

/// Serves Pusher's clients; clones belong together.
#[derive(Clone)]
pub struct Pusher(Arc<Shared>);

/// What all sessions have in common.
struct Shared {
    hub: Arc<Hub<Client>>,
    /// Asks the application in the name of clients that poll for a signature.
    authorizer: Arc<dyn Authorizer>,
    activity_timeout: Duration,
    websocket: WebSocketConfig,
    outbox: Limits,
    /// Cancelled at the end, for those that the hub does not know.
    closing: CancellationToken,
    connections: TaskTracker,
}

/// An entry of `clients` that Pusher's clients may use.
#[derive(Debug)]
struct App {
    key: String,
    secret: Secret,
}

impl Pusher {
    /// Reads `pusher` and `limits.clientQueue`.
    #[must_use]
    pub fn new(config: &Config, hub: Arc<Hub<Client>>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self(Arc::new(Shared {
            hub,
            authorizer,
            activity_timeout: config.pusher.activity_timeout.0,
            websocket: websocket::config(config.socketio.max_http_buffer_size.0),
            outbox: Limits {
                frames: usize::try_from(config.limits.client_queue).unwrap_or(usize::MAX),
                bytes: config.limits.client_queue_bytes.0,
            },
            closing: CancellationToken::new(),
            connections: TaskTracker::new(),
        }))
    }

    /// Ends all connections that are left, and waits until they are gone.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.0.connections.close();
        self.0.connections.wait().await;
    }
}
