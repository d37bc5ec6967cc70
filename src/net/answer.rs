//! [`Answer`]: the response to an HTTP request that a protocol handles before the router.
//!
//! Input: responses, and futures of them. Output: one type for both, for `server::listen`.

use std::pin::Pin;

use axum::body::Body;
use axum::http::Response;

/// The final outcome of a request.
pub(crate) type Answered = Result<Response<Body>, Dropped>;

/// A response that is not ready yet.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// The response to a request.
pub enum Answer {
    /// Ready now.
    Ready(Response<Body>),
    /// Ready later. A poll that waits for messages may take very long.
    Later(Answering),
}

/// The connection is to be dropped without a response; a client that polls reconnects at once on its own.
#[derive(Debug, thiserror::Error)]
#[error("the session has ended")]
pub struct Dropped;

impl Answer {
    /// Applies `change` to the response once it is ready.
    #[must_use]
    pub fn map(self, change: impl FnOnce(&mut Response<Body>) + Send + 'static) -> Self {
        match self {
            Self::Ready(mut response) => {
                change(&mut response);
                Self::Ready(response)
            }
            Self::Later(answer) => Self::Later(changed(answer, change)),
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
