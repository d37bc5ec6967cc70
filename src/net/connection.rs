//! [`ConnectionHandle`]: what is known of one accepted connection, and [`MonitoredStream`], which ends when its peer neither
//! reads nor sends for too long.
//!
//! Input: accepted streams. Output: the same streams, wrapped. The answer to a websocket's handshake waits here for the
//! first frame, and leaves with it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::answer::{Answered, Waiting};

/// Buffers that leave in one system call with what was held, itself included.
const WITH_HELD: usize = 4;

/// One accepted connection.
#[derive(Debug)]
pub struct ConnectionHandle {
    peer: SocketAddr,
    since: Instant,
    is_websocket: AtomicBool,
    is_held: AtomicBool,
    /// A write waits for the peer.
    is_blocked: AtomicBool,
    has_asked: AtomicBool,
    /// The poll that waits for its answer.
    waiting: Mutex<Option<Waiting>>,
    /// The first byte that came, plus [`A_BYTE`]; 0 before it.
    first_byte: AtomicU16,
}

/// Tells a byte from none.
const A_BYTE: u16 = 0x100;

impl ConnectionHandle {
    /// A connection from `peer`.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            since: Instant::now(),
            is_websocket: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            has_asked: AtomicBool::new(false),
            waiting: Mutex::new(None),
            first_byte: AtomicU16::new(0),
        })
    }

    /// Address of the peer: the client, or a proxy before it.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When it began.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// From now on this is a websocket, whose client has to send heartbeats.
    pub fn upgraded(&self) {
        self.is_websocket.store(true, Ordering::Relaxed);
    }

    /// The next write, which answers a handshake, is to wait for the one after it, which comes at once: a system call and
    /// a packet for both.
    pub fn hold_answer(&self) {
        self.is_held.store(true, Ordering::Relaxed);
    }

    /// A poll waits for its answer.
    pub fn wait(&self, waiting: Waiting) {
        *self.waiting.lock() = Some(waiting);
    }

    /// Looks whether the answer is there. `Pending` also when the poll was taken away.
    pub fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<Answered> {
        let mut waiting = self.waiting.lock();
        let Some(answer) = &mut *waiting else { return Poll::Pending };
        let answered = ready!(answer.poll(cx));
        *waiting = None;
        Poll::Ready(answered)
    }

    /// Takes the poll that waits, if one does.
    pub fn take_waiting(&self) -> Option<Waiting> {
        self.waiting.lock().take()
    }

    /// Whether a write waits for the peer.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
    }

    /// The first byte that came, if one did.
    #[must_use]
    pub fn first_byte(&self) -> Option<u8> {
        let byte = self.first_byte.load(Ordering::Relaxed);
        (byte >= A_BYTE).then_some((byte - A_BYTE) as u8)
    }

    /// A request has come.
    pub fn asked(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// Whether a request has come yet.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }
}

/// Who is at the other end of a request's connection, for the few routes that have to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub SocketAddr);

