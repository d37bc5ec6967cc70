//! Pusher's protocol 7, beside Socket.IO: the same channels, members and whispers.
//!
//! Input: websockets at `{pusher.path}/app/{key}`, and requests to `{pusher.path}/broadcasting/auth`, through the [`gate`].
//! Output: calls to the hub; frames for clients.
//!
//! Source: <https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol>, and pusher-js.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::auth::Authorizer;
use crate::client::{Client, Connections};
use crate::config::Config;
use crate::config::value::Secret;
use crate::event::SocketId;
use crate::hub::Hub;

mod dialect;
mod endpoint;
pub(crate) mod gate;
mod message;
mod session;
mod signature;

/// Codes of errors and of CLOSE, which tell a client whether to reconnect: 4000 to 4099 and from 4300 on never, 4100 to 4199
/// after a second, 4200 to 4299 at once.
mod code {
    /// The application does not exist.
    pub(super) const NO_APP: u16 = 4001;
    /// The client's protocol version is not supported.
    pub(super) const UNSUPPORTED_VERSION: u16 = 4007;
    /// The page's origin is not allowed, a sign-in was refused, or the application has ended the connection.
    pub(super) const UNAUTHORIZED: u16 = 4009;
    /// There are too many clients, the client is too slow, or the server is stopping. At once, pusher-js would find nobody listening
    /// yet, and try again after fifteen seconds.
    pub(super) const TRY_LATER: u16 = 4100;
    pub(super) const NOT_UNDERSTOOD: u16 = 4200;
    pub(super) const NO_PONG: u16 = 4201;
    pub(super) const CLIENT_EVENT_REJECTED: u16 = 4301;
    pub(super) const WATCHLIST_LIMIT: u16 = 4302;
}

/// Serves Pusher clients. Clones share their state.
#[derive(Clone)]
pub struct Pusher(Arc<Shared>);

/// State shared by all sessions.
struct Shared {
    hub: Arc<Hub<Client>>,
    /// Asks the application on behalf of clients that request a signature over HTTP.
    authorizer: Arc<dyn Authorizer>,
    activity_timeout: Duration,
    connections: Connections,
    /// The application whose key each client has connected with.
    apps: Mutex<HashMap<SocketId, Arc<App>>>,
}

/// Keeps the application of a client in [`Shared::apps`].
struct Registered {
    shared: Arc<Shared>,
    socket: SocketId,
}

impl Registered {
    fn new(shared: &Arc<Shared>, socket: SocketId, app: &Arc<App>) -> Self {
        shared.apps.lock().insert(socket, Arc::clone(app));
        Self { shared: Arc::clone(shared), socket }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.apps.lock().remove(&self.socket);
    }
}

/// An entry of `clients` that Pusher clients may use.
#[derive(Debug)]
struct App {
    key: String,
    secret: Secret,
}

impl Pusher {
    /// Reads `pusher` and the settings of [`Connections`].
    #[must_use]
    pub fn new(config: &Config, hub: Arc<Hub<Client>>, authorizer: Arc<dyn Authorizer>) -> Self {
        let activity_timeout = config.pusher.activity_timeout;
        Self(Arc::new(Shared { hub, authorizer, activity_timeout, connections: Connections::new(config), apps: Mutex::default() }))
    }

    /// Ends all remaining connections and waits until they are gone.
    pub async fn close(&self) {
        self.0.connections.closing.cancel();
        self.0.connections.ended().await;
    }
}
