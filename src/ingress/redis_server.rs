//! A small Redis, for publishing alone: Laravel's redis broadcaster can point straight at this server.
//!
//! Input: connections of Redis clients, with `PUBLISH`, or with `EVAL` of the script Laravel broadcasts with. Output:
//! events for the [`Hub`]; with `cluster.enabled`, messages for the Redis of the cluster, which all nodes hear. Nothing
//! is stored. Everything a client can make it hold is bounded.

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
use crate::redis_client::RedisConfigError;
use crate::warn_throttled;

mod access;
mod broadcast;
mod buffers;
mod commands;
mod connection;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod publisher;
mod reply;

use access::Access;
use connection::{Connection, ConnectionError};
use frame::TLS_HANDSHAKE;
use publisher::Publisher;

/// Pause when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Half commands of all connections together may take this many times `redisServer.maxMessageBytes`.
const LARGEST_AT_ONCE: usize = 16;

/// Pause between two lines in the log about too many clients.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The endpoint, bound and not running yet.
pub struct RedisServer<S> {
    listener: TcpListener,
    shared: Arc<Shared<S>>,
}

/// What all connections share.
struct Shared<S> {
    /// With `redisServer.tls`.
    tls: Option<Acceptor>,
    publisher: Publisher<S>,
    access: Access,
    max_clients: usize,
    /// Largest command in bytes.
    max_message: usize,
    /// Bytes of half commands, over all connections.
    pending: AtomicUsize,
    clients: AtomicUsize,
    /// When it was last said that there are too many.
    said: Mutex<Option<Instant>>,
    next_id: AtomicUsize,
}

impl<S: Socket> Shared<S> {
    fn new(config: &Config, hub: Arc<Hub<S>>, tls: Option<Acceptor>) -> Result<Self, RedisConfigError> {
        let options = &config.redis_server;
        Ok(Self {
            tls,
            publisher: Publisher::new(config, hub)?,
            access: Access::new(options),
            max_clients: options.max_clients as usize,
            max_message: usize::try_from(options.max_message_bytes.0).unwrap_or(usize::MAX),
            pending: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
            said: Mutex::default(),
            next_id: AtomicUsize::new(1),
        })
    }

    /// Whether to say again that there are too many clients.
    fn is_to_be_said(&self) -> bool {
        let mut said = self.said.lock();
        let is_due = said.is_none_or(|last| last.elapsed() > SAY_AGAIN);
        if is_due {
            *said = Some(Instant::now());
        }
        is_due
    }
}

impl<S: Socket> RedisServer<S> {
    /// Binds the endpoint of `redisServer`; it speaks TLS if there is an acceptor for it.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(config: &Config, hub: Arc<Hub<S>>, tls: Option<Acceptor>) -> Result<Self, BindError> {
        Ok(Self { listener: Address::redis_server(config).bind().await?, shared: Arc::new(Shared::new(config, hub, tls)?) })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then waits for commands under way.
    ///
    /// One task serves all clients, as in Redis: their commands take less than to wake a second thread for them.
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

    /// Clients as they connect, for ever.
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

/// Serves one client, whose fault is not to be the end of all.
///
/// No `async fn`, which would keep room for the client twice: as what it is given, and as what it waits for.
fn survive(client: impl Future<Output = ()>) -> impl Future<Output = ()> {
    AssertUnwindSafe(client).catch_unwind().map(|served| {
        if served.is_err() {
            error!("a Redis client was dropped because of a bug in this server; please report it with the panic above");
        }
    })
}

/// The endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The Redis of the cluster.
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
}

async fn serve<S: Socket>(shared: Arc<Shared<S>>, mut stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    let Some(client) = Client::enter(&shared) else {
        if shared.is_to_be_said() {
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
        // Boxed: where there is no TLS, connections shall not take the memory for it.
        Some(acceptor) => Box::pin(serve_tls(&shared, acceptor, stream, stop)).await,
    };
    if let Err(error) = served {
        debug!(%peer, %error, "a Redis client is gone");
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
            // What it sent is read first: a connection that is closed with bytes unread takes the answer with it.
            let _ = stream.try_read(&mut [0; 1024]);
            stream.write_all(b"-ERR this port speaks TLS: connect with scheme tls (redis-cli --tls)\r\n").await?;
            return Err(io::Error::other("it speaks no TLS"));
        }
        acceptor.accept(stream).await
    };
    let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| ConnectionError::NoHandshake)??;
    Connection::new(Arc::clone(shared)).run(stream, stop).await
}

/// A place among `redisServer.maxClients`.
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