/// A stream that ends when its peer neither reads nor sends for too long.
#[derive(Debug)]
pub(crate) struct MonitoredStream<S> {
    stream: S,
    handle: Arc<ConnectionHandle>,
    patience: Duration,
    last_sign: Instant,
    /// What waits for the next write.
    held: Vec<u8>,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> MonitoredStream<S> {
    /// Ties a stream to its handle. A write may wait for `patience` while nothing comes from the peer.
    #[must_use]
    pub(crate) fn new(stream: S, handle: Arc<ConnectionHandle>, patience: Duration) -> Self {
        Self { stream, handle, patience, last_sign: Instant::now(), held: Vec::new(), deadline: None }
    }

    /// Looks at the outcome of a write: whether it has waited for too long.
    fn wrote(&mut self, outcome: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(_)) => {
                self.unblocked();
                outcome
            }
            Poll::Ready(Err(_)) => outcome,
            Poll::Pending => self.stalled(cx).map(Err),
        }
    }

    fn unblocked(&mut self) {
        if self.deadline.take().is_some() {
            self.handle.is_blocked.store(false, Ordering::Relaxed);
        }
    }

    /// Writes what was held, and what comes after it.
    fn poll_write_held(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin,
    {
        let mut slices = [io::IoSlice::new(&[]); WITH_HELD];
        slices[0] = io::IoSlice::new(&self.held);
        for (slice, buf) in slices[1..].iter_mut().zip(bufs) {
            *slice = io::IoSlice::new(buf);
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, &slices);
        self.wrote(outcome, cx)
    }

    /// Ready with an error once a write has waited for too long.
    ///
    /// The client of a websocket has to send something meanwhile: one that reads a byte now and then would otherwise
    /// keep its session for ever. An HTTP client only reads while it takes an answer.
    fn stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.deadline.is_none() && !self.handle.is_websocket.load(Ordering::Relaxed) {
            self.last_sign = Instant::now();
        }
        self.handle.is_blocked.store(true, Ordering::Relaxed);
        let due = self.last_sign + self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if deadline.deadline() != due {
            deadline.as_mut().reset(due);
        }
        deadline.as_mut().poll(cx).map(|()| io::Error::new(io::ErrorKind::TimedOut, "the peer does not read"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.last_sign = Instant::now();
            if self.handle.first_byte.load(Ordering::Relaxed) == 0 {
                self.handle.first_byte.store(A_BYTE + u16::from(buf.filled()[before]), Ordering::Relaxed);
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.handle.is_held.load(Ordering::Relaxed) || !self.held.is_empty() {
            return self.poll_write_vectored(cx, &[io::IoSlice::new(buf)]);
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(outcome, cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.handle.is_held.swap(false, Ordering::Relaxed) {
            let before = self.held.len();
            bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
            return Poll::Ready(Ok(self.held.len() - before));
        }
        while !self.held.is_empty() {
            let count = ready!(self.poll_write_held(cx, bufs))?;
            let of_held = count.min(self.held.len());
            self.held = self.held.split_off(of_held);
            if count > of_held || count == 0 {
                return Poll::Ready(Ok(count - of_held));
            }
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            // TLS keeps what the kernel has not taken yet, and waits here.
            Poll::Pending => self.stalled(cx).map(Err),
            outcome @ Poll::Ready(_) => {
                self.unblocked();
                outcome
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self.stalled(cx).map(Err),
            outcome @ Poll::Ready(_) => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_secs(45);

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_as_long_as_the_peer_shows_signs() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
        handle.upgraded();
        let (mut reader, mut writer) = tokio::io::split(MonitoredStream::new(ours, handle.clone(), SHORT));
        let reading = tokio::spawn(async move { while reader.read_u8().await.is_ok() {} });
        let started = Instant::now();
        let write = tokio::spawn(async move { writer.write_all(&[0; 64]).await });
        for _ in 0..4 {
            tokio::time::sleep(SHORT / 2).await;
            theirs.write_u8(1).await.unwrap();
        }
        // Reading alone is no sign of a client that has to answer heartbeats.
        tokio::time::sleep(SHORT / 2).await;
        theirs.read_u8().await.unwrap();
        assert_eq!(write.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 3 * SHORT.as_secs());
        reading.abort();
    }

    #[tokio::test]
    async fn the_answer_to_a_handshake_leaves_with_the_first_frame() {
        for room in [1, 5, 6, 7, 100] {
            let (ours, mut theirs) = tokio::io::duplex(room);
            let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
            let mut stream = MonitoredStream::new(ours, handle.clone(), LONG);
            handle.hold_answer();
            stream.write_all(b"answer").await.unwrap();
            stream.flush().await.unwrap();
            let write = tokio::spawn(async move {
                stream.write_all(b"first").await.unwrap();
                let frames = [b"sec".as_slice(), b"ond"].map(io::IoSlice::new);
                stream.write_vectored(&frames).await.unwrap()
            });
            let mut heard = Vec::new();
            while heard.len() < b"answerfirst".len() {
                theirs.read_buf(&mut heard).await.unwrap();
            }
            let second = write.await.unwrap();
            theirs.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"answerfirstsecond"[..11 + second]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_http_client_may_read_slowly() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
        let mut stream = MonitoredStream::new(ours, handle, SHORT);
        let write = tokio::spawn(async move { stream.write_all(&[0; 24]).await });
        for _ in 0..16 {
            tokio::time::sleep(SHORT / 2).await;
            theirs.read_u8().await.unwrap();
        }
        write.await.unwrap().unwrap();
    }
}
