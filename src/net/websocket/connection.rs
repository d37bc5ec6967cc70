//! [`Connection`]: one websocket from its handshake to its end, in one task.
//!
//! Input: the upgraded stream, and frames queued for the client. Output: messages for the [`Protocol`], frames on the wire;
//! many queued frames share one system call.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::outbox::{Batch, End, GATHERED, Outbox, SendError, gathered};
use super::reader::{Message, Reader, Violation};
use crate::event::CloseReason;
use crate::net::shared::Writer;

/// Bytes per read, into a buffer on the stack, so that idle clients hold no read buffer.
const READ_BYTES: usize = 8 * 1024;

/// Clocks of all connections go off together, this often: a wake-up per connection would cost more than the heartbeat itself. A
/// second is a multiple of it.
const TICK: Duration = Duration::from_millis(50);

/// First bytes of final frames.
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

/// Browsers close with this code when a tab is closed, or a page reloaded or left.
const GOING_AWAY: u16 = 1001;

/// The protocol that runs on a websocket.
///
/// All calls come from the connection's task, in the order of events on the wire. What has a default may be ignored by a protocol
/// that only says something and closes.
pub(crate) trait Protocol: Send {
    /// Frames queued for the client. A message may switch to another outbox.
    fn outbox(&self) -> &Outbox;

    /// Compression was agreed on, for texts of at least `least` bytes. Called before all other methods.
    fn deflates(&mut self, _least: u32) {}

    /// The websocket is open: queues the server's first frames.
    ///
    /// # Errors
    /// Why the connection ends.
    fn open(&mut self) -> Result<(), CloseReason>;

    /// Handles a text message.
    ///
    /// # Errors
    /// Why the connection ends.
    fn text(&mut self, _text: &str) -> Result<(), CloseReason> {
        Ok(())
    }

    /// Handles a binary message.
    ///
    /// # Errors
    /// Why the connection ends.
    fn binary(&mut self, _data: Bytes) -> Result<(), CloseReason> {
        Ok(())
    }

    /// The client has sent something, possibly only a control frame.
    fn heard(&mut self, _now: Instant) {}

    /// A message was too large, or compressed messages expand too much; the connection ends.
    fn too_large(&mut self) {}

    /// When to call [`Self::beat`] next, at the earliest.
    fn due(&self) -> Instant;

    /// The time of [`Self::due`] has come.
    ///
    /// # Errors
    /// Why the connection ends.
    fn beat(&mut self, now: Instant) -> Result<(), CloseReason>;

    /// All frames are written after [`End::Flushed`]; the client is expected to close the connection.
    fn flushed(&mut self, _now: Instant) {}

    /// Ends the connection when cancelled, for a client that the hub does not know and so cannot end.
    fn closing(&self) -> Option<CancellationToken>;

    /// The last frame of a connection that ends by [`End::Now`]; most protocols send none.
    fn farewell(&self) -> Option<Bytes> {
        None
    }

    /// The connection is over.
    fn ended(&mut self, _reason: CloseReason) {}
}

/// One websocket.
pub(crate) struct Connection<S, P> {
    stream: S,
    reader: Reader,
    protocol: P,
    /// Lets others write to the stream, unless it is encrypted.
    writer: Option<Writer>,
    batch: Batch,
    /// Whether the stream has no buffered output left.
    is_flushed: bool,
    /// Server shutdown, for a client that the hub does not know.
    closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin, P: Protocol> Connection<S, P> {
    /// A websocket after its handshake. A message may have up to `max_message_bytes`; `inflates`: compressed ones were agreed
    /// on. `writer` lets others write to `stream`.
    pub(crate) fn new(stream: S, writer: Option<Writer>, protocol: P, max_message_bytes: usize, inflates: bool) -> Self {
        let reader = Reader::new(max_message_bytes, inflates);
        Self { stream, reader, protocol, writer, batch: Batch::default(), is_flushed: true, closing: None }
    }

    /// Serves the client until the connection ends.
    // An async function would hold the connection twice: as its argument and as its local variable.
    #[expect(clippy::manual_async_fn, reason = "every idle connection would pay for the second copy")]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> {
        async move {
            let reason = match self.protocol.open() {
                Ok(()) => {
                    let clock = tokio::time::sleep_until(tick_after(self.protocol.due()));
                    tokio::pin!(clock);
                    poll_fn(|cx| self.poll(clock.as_mut(), cx)).await
                }
                Err(reason) => reason,
            };
            self.protocol.ended(reason);
        }
    }

