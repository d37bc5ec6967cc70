//! [`SocketIoSocket`]: a client of socketioxide behind the [`Socket`] trait.
//!
//! Input: frames from the hub. Output: socketioxide's queue of that client, and the TCP connection under it.
//!
//! Membership of channels lives in the hub and not in socketioxide's rooms: a broadcast to a room reports that some
//! queue was full, but not whose, and the client that missed something must be closed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use socketioxide::extract::SocketRef;
use socketioxide::{ProtocolVersion, SendError, SocketError, TransportType};

use super::{EmitError, Frame, Socket};
use crate::event::SocketId;
use crate::metrics::ConnectionLabels;
use crate::server::link::Link;

/// Sessions that were closed while they had no connection of their own (polling). Their requests are answered as
/// those of unknown sessions, which makes the client start over.
#[derive(Debug, Default)]
pub struct ClosedSessions(Mutex<HashSet<SocketId>>);

impl ClosedSessions {
    /// Whether requests of this session are to be refused.
    #[must_use]
    pub fn contains(&self, id: SocketId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// The engine has ended the session: nothing is left to refuse.
    pub fn forget(&self, id: SocketId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// From now on requests of this session are refused.
    pub fn insert(&self, id: SocketId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }
}

/// A client connected through socketioxide.
#[derive(Clone)]
pub struct SocketIoSocket(Arc<Inner>);

struct Inner {
    id: SocketId,
    socket: SocketRef,
    /// The TCP connection of the websocket; that of the handshake until an upgrade.
    link: Mutex<Option<Arc<Link>>>,
    closed: Arc<ClosedSessions>,
}

impl SocketIoSocket {
    /// Wraps a client that is about to connect.
    #[must_use]
    pub fn new(socket: SocketRef, closed: Arc<ClosedSessions>) -> Self {
        let link = socket.req_parts().extensions.get::<Arc<Link>>().cloned();
        let id = SocketId::parse(socket.id.as_str()).expect("socketioxide's ids have our form");
        Self(Arc::new(Inner { id, socket, link: Mutex::new(link), closed }))
    }

    /// The client upgrades to a websocket on this connection.
    pub fn set_link(&self, link: Arc<Link>) {
        *self.0.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
    }

    /// Engine.IO version and transport, for metrics.
    #[must_use]
    pub fn labels(&self) -> ConnectionLabels {
        ConnectionLabels {
            engine: match self.0.socket.protocol() {
                ProtocolVersion::V4 => "3",
                ProtocolVersion::V5 => "4",
            },
            transport: match self.0.socket.transport_type() {
                TransportType::Polling => "polling",
                TransportType::Websocket => "websocket",
            },
        }
    }
}

impl Socket for SocketIoSocket {
    fn id(&self) -> SocketId {
        self.0.id
    }

    fn handshake(&self) -> &http::HeaderMap {
        &self.0.socket.req_parts().headers
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|link| link.peer.ip())
    }

    fn emit(&self, frame: Frame<'_>) -> Result<(), EmitError> {
        let sent = match frame.channel {
            Some(channel) => self.0.socket.emit(frame.name, &(channel, frame.data)),
            None => self.0.socket.emit(frame.name, &(frame.data,)),
        };
        sent.map_err(|error| match error {
            SendError::Socket(SocketError::InternalChannelFull) => EmitError::Full,
            SendError::Socket(SocketError::Closed) | SendError::Serialize(_) => EmitError::Closed,
        })
    }

    fn close(&self) {
        // Both, since the client may be upgrading right now. A Socket.IO disconnect packet would keep clients from
        // coming back, and would not fit into a full queue anyway.
        self.0.closed.insert(self.0.id);
        if self.0.socket.transport_type() == TransportType::Websocket
            && let Some(link) = &*self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
        {
            link.cut();
        }
    }

    fn terminate(&self) {
        if self.0.socket.clone().disconnect().is_err() {
            self.close();
        }
    }
}
