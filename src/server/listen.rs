//! Accepting connections and speaking HTTP on them.
//!
//! Input: a bound listener. Output: requests for the router, each with the [`Link`] of its connection as extension.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::link::{Link, LinkedStream};
use super::tls;
use crate::config::Config;

/// Connections that may wait for their turn; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Time for the head of a request, and between two requests of a connection. Longer than the usual keep-alive of
/// proxies (60 s for nginx), so that they and not we close an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause when no connection can be accepted (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How connections are treated.
#[derive(Clone)]
pub struct Settings {
    tls: Option<tls::Acceptor>,
    /// A peer that takes no byte for so long is gone: it would have failed the heartbeat, too.
    stalled_after: Duration,
}

impl Settings {
    /// Reads the times of `socketio`.
    #[must_use]
    pub fn new(config: &Config, tls: Option<tls::Acceptor>) -> Self {
        Self { tls, stalled_after: Duration::from_millis(config.socketio.ping_interval + config.socketio.ping_timeout) }
    }
}

/// Binds a listener. Without a host it takes all interfaces, IPv6 and IPv4, or IPv4 alone where there is no IPv6.
///
/// # Errors
/// When the host has no address or none can be listened on.
pub async fn bind(host: Option<&str>, port: u16) -> io::Result<TcpListener> {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return match listen_on((Ipv6Addr::UNSPECIFIED, port).into()) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => listen_on((Ipv4Addr::UNSPECIFIED, port).into()),
            result => result,
        };
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    for address in tokio::net::lookup_host((host, port)).await? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until `stop`, then waits for requests under way.
pub async fn serve(listener: TcpListener, service: Router, settings: Settings, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, service.clone(), settings.clone(), stop.clone());
                connections.spawn(connection);
            }
            Err(error) if is_about_the_peer(&error) => debug!(%error, "a connection ended before it was accepted"),
            Err(error) => {
                let hint = "raise the limit of open files (ulimit -n, LimitNOFILE=)";
                warn!(%error, hint, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

/// One connection to its end; a websocket goes on in a task of its own after its upgrade.
async fn connection(stream: TcpStream, peer: SocketAddr, service: Router, settings: Settings, stop: CancellationToken) {
    // Frames are small and wait for nothing. Neither option is worth losing a connection for.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(settings.stalled_after));
    let (link, patience) = (Link::new(peer), settings.stalled_after);
    match settings.tls {
        None => http(LinkedStream::new(stream, Arc::clone(&link), patience), link, service, stop).await,
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => http(LinkedStream::new(stream, Arc::clone(&link), patience), link, service, stop).await,
            Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => debug!(%peer, "TLS handshake took too long"),
        },
    }
}

async fn http<S>(stream: S, link: Arc<Link>, service: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&link));
        service.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "connection ended");
    }
}
