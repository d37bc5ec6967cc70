//! [`Connection`]: one websocket from its handshake to its end, in one task.
//!
//! Input: the upgraded stream, and the frames that wait for the client. Output: messages for the [`Protocol`], frames on
//! the wire, many in one system call where many wait.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::outbox::{Batch, End, Outbox};
use crate::event::CloseReason;

/// Frames that one system call writes.
const GATHERED: usize = 64;

/// Read buffer of a websocket in bytes. Clients send little; a larger one is paid for by every idle connection.
const READ_BUFFER_BYTES: usize = 1024;

/// Codes of CLOSE for clients that break the rules of RFC 6455 (7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const TOO_LARGE: u16 = 1009;

/// What is spoken on a websocket.
///
/// All calls come from the connection's one task, in the order of what happens on the wire.
pub(crate) trait Protocol: Send {
    /// What waits for the client. It may be another one after a message.
    fn outbox(&self) -> &Outbox;

    /// The websocket is there: what the server says first.
    ///
    /// # Errors
    /// Why the connection ends.
    fn open(&mut self) -> Result<(), CloseReason>;

    /// Takes a text message.
    ///
    /// # Errors
    /// Why the connection ends.
    fn text(&mut self, text: &str) -> Result<(), CloseReason>;

    /// Takes a binary message.
    ///
    /// # Errors
    /// Why the connection ends.
    fn binary(&mut self, data: Bytes) -> Result<(), CloseReason>;

    /// The client has sent something, if only a control frame.
    fn heard(&mut self, now: Instant);

    /// A message was too large, and the connection ends.
    fn too_large(&mut self);

    /// When [`Self::beat`] has something to do.
    fn due(&self) -> Instant;

    /// The time has come.
    ///
    /// # Errors
    /// Why the connection ends.
    fn beat(&mut self, now: Instant) -> Result<(), CloseReason>;

    /// Everything is written after [`End::Flushed`]; the client closes the connection by itself.
    fn flushed(&mut self, now: Instant);

    /// Ends the connection when it is cancelled, for a client that nobody else can tell to go.
    fn closing(&self) -> Option<CancellationToken>;

    /// The last frame, for a connection that ends by [`End::Now`]; most protocols say nothing.
    fn farewell(&self) -> Option<Bytes> {
        None
    }

    /// The connection is over.
    fn ended(&mut self, reason: CloseReason);
}

/// How tungstenite reads messages of up to `max_message_bytes`.
#[must_use]
pub(crate) fn config(max_message_bytes: u64) -> WebSocketConfig {
    let most = usize::try_from(max_message_bytes).unwrap_or(usize::MAX);
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // What the library writes goes through the client's outbox, a frame at a time.
        .write_buffer_size(0)
        .max_message_size(Some(most))
        .max_frame_size(Some(most))
}

