//! [`ClientSocket`]: any client, whichever way it has connected.

use std::net::IpAddr;

use http::HeaderMap;

use super::{EmitError, Frame, Socket, SocketIoSocket, WebSocket};
use crate::event::SocketId;
use crate::metrics::ConnectionLabels;

/// A connected client.
#[derive(Clone)]
pub enum ClientSocket {
    /// Served by the engine: it began by polling, and may have upgraded since.
    Engine(SocketIoSocket),
    /// Connected by websocket at once.
    WebSocket(WebSocket),
}

/// Calls a method of whichever socket it is.
macro_rules! either {
    ($client:expr, $socket:ident => $call:expr) => {
        match $client {
            Self::Engine($socket) => $call,
            Self::WebSocket($socket) => $call,
        }
    };
}

impl ClientSocket {
    /// Engine.IO version and transport, for metrics.
    #[must_use]
    pub fn labels(&self) -> ConnectionLabels {
        either!(self, socket => socket.labels())
    }

    /// The client as the engine has it, if it is the engine's.
    #[must_use]
    pub const fn engine(&self) -> Option<&SocketIoSocket> {
        match self {
            Self::Engine(socket) => Some(socket),
            Self::WebSocket(_) => None,
        }
    }
}

impl Socket for ClientSocket {
    fn id(&self) -> SocketId {
        either!(self, socket => socket.id())
    }

    fn handshake(&self) -> &HeaderMap {
        either!(self, socket => socket.handshake())
    }

    fn peer(&self) -> Option<IpAddr> {
        either!(self, socket => socket.peer())
    }

    fn emit(&self, frame: &Frame<'_>) -> Result<(), EmitError> {
        either!(self, socket => socket.emit(frame))
    }

    fn close(&self) {
        either!(self, socket => socket.close());
    }

    fn terminate(&self) {
        either!(self, socket => socket.terminate());
    }
}
