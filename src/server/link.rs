//! [`Link`]: the TCP connection under a client, which can be cut from elsewhere.
//!
//! Input: accepted streams. Output: the same streams, wrapped. Neither hyper nor the Socket.IO engine lets one end a
//! connection whose writer is stuck on a peer that does not read; cutting it here ends both of its halves at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One accepted connection.
#[derive(Debug)]
pub struct Link {
    /// Address of the peer: the client, or a proxy before it.
    pub peer: SocketAddr,
    is_cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Link {
    /// A connection from `peer`.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self { peer, is_cut: AtomicBool::new(false), reader: AtomicWaker::new(), writer: AtomicWaker::new() })
    }

    /// Makes every read and write fail from now on, those that wait included.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    /// Fails when the connection is cut; otherwise remembers whom to wake when it will be.
    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        waker.register(cx.waker());
        if self.is_cut.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the server"));
        }
        Ok(())
    }
}

/// A stream that ends when its [`Link`] is cut.
#[derive(Debug)]
pub struct LinkedStream<S> {
    stream: S,
    link: Arc<Link>,
}

impl<S> LinkedStream<S> {
    /// Ties a stream to its link.
    #[must_use]
    pub fn new(stream: S, link: Arc<Link>) -> Self {
        Self { stream, link }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LinkedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.link.check(&self.link.reader, cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LinkedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.link.check(&self.link.writer, cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.link.check(&self.link.writer, cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.check(&self.link.writer, cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn cutting_ends_a_read_and_a_write_that_wait() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let link = Link::new(([127, 0, 0, 1], 1).into());
        let (mut reader, mut writer) = tokio::io::split(LinkedStream::new(ours, link.clone()));
        let read = tokio::spawn(async move { reader.read_u8().await });
        let write = tokio::spawn(async move { writer.write_all(&[0; 64]).await });
        tokio::task::yield_now().await;
        link.cut();
        assert_eq!(read.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(write.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
