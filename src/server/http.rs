//! HTTP on one connection, from its first request to its end.
//!
//! Input: an accepted stream. Output: requests for the [`listen::Front`](super::listen::Front), and their responses.
//!
//! hyper keeps 16 KiB of buffers per connection. To save them for a pending long poll, its stream is taken out of hyper
//! while it waits. When the response is ready, a new hyper connection gets the stream with a synthetic request before it.

use std::future::{Future as _, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::http::{Request, Response, Version};
use futures_util::future::Either;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::body;
use super::listen::Service;
use crate::net::answer::{Answered, Answering, Waiting};
use crate::net::connection::{ConnectionHandle, MonitoredStream};
use crate::net::replay::Replay;
use crate::net::stream::{ClientStream, Stream};
use crate::warn_throttled;

/// Time for the head of a request to arrive, and between two requests of a connection. Longer than the usual keep-alive
/// timeout of proxies (60 s for nginx), so that the proxy closes an idle connection and not this server.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// Time for the head of a connection's first request to arrive. It is generous because browsers open connections in advance.
pub(super) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Buffer limit for a request's head. hyper answers 431 beyond it, at the latest at twice this size.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// How many bytes of a following request are read while a poll waits. Reading is needed to notice a disconnect.
const AHEAD_BYTES: usize = 256;

/// What happens to a connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is kept alive for the next request.
    Kept,
    /// It is closed.
    Closed,
}

impl End {
    /// Reads the head of a request. `None` if its body has not arrived, or it is not HTTP/1.1.
    pub(super) fn of(request: &Request<Body>) -> Option<Self> {
        let is_last = |value: &header::HeaderValue| value.to_str().is_ok_and(|value| value.eq_ignore_ascii_case("close"));
        (request.version() == Version::HTTP_11 && request.body().is_end_stream())
            .then(|| if request.headers().get_all(header::CONNECTION).iter().any(is_last) { Self::Closed } else { Self::Kept })
    }

    /// The head of a synthetic request that makes hyper treat the connection this way after the response.
    const fn head(self) -> &'static [u8] {
        match self {
            Self::Kept => b"GET / HTTP/1.1\r\n\r\n",
            Self::Closed => b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
        }
    }
}

/// Registers a pending poll with its connection, from where [`http()`] can take it out of hyper.
pub(super) fn wait(answer: Answering, end: End, connection: &Arc<ConnectionHandle>) -> Waits {
    connection.wait(Waiting::new(answer, end == End::Closed));
    Waits(Arc::clone(connection))
}

/// The response future that hyper polls while a long poll is pending.
pub(super) struct Waits(Arc<ConnectionHandle>);

impl Future for Waits {
    type Output = Answered;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        self.0.poll_waiting(cx)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        drop(self.0.take_waiting());
    }
}

/// Serves HTTP on a connection until it ends.
pub(super) async fn http(mut stream: ClientStream, handle: Arc<ConnectionHandle>, service: Service, stop: CancellationToken) {
    let mut answer = None;
    // Boxed, so that the future of a waiting poll does not reserve space for it.
    while let Some(parked) = Box::pin(serve(stream, answer.take(), &handle, &service, &stop)).await {
        match parked.answered(&stop).await {
            Some((next, response)) => (stream, answer) = (next, Some(response)),
            None => return,
        }
    }
}

