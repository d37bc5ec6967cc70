//! Accepts connections and dispatches their requests.
//!
//! Input: a bound listener. Output: connections, and requests: for the [`Gate`]s first, and for the router when no gate
//! handles them.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use futures_util::future::{Either, FutureExt as _};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, error};

use super::direct::{self, Connection};
use super::http::{FIRST_REQUEST_TIMEOUT, http};
use super::proxy_protocol;
use crate::api::dashboard;
use crate::config::Config;
use crate::net::accept::{Accepted, Listener};
use crate::net::answer::{Answer, Dropped};
use crate::net::connection::{ConnectionHandle, Peer};
use crate::net::replay::Replay;
use crate::net::stream::{ClientStream, Stream};
use crate::net::tls;
use crate::proxies::TrustedProxies;
use crate::pusher;
use crate::socket_io::gate::Gate;
use crate::warn_throttled;

pub use crate::net::listen::{Address, ListenError};

/// Timeout of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept, as when no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers requests.
pub struct Front {
    /// The gates of Socket.IO and Pusher, which answer clients without the cost of a router: many may connect at once.
    pub gates: Option<(Gate, pusher::gate::Gate)>,
    /// Answers all other requests.
    pub router: Router,
}

impl Front {
    /// Whether a gate answers requests for this path.
    pub(super) fn takes(&self, path: &str) -> bool {
        self.gates.as_ref().is_some_and(|(gate, pusher)| gate.takes(path) || pusher.takes(path))
    }

    /// Offers a request to the gates. An error returns the request, for the router.
    pub(super) fn offer(&self, request: Request<Body>, connection: &ConnectionHandle) -> Result<Answer, Box<Request<Body>>> {
        match &self.gates {
            Some((gate, pusher)) => gate.answer(request, connection).or_else(|request| pusher.answer(*request, connection)),
            None => Err(Box::new(request)),
        }
    }

    /// Answers a request of `connection`. An error closes the connection without a response.
    pub(super) fn answer(
        &self,
        request: Request<Body>,
        connection: &ConnectionHandle,
    ) -> impl Future<Output = Result<Response<Body>, Dropped>> + use<> {
        match self.offer(request, connection) {
            Ok(Answer::Ready(response)) => Either::Left(ready(Ok(response))),
            Ok(Answer::Later(answer)) => Either::Right(Either::Left(answer)),
            Err(mut request) => {
                if request.uri().path().starts_with(dashboard::PATH) {
                    request.extensions_mut().insert(Peer(connection.peer()));
                }
                let response = self.router.clone().oneshot(*request).map(|response| response.map_err(|never| match never {}));
                Either::Right(Either::Right(response))
            }
        }
    }
}

/// The current front; a reload replaces it while the server runs.
pub type Service = Arc<ArcSwap<Front>>;

/// How connections are treated.
#[derive(Clone)]
pub struct Settings {
    tls: Option<tls::Acceptor>,
    /// Peers that may send a PROXY protocol header.
    proxies: TrustedProxies,
    /// A peer that has not read a byte for this long counts as disconnected; it would have failed the heartbeat, too.
    stalled_after: Duration,
}

impl Settings {
    /// Reads the ping settings of `socketio`.
    #[must_use]
    pub fn new(config: &Config, tls: Option<tls::Acceptor>, proxies: TrustedProxies) -> Self {
        Self { tls, proxies, stalled_after: Duration::from_millis(config.socketio.ping_interval + config.socketio.ping_timeout) }
    }
}

/// Stops a listener in two steps.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Cancelled to stop accepting connections.
    pub accepting: CancellationToken,
    /// Cancelled to stop serving requests on existing connections.
    pub serving: CancellationToken,
}

/// How long a client may be connected without a byte before it is accepted all the same. Its timeouts begin then.
#[cfg(target_os = "linux")]
const SILENCE: Duration = Duration::from_secs(5);

