//! [`Stream`]: the connection to a client, encrypted or not, from its first request to the end of its websocket.
//!
//! Input: accepted TCP and TLS streams. Output: one type for both. A connection without TLS has no box of its own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::{ConnectionHandle, MonitoredStream};
use super::replay::Replay;
use super::shared::SharedStream;

/// The stream of a client: monitored, and able to return bytes that were read too early.
pub(crate) type ClientStream = Replay<MonitoredStream<Stream>>;

/// Any stream of bytes.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// The connection to a client.
pub(crate) enum Stream {
    /// Without TLS.
    Plain(SharedStream),
    /// With TLS.
    Boxed(Box<dyn Io>),
}

impl Stream {
    /// The stream of a client without TLS. `unread` was read too early; the peer may leave a write waiting for `patience` while it
    /// sends nothing. Others can write to it by `handle`.
    pub(crate) fn plain(stream: TcpStream, unread: Vec<u8>, handle: &Arc<ConnectionHandle>, patience: Duration) -> ClientStream {
        let stream = SharedStream::new(stream);
        handle.share(stream.writer());
        Self::Plain(stream).monitored(unread, handle, patience)
    }

    /// The stream of a client.
    pub(crate) fn monitored(self, unread: Vec<u8>, handle: &Arc<ConnectionHandle>, patience: Duration) -> ClientStream {
        Replay::new(unread, 0, MonitoredStream::new(self, Arc::clone(handle), patience))
    }

    /// A stream that is encrypted, or not of TCP.
    pub(crate) fn boxed(stream: impl Io + 'static) -> Self {
        Self::Boxed(Box::new(stream))
    }

    fn inner(&mut self) -> Pin<&mut dyn Io> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Boxed(stream) => Pin::new(stream),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Boxed(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}
