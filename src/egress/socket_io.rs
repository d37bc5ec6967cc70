//! [`SocketIoSocket`]: a client of socketioxide behind the [`Socket`] trait.
//!
//! Input: frames from the hub. Output: socketioxide's queue of that client, and the TCP connection under it.
//!
//! Membership of channels lives in the hub and not in socketioxide's rooms: a broadcast to a room reports that some
//! queue was full, but not whose, and the client that missed something must be closed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socketioxide::extract::SocketRef;
use socketioxide::{ProtocolVersion, SendError, SocketError, TransportType};

use super::{EmitError, Frame, Socket};
use crate::event::SocketId;
use crate::metrics::ConnectionLabels;
use crate::net::link::Link;

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
    backlog: Mutex<Backlog>,
    /// Most bytes that may wait for the client.
    queue_bytes: u64,
    closed: Arc<ClosedSessions>,
}

/// How much waits for the client. The engine does not tell when a message leaves its queue, so the bytes that go out
/// below it are counted in its place.
struct Backlog {
    /// The TCP connection of the websocket; that of the handshake until an upgrade.
    link: Option<Arc<Link>>,
    /// The connection of a poll that waits for messages now.
    poll: Option<Arc<Link>>,
    /// What `link` had written when it was last looked at.
    seen: u64,
    waiting: u64,
}

impl Backlog {
    fn new(link: Option<Arc<Link>>) -> Self {
        Self { seen: link.as_ref().map_or(0, |link| link.written()), link, poll: None, waiting: 0 }
    }

    /// So many bytes have gone out. Heartbeats and framing are among them, so it may be more than has waited.
    const fn sent(&mut self, bytes: u64) {
        self.waiting = self.waiting.saturating_sub(bytes);
    }

    /// Takes off what a websocket has written since the last time.
    fn settle(&mut self) {
        if let Some(link) = &self.link {
            let written = link.written();
            let bytes = written - self.seen;
            self.seen = written;
            self.sent(bytes);
        }
    }
}

/// Bytes of a frame on the wire, or fewer: names may grow when they are escaped, and framing comes on top. Counting
/// more than goes out would let the backlog of a client that reads everything grow for ever.
fn least_bytes(frame: &Frame<'_>) -> u64 {
    let channel = frame.channel.map_or(0, |channel| channel.len() + 3);
    (r#"42["",]"#.len() + frame.name.len() + channel + frame.data.get().len()) as u64
}

impl SocketIoSocket {
    /// Wraps a client that is about to connect. At most `queue_bytes` may wait for it.
    #[must_use]
    pub fn new(socket: SocketRef, closed: Arc<ClosedSessions>, queue_bytes: u64) -> Self {
        let link = socket.req_parts().extensions.get::<Arc<Link>>().cloned();
        let id = SocketId::parse(socket.id.as_str()).expect("socketioxide's ids have our form");
        Self(Arc::new(Inner { id, socket, backlog: Mutex::new(Backlog::new(link)), queue_bytes, closed }))
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.0.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_websocket(&self) -> bool {
        self.0.socket.transport_type() == TransportType::Websocket
    }

    /// The client upgrades to a websocket on this connection.
    pub fn set_link(&self, link: Arc<Link>) {
        let mut backlog = self.backlog();
        backlog.seen = link.written();
        backlog.link = Some(link);
    }

    /// A poll of the client begins to wait on this connection.
    pub fn polls(&self, link: Arc<Link>) {
        self.backlog().poll = Some(link);
    }

    /// The poll was answered with so many bytes.
    pub fn polled(&self, bytes: u64) {
        let mut backlog = self.backlog();
        backlog.poll = None;
        backlog.sent(bytes);
    }

    /// Makes room for a frame of so many bytes. A single one always fits, however large: `limits.apiBody` and Redis
    /// say how large events may be.
    fn reserve(&self, bytes: u64) -> Result<(), EmitError> {
        let mut backlog = self.backlog();
        if self.is_websocket() {
            backlog.settle();
        }
        if backlog.waiting > 0 && backlog.waiting + bytes > self.0.queue_bytes {
            return Err(EmitError::Full);
        }
        backlog.waiting += bytes;
        Ok(())
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
        self.backlog().link.as_ref().map(|link| link.peer.ip())
    }

    fn emit(&self, frame: &Frame<'_>) -> Result<(), EmitError> {
        self.reserve(least_bytes(frame))?;
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
        let backlog = self.backlog();
        let link = if self.is_websocket() { &backlog.link } else { &backlog.poll };
        if let Some(link) = link {
            link.cut();
        }
    }

    fn terminate(&self) {
        if self.0.socket.clone().disconnect().is_err() {
            self.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn a_frame_is_never_counted_for_more_than_it_is() {
        let data = RawValue::from_string(r#"{"a":[1,"\u00e9"]}"#.to_owned()).unwrap();
        for (name, channel) in [("sent", Some("news")), ("news:sent", None), ("", Some("")), ("a\"b", Some("ü\n"))] {
            let wire = match channel {
                Some(channel) => format!("42{}", serde_json::to_string(&(name, channel, &data)).unwrap()),
                None => format!("42{}", serde_json::to_string(&(name, &data)).unwrap()),
            };
            let counted = least_bytes(&Frame::new(name, channel, &data));
            assert!(counted <= wire.len() as u64, "{wire}: {counted}");
            assert!(counted + 3 >= wire.len() as u64, "{wire}: {counted}");
        }
    }

    #[test]
    fn what_a_websocket_writes_is_taken_off_the_backlog() {
        let mut backlog = Backlog::new(None);
        backlog.waiting = 100;
        backlog.settle();
        assert_eq!(backlog.waiting, 100);
        backlog.sent(30);
        assert_eq!(backlog.waiting, 70);
        backlog.sent(300);
        assert_eq!(backlog.waiting, 0);
    }
}