    /// Whether the server is shutting down and has to end this client here.
    fn is_closing(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(token) = self.protocol.closing() else {
            self.closing = None;
            return false;
        };
        let closing = self.closing.get_or_insert_with(|| Box::pin(token.cancelled_owned()));
        closing.as_mut().poll(cx).is_ready()
    }

    fn poll(&mut self, mut clock: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.protocol.outbox().attend();
        if let Err(ending) = self.receive(cx) {
            if matches!(ending, Ending::Broken(Violation::TooLarge | Violation::TooMuch)) {
                self.protocol.too_large();
            }
            if self.poll_send(cx).is_pending() {
                match ending {
                    Ending::Said(_) => {}
                    Ending::Closed(code) => self.send_close(code, cx),
                    Ending::Broken(violation) => self.send_close(Some(violation.code()), cx),
                }
            }
            return Poll::Ready(match ending {
                Ending::Said(reason) => reason,
                Ending::Closed(Some(GOING_AWAY)) => CloseReason::PageLeft,
                Ending::Closed(_) => CloseReason::TransportClose,
                Ending::Broken(_) => CloseReason::TransportError,
            });
        }
        loop {
            if let Poll::Ready(reason) = self.poll_send(cx) {
                return Poll::Ready(reason);
            }
            if self.is_closing(cx) {
                return Poll::Ready(CloseReason::TransportClose);
            }
            // At most once a tick, however often the client sends something.
            let due = tick_after(self.protocol.due());
            if due != clock.deadline() {
                clock.as_mut().reset(due);
            }
            ready!(clock.as_mut().poll(cx));
            self.protocol.outbox().attend();
            if let Err(reason) = self.protocol.beat(Instant::now()) {
                return Poll::Ready(reason);
            }
        }
    }

    /// Handles the messages that have arrived; if they are many, the rest of them in the task's next turn.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        loop {
            let mut arrived = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.stream).poll_read(cx, &mut arrived) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if arrived.filled().is_empty() => return Err(Ending::Said(CloseReason::TransportClose)),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Ending::Said(CloseReason::TransportError)),
            }
            let protocol = &mut self.protocol;
            self.reader.take(arrived.filled_mut(), |message| {
                match message {
                    Message::Text(text) => protocol.text(text)?,
                    Message::Binary(data) => protocol.binary(Bytes::copy_from_slice(data))?,
                    // Answers are queued, so that they do not come between the parts of a frame.
                    Message::Ping(data) => protocol.outbox().send(control_frame(PONG, data))?,
                    Message::Pong => {}
                    Message::Close(code) => return Err(Ending::Closed(code)),
                }
                protocol.heard(Instant::now());
                Ok(())
            })?;
            // What a client sends without pause keeps neither its own answers nor other clients waiting.
            if arrived.remaining() == 0 {
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
    }

    /// Sends CLOSE as the last frame, if the stream takes it now.
    fn send_close(&mut self, code: Option<u16>, cx: &mut Context<'_>) {
        let outbox = self.protocol.outbox();
        // Others write to the stream, too: nothing may follow CLOSE, and it may not come between the parts of a frame.
        outbox.end(End::Now);
        let _ = outbox.poll_batch(&mut self.batch, None, cx);
        if !self.batch.is_begun {
            let code = code.map(u16::to_be_bytes);
            let _ = Pin::new(&mut self.stream).poll_write(cx, &control_frame(CLOSE, code.as_ref().map_or(&[], |code| code)));
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
    }

    /// Writes queued frames. Ready only when the connection ends.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            match self.protocol.outbox().poll_batch(&mut self.batch, self.writer.as_ref(), cx) {
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

    /// TLS accepts more than the kernel does, and keeps the rest until it is flushed.
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
        stream.poll_write_vectored(cx, gathered(frames, &mut [IoSlice::new(&[]); GATHERED]))
    }
}

