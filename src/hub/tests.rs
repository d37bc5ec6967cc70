//! What unit tests of the hub are written with.

use std::sync::{Arc, Mutex};

use crate::egress::{EmitError, Frame, Socket};
use crate::event::SocketId;

/// A socket that keeps what it is sent, as `name [channel] data`.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: SocketId,
    headers: http::HeaderMap,
    frames: Mutex<Vec<String>>,
}

impl Recorder {
    pub(crate) fn new(id: &str) -> Self {
        Self(Arc::new(Inner { id: SocketId::parse(id).unwrap(), headers: http::HeaderMap::new(), frames: Mutex::default() }))
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
        let channel = frame.channel.map(|channel| format!(" [{channel}]")).unwrap_or_default();
        self.0.frames.lock().unwrap().push(format!("{}{channel} {}", frame.name, frame.data.get()));
        Ok(())
    }

    fn close(&self) {}

    fn terminate(&self) {}
}