/// Accepts and serves connections until told to stop, then waits for requests in progress.
pub async fn serve(listener: TcpListener, service: Service, settings: Settings, stop: Stop) {
    set_options(&listener, settings.stalled_after);
    let listener = match Listener::new(listener) {
        Ok(listener) => listener,
        Err(error) => return error!(%error, hint = "restart the server", "a port is open but not served: the system cannot watch it"),
    };
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.accepting.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, Arc::clone(&service), settings.clone(), stop.serving.clone());
                connections.spawn(connection);
            }
            Err(error) if is_about_the_peer(&error) => debug!(%error, "a connection ended before it was accepted"),
            Err(error) => {
                let hint = "raise the limit of open files (ulimit -n, LimitNOFILE=)";
                warn_throttled!(class = 0, key = "", %error, hint, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Sets options that every connection inherits from its listener, which saves two system calls per connection. Nagle's
/// algorithm would delay small frames. Connections are accepted with their first bytes: in HTTP and TLS the client speaks first, and
/// one that polls opens a connection for each request, which would wake the server twice. Errors are ignored: it works without.
fn set_options(listener: &TcpListener, stalled_after: Duration) {
    let socket = SockRef::from(listener);
    let _ = socket.set_tcp_nodelay(true);
    // On other systems the heartbeat alone finds peers that stopped reading.
    #[cfg(target_os = "linux")]
    let _ = (socket.set_tcp_user_timeout(Some(stalled_after)), system::listener::defer_accept(listener, SILENCE));
    #[cfg(not(target_os = "linux"))]
    let _ = stalled_after;
}

/// Whether the peer sent something other than TLS.
fn is_no_tls(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

/// Serves one connection until it ends; after an upgrade, a websocket continues in its own task.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
fn connection(
    accepted: Accepted,
    peer: SocketAddr,
    service: Service,
    settings: Settings,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    async move {
        let is_proxy = settings.proxies.contains(peer.ip());
        let first = if settings.tls.is_none() { direct::read_now(&accepted) } else { None };
        let is_request = |first: &Bytes| !is_proxy || proxy_protocol::parse(first) == proxy_protocol::Start::Other;
        let connection = match first {
            Some(first) if is_request(&first) => {
                let accepted = (accepted, settings.stalled_after);
                Connection::accepted(accepted, first, ConnectionHandle::new(peer), service, stop)
            }
            first => {
                // Boxed, so that connections whose request has arrived do not carry this.
                let stream = Box::pin(watched(accepted, first, peer, is_proxy, settings));
                let Some(Some((handle, stream))) = stop.run_until_cancelled(stream).await else { return };
                Connection::watched(stream, handle, service, stop)
            }
        };
        requests(connection).await;
    }
}

/// Serves the requests of a connection.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub(super) fn requests(mut connection: Connection) -> impl Future<Output = ()> + Send {
    async move {
        if let Some(stream) = connection.serve().await {
            let Connection { handle, service, stop, .. } = connection;
            // Boxed, so that a poll that waits does not reserve room for it.
            Box::pin(http(stream, handle, service, stop)).await;
        }
    }
}

/// The stream of a connection, after the PROXY protocol header of a trusted proxy and the TLS handshake; `None` if one fails.
async fn watched(
    accepted: Accepted,
    first: Option<Bytes>,
    peer: SocketAddr,
    is_proxy: bool,
    settings: Settings,
) -> Option<(Arc<ConnectionHandle>, ClientStream)> {
    let stream = accepted.watched().inspect_err(|error| debug!(%error, "connection ended")).ok()?;
    let stream = Replay::new(first.map_or_else(Vec::new, Into::into), 0, stream);
    let (peer, stream, unread) = if is_proxy {
        match tokio::time::timeout(FIRST_REQUEST_TIMEOUT, proxy_protocol::accept(stream)).await {
            Ok(Ok((client, stream))) => {
                let (stream, unread) = stream.into_parts();
                (client.unwrap_or(peer), stream, unread)
            }
            Ok(Err(error)) => {
                debug!(%peer, %error, "invalid PROXY protocol header from a trusted proxy");
                return None;
            }
            Err(_) => {
                debug!(%peer, "a trusted proxy sent nothing");
                return None;
            }
        }
    } else {
        (peer, stream, Vec::new())
    };
    let stream = stream.again(&unread);
    let handle = ConnectionHandle::new(peer);
    let stream = match settings.tls {
        None => {
            let (stream, unread) = stream.into_parts();
            Stream::plain(stream, unread, &handle, settings.stalled_after)
        }
        Some(acceptor) => encrypted(stream, acceptor, peer).await?.monitored(Vec::new(), &handle, settings.stalled_after),
    };
    Some((handle, stream))
}

/// The stream after the TLS handshake; `None` if that fails.
async fn encrypted(stream: Replay<TcpStream>, acceptor: tls::Acceptor, peer: SocketAddr) -> Option<Stream> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(Stream::boxed(stream)),
        Ok(Err(error)) => {
            if is_no_tls(&error) {
                let hint = "this port serves https (protocol): use https:// or wss:// in the page's `host`, set httpPort for an \
                            additional plain HTTP port, or protocol = \"http\" behind a proxy that terminates TLS";
                warn_throttled!(class = 1, key = &peer.ip(), %peer, hint, "a client speaks plain HTTP to an https port");
            }
            debug!(%peer, %error, "TLS handshake failed");
        }
        Err(_) => debug!(%peer, "TLS handshake timed out"),
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_is_accepted_with_its_first_bytes() {
        let listener = crate::net::listen::bind(Some("127.0.0.1"), 0).await.unwrap();
        set_options(&listener, Duration::from_secs(45));
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"G").await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn connections_inherit_the_options_of_their_listener() {
        let listener = crate::net::listen::bind(Some("127.0.0.1"), 0).await.unwrap();
        set_options(&listener, Duration::from_secs(45));
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"G").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(Duration::from_secs(45)));
    }
}