/// Why reading stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Said(CloseReason),
    /// The client has sent CLOSE with this code.
    Closed(Option<u16>),
    Broken(Violation),
}

impl From<CloseReason> for Ending {
    fn from(reason: CloseReason) -> Self {
        Self::Said(reason)
    }
}

impl From<SendError> for Ending {
    fn from(error: SendError) -> Self {
        Self::Said(error.into())
    }
}

impl From<Violation> for Ending {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

/// The first tick at `time` or after it.
fn tick_after(time: Instant) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let (since, tick) = (time.saturating_duration_since(*START).subsec_nanos(), TICK.subsec_nanos());
    time + Duration::from_nanos(u64::from(since.next_multiple_of(tick) - since))
}

/// A frame of at most 125 bytes.
fn control_frame(head: u8, payload: &[u8]) -> Bytes {
    [&[head, payload.len() as u8], payload].concat().into()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::{Limits, text_frame};
    use super::*;

    #[test]
    fn clocks_go_off_together_and_never_early() {
        let start = tick_after(Instant::now() + TICK);
        assert_eq!(tick_after(start), start);
        for time in (1..5_000).map(|milliseconds| start + Duration::from_millis(milliseconds)) {
            let tick = tick_after(time);
            assert!(tick >= time && tick - time < TICK);
            assert_eq!((tick - start).as_nanos() % TICK.as_nanos(), 0);
        }
    }

    /// Gets an event whenever its outbox is looked at, as if others sent them at the worst moments.
    struct Busy {
        outbox: Outbox,
        events: Cell<usize>,
    }

    impl Protocol for Busy {
        fn outbox(&self) -> &Outbox {
            if let Some(left) = self.events.get().checked_sub(1) {
                self.events.set(left);
                let _ = self.outbox.send(text_frame(1, |text| text.push(b'x')));
            }
            &self.outbox
        }

        fn open(&mut self) -> Result<(), CloseReason> {
            Ok(())
        }

        fn due(&self) -> Instant {
            Instant::now() + std::time::Duration::from_secs(3600)
        }

        fn beat(&mut self, _: Instant) -> Result<(), CloseReason> {
            Ok(())
        }

        fn closing(&self) -> Option<CancellationToken> {
            None
        }
    }

    #[tokio::test]
    async fn a_client_that_sends_without_pause_takes_turns_with_others() {
        let (ours, mut theirs) = tokio::io::duplex(1024 * 1024);
        // Pings, masked with zeros, more than answers fit in the outbox.
        theirs.write_all(&b"\x89\x80\0\0\0\0".repeat(50_000)).await.unwrap();
        let outbox = Outbox::new(Limits { frames: 5_000, bytes: 100_000 });
        let connection = Connection::new(ours, None, Busy { outbox, events: Cell::new(0) }, 100, false);
        let serving = tokio::spawn(connection.run());
        let mut pongs = 0;
        while pongs < 50_000 {
            tokio::task::yield_now().await;
            let mut heard = [0; 2 * 5_000];
            let bytes = theirs.read(&mut heard).await.unwrap();
            assert!(bytes > 0, "the connection ended after {pongs} answers");
            pongs += bytes / 2;
        }
        serving.abort();
    }

    #[tokio::test]
    async fn nothing_follows_close() {
        // CLOSE with code 1001, masked with zeros; a frame that is not masked.
        for (sent, close) in [(&b"\x88\x82\0\0\0\0\x03\xe9"[..], &b"\x88\x02\x03\xe9"[..]), (b"\x81\x01x", b"\x88\x02\x03\xea")] {
            for events in 0..6 {
                let (ours, mut theirs) = tokio::io::duplex(4096);
                let outbox = Outbox::new(Limits { frames: 100, bytes: 1000 });
                let busy = Busy { outbox, events: Cell::new(events) };
                theirs.write_all(sent).await.unwrap();
                Connection::new(ours, None, busy, 100, false).run().await;
                let mut heard = Vec::new();
                theirs.read_to_end(&mut heard).await.unwrap();
                let before = heard.strip_suffix(close).unwrap_or_else(|| panic!("{heard:?} ends with CLOSE"));
                assert!(before.chunks(3).all(|frame| frame == b"\x81\x01x"), "{heard:?}");
            }
        }
    }
}
