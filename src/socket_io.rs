//! Engine.IO and Socket.IO: one `Session` per client, over polling or a websocket.
//!
//! Input: HTTP requests under `socketio.path`, through the [`gate`]; [`crate::hub::Push`]es. Output: calls to the hub, in
//! the order each client sent them; websocket frames and polling payloads for clients.
//!
//! ```text
//!   GET, POST ─▶ gate ─┬─▶ polling ──┐            queued for the client:
//!                      ├─▶ upgrade ──┼─▶ Session ─▶ one Outbox for either transport
//!   websocket ─────────┴─▶ Carrier ──┘      └────▶ requests ─▶ Hub
//! ```
//!
//! Only socketioxide's protocol crates are used: its engine keeps a separate queue per client, serialises every event once
//! per receiver, and ends a session whose upgrade does not finish.

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

/// Maximum number of binary attachments of a packet. For each one the parser adds up the sizes of those before it, so its work grows
/// with the square of their number; none of the events that clients send here needs any.
const MAX_ATTACHMENTS: usize = 100;

/// Serves Socket.IO clients. Clones share their state.
#[derive(Clone)]
pub struct SocketIo(Arc<Shared>);

/// State shared by all sessions.
struct Shared {
    hub: Arc<Hub<Client>>,
    /// `socketio.pingInterval`.
    ping_interval: Duration,
    /// `socketio.pingTimeout`.
    ping_timeout: Duration,
    /// `socketio.maxHttpBufferSize`.
    max_message_bytes: u64,
    /// Maximum number of packets in one poll response.
    max_poll_packets: usize,
    has_polling: bool,
    has_websocket: bool,
    parser: ParseConfig,
    /// Private ids with which clients resume sessions; `None` unless `recovery.enabled`.
    pids: Option<pid::Pids>,
    /// Sessions that use polling.
    sessions: Sessions,
    connections: Connections,
}

impl SocketIo {
    /// Reads `socketio`, `recovery.enabled` and the settings of [`Connections`].
    #[must_use]
    pub fn new(config: &Config, hub: Arc<Hub<Client>>) -> Self {
        let options = &config.socketio;
        let max_message_bytes = options.max_http_buffer_size;
        let most = usize::try_from(max_message_bytes).unwrap_or(usize::MAX);
        let has = |name: &str| options.transports.iter().any(|transport| transport == name);
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
            parser: ParseConfig { max_incoming_binary_buf_size: most, max_incoming_binaries: MAX_ATTACHMENTS, ..ParseConfig::default() },
            pids: config.recovery.enabled.then(pid::Pids::new),
            sessions: Sessions::default(),
            connections: Connections::new(config),
        }))
    }

    /// Ends all remaining connections and waits until they are gone.
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
