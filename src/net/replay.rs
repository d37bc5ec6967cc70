//! [`Replay`]: a stream that can return bytes once more.
//!
//! Input: a stream, and bytes already read from it. Output: these bytes, then the rest of the stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose first bytes have already been read.
#[derive(Debug)]
pub(crate) struct Replay<S> {
    bytes: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S> Replay<S> {
    /// Returns `bytes` from index `at` on, then the rest of the stream.
    #[must_use]
    pub(crate) const fn new(bytes: Vec<u8>, at: usize, stream: S) -> Self {
        Self { bytes, at, stream }
    }

    /// The inner stream.
    pub(crate) const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Returns `bytes` once more before the rest of the stream.
    #[must_use]
    pub(crate) fn again(self, bytes: &[u8]) -> Self {
        let (stream, rest) = self.into_parts();
        Self::new([bytes, &rest].concat(), 0, stream)
    }

    /// The inner stream, and the bytes not returned yet.
    #[must_use]
    pub(crate) fn into_parts(mut self) -> (S, Vec<u8>) {
        self.bytes.drain(..self.at);
        (self.stream, self.bytes)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let rest = &self.bytes[self.at..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.at += count;
        if self.at == self.bytes.len() {
            (self.bytes, self.at) = (Vec::new(), 0);
            // Nothing left to replay: returning no bytes would mean end of stream.
            if count == 0 {
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
