//! A time limit for request bodies. Input: bodies. Output: the same bodies, with an error when the time is over, so that a
//! client that sends a byte now and then cannot keep a handler waiting forever.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

/// Time for a whole body to arrive, counted from the first wait for it.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The body took longer than [`BODY_TIMEOUT`].
#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive within {} seconds", BODY_TIMEOUT.as_secs())]
pub(crate) struct TooSlow;

/// A body with a deadline.
struct Timed<B> {
    body: B,
    /// Set on the first wait; most bodies arrive together with the request's head.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Limits the time of a request's body.
pub(crate) fn timed(body: Incoming) -> Body {
    if body.is_end_stream() { Body::empty() } else { Body::new(Timed { body, deadline: None }) }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Timed<B>
where
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(BODY_TIMEOUT)));
        deadline.as_mut().poll(cx).map(|()| Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_that_trickle_in_are_not_waited_for_without_end() {
        let trickle = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        let started = tokio::time::Instant::now();
        let body = Body::new(Timed { body: Body::from_stream(trickle), deadline: None });
        let error = to_bytes(body, usize::MAX).await.unwrap_err();
        assert_eq!(started.elapsed(), BODY_TIMEOUT);
        assert!(error.to_string().contains("60 seconds"), "{error}");
        let whole = Body::new(Timed { body: Body::from("whole"), deadline: None });
        assert_eq!(to_bytes(whole, 5).await.unwrap(), "whole");
    }
}
