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

use socketioxide_core::parser::ParseConfig;

use crate::client::{Client, Connections};
use crate::config::Config;
use crate::hub::Hub;
use crate::net::websocket::End;

mod client_script;
mod compression;
mod dialect;
mod failures;
pub(crate) mod gate;
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
    parser: ParseConfig,
    /// With `recovery.enabled`: by what clients come back.
    pids: Option<pid::Pids>,
    /// Sessions that poll.
    sessions: Sessions,
    connections: Connections,
}

impl SocketIo {
    /// Reads `socketio`, `recovery.enabled` and what [`Connections`] need.
    #[must_use]
    pub fn new(config: &Config, hub: Arc<Hub<Client>>) -> Self {
        let options = &config.socketio;
        let max_message_bytes = options.max_http_buffer_size.0;
        let most = usize::try_from(max_message_bytes).unwrap_or(usize::MAX);
        let has = |name: &str| options.transports.0.iter().any(|transport| transport == name);
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
            parser: ParseConfig { max_incoming_binary_buf_size: most, ..ParseConfig::default() },
            pids: config.recovery.enabled.0.then(pid::Pids::new),
            sessions: Sessions::default(),
            connections: Connections::new(config),
        }))
    }

    /// Ends all connections that are left, and waits until they are gone.
    pub async fn close(&self) {
        self.0.connections.closing.cancel();
        for session in self.0.sessions.drain() {
            session.outbox().end(End::Now);
        }
        self.0.connections.ended().await;
    }
}

#[cfg(test)]
mod tests;
