//! The way out: one connected client as the hub sees it.
//!
//! Input: [`Frame`]s from the hub. Output: the client's queue. The hub knows [`Socket`] alone. [`ClientSocket`] serves
//! clients: [`websocket`] those that connect by websocket at once, [`socket_io`] those that begin by polling. Tests use
//! one that records.

use std::cell::OnceCell;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::event::SocketId;

mod client;
pub mod socket_io;
pub mod websocket;

pub use client::ClientSocket;
pub use socket_io::SocketIoSocket;
pub use websocket::WebSocket;

/// A message to a client: the Socket.IO event `name` with `(channel, data)`, or with `(data)` alone in flat mode.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Name of the Socket.IO event.
    pub name: &'a str,
    /// First argument: the channel; absent in flat mode.
    pub channel: Option<&'a str>,
    /// Last argument, as JSON.
    pub data: &'a RawValue,
    /// Built when the first client needs it, and then shared by all.
    websocket: OnceCell<Bytes>,
}

impl<'a> Frame<'a> {
    /// A message that is not written out yet.
    #[must_use]
    pub const fn new(name: &'a str, channel: Option<&'a str>, data: &'a RawValue) -> Self {
        Self { name, channel, data, websocket: OnceCell::new() }
    }

    /// The message as a frame of a websocket, the same for every client.
    #[must_use]
    pub fn websocket(&self) -> &Bytes {
        self.websocket.get_or_init(|| websocket::event_frame(self))
    }
}

/// Why a frame did not get into a client's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmitError {
    /// The client does not keep up: its queue is full, and it has now missed something.
    Full,
    /// The client is gone.
    Closed,
}

/// A handle on one connected client; clones name the same client.
pub trait Socket: Clone + Send + Sync + 'static {
    /// The client's id.
    fn id(&self) -> SocketId;

    /// Headers of the handshake request.
    fn handshake(&self) -> &http::HeaderMap;

    /// Address at the other end of the connection: the client, or a proxy before it.
    fn peer(&self) -> Option<std::net::IpAddr>;

    /// Puts a frame into the client's queue, without waiting.
    ///
    /// # Errors
    /// [`EmitError::Full`] when the queue is full, [`EmitError::Closed`] when the client is gone.
    fn emit(&self, frame: &Frame<'_>) -> Result<(), EmitError>;

    /// Ends the connection under the client, which then reconnects by itself.
    fn close(&self);

    /// Tells the client to go away and not to come back by itself.
    fn terminate(&self);
}
