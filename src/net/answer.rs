//! [`Answer`]: what becomes of an HTTP request that a protocol takes before the router.
//!
//! Input: responses, and futures of them. Output: either, for `server::listen`.

use std::pin::Pin;

use axum::body::Body;
use axum::http::Response;

/// The answer to a request.
pub enum Answer {
    /// It is there.
    Ready(Response<Body>),
    /// It takes its time: a poll waits for messages.
    Later(Pin<Box<dyn Future<Output = Result<Response<Body>, Dropped>> + Send>>),
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
            Self::Later(response) => Self::Later(Box::pin(async move {
                let mut response = response.await?;
                change(&mut response);
                Ok(response)
            })),
        }
    }
}
