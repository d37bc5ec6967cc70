//! Read buffers: a connection holds one only while it contains unprocessed bytes, so that idle connections cost next to
//! nothing.
//!
//! Input: a stream and the buffer of its connection. Output: the buffer with the received bytes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

/// Bytes per read.
const CHUNK: usize = 16 * 1024;
/// Buffers kept per thread for reuse. A thread reads one connection at a time, so a few are enough.
const KEPT: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A client's byte stream, plain or decrypted.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Appends received bytes to the buffer; returns 0 at the end of the stream.
pub(super) async fn read(stream: &mut impl Stream, buffer: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        if buffer.capacity() == 0 {
            *buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        buffer.reserve(CHUNK);
        let polled = pin!(stream.read_buf(buffer)).poll(context);
        if polled.is_pending() && buffer.is_empty() {
            give_back(std::mem::take(buffer));
        }
        polled
    })
    .await
}

/// Keeps an empty buffer for reuse, unless a large command has grown it.
fn give_back(buffer: BytesMut) {
    if buffer.capacity() <= 2 * CHUNK {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn an_idle_connection_has_no_buffer() {
        let (mut ours, mut theirs) = tokio::io::duplex(1_000_000);
        let mut buffer = BytesMut::new();
        for length in [300_000, 5] {
            theirs.write_all(&vec![b'x'; length]).await.unwrap();
            while buffer.len() < length {
                read(&mut ours, &mut buffer).await.unwrap();
            }
            // An incomplete command stays in the buffer.
            assert!(read(&mut ours, &mut buffer).now_or_never().is_none());
            assert_eq!(buffer.len(), length);
            buffer.clear();
            assert!(read(&mut ours, &mut buffer).now_or_never().is_none());
            assert_eq!(buffer.capacity(), 0);
        }
        let kept: usize = FREE.with_borrow(|free| free.iter().map(BytesMut::capacity).sum());
        assert!((CHUNK..=KEPT * 2 * CHUNK).contains(&kept), "{kept}");
        drop(theirs);
        assert_eq!(read(&mut ours, &mut buffer).await.unwrap(), 0);
    }
}
