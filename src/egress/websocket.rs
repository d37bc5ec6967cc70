//! [`WebSocket`]: a client that has connected by websocket at once, behind the [`Socket`] trait.
//!
//! Input: frames from the hub, ready for the wire and shared by all receivers. Output: the queue of the client,
//! which its one task (`server::websocket`) empties into the connection.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use engineioxide_core::ProtocolVersion;
use http::HeaderMap;

use super::{EmitError, Frame, Socket};
use crate::config::Limits;
use crate::event::SocketId;
use crate::metrics::ConnectionLabels;

/// Longest head of a frame from a server: opcode, length, eight more bytes of length.
const LONGEST_HEAD: usize = 10;

/// Final text frame.
const TEXT: u8 = 0x81;

/// Socket.IO's DISCONNECT of the default namespace, as a frame: a client that gets it does not come back by itself.
const DISCONNECT: Bytes = Bytes::from_static(b"\x81\x0241");

/// Room for so many frames is kept while nothing waits.
const KEPT: usize = 16;

/// A client connected by websocket.
#[derive(Debug, Clone)]
pub struct WebSocket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: SocketId,
    protocol: ProtocolVersion,
    handshake: HeaderMap,
    peer: IpAddr,
    /// Most frames, and most bytes, that may wait.
    limits: (usize, u64),
    outbox: Mutex<Outbox>,
}

/// What waits for a client.
#[derive(Debug, Default)]
struct Outbox {
    frames: VecDeque<Bytes>,
    /// Frames and bytes not yet written; more than in `frames`, since the task takes them out before it writes them.
    count: usize,
    bytes: u64,
    end: Option<End>,
    /// The client's task.
    task: Option<Waker>,
    /// The task has nothing to write, and wants to know of the next frame.
    is_idle: bool,
}

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At once, whatever waits.
    Now,
    /// When everything is written.
    Flushed,
}

/// Frames that a task has taken out, and what it has to account for.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order in which they are to be written.
    pub frames: VecDeque<Bytes>,
    /// Whether a part of the first one is written.
    pub is_begun: bool,
    /// Frames written since the last call of [`WebSocket::poll_batch`].
    count: usize,
    /// Bytes written since then.
    bytes: u64,
}

impl Batch {
    /// So many bytes of the frames are written.
    pub fn written(&mut self, mut bytes: usize) {
        self.bytes += bytes as u64;
        while let Some(first) = self.frames.front_mut().filter(|_| bytes > 0) {
            if bytes < first.len() {
                first.advance(bytes);
                self.is_begun = true;
                return;
            }
            bytes -= first.len();
            self.count += 1;
            self.is_begun = false;
            self.frames.pop_front();
        }
    }
}

