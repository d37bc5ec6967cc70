//! [`FakeSocket`]: a client without a connection, for tests and fuzz targets.
//!
//! Input: pushes of the hub. Output: calls of its [`Receiver`]. It may ask for as much as it likes.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::{Allowance, Message, Offset, Push, PushError, Socket};
use crate::config::Limits;
use crate::event::SocketId;

/// What a fake client does with what it is sent.
pub(crate) trait Receiver: Sized + Send + Sync + 'static {
    /// Whether it can resume its session.
    const CAN_RECOVER: bool = false;

    /// Receives a push.
    fn push(&self, push: &Push<'_>) -> Result<(), PushError>;

    /// Receives a frame that was encoded before.
    fn push_frame(&self, _frame: Bytes) {}

    /// Encodes a message for clients that can resume.
    fn recoverable(_message: &Message<'_>, _offset: Option<Offset>) -> Option<Bytes> {
        None
    }
}

/// A client whose pushes go to `R`.
#[derive(Debug)]
pub(crate) struct FakeSocket<R>(Arc<Inner<R>>);

#[derive(Debug)]
struct Inner<R> {
    id: SocketId,
    headers: HeaderMap,
    allowance: Allowance,
    receiver: R,
}

impl<R> FakeSocket<R> {
    pub(crate) fn new(id: SocketId, receiver: R) -> Self {
        let limits = Limits { subscribes_per_second: 0, whispers_per_second: 0, ..Limits::default() };
        Self(Arc::new(Inner { id, headers: HeaderMap::new(), allowance: Allowance::new(&limits), receiver }))
    }
}

impl<R> Clone for FakeSocket<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Deref for FakeSocket<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.0.receiver
    }
}

impl<R: Receiver> Socket for FakeSocket<R> {
    fn id(&self) -> SocketId {
        self.0.id
    }

    fn handshake(&self) -> &HeaderMap {
        &self.0.headers
    }

    fn peer(&self) -> Option<IpAddr> {
        None
    }

    fn allowance(&self) -> &Allowance {
        &self.0.allowance
    }

    fn push(&self, push: &Push<'_>) -> Result<(), PushError> {
        self.0.receiver.push(push)
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn push_frame(&self, frame: Bytes) -> Result<(), PushError> {
        self.0.receiver.push_frame(frame);
        Ok(())
    }

    fn recoverable(message: &Message<'_>, offset: Option<Offset>) -> Option<Bytes> {
        R::recoverable(message, offset)
    }

    fn can_recover(&self) -> bool {
        R::CAN_RECOVER
    }

    fn close(&self) {}

    fn terminate(&self) {}
}
