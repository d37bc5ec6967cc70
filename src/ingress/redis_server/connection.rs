//! [`Connection`]: one Redis client, from its first byte to its last.
//!
//! Input: a client's bytes. Output: commands for [`super::commands`], and replies in order. Replies are written before
//! more is read, so a client that does not read its replies is not read from, either.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::buffers::Stream;
use super::frame::{FrameError, Framer};
use super::reply::{Protocol, Reply};
use super::{LARGEST_AT_ONCE, Shared, buffers};
use crate::hub::Socket;

/// How long a client may take to complete a command, and to send the password if one is required.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to read its replies.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Replies are collected up to this size before they are written.
const BATCH: usize = 64 * 1024;
/// Capacity of the reply buffer that a connection keeps.
const KEPT: usize = 1024;
/// Largest command before authentication.
const STRANGERS_LIMIT: usize = 16 * 1024;

/// What to do after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Close,
}

/// One client.
pub(super) struct Connection<S> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) id: usize,
    pub(super) name: bytes::Bytes,
    pub(super) protocol: Protocol,
    pub(super) is_allowed: bool,
    pub(super) framer: Framer,
    out: BytesMut,
    /// Bytes of the incomplete command, as counted in [`Shared::pending`].
    counted: usize,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no TLS handshake")]
    NoHandshake,
    #[error("incomplete command: no more data within {COMMAND_TIMEOUT:?}")]
    HalfACommand,
    #[error("the client does not read its replies")]
    NotReading,
    #[error("incomplete commands of all clients together take too much memory")]
    TooMuch,
}

enum Event {
    Read(usize),
    Stop,
}

impl<S: Socket> Connection<S> {
    pub(super) fn new(shared: Arc<Shared<S>>) -> Self {
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let is_allowed = shared.access.is_open();
        Self {
            shared,
            id,
            name: bytes::Bytes::new(),
            protocol: Protocol::Resp2,
            is_allowed,
            framer: Framer::default(),
            out: BytesMut::new(),
            counted: 0,
        }
    }

    /// Serves the client until one side ends it.
    pub(super) async fn run(mut self, mut stream: impl Stream, stop: CancellationToken) -> Result<(), ConnectionError> {
        // Created once: each such future takes an entry in a list that all connections share.
        let stopped = stop.cancelled();
        tokio::pin!(stopped);
        loop {
            let next = self.work(&mut stream).await?;
            self.flush(&mut stream).await?;
            if next == Next::Close {
                return Ok(());
            }
            self.count()?;
            match self.event(&mut stream, stopped.as_mut()).await? {
                Event::Read(0) | Event::Stop => return Ok(()),
                Event::Read(_) => {}
            }
        }
    }

    /// Runs the complete commands.
    async fn work(&mut self, stream: &mut impl Stream) -> Result<Next, ConnectionError> {
        loop {
            let limit = if self.is_allowed { self.shared.max_message } else { STRANGERS_LIMIT.min(self.shared.max_message) };
            match self.framer.next(limit) {
                Ok(true) => {}
                Ok(false) => return Ok(Next::Go),
                Err(error) => {
                    Reply::error(&error).encode(self.protocol, &mut self.out);
                    self.flush(stream).await?;
                    return Err(error.into());
                }
            }
            let (reply, next) = match self.broadcast().await {
                Some(reply) => (reply, Next::Go),
                // Boxed, so that idle connections, which are most of them, do not carry this future.
                None => Box::pin(self.take(self.framer.arguments().to_owned())).await,
            };
            reply.encode(self.protocol, &mut self.out);
            if next == Next::Close {
                return Ok(Next::Close);
            }
            if self.out.len() > BATCH {
                self.flush(stream).await?;
            }
        }
    }

    /// Waits for the next event. The usual case, a client between two commands, needs no timer.
    async fn event(&mut self, stream: &mut impl Stream, stopped: impl Future<Output = ()>) -> Result<Event, ConnectionError> {
        let is_hurried = self.framer.pending() > 0 || !self.is_allowed;
        let late = async {
            if is_hurried {
                tokio::time::sleep(COMMAND_TIMEOUT).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            read = buffers::read(stream, self.framer.space()) => Ok(Event::Read(read?)),
            () = stopped => Ok(Event::Stop),
            () = late => Err(ConnectionError::HalfACommand),
        }
    }

    async fn flush(&mut self, stream: &mut impl Stream) -> Result<(), ConnectionError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let writing = async {
            stream.write_all(&self.out).await?;
            // TLS buffers bytes until it is flushed.
            stream.flush().await
        };
        tokio::pin!(writing);
        // The socket nearly always has room for everything, so no timer is needed.
        match writing.as_mut().now_or_never() {
            Some(written) => written?,
            None => timeout(WRITE_TIMEOUT, writing).await.map_err(|_| ConnectionError::NotReading)??,
        }
        if self.out.capacity() > KEPT {
            self.out = BytesMut::new();
        } else {
            self.out.clear();
        }
        Ok(())
    }

    /// Updates the total of incomplete commands, which is limited over all clients.
    fn count(&mut self) -> Result<(), ConnectionError> {
        let now = self.framer.pending();
        if now == self.counted {
            return Ok(());
        }
        let pending = &self.shared.pending;
        let total = pending.fetch_add(now, Ordering::Relaxed) + now - self.counted;
        pending.fetch_sub(self.counted, Ordering::Relaxed);
        let grows = now > self.counted;
        self.counted = now;
        if grows && total > self.shared.max_message.saturating_mul(LARGEST_AT_ONCE) {
            return Err(ConnectionError::TooMuch);
        }
        Ok(())
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.shared.pending.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
