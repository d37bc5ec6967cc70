//! HTTP by hyper, from a connection's first request that is not for a gate to its end.
//!
//! Input: a stream. Output: requests for the [`listen::Front`](super::listen::Front), and their responses.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::body;
use super::listen::Service;
use crate::net::connection::ConnectionHandle;
use crate::net::stream::ClientStream;

/// Time for the head of a request to arrive, and between two requests of a connection. Longer than the usual keep-alive
/// timeout of proxies (60 s for nginx), so that the proxy closes an idle connection and not this server.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// Time for the head of a connection's first request to arrive. It is generous because browsers open connections in advance.
pub(super) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Buffer limit for a request's head. hyper answers 431 beyond it, at the latest at twice this size.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Serves HTTP on a connection until it ends.
pub(super) async fn http(stream: ClientStream, handle: Arc<ConnectionHandle>, service: Service, stop: CancellationToken) {
    let respond = service_fn(|request: Request<Incoming>| {
        handle.asked();
        service.load().answer(request.map(body::timed), &handle)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), respond);
    let first_request = tokio::time::sleep_until(handle.since() + FIRST_REQUEST_TIMEOUT);
    tokio::pin!(first_request);
    let (mut is_new, mut is_stopping) = (true, false);
    let outcome = loop {
        tokio::select! {
            outcome = &mut connection => break outcome,
            () = first_request.as_mut(), if is_new => {
                if !handle.has_asked() {
                    debug!(peer = %handle.peer(), "no request came");
                    return;
                }
                is_new = false;
            }
            () = stop.cancelled(), if !is_stopping => {
                if is_new && !handle.has_asked() {
                    return;
                }
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                is_stopping = true;
            }
        }
    };
    match outcome {
        Ok(()) => {
            if let Some(upgrade) = handle.take_upgrade() {
                let parts = connection.into_parts();
                // An error means that the server is ending.
                drop(upgrade.send(parts.io.into_inner().again(&parts.read_buf)));
            }
        }
        Err(error) => debug!(%error, "connection ended"),
    }
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use axum::Router;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::super::listen::Front;
    use super::*;
    use crate::net::stream::Stream;

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
