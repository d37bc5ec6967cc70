//! [`Answer`]: what becomes of an HTTP request that a protocol takes before the router.
//!
//! Input: responses, and futures of them. Output: either, for `server::listen`.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::Response;

/// What becomes of a request in the end.
pub(crate) type Answered = Result<Response<Body>, Dropped>;

/// An answer that is not there yet.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// The answer to a request.
pub enum Answer {
    /// It is there.
    Ready(Response<Body>),
    /// It takes its time.
    Later(Answering),
    /// It may take very long, and needs nothing more of its request: a poll waits for messages.
    Waits(Answering),
}

/// A poll that waits for its answer.
pub struct Waiting {
    answer: Answering,
    /// The client wants the connection to end with the answer.
    pub is_last: bool,
}

impl Waiting {
    /// A poll whose answer comes from `answer`.
    #[must_use]
    pub fn new(answer: Answering, is_last: bool) -> Self {
        Self { answer, is_last }
    }

    /// Looks whether the answer is there.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answered> {
        self.answer.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("is_last", &self.is_last).finish_non_exhaustive()
    }
}

/// The connection is to end without an answer; a client that polls comes back at once by itself.
#[derive(Debug, thiserror::Error)]
#[error("the session has ended")]
pub struct Dropped;

impl Answer {
    /// The same answer, changed once it is there.
    #[must_use]
    pub fn map(self, change: impl FnOnce(&mut Response<Body>) + Send + 'static) -> Self {
        match self {
            Self::Ready(mut response) => {
                change(&mut response);
                Self::Ready(response)
            }
            Self::Later(answer) => Self::Later(changed(answer, change)),
            Self::Waits(answer) => Self::Waits(changed(answer, change)),
        }
    }
}

fn changed(answer: Answering, change: impl FnOnce(&mut Response<Body>) + Send + 'static) -> Answering {
    Box::pin(async move {
        let mut response = answer.await?;
        change(&mut response);
        Ok(response)
    })
}