/// Serves requests; the first one gets `answer` if it is set. Returns early when a poll has to wait.
async fn serve(
    stream: ClientStream,
    answer: Option<Response<Body>>,
    handle: &Arc<ConnectionHandle>,
    service: &Service,
    stop: &CancellationToken,
) -> Option<Parked> {
    let is_resumed = answer.is_some();
    let answer = Mutex::new(answer);
    let respond = service_fn(|request: Request<Incoming>| {
        let answered = answer.lock().take();
        match answered {
            Some(response) => Either::Left(ready(Ok(response))),
            None => {
                handle.asked();
                Either::Right(service.load().answer(request.map(body::timed), handle))
            }
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), respond);
    let first_request = tokio::time::sleep_until(handle.since() + FIRST_REQUEST_TIMEOUT);
    tokio::pin!(first_request);
    let (mut is_new, mut is_stopping) = (!is_resumed, is_resumed && stop.is_cancelled());
    let outcome = loop {
        let turn = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(result) => Poll::Ready(Err(result)),
            // Taking the stream out of hyper now would lose what it has not written yet.
            Poll::Pending if handle.is_blocked() => Poll::Pending,
            Poll::Pending => handle.take_waiting().map_or(Poll::Pending, |waiting| Poll::Ready(Ok(waiting))),
        });
        tokio::select! {
            outcome = turn => break outcome,
            () = first_request.as_mut(), if is_new => {
                if !handle.has_asked() {
                    debug!(peer = %handle.peer(), "no request came");
                    return None;
                }
                is_new = false;
            }
            () = stop.cancelled(), if !is_stopping => {
                if is_new && !handle.has_asked() {
                    return None;
                }
                Pin::new(&mut connection).graceful_shutdown();
                is_stopping = true;
            }
        }
    };
    match outcome {
        Ok(waiting) => {
            let parts = connection.into_parts();
            let (stream, unread) = parts.io.into_inner().into_parts();
            Some(Parked { stream, unread: [&parts.read_buf[..], &unread].concat(), waiting })
        }
        Err(Ok(())) => {
            if let Some(upgrade) = handle.take_upgrade() {
                let parts = connection.into_parts();
                // An error means that the server is ending.
                drop(upgrade.send(parts.io.into_inner().again(&parts.read_buf)));
            }
            None
        }
        Err(Err(error)) => {
            if error.is_parse() && handle.first_byte() == Some(TLS_HANDSHAKE) {
                let hint = "pages on https connect with https here, too: set protocol = \"https\" with sslCertPath and sslKeyPath, or \
                            terminate TLS in a proxy and set Echo's `host` to it";
                warn_throttled!(class = 0, key = &handle.peer().ip(), peer = %handle.peer(), hint, "a client speaks TLS to a port of plain HTTP");
            }
            debug!(%error, "connection ended");
            None
        }
    }
}

/// A connection, taken out of hyper, whose poll waits for its response.
struct Parked {
    stream: MonitoredStream<Stream>,
    /// Bytes that the client has sent after the poll.
    unread: Vec<u8>,
    waiting: Waiting,
}

impl Parked {
    /// The response, and the stream with a synthetic request in place of the poll. `None` if the connection has ended.
    async fn answered(mut self, stop: &CancellationToken) -> Option<(ClientStream, Response<Body>)> {
        let response = watched(&mut self.stream, &mut self.unread, |cx| self.waiting.poll(cx)).await?;
        let end = if self.waiting.is_last || stop.is_cancelled() { End::Closed } else { End::Kept };
        Some((Replay::new([end.head(), &self.unread].concat(), 0, self.stream), response))
    }
}

/// Waits for the response of `poll`; `None` if there is none or the client disconnects. Bytes sent meanwhile go to `unread`.
pub(super) async fn watched<S: AsyncRead + Unpin>(
    stream: &mut S,
    unread: &mut Vec<u8>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Answered>,
) -> Option<Response<Body>> {
    poll_fn(|cx| {
        if let Poll::Ready(answered) = poll(cx) {
            return Poll::Ready(answered.ok());
        }
        while unread.is_empty() {
            let mut space = [0; AHEAD_BYTES];
            let mut space = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut space)) {
                Ok(()) if !space.filled().is_empty() => unread.extend_from_slice(space.filled()),
                _ => return Poll::Ready(None),
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {

    use arc_swap::ArcSwap;
    use axum::Router;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::super::listen::Front;
    use super::*;

    /// Sends `at_once`, then `head` repeatedly at one byte every five seconds. Returns the response, and the time until the
    /// server closed the connection.
    async fn trickle(at_once: &str, head: &str) -> (String, Duration) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
        let router = Router::new().route("/", axum::routing::get(async || "fine"));
        let service = Arc::new(ArcSwap::from_pointee(Front { gates: None, router }));
        let stream = Stream::boxed(ours).monitored(Vec::new(), &handle, HEADER_TIMEOUT);
        tokio::spawn(http(stream, handle, service, CancellationToken::new()));
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

    #[tokio::test(start_paused = true)]
    async fn heads_that_trickle_in_are_not_waited_for_without_end() {
        let (answer, after) = trickle("", "GET / HTTP/1.1\r\nX: ").await;
        assert_eq!((answer.as_str(), after), ("", FIRST_REQUEST_TIMEOUT));
        let (answer, after) = trickle("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nX: ").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("fine"), "{answer}");
        assert!((HEADER_TIMEOUT..HEADER_TIMEOUT + Duration::from_secs(6)).contains(&after), "{after:?}");
    }
}
