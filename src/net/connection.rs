//! [`ConnectionHandle`]: state of one accepted connection; [`MonitoredStream`]: its stream, which fails when the peer neither
//! reads nor sends for too long.
//!
//! Input: accepted streams. Output: the same streams, wrapped. The answer to a websocket handshake is held back here until
//! the first frame, and sent with it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::shared::Writer;
use super::stream::ClientStream;

/// Maximum number of buffers in one vectored write that includes the held bytes, which count as one.
const WITH_HELD: usize = 4;

/// One accepted connection.
pub struct ConnectionHandle {
    peer: SocketAddr,
    since: Instant,
    is_websocket: AtomicBool,
    is_held: AtomicBool,
    has_asked: AtomicBool,
    /// Writes to the stream from outside of its task; unset with TLS.
    writer: OnceLock<Writer>,
    /// Gets the stream once the answer to a websocket handshake is written.
    upgrade: Mutex<Option<oneshot::Sender<ClientStream>>>,
}

impl ConnectionHandle {
    /// Creates the handle of a connection from `peer`.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            since: Instant::now(),
            is_websocket: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            has_asked: AtomicBool::new(false),
            writer: OnceLock::new(),
            upgrade: Mutex::new(None),
        })
    }

    /// Address of the peer: the client, or a proxy in front of this server.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When the connection was accepted.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Marks the connection as a websocket, whose client has to send heartbeats. Its stream follows when the answer to the
    /// handshake is written; an error means that the connection ended before.
    pub(crate) fn upgrade(&self) -> oneshot::Receiver<ClientStream> {
        self.is_websocket.store(true, Ordering::Relaxed);
        let (sender, stream) = oneshot::channel();
        *self.upgrade.lock() = Some(sender);
        stream
    }

    /// Who waits for the stream, if a request has started a websocket.
    pub(crate) fn take_upgrade(&self) -> Option<oneshot::Sender<ClientStream>> {
        self.upgrade.lock().take()
    }

    /// Lets others write to the stream, too.
    pub(crate) fn share(&self, writer: Writer) {
        let _ = self.writer.set(writer);
    }

    /// A handle to write to the stream; `None` with TLS, which encrypts what is written.
    pub(crate) fn writer(&self) -> Option<Writer> {
        self.writer.get().cloned()
    }

    /// Holds back the next write, the answer to a handshake, until the first frame follows it a moment later. Both then take a
    /// single system call and packet.
    pub fn hold_answer(&self) {
        self.is_held.store(true, Ordering::Relaxed);
    }

    /// Notes that a request has arrived.
    pub fn asked(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// Whether a request has arrived.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }
}

/// The peer address of a request's connection, for the few routes that need it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub SocketAddr);

/// A stream that fails when its peer neither reads nor sends for too long.
pub(crate) struct MonitoredStream<S> {
    stream: S,
    handle: Arc<ConnectionHandle>,
    patience: Duration,
    last_sign: Instant,
    /// Bytes held back for the next write.
    held: Vec<u8>,
    /// Set while a write is waiting.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> MonitoredStream<S> {
    /// Wraps a stream. A write may wait for `patience` while the peer sends nothing.
    #[must_use]
    pub(crate) fn new(stream: S, handle: Arc<ConnectionHandle>, patience: Duration) -> Self {
        Self { stream, handle, patience, last_sign: Instant::now(), held: Vec::new(), deadline: None }
    }

    /// The inner stream.
    pub(crate) const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Checks the result of a write, and fails if it has been waiting for too long.
    fn wrote(&mut self, outcome: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(_)) => {
                self.deadline = None;
                outcome
            }
            Poll::Ready(Err(_)) => outcome,
            Poll::Pending => self.stalled(cx).map(Err),
        }
    }

    /// Writes the held bytes and the buffers that follow.
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

    /// Ready with an error once a write has been waiting for too long.
    ///
    /// A websocket client must send something in that time: otherwise one that reads a byte now and then would keep its session
    /// indefinitely. An HTTP client sends nothing while it reads a response, so there reading is enough.
    fn stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.deadline.is_none() && !self.handle.is_websocket.load(Ordering::Relaxed) {
            self.last_sign = Instant::now();
        }
        let due = self.last_sign + self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if deadline.deadline() != due {
            deadline.as_mut().reset(due);
        }
        deadline.as_mut().poll(cx).map(|()| io::Error::new(io::ErrorKind::TimedOut, "the peer has stopped reading"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.last_sign = Instant::now();
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
            // TLS buffers what the kernel does not accept, so its stall shows here.
            Poll::Pending => self.stalled(cx).map(Err),
            outcome @ Poll::Ready(_) => {
                self.deadline = None;
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
    async fn a_write_waits_for_as_long_as_the_peer_sends() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
        let _stream = handle.upgrade();
        let (mut reader, mut writer) = tokio::io::split(MonitoredStream::new(ours, handle.clone(), SHORT));
        let reading = tokio::spawn(async move { while reader.read_u8().await.is_ok() {} });
        let started = Instant::now();
        let write = tokio::spawn(async move { writer.write_all(&[0; 64]).await });
        for _ in 0..4 {
            tokio::time::sleep(SHORT / 2).await;
            theirs.write_u8(1).await.unwrap();
        }
        // A websocket client must send heartbeats; reading alone does not keep it alive.
        tokio::time::sleep(SHORT / 2).await;
        theirs.read_u8().await.unwrap();
        assert_eq!(write.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 3 * SHORT.as_secs());
        reading.abort();
    }

    #[tokio::test]
    async fn the_answer_to_a_handshake_is_sent_with_the_first_frame() {
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
