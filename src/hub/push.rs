//! [`Push`]: what the hub tells sockets, in no protocol's words.
//!
//! Input: what happens in the hub. Output: values for [`Socket`]s, which write them out in their dialect: once for each
//! dialect, however many receive it.

use std::cell::OnceCell;
use std::net::IpAddr;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::allowance::Allowance;
use super::history::Offset;
use crate::event::SocketId;
use crate::store::Member;

/// What the hub tells a socket.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// An event of the application, or a whisper of another client.
    Event {
        /// The channel it was sent to.
        channel: &'a str,
        /// Its name, such as `App\Events\OrderShipped` or `client-typing`.
        name: &'a str,
        /// Its data: any JSON, not a byte of it touched.
        data: &'a RawValue,
        /// Of a whisper, the id of the user who sent it, where that is told.
        user: Option<&'a str>,
        /// A whisper whose receivers are told the user, or that nobody knows it.
        is_stamped: bool,
        /// In flat mode the receiver need not be in the channel, and knows the event by channel and name together.
        is_flat: bool,
    },
    /// The socket is in the channel from now on, or was already.
    Subscribed {
        /// The channel.
        channel: &'a str,
        /// In a presence channel, who is in it: one entry a socket, in the order of joining.
        members: Option<&'a [(SocketId, Member)]>,
        /// Whether members are shown with their socket ids.
        shows_sockets: bool,
    },
    /// A user came into a presence channel.
    Joined {
        /// The channel.
        channel: &'a str,
        /// The user.
        member: &'a Member,
        /// The socket it came with, where that is to be shown.
        socket: Option<SocketId>,
    },
    /// The last socket of a user left a presence channel.
    Left {
        /// The channel.
        channel: &'a str,
        /// The user.
        member: &'a Member,
    },
    /// How many sockets are in the channel now.
    Count {
        /// The channel.
        channel: &'a str,
        /// Its sockets.
        count: usize,
    },
    /// A cache channel has no event for who has just subscribed.
    CacheMiss {
        /// The channel.
        channel: &'a str,
    },
    /// How far the events are, by the push's offset: for clients that can come back.
    Position,
    /// Of the users that the socket's user watches, these have come, and those are gone.
    Watched {
        /// Users with a connection that is signed in.
        online: &'a [&'a str],
        /// Users without one.
        offline: &'a [&'a str],
    },
    /// The socket is not let into the channel, or was taken out of it.
    Refused {
        /// The channel.
        channel: &'a str,
        /// Why, as a status of HTTP; 0 when the application could not be asked.
        status: u16,
    },
}

/// What messages are written out in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Socket.IO's events.
    SocketIo,
    /// Socket.IO's events, each with its offset as the last argument, for clients that can come back.
    Recoverable,
    /// Pusher's events.
    Pusher,
}

impl Dialect {
    const COUNT: usize = 3;
}

/// How a push waits for a client that does not keep up. The number stands for events of one name in one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Until it is written, whatever comes behind it.
    All,
    /// Until it is written, or a newer one of its kind takes its place.
    Latest(u64),
    /// Not at all while one of its kind waits, nor when the queue is full.
    Volatile(u64),
}

/// A [`Message`] on its way to any number of sockets.
#[derive(Debug)]
pub struct Push<'a> {
    /// What is told.
    pub message: Message<'a>,
    /// Its place in the order of events, where that is told to clients.
    pub offset: Option<Offset>,
    /// How it waits.
    pub keep: Keep,
    encodings: Encodings,
    deflated: Encodings,
}

type Encodings = [OnceCell<Option<Bytes>>; Dialect::COUNT];

impl<'a> Push<'a> {
    /// A message that is not written out yet.
    #[must_use]
    pub const fn new(message: Message<'a>) -> Self {
        let encodings = [const { OnceCell::new() }; Dialect::COUNT];
        let deflated = [const { OnceCell::new() }; Dialect::COUNT];
        Self { message, offset: None, keep: Keep::All, encodings, deflated }
    }

    /// The message in a dialect: what `encode` made of it when it was first asked for. `None` for a message that the
    /// dialect does not tell.
    pub fn encoded(&self, dialect: Dialect, encode: impl FnOnce(&Message<'a>, Option<Offset>) -> Option<Bytes>) -> Option<&Bytes> {
        self.encodings[dialect as usize].get_or_init(|| encode(&self.message, self.offset)).as_ref()
    }

    /// As [`Self::encoded`] gave it, compressed: what `deflate` made of it when it was first asked for, or `encoded` itself.
    /// So is all that is not for many: a list of members would be compressed for one.
    pub fn deflated<'b>(&'b self, dialect: Dialect, encoded: &'b Bytes, deflate: impl FnOnce(&Bytes) -> Option<Bytes>) -> &'b Bytes {
        if !matches!(self.message, Message::Event { .. }) {
            return encoded;
        }
        self.deflated[dialect as usize].get_or_init(|| deflate(encoded)).as_ref().unwrap_or(encoded)
    }
}

/// Why a push did not get into a client's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError {
    /// The client does not keep up: its queue is full, and it has now missed something.
    Full,
    /// The client is gone.
    Closed,
}

/// A handle on one connected client; clones name the same client.
pub trait Socket: Clone + Send + Sync + 'static {
    /// The client's id.
    fn id(&self) -> SocketId;

    /// Headers of the handshake request, as far as callbacks can need them.
    fn handshake(&self) -> &http::HeaderMap;

    /// Address at the other end of the connection: the client, or a proxy before it.
    fn peer(&self) -> Option<IpAddr>;

    /// How much the client may ask for. It is the connection's, whatever the client does on it.
    fn allowance(&self) -> &Allowance;

    /// Puts a push into the client's queue, without waiting.
    ///
    /// # Errors
    /// [`PushError::Full`] when the queue is full, [`PushError::Closed`] when the client is gone.
    fn push(&self, push: &Push<'_>) -> Result<(), PushError>;

    /// Whether both handles are of one connection; those of two have different ids but for a client that came back.
    fn is_same(&self, other: &Self) -> bool {
        self.id() == other.id()
    }

    /// Puts what was written out before into the client's queue, in its own dialect.
    ///
    /// # Errors
    /// As [`Self::push`].
    fn push_frame(&self, _frame: Bytes) -> Result<(), PushError> {
        Ok(())
    }

    /// Writes a message out for clients that can come back, as [`Self::push_frame`] takes it.
    fn recoverable(_message: &Message<'_>, _offset: Option<Offset>) -> Option<Bytes> {
        None
    }

    /// Whether the client can come back to its session, and its events carry offsets.
    fn can_recover(&self) -> bool {
        false
    }

    /// Ends the connection under the client, which then reconnects by itself.
    fn close(&self);

    /// Tells the client to go away and not to come back by itself.
    fn terminate(&self);
}
