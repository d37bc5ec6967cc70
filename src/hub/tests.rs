//! What unit tests of the hub are written with, and its property tests.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::auth::{AuthRequest, Authorizer, Denied, Grant};
use crate::egress::{EmitError, Frame, Socket};
use crate::event::SocketId;

mod exact;
mod pace;
mod page;
mod receive;
mod shared;
mod walk;
mod world;

/// An authorizer where nobody asks for a guarded channel.
pub(crate) struct Nobody;

#[async_trait::async_trait]
impl Authorizer for Nobody {
    async fn authorize(&self, _: AuthRequest<'_>) -> Result<Grant, Denied> {
        unreachable!("nobody asks for a guarded channel")
    }
}

/// A socket that keeps what it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: SocketId,
    headers: http::HeaderMap,
    frames: Mutex<Vec<(Instant, Heard)>>,
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) name: String,
    pub(crate) channel: String,
    pub(crate) data: String,
}

impl Recorder {
    pub(crate) fn new(id: &str) -> Self {
        Self(Arc::new(Inner { id: SocketId::parse(id).unwrap(), headers: http::HeaderMap::new(), frames: Mutex::default() }))
    }

    /// What came since the last call, and when.
    fn take(&self) -> Vec<(Instant, Heard)> {
        std::mem::take(&mut *self.0.frames.lock().unwrap())
    }
}

impl Socket for Recorder {
    fn id(&self) -> SocketId {
        self.0.id
    }

    fn handshake(&self) -> &http::HeaderMap {
        &self.0.headers
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        None
    }

    fn emit(&self, frame: &Frame<'_>) -> Result<(), EmitError> {
        let channel = frame.channel.unwrap_or_default().to_owned();
        let heard = Heard { name: frame.name.to_owned(), channel, data: frame.data.get().to_owned() };
        self.0.frames.lock().unwrap().push((Instant::now(), heard));
        Ok(())
    }

    fn close(&self) {}

    fn terminate(&self) {}
}
