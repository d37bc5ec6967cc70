//! Accepting connections and speaking HTTP on them.
//!
//! Input: a bound listener. Output: requests, for the [`Gate`] first, and for the router when they are not its own.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::future::{Either, FutureExt as _};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::debug;

use super::body;
use super::proxy_protocol::{self, Replay};
use crate::config::Config;
use crate::net::answer::{Answer, Dropped};
use crate::net::connection::{ConnectionHandle, MonitoredStream};
use crate::net::tls;
use crate::proxies::TrustedProxies;
use crate::pusher;
use crate::socket_io::gate::Gate;
use crate::warn_seldom;

pub use crate::net::listen::{Address, ListenError};

/// Time for the head of a request, and between two requests of a connection. Longer than the usual keep-alive of
/// proxies (60 s for nginx), so that they and not we close an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// Time for the first request of a connection to begin and its head to arrive. Browsers open connections in advance.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a request's head beyond which no more are read; twice as many are refused for sure, with 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What a TLS connection begins with.
const TLS_HANDSHAKE: u8 = 0x16;

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause when no connection can be accepted (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What answers requests.
pub struct Front {
    /// Answer clients, which come in crowds and have no use for a router: Socket.IO's, and Pusher's.
    pub gates: Option<(Gate, pusher::gate::Gate)>,
    /// Answers all the rest.
    pub router: Router,
}

impl Front {
    /// Answers a request that came over `connection`. An error ends the connection without an answer.
    pub(super) fn answer(
        &self,
        request: Request<Body>,
        connection: &ConnectionHandle,
    ) -> impl Future<Output = Result<Response<Body>, Dropped>> + use<> {
        let answer = match &self.gates {
            Some((gate, pusher)) => gate.answer(request, connection).or_else(|request| pusher.answer(*request, connection)),
            None => Err(Box::new(request)),
        };
        match answer {
            Ok(Answer::Ready(response)) => Either::Left(ready(Ok(response))),
            Ok(Answer::Later(response)) => Either::Right(Either::Left(response)),
            Err(request) => {
                Either::Right(Either::Right(self.router.clone().oneshot(*request).map(|response| response.map_err(|never| match never {}))))
            }
        }
    }
}

/// What answers requests; another front may take its place while the server runs.
pub type Service = Arc<ArcSwap<Front>>;

/// How connections are treated.
#[derive(Clone)]
pub struct Settings {
    tls: Option<tls::Acceptor>,
    /// Peers that may begin with a header of the PROXY protocol.
    proxies: TrustedProxies,
    /// A peer that takes no byte for so long is gone: it would have failed the heartbeat, too.
    stalled_after: Duration,
}

impl Settings {
    /// Reads the times of `socketio`.
    #[must_use]
    pub fn new(config: &Config, tls: Option<tls::Acceptor>, proxies: TrustedProxies) -> Self {
        Self { tls, proxies, stalled_after: Duration::from_millis(config.socketio.ping_interval + config.socketio.ping_timeout) }
    }
}

/// When a listener comes to its end.
#[derive(Debug, Clone)]
pub struct Stop {
    /// No more connections.
    pub accepting: CancellationToken,
    /// No more requests on those that exist.
    pub serving: CancellationToken,
}

/// Accepts and serves connections until told to stop, then waits for requests under way.
pub async fn serve(listener: TcpListener, service: Service, settings: Settings, stop: Stop) {
    set_options(&listener, settings.stalled_after);
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
                warn_seldom!(kind = 0, about = "", %error, hint, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Sets what every connection inherits from its listener, which saves two system calls for each. Frames are small and
/// wait for nothing; neither option is worth losing a listener for.
fn set_options(listener: &TcpListener, stalled_after: Duration) {
    let socket = SockRef::from(listener);
    let _ = socket.set_tcp_nodelay(true);
    // On other systems the heartbeat alone finds peers that stopped reading.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(stalled_after));
    #[cfg(not(target_os = "linux"))]
    let _ = stalled_after;
}

/// Whether what came is none of TLS's messages at all.
fn is_no_tls(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

/// One connection to its end; a websocket goes on in a task of its own after its upgrade.
async fn connection(stream: TcpStream, peer: SocketAddr, service: Service, settings: Settings, stop: CancellationToken) {
    let patience = settings.stalled_after;
    let (peer, stream) = if settings.proxies.contains(peer.ip()) {
        match tokio::time::timeout(FIRST_REQUEST_TIMEOUT, proxy_protocol::accept(stream)).await {
            Ok(Ok((client, stream))) => (client.unwrap_or(peer), stream),
            Ok(Err(error)) => return debug!(%peer, %error, "no client's address from a trusted proxy"),
            Err(_) => return debug!(%peer, "a trusted proxy sent nothing"),
        }
    } else {
        (peer, Replay::nothing(stream))
    };
    let handle = ConnectionHandle::new(peer);
    match settings.tls {
        None => http(MonitoredStream::new(stream, Arc::clone(&handle), patience), handle, service, stop).await,
        Some(acceptor) => {
            // Boxed, so plaintext connections do not carry the TLS future.
            let secure = async {
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => http(MonitoredStream::new(stream, Arc::clone(&handle), patience), handle, service, stop).await,
                    Ok(Err(error)) => {
                        if is_no_tls(&error) {
                            let hint = "this port speaks https (protocol): use https:// and wss:// in the page's `host`, set httpPort for \
                                        plain HTTP beside it, or protocol = \"http\" behind a proxy that speaks TLS";
                            warn_seldom!(kind = 1, about = &peer.ip(), %peer, hint, "a client speaks plain HTTP to a port of https");
                        }
                        debug!(%peer, %error, "TLS handshake failed");
                    }
                    Err(_) => debug!(%peer, "TLS handshake took too long"),
                }
            };
            Box::pin(secure).await;
        }
    }
}

/// Speaks HTTP on a connection until its end.
pub(super) async fn http<S>(stream: S, handle: Arc<ConnectionHandle>, service: Service, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::clone(&handle);
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        handle.asked();
        let front = service.load();
        front.answer(request.map(body::timed), &handle)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    tokio::pin!(connection);
    let first_request = tokio::time::sleep(FIRST_REQUEST_TIMEOUT);
    tokio::pin!(first_request);
    let (mut is_new, mut is_stopping) = (true, false);
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            () = first_request.as_mut(), if is_new => {
                if !asked.has_asked() {
                    return debug!(peer = %asked.peer(), "no request came");
                }
                is_new = false;
            }
            () = stop.cancelled(), if !is_stopping => {
                connection.as_mut().graceful_shutdown();
                is_stopping = true;
            }
        }
    };
    if let Err(error) = result {
        if error.is_parse() && asked.first_byte() == Some(TLS_HANDSHAKE) {
            let hint = "pages on https ask for https here, too: set protocol = \"https\" with sslCertPath and sslKeyPath, or let a proxy speak TLS and \
                        have Echo's `host` name the proxy";
            warn_seldom!(kind = 0, about = &asked.peer().ip(), peer = %asked.peer(), hint, "a client speaks TLS to a port of plain HTTP");
        }
        debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    /// Sends `head` bit by bit, one byte every five seconds after the part that is sent at once; returns what came
    /// back, and when the server had enough.
    async fn trickle(at_once: &str, head: &str) -> (String, Duration) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
        let router = Router::new().route("/", axum::routing::get(async || "fine"));
        let service = Arc::new(ArcSwap::from_pointee(Front { gates: None, router }));
        tokio::spawn(http(ours, handle, service, CancellationToken::new()));
        let started = Instant::now();
        let (mut reader, mut writer) = tokio::io::split(theirs);
        writer.write_all(at_once.as_bytes()).await.unwrap();
        let head = head.to_owned();
        tokio::spawn(async move {
            for byte in head.bytes().cycle() {
                tokio::time::sleep(Duration::from_secs(5)).await;
                if writer.write_u8(byte).await.is_err() {
                    break;
                }
            }
        });
        let mut answer = String::new();
        reader.read_to_string(&mut answer).await.unwrap();
        (answer, started.elapsed())
    }

    #[tokio::test]
    async fn connections_inherit_the_options_of_their_listener() {
        let listener = crate::net::listen::bind(Some("127.0.0.1"), 0).await.unwrap();
        set_options(&listener, Duration::from_secs(45));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(Duration::from_secs(45)));
    }

    #[tokio::test(start_paused = true)]
    async fn heads_that_trickle_in_are_not_waited_for_without_end() {
        let (answer, after) = trickle("", "GET / HTTP/1.1\r\nX: ").await;
        assert_eq!((answer.as_str(), after), ("", FIRST_REQUEST_TIMEOUT));
        let (answer, after) = trickle("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nX: ").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("fine"), "{answer}");
        assert!((HEADER_TIMEOUT..HEADER_TIMEOUT + Duration::from_secs(6)).contains(&after), "{after:?}");
    }
}