impl WebSocket {
    /// A client that is about to connect.
    #[must_use]
    pub fn new(id: SocketId, protocol: ProtocolVersion, handshake: HeaderMap, peer: IpAddr, limits: &Limits) -> Self {
        let limits = (usize::try_from(limits.client_queue).unwrap_or(usize::MAX), limits.client_queue_bytes.0);
        Self(Arc::new(Inner { id, protocol, handshake, peer, limits, outbox: Mutex::default() }))
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame behind those that wait. A single one always fits, however large.
    ///
    /// # Errors
    /// [`EmitError::Full`] when too many or too large ones wait, [`EmitError::Closed`] after the end.
    pub fn send(&self, frame: Bytes) -> Result<(), EmitError> {
        let mut outbox = self.outbox();
        if outbox.end.is_some() {
            return Err(EmitError::Closed);
        }
        let (most, most_bytes) = self.0.limits;
        let bytes = frame.len() as u64;
        if outbox.count >= most || outbox.count > 0 && outbox.bytes + bytes > most_bytes {
            return Err(EmitError::Full);
        }
        outbox.frames.push_back(frame);
        outbox.count += 1;
        outbox.bytes += bytes;
        let task = if std::mem::take(&mut outbox.is_idle) { outbox.task.clone() } else { None };
        drop(outbox);
        if let Some(task) = task {
            task.wake();
        }
        Ok(())
    }

    fn end(&self, end: End) {
        let mut outbox = self.outbox();
        if outbox.end != Some(End::Now) {
            outbox.end = Some(end);
        }
        if end == End::Now {
            outbox.frames = VecDeque::new();
        }
        let task = outbox.task.clone();
        drop(outbox);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// For the client's task: accounts for what is written, and fills `batch` once it is empty. `Pending` when nothing
    /// waits; an error when the connection is to end.
    ///
    /// # Errors
    /// [`End`], for [`End::Flushed`] when everything is written.
    pub fn poll_batch(&self, batch: &mut Batch, cx: &Context<'_>) -> Poll<Result<(), End>> {
        let mut outbox = self.outbox();
        outbox.count -= std::mem::take(&mut batch.count);
        outbox.bytes -= std::mem::take(&mut batch.bytes);
        if !outbox.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            outbox.task = Some(cx.waker().clone());
        }
        if outbox.end == Some(End::Now) {
            return Poll::Ready(Err(End::Now));
        }
        if !batch.frames.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if batch.frames.capacity() > KEPT {
            batch.frames = VecDeque::new();
        }
        std::mem::swap(&mut outbox.frames, &mut batch.frames);
        if !batch.frames.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = outbox.end {
            return Poll::Ready(Err(end));
        }
        outbox.is_idle = true;
        Poll::Pending
    }

    /// Engine.IO version and transport, for metrics.
    #[must_use]
    pub fn labels(&self) -> ConnectionLabels {
        let engine = match self.0.protocol {
            ProtocolVersion::V3 => "3",
            ProtocolVersion::V4 => "4",
        };
        ConnectionLabels { engine, transport: "websocket" }
    }
}

impl Socket for WebSocket {
    fn id(&self) -> SocketId {
        self.0.id
    }

    fn handshake(&self) -> &HeaderMap {
        &self.0.handshake
    }

    fn peer(&self) -> Option<IpAddr> {
        Some(self.0.peer)
    }

    fn emit(&self, frame: &Frame<'_>) -> Result<(), EmitError> {
        self.send(frame.websocket().clone())
    }

    fn close(&self) {
        self.end(End::Now);
    }

