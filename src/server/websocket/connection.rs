//! [`Connection`]: one websocket from its handshake to its end, in one task.
//!
//! Input: the upgraded stream, and the frames that wait for the client. Output: messages for the [`Session`], frames
//! on the wire, many in one system call where many wait.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use engineioxide_core::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{Role, WebSocketContext};
use tungstenite::{Error, Message};

use super::Shared;
use super::heartbeat::{Beat, Heartbeat};
use super::session::{PING_TIMEOUT, Reason, SERVER_LEFT, Session, TRANSPORT_CLOSE, TRANSPORT_ERROR};
use crate::egress::WebSocket;
use crate::egress::websocket::{Batch, End};

/// Time for a client of Engine.IO 4 to say CONNECT, as in socket.io.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

/// Time for a client to close the connection after it was told to go.
const FAREWELL: Duration = Duration::from_secs(10);

/// Frames that one system call writes.
const GATHERED: usize = 64;

/// CLOSE with the code 1001, going away.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];

/// One websocket.
pub(super) struct Connection<S> {
    stream: S,
    reader: WebSocketContext,
    client: WebSocket,
    batch: Batch,
    /// Whether the stream keeps nothing of what was written to it.
    is_flushed: bool,
    session: Session,
    heartbeat: Heartbeat,
    /// When the client has to have said CONNECT, or to be gone.
    deadline: Option<Instant>,
    /// The end of the server, for a client that the hub does not know: nobody else can tell it to go.
    closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, client: WebSocket, protocol: ProtocolVersion, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            stream,
            reader: WebSocketContext::new(Role::Server, Some(shared.protocol)),
            batch: Batch::default(),
            is_flushed: true,
            heartbeat: Heartbeat::new(protocol, shared.interval, shared.timeout, now),
            deadline: Some(now + CONNECT_TIMEOUT),
            closing: None,
            session: Session::new(client.clone(), protocol, shared),
            client,
        }
    }

    /// Serves the client to its end.
    pub(super) async fn run(mut self) {
        let opened = self.session.open();
        self.look_at_session();
        let reason = match opened {
            Ok(()) => {
                let clock = tokio::time::sleep_until(self.due());
                tokio::pin!(clock);
                poll_fn(|cx| self.poll(clock.as_mut(), cx)).await
            }
            Err(reason) => reason,
        };
        self.session.leave(reason);
    }

    fn due(&self) -> Instant {
        self.deadline.map_or(self.heartbeat.due(), |deadline| deadline.min(self.heartbeat.due()))
    }

    /// Nothing is waited for once the client has said CONNECT.
    fn look_at_session(&mut self) {
        if self.session.is_connected() {
            (self.deadline, self.closing) = (None, None);
        }
    }

    /// Whether the server ends and this client has to hear it here.
    fn is_closing(&mut self, cx: &mut Context<'_>) -> bool {
        if self.session.is_connected() {
            return false;
        }
        let closing = self.closing.get_or_insert_with(|| Box::pin(self.session.closing().cancelled_owned()));
        closing.as_mut().poll(cx).is_ready()
    }

    fn poll(&mut self, mut clock: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Reason> {
        if let Err(reason) = self.receive(cx) {
            // An answer to CLOSE may wait, and goes out if it can.
            let _ = self.poll_send(cx);
            return Poll::Ready(reason);
        }
        if let Poll::Ready(reason) = self.poll_send(cx) {
            return Poll::Ready(reason);
        }
        if self.is_closing(cx) {
            return Poll::Ready(TRANSPORT_CLOSE);
        }
        loop {
            // A clock that is early costs less than one that is set with every message.
            let due = self.due();
            if due < clock.deadline() || clock.is_elapsed() {
                clock.as_mut().reset(due);
            }
            ready!(clock.as_mut().poll(cx));
            if let Err(reason) = self.beat() {
                return Poll::Ready(reason);
            }
        }
    }

    fn beat(&mut self) -> Result<(), Reason> {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(TRANSPORT_CLOSE);
        }
        match self.heartbeat.beat(now) {
            Beat::Wait => Ok(()),
            Beat::Ask => self.session.ping(),
            Beat::Dead => Err(PING_TIMEOUT),
        }
    }

    /// Takes all messages that are there.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        loop {
            let mut pipe = Pipe { stream: &mut self.stream, client: &self.client, cx };
            match self.reader.read(&mut pipe) {
                Ok(Message::Text(text)) => self.session.text(&text)?,
                Ok(Message::Binary(data)) => self.session.binary(data)?,
                // CLOSE is answered by the next read, which then says that it is over.
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(Error::ConnectionClosed | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return Err(TRANSPORT_CLOSE),
                Err(Error::Capacity(_)) => return Err(self.session.too_large()),
                Err(_) => return Err(TRANSPORT_ERROR),
            }
            self.heartbeat.heard(Instant::now());
            self.look_at_session();
        }
    }

    /// Writes what waits. Ends only with the connection.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        loop {
            match self.client.poll_batch(&mut self.batch, cx) {
                Poll::Pending => return self.poll_flush(cx),
                Poll::Ready(Ok(())) => match ready!(self.poll_write(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(TRANSPORT_ERROR),
                    Ok(bytes) => {
                        self.batch.written(bytes);
                        self.is_flushed = false;
                    }
                },
                Poll::Ready(Err(End::Now)) => {
                    if !self.batch.is_begun {
                        let _ = Pin::new(&mut self.stream).poll_write(cx, &GOING_AWAY);
                    }
                    return Poll::Ready(TRANSPORT_CLOSE);
                }
                Poll::Ready(Err(End::Flushed)) => {
                    // It has been told to go, and closes the connection by itself.
                    self.session.leave(SERVER_LEFT);
                    self.deadline.get_or_insert_with(|| Instant::now() + FAREWELL);
                    return self.poll_flush(cx);
                }
            }
        }
    }

    /// TLS takes more than the kernel does, and keeps the rest until it is asked for it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        if !self.is_flushed {
            match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                Ok(()) => self.is_flushed = true,
                Err(_) => return Poll::Ready(TRANSPORT_ERROR),
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

/// The stream as the library wants it: it reads from the wire, and what it writes (answers to PING and CLOSE) goes
/// into the client's queue, where it cannot come between the parts of a frame.
struct Pipe<'a, 'b, S> {
    stream: &'a mut S,
    client: &'a WebSocket,
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
        match self.client.send(Bytes::copy_from_slice(frame)) {
            Ok(()) => Ok(frame.len()),
            Err(_) => Err(io::Error::other("the client does not take its answers")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
