//! [`Client`]: one connected client as the hub sees it, whatever protocol it speaks.
//!
//! Input: pushes from the hub. Output: frames in the client's outbox, in the client's [`Dialect`]. Messages from the client go
//! to its session in [`crate::socket_io`] or [`crate::pusher`], which created it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;

use crate::event::SocketId;
use crate::hub::{Allowance, Dialect, Keep, Message, Offset, Push, PushError, Socket};
use crate::metrics::ConnectionLabels;
use crate::net::websocket::{End, Limits, Outbox, Queued, SendError, deflated, text_bytes};

mod connections;

pub(crate) use connections::Connections;

/// A protocol, as far as pushes from the hub need it.
pub trait Speech: Sync {
    /// The dialect of its encodings.
    fn dialect(&self) -> Dialect;

    /// Encodes a message as the frame of a websocket. `None`: the protocol does not send this message.
    fn encode(&self, message: &Message<'_>, offset: Option<Offset>) -> Option<Bytes>;

    /// The frames that tell a client to disconnect and not to reconnect by itself.
    fn goodbye(&self) -> Bytes;

    /// The protocol's version, for metrics.
    fn version(&self) -> &'static str;
}

/// One connected client; clones are handles on the same client.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    id: OnceLock<SocketId>,
    speech: &'static dyn Speech,
    peer: IpAddr,
    handshake: HeaderMap,
    is_polling: AtomicBool,
    /// Events of at least this many bytes are compressed.
    deflate_from: AtomicU32,
    allowance: Allowance,
    outbox: Outbox,
}

/// Where a client connects from.
pub struct Origin {
    /// Address at the other end of the connection: the client, or a proxy in front of it.
    pub peer: IpAddr,
    /// Those headers of the handshake request that callbacks can need.
    pub handshake: HeaderMap,
    /// Whether it connects by polling.
    pub is_polling: bool,
}

impl Client {
    /// A client that has just connected; `limits` bounds how much may wait in its outbox.
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

    /// Whether it has an id. From then on it cannot become the client of another session.
    #[must_use]
    pub fn has_id(&self) -> bool {
        self.0.id.get().is_some()
    }

    /// Gives the client the id of the session that it resumes. Does nothing once the client has an id.
    pub fn take_id(&self, id: SocketId) {
        let _ = self.0.id.set(id);
    }

    /// The frames that wait to be sent to the client.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// Whether the client is connected by polling.
    #[must_use]
    pub fn is_polling(&self) -> bool {
        self.0.is_polling.load(Ordering::Relaxed)
    }

    /// The client has moved from polling to a websocket.
    pub fn is_upgraded(&self) {
        self.0.is_polling.store(false, Ordering::Relaxed);
    }

    /// The client's websocket accepts compressed messages; events of `least` bytes and more are worth compressing.
    pub fn deflates(&self, least: u32) {
        self.0.deflate_from.store(least, Ordering::Relaxed);
    }

    /// Version of the protocol, and transport, for metrics.
    #[must_use]
    pub fn labels(&self) -> ConnectionLabels {
        let transport = if self.is_polling() { "polling" } else { "websocket" };
        ConnectionLabels { engine: self.0.speech.version(), transport }
    }

    /// The frame of a push; `None` if the protocol has no such message.
    fn frame<'a>(&self, push: &'a Push<'_>) -> Option<&'a Bytes> {
        let speech = self.0.speech;
        let frame = push.encoded(speech.dialect(), |message, offset| speech.encode(message, offset))?;
        let is_long = text_bytes(frame) as u64 >= self.0.deflate_from.load(Ordering::Relaxed).into();
        Some(if is_long { push.deflated(speech.dialect(), frame, deflated) } else { frame })
    }

    /// Queues a push; `None` if the protocol has no such message.
    fn queue(&self, push: &Push<'_>) -> Result<Option<Queued<'_>>, PushError> {
        let Some(frame) = self.frame(push) else { return Ok(None) };
        let queued = match push.keep {
            Keep::All => self.outbox().queue(frame.clone()),
            Keep::Latest(key) => self.outbox().queue_latest(key, frame.clone()),
            Keep::Volatile(key) => {
                let queued = self.outbox().queue_volatile(key, frame.clone()).map_err(refused)?;
                return queued.map(Some).ok_or(PushError::Dropped);
            }
        };
        queued.map(Some).map_err(refused)
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
        if let Some(queued) = self.queue(push)? {
            queued.wake();
        }
        Ok(())
    }

    fn defer(&self, push: &Push<'_>) -> Result<bool, PushError> {
        Ok(self.queue(push)?.is_some_and(Queued::defer))
    }

    fn defer_all(&self, pushes: &[&Push<'_>]) -> Result<bool, PushError> {
        let frames = pushes.iter().filter_map(|push| self.frame(push)).cloned();
        self.outbox().queue_all(frames).map(Queued::defer).map_err(refused)
    }

    fn flush(&self) {
        self.outbox().flush();
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
        // A client whose queue is full is disconnected without the goodbye.
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