    fn terminate(&self) {
        // A client that does not keep up loses its connection without the word.
        let end = if self.send(DISCONNECT).is_ok() { End::Flushed } else { End::Now };
        self.end(end);
    }
}

/// `42["name","channel",data]`, as a frame.
pub(super) fn event_frame(frame: &Frame<'_>) -> Bytes {
    let size = frame.name.len() + frame.channel.map_or(0, str::len) + frame.data.get().len() + 16;
    text_frame(size, |text| {
        text.extend_from_slice(b"42[");
        push_json(text, frame.name);
        if let Some(channel) = frame.channel {
            text.extend_from_slice(b",");
            push_json(text, channel);
        }
        text.extend_from_slice(b",");
        text.extend_from_slice(frame.data.get().as_bytes());
        text.extend_from_slice(b"]");
    })
}

fn push_json(text: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(text, value).expect("writing text to memory cannot fail");
}

/// A text frame with what `write` appends, some `size` bytes long.
pub fn text_frame(size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    // The head's length depends on the text's, so it is written last, right before the text.
    let mut frame = Vec::with_capacity(LONGEST_HEAD + size);
    frame.resize(LONGEST_HEAD, 0);
    write(&mut frame);
    let length = frame.len() - LONGEST_HEAD;
    let bytes = (length as u64).to_be_bytes();
    let (mark, extended): (u8, &[u8]) = match length {
        0..126 => (bytes[7], &[]),
        126..=0xFFFF => (126, &bytes[6..]),
        _ => (127, &bytes),
    };
    let start = LONGEST_HEAD - 2 - extended.len();
    (frame[start], frame[start + 1]) = (TEXT, mark);
    frame[start + 2..LONGEST_HEAD].copy_from_slice(extended);
    Bytes::from(frame).slice(start..)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use serde_json::value::RawValue;

    use super::*;
    use crate::config::value::ByteSize;

    fn socket(client_queue: u64, client_queue_bytes: u64) -> WebSocket {
        let limits = Limits { client_queue, client_queue_bytes: ByteSize(client_queue_bytes), ..Limits::default() };
        let id = SocketId::parse("AbCd-_0123456789").unwrap();
        WebSocket::new(id, ProtocolVersion::V4, HeaderMap::new(), [127, 0, 0, 1].into(), &limits)
    }

    fn bytes(length: usize) -> Bytes {
        Bytes::from(vec![b'x'; length])
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn frames_are_those_of_the_standard() {
        let data = RawValue::from_string(r#"{"a":"ü"}"#.to_owned()).unwrap();
        let frame = Frame::new("se\"nt", Some("news"), &data);
        let texts = [(frame, r#"42["se\"nt","news",{"a":"ü"}]"#), (Frame::new("a", None, &data), r#"42["a",{"a":"ü"}]"#)];
        for (frame, text) in texts {
            assert_eq!(frame.websocket()[..2], [0x81, u8::try_from(text.len()).unwrap()]);
            assert_eq!(frame.websocket()[2..], *text.as_bytes());
        }
        for (length, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 255, 255]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = text_frame(0, |text| text.resize(text.len() + length, b'x'));
            assert_eq!(&frame[..head.len()], head);
            assert_eq!(frame.len(), head.len() + length);
        }
    }

    #[test]
    fn what_is_taken_but_not_written_still_counts() {
        let socket = socket(3, 100);
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            socket.send(bytes(10)).unwrap();
        }
        assert_eq!(socket.send(bytes(10)), Err(EmitError::Full));
        let mut batch = Batch::default();
        assert_eq!(socket.poll_batch(&mut batch, &cx), Poll::Ready(Ok(())));
        assert_eq!(batch.frames.len(), 3);
        assert_eq!(socket.send(bytes(10)), Err(EmitError::Full));
        batch.written(15);
        assert_eq!(batch.frames.iter().map(Bytes::len).collect::<Vec<_>>(), [5, 10]);
        assert!(batch.is_begun);
        assert_eq!(socket.poll_batch(&mut batch, &cx), Poll::Ready(Ok(())));
        socket.send(bytes(10)).unwrap();
        assert_eq!(socket.send(bytes(1)), Err(EmitError::Full));
    }

    #[test]
    fn bytes_are_limited_too_but_a_single_frame_always_fits() {
        let socket = socket(1000, 100);
        socket.send(bytes(1_000)).unwrap();
        assert_eq!(socket.send(bytes(1)), Err(EmitError::Full));
    }

    #[test]
    fn an_idle_task_is_woken_once_for_many_frames() {
        let socket = socket(1000, 1000);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut batch = Batch::default();
        assert_eq!(socket.poll_batch(&mut batch, &Context::from_waker(&waker)), Poll::Pending);
        socket.send(bytes(1)).unwrap();
        socket.send(bytes(1)).unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn terminated_clients_are_told_and_closed_ones_are_not() {
        let cx = Context::from_waker(Waker::noop());
        let socket = socket(1000, 1000);
        socket.send(bytes(1)).unwrap();
        socket.terminate();
        assert_eq!(socket.send(bytes(1)), Err(EmitError::Closed));
        let mut batch = Batch::default();
        assert_eq!(socket.poll_batch(&mut batch, &cx), Poll::Ready(Ok(())));
        assert_eq!(batch.frames.pop_back(), Some(DISCONNECT));
        batch.frames.clear();
        assert_eq!(socket.poll_batch(&mut batch, &cx), Poll::Ready(Err(End::Flushed)));
        socket.close();
        assert_eq!(socket.poll_batch(&mut batch, &cx), Poll::Ready(Err(End::Now)));
    }
}
