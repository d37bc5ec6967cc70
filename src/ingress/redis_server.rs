//! A minimal Redis endpoint that only publishes: Laravel's redis broadcaster can connect directly to this server.
//!
//! Input: connections of Redis clients that send `PUBLISH`, or `EVAL` with Laravel's broadcast script. Output: events for
//! the [`Hub`]; with `cluster.enabled`, messages for the cluster's Redis, from which all nodes receive them. Nothing is
//! stored, and all memory that a client can occupy is bounded.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::hub::{Hub, Socket};
use crate::net::listen::{Address, ListenError};
use crate::net::tls::Acceptor;
use crate::warn_throttled;

mod access;
mod broadcast;
mod buffers;
mod commands;
mod connection;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod reply;

use access::Access;
use connection::{Connection, ConnectionError};
use frame::TLS_HANDSHAKE;

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Limit on incomplete commands of all connections together, as a multiple of `redisServer.maxMessageBytes`.
const LARGEST_AT_ONCE: usize = 16;

/// Minimum time between two log lines about too many clients.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Timeout of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The endpoint, bound but not running yet.
pub struct RedisServer<S> {
    listener: TcpListener,
    shared: Arc<Shared<S>>,
}

/// State shared by all connections.
struct Shared<S> {
    /// Set with `redisServer.tls`.
    tls: Option<Acceptor>,
    hub: Arc<Hub<S>>,
    /// Of Laravel, cut off channel names.
    key_prefix: String,
    access: Access,
    max_clients: usize,
    /// Maximum size of a command, in bytes.
    max_message: usize,
    /// Bytes of incomplete commands, over all connections.
    pending: AtomicUsize,
    clients: AtomicUsize,
    /// When the last warning about too many clients was logged.
    said: Mutex<Option<Instant>>,
    next_id: AtomicUsize,
}

impl<S: Socket> Shared<S> {
    fn new(config: &Config, hub: Arc<Hub<S>>, tls: Option<Acceptor>) -> Self {
        let options = &config.redis_server;
        Self {
            tls,
            hub,
            key_prefix: config.database_config.redis.key_prefix.clone(),
            access: Access::new(options),
            max_clients: options.max_clients as usize,
            max_message: usize::try_from(options.max_message_bytes).unwrap_or(usize::MAX),
            pending: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
            said: Mutex::default(),
            next_id: AtomicUsize::new(1),
        }
    }

    /// Whether to log once more that there are too many clients.
    fn should_warn(&self) -> bool {
        let mut said = self.said.lock();
        let is_due = said.is_none_or(|last| last.elapsed() > WARN_INTERVAL);
        if is_due {
            *said = Some(Instant::now());
        }
        is_due
    }
}

impl<S: Socket> RedisServer<S> {
    /// Binds the endpoint of `redisServer`; with an acceptor it uses TLS.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(config: &Config, hub: Arc<Hub<S>>, tls: Option<Acceptor>) -> Result<Self, ListenError> {
        Ok(Self { listener: Address::redis_server(config).bind().await?, shared: Arc::new(Shared::new(config, hub, tls)) })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the system does not report it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then waits for commands in progress.
    ///
    /// One task serves all clients, as in Redis: their commands take less time than waking a second thread for them.
    pub async fn run(self, stop: CancellationToken) {
        let address = self.listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        info!(address, "accepting Laravel's Redis broadcasts");
        let mut clients = FuturesUnordered::new();
        let mut arrivals = pin!(self.arrivals());
        loop {
            tokio::select! {
                biased;
                Some(()) = clients.next() => {}
                Some((stream, peer)) = arrivals.next() => {
                    clients.push(survive(serve(Arc::clone(&self.shared), stream, peer, stop.clone())));
                }
                () = stop.cancelled() => break,
            }
        }
        clients.collect::<()>().await;
    }

    /// An endless stream of connecting clients.
    fn arrivals(&self) -> impl Stream<Item = (TcpStream, SocketAddr)> {
        stream::unfold(&self.listener, async |listener| {
            loop {
                match listener.accept().await {
                    Ok(accepted) => return Some((accepted, listener)),
                    Err(error) => {
                        let hint = "raise the limit of open files (ulimit -n, LimitNOFILE=)";
                        warn_throttled!(class = 0, key = "", %error, hint, "the Redis endpoint cannot accept connections");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
    }
}

/// Serves one client, and contains its panics so that the other clients go on.
///
/// Not an `async fn`, which would hold the client twice: as its argument and as the future it awaits.
fn survive(client: impl Future<Output = ()>) -> impl Future<Output = ()> {
    AssertUnwindSafe(client).catch_unwind().map(|served| {
        if served.is_err() {
            error!("a Redis client was dropped because of a bug in this server; please report it with the panic above");
        }
    })
}

async fn serve<S: Socket>(shared: Arc<Shared<S>>, mut stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    let Some(client) = Client::enter(&shared) else {
        if shared.should_warn() {
            warn!(%peer, max_clients = shared.max_clients, "refused a Redis client: redisServer.maxClients is reached");
        }
        if shared.tls.is_none() {
            let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
        }
        return;
    };
    let _ = stream.set_nodelay(true);
    let served = match &shared.tls {
        None => Connection::new(Arc::clone(&shared)).run(stream, stop).await,
        // Boxed, so that plaintext connections do not carry the TLS future.
        Some(acceptor) => Box::pin(serve_tls(&shared, acceptor, stream, stop)).await,
    };
    if let Err(error) = served {
        debug!(%peer, %error, "the connection of a Redis client failed");
    }
    drop(client);
}

async fn serve_tls<S: Socket>(
    shared: &Arc<Shared<S>>,
    acceptor: &Acceptor,
    mut stream: TcpStream,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    let handshake = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
            // Reads what the client sent first: closing a socket with unread bytes would discard the reply.
            let _ = stream.try_read(&mut [0; 1024]);
            stream.write_all(b"-ERR this port speaks TLS: connect with scheme tls (redis-cli --tls)\r\n").await?;
            return Err(io::Error::other("the client does not use TLS"));
        }
        acceptor.accept(stream).await
    };
    let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| ConnectionError::NoHandshake)??;
    Connection::new(Arc::clone(shared)).run(stream, stop).await
}

/// One of the `redisServer.maxClients` slots.
struct Client<'a>(&'a AtomicUsize);

impl<'a> Client<'a> {
    fn enter<S>(shared: &'a Shared<S>) -> Option<Self> {
        let client = Self(&shared.clients);
        (shared.clients.fetch_add(1, Ordering::Relaxed) < shared.max_clients).then_some(client)
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
