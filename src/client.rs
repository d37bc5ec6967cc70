//! [`Client`]: one connected client as the hub sees it, whatever protocol it speaks.
//!
//! Input: pushes of the hub. Output: frames in the client's outbox, in the client's [`Dialect`]. What the client says is
//! for its session in [`crate::socket_io`] or [`crate::pusher`], which made it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;

use crate::event::SocketId;
use crate::hub::{Allowance, Dialect, Keep, Message, Offset, Push, PushError, Socket};
use crate::metrics::ConnectionLabels;
use crate::net::websocket::{End, Limits, Outbox, SendError, deflated, text_bytes};

mod connections;

pub(crate) use connections::Connections;

/// A protocol, as far as the hub's pushes need it.
pub trait Speech: Sync {
    /// The slot of its encodings.
    fn dialect(&self) -> Dialect;

    /// Writes a message out as the frame of a websocket. `None`: the protocol does not tell it.
    fn encode(&self, message: &Message<'_>, offset: Option<Offset>) -> Option<Bytes>;

    /// What tells a client to go and not to come back by itself, as frames.
    fn goodbye(&self) -> Bytes;

    /// The protocol's version, for metrics.
    fn version(&self) -> &'static str;
}

/// One connected client; clones name the same.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    id: OnceLock<SocketId>,
    speech: &'static dyn Speech,
    peer: IpAddr,
    handshake: HeaderMap,
    is_polling: AtomicBool,
    /// Events of so many bytes and more are compressed.
    deflate_from: AtomicU32,
    allowance: Allowance,
    outbox: Outbox,
}

/// Where a client comes from.
pub struct Origin {
    /// Address at the other end of the connection: the client, or a proxy before it.
    pub peer: IpAddr,
    /// Headers of the handshake request, as far as callbacks can need them.
    pub handshake: HeaderMap,
    /// Whether it polls.
    pub is_polling: bool,
}

impl Client {
    /// A client that has just come; at most `limits` wait for it.
    #[must_use]
    pub fn new(speech: &'static dyn Speech, origin: Origin, allowance: Allowance, limits: Limits) -> Self {
        let Origin { peer, handshake, is_polling } = origin;
        let id = OnceLock::new();
        Self(Arc::new(Inner {
            id,
            speech,
            peer,
            handshake,
            is_polling: AtomicBool::new(is_polling),
            deflate_from: AtomicU32::new(u32::MAX),
            allowance,
            outbox: Outbox::new(limits),
        }))
    }

    /// Whether it has an id, and can be no other client any more.
    #[must_use]
    pub fn has_id(&self) -> bool {
        self.0.id.get().is_some()
    }

    /// It is the client of this id, which has come back; for one that has no id yet.
    pub fn take_id(&self, id: SocketId) {
        let _ = self.0.id.set(id);
    }

    /// What waits for it.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// Whether polls carry it.
    #[must_use]
    pub fn is_polling(&self) -> bool {
        self.0.is_polling.load(Ordering::Relaxed)
    }

    /// From now on a websocket carries it.
    pub fn is_upgraded(&self) {
        self.0.is_polling.store(false, Ordering::Relaxed);
    }

    /// A websocket carries it that takes compressed messages; events of `least` bytes and more are worth it.
    pub fn deflates(&self, least: u32) {
        self.0.deflate_from.store(least, Ordering::Relaxed);
    }

    /// Version of the protocol and transport, for metrics.
    #[must_use]
    pub fn labels(&self) -> ConnectionLabels {
        let transport = if self.is_polling() { "polling" } else { "websocket" };
        ConnectionLabels { engine: self.0.speech.version(), transport }
    }
}

impl Socket for Client {
    fn id(&self) -> SocketId {
        *self.0.id.get_or_init(SocketId::random)
    }

    fn handshake(&self) -> &HeaderMap {
        &self.0.handshake
    }

    fn peer(&self) -> Option<IpAddr> {
        Some(self.0.peer)
    }

    fn allowance(&self) -> &Allowance {
        &self.0.allowance
    }

    fn push(&self, push: &Push<'_>) -> Result<(), PushError> {
        let speech = self.0.speech;
        let Some(frame) = push.encoded(speech.dialect(), |message, offset| speech.encode(message, offset)) else {
            return Ok(());
        };
        let is_long = text_bytes(frame) as u64 >= self.0.deflate_from.load(Ordering::Relaxed).into();
        let frame = if is_long { push.deflated(speech.dialect(), frame, deflated) } else { frame };
        let sent = match push.keep {
            Keep::All => self.outbox().send(frame.clone()),
            Keep::Latest(key) => self.outbox().send_latest(key, frame.clone()),
            Keep::Volatile(key) => self.outbox().send_volatile(key, frame.clone()),
        };
        sent.map_err(refused)
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn push_frame(&self, frame: Bytes) -> Result<(), PushError> {
        self.outbox().send(frame).map_err(refused)
    }

    fn can_recover(&self) -> bool {
        self.0.speech.dialect() == Dialect::Recoverable
    }

    fn recoverable(message: &Message<'_>, offset: Option<Offset>) -> Option<Bytes> {
        crate::socket_io::encode(message, offset)
    }

    fn close(&self) {
        self.outbox().end(End::Now);
    }

    fn terminate(&self) {
        // A client that does not keep up loses its connection without the word.
        let end = if self.outbox().send(self.0.speech.goodbye()).is_ok() { End::Flushed } else { End::Now };
        self.outbox().end(end);
    }
}

const fn refused(error: SendError) -> PushError {
    match error {
        SendError::Full => PushError::Full,
        SendError::Closed => PushError::Closed,
    }
}
