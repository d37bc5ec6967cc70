//! [`SharedStream`]: a TCP stream to which others than its owner can write.
//!
//! Input: an accepted stream. Output: the same stream, and [`Writer`] handles to it, which stop working when it is dropped.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Writes to a stream without waiting, as long as its owner keeps it open.
pub(crate) type Writer = Weak<OwnedWriteHalf>;

/// A TCP stream with [`Writer`]s.
#[derive(Debug)]
pub(crate) struct SharedStream {
    read: OwnedReadHalf,
    /// `None` only while it is dropped.
    write: Option<Arc<OwnedWriteHalf>>,
}

impl SharedStream {
    /// Shares a stream.
    #[must_use]
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Self { read, write: Some(Arc::new(write)) }
    }

    /// A handle for others.
    #[must_use]
    pub(crate) fn writer(&self) -> Writer {
        self.write.as_ref().map_or_else(Weak::new, Arc::downgrade)
    }

    /// The stream itself.
    pub(crate) fn tcp(&self) -> &TcpStream {
        self.read.as_ref()
    }

    /// Writes at once if the socket takes it, also before the runtime has learnt that it is ready: a stream that it does not watch for
    /// long would have to wait for that.
    fn poll_io(&self, cx: &mut Context<'_>, write: impl Fn(SockRef<'_>) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        let write = || write(SockRef::from(self.tcp()));
        let mut outcome = write();
        while outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            ready!(self.tcp().poll_write_ready(cx))?;
            outcome = self.tcp().try_io(Interest::WRITABLE, write);
        }
        Poll::Ready(outcome)
    }
}

impl Drop for SharedStream {
    fn drop(&mut self) {
        // Skips the shutdown of the write half, a system call: the stream is closed right after it.
        if let Some(write) = self.write.take().and_then(Arc::into_inner) {
            write.forget();
        }
    }
}

impl AsyncRead for SharedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(cx, |socket| socket.send(buf))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_io(cx, |socket| socket.send_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self.tcp()).shutdown(Shutdown::Write))
    }
}