/// One websocket.
pub(crate) struct Connection<S, P> {
    stream: S,
    reader: WebSocketContext,
    protocol: P,
    batch: Batch,
    /// Whether the stream keeps nothing of what was written to it.
    is_flushed: bool,
    /// The client has said that its page is gone.
    is_page_left: bool,
    /// The end of the server, for a client that nobody else can tell to go.
    closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin, P: Protocol> Connection<S, P> {
    /// A websocket whose handshake is done.
    pub(crate) fn new(stream: S, protocol: P, config: WebSocketConfig) -> Self {
        let reader = WebSocketContext::new(Role::Server, Some(config));
        Self { stream, reader, protocol, batch: Batch::default(), is_flushed: true, is_page_left: false, closing: None }
    }

    /// Serves the client to its end.
    pub(crate) async fn run(mut self) {
        let reason = match self.protocol.open() {
            Ok(()) => {
                let clock = tokio::time::sleep_until(self.protocol.due());
                tokio::pin!(clock);
                poll_fn(|cx| self.poll(clock.as_mut(), cx)).await
            }
            Err(reason) => reason,
        };
        self.protocol.ended(reason);
    }

    /// Whether the server ends and this client has to hear it here.
    fn is_closing(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(token) = self.protocol.closing() else {
            self.closing = None;
            return false;
        };
        let closing = self.closing.get_or_insert_with(|| Box::pin(token.cancelled_owned()));
        closing.as_mut().poll(cx).is_ready()
    }

    fn poll(&mut self, mut clock: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if let Err((reason, code)) = self.receive(cx) {
            // An answer to CLOSE may wait, and goes out if it can.
            let _ = self.poll_send(cx);
            if let Some(code) = code.filter(|_| !self.batch.is_begun) {
                let _ = Pin::new(&mut self.stream).poll_write(cx, &close_frame(code));
            }
            return Poll::Ready(reason);
        }
        if let Poll::Ready(reason) = self.poll_send(cx) {
            return Poll::Ready(reason);
        }
        if self.is_closing(cx) {
            return Poll::Ready(CloseReason::TransportClose);
        }
        loop {
            // A clock that is early costs less than one that is set with every message.
            let due = self.protocol.due();
            if due < clock.deadline() || clock.is_elapsed() {
                clock.as_mut().reset(due);
            }
            ready!(clock.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.protocol.due()
                && let Err(reason) = self.protocol.beat(now)
            {
                return Poll::Ready(reason);
            }
        }
    }

    /// Takes all messages that are there. The code is for the CLOSE of a client that broke the rules.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<(), (CloseReason, Option<u16>)> {
        let silent = |reason| (reason, None);
        loop {
            let is_page_left = self.is_page_left;
            let lost = |reason| silent(if is_page_left { CloseReason::PageLeft } else { reason });
            let mut pipe = Pipe { stream: &mut self.stream, outbox: self.protocol.outbox(), cx };
            match self.reader.read(&mut pipe) {
                Ok(Message::Text(text)) => self.protocol.text(&text).map_err(silent)?,
                Ok(Message::Binary(data)) => self.protocol.binary(data).map_err(silent)?,
                // Browsers say so when a tab is closed, a page reloaded or another one opened.
                Ok(Message::Close(Some(close))) => self.is_page_left = close.code == CloseCode::Away,
                // CLOSE is answered by the next read, which then says that it is over.
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(Error::ConnectionClosed | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                    return Err(lost(CloseReason::TransportClose));
                }
                Err(Error::Capacity(_)) => {
                    self.protocol.too_large();
                    return Err((CloseReason::TransportError, Some(TOO_LARGE)));
                }
                Err(Error::Utf8(_)) => return Err((CloseReason::TransportError, Some(NOT_UTF8))),
                Err(Error::Protocol(_)) => return Err((CloseReason::TransportError, Some(PROTOCOL_ERROR))),
                Err(_) => return Err(lost(CloseReason::TransportError)),
            }
            self.protocol.heard(Instant::now());
        }
    }

    /// Writes what waits. Ends only with the connection.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            match self.protocol.outbox().poll_batch(&mut self.batch, cx) {
                Poll::Pending => return self.poll_flush(cx),
                Poll::Ready(Ok(())) => match ready!(self.poll_write(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(CloseReason::TransportError),
                    Ok(bytes) => {
                        self.batch.written(bytes);
                        self.is_flushed = false;
                    }
                },
                Poll::Ready(Err(End::Now)) => {
                    if let Some(farewell) = self.protocol.farewell().filter(|_| !self.batch.is_begun) {
                        let _ = Pin::new(&mut self.stream).poll_write(cx, &farewell);
                        let _ = Pin::new(&mut self.stream).poll_flush(cx);
                    }
                    return Poll::Ready(CloseReason::TransportClose);
                }
                Poll::Ready(Err(End::Flushed)) => {
                    self.protocol.flushed(Instant::now());
                    return self.poll_flush(cx);
                }
            }
        }
    }

    /// TLS takes more than the kernel does, and keeps the rest until it is asked for it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if !self.is_flushed {
            match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                Ok(()) => self.is_flushed = true,
                Err(_) => return Poll::Ready(CloseReason::TransportError),
            }
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let frames = &self.batch.frames;
        if frames.len() == 1 {
            return stream.poll_write(cx, &frames[0]);
        }
        let mut slices = [IoSlice::new(&[]); GATHERED];
        let count = frames.len().min(GATHERED);
        for (slice, frame) in slices.iter_mut().zip(frames) {
            *slice = IoSlice::new(frame);
        }
        stream.poll_write_vectored(cx, &slices[..count])
    }
}

/// CLOSE with a code and no words.
fn close_frame(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x88, 2, high, low]
}

/// The stream as the library wants it: it reads from the wire, and what it writes (answers to PING and CLOSE) goes
/// into the client's outbox, where it cannot come between the parts of a frame.
struct Pipe<'a, 'b, S> {
    stream: &'a mut S,
    outbox: &'a Outbox,
    cx: &'a mut Context<'b>,
}

impl<S: AsyncRead + Unpin> Read for Pipe<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.stream).poll_read(self.cx, &mut buffer) {
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S> Write for Pipe<'_, '_, S> {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        match self.outbox.send(Bytes::copy_from_slice(frame)) {
            Ok(()) => Ok(frame.len()),
            Err(_) => Err(io::Error::other("the client does not take its answers")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
