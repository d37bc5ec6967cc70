//! [`Push`]: a message from the hub to sockets, independent of the protocol.
//!
//! Input: what happens in the hub. Output: values for [`Socket`]s, which encode them in their dialect: once per dialect,
//! however many sockets receive them.

use std::cell::OnceCell;
use std::net::IpAddr;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::allowance::Allowance;
use super::history::Offset;
use crate::event::SocketId;
use crate::store::Member;

/// A message from the hub to a socket.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// An event of the application, or a whisper of another client.
    Event {
        /// The channel it was sent to.
        channel: &'a str,
        /// Its name, such as `App\Events\OrderShipped` or `client-typing`.
        name: &'a str,
        /// Its data, byte for byte as it arrived: any JSON.
        data: &'a RawValue,
        /// For a whisper, the id of the user who sent it, if receivers are told.
        user: Option<&'a str>,
        /// A whisper whose receivers are told the user, or that the user is unknown.
        is_stamped: bool,
        /// In flat mode the receiver need not be in the channel, and identifies the event by channel and name together.
        is_flat: bool,
    },
    /// The socket is in the channel from now on, or was already.
    Subscribed {
        /// The channel.
        channel: &'a str,
        /// In a presence channel, its members: one entry per socket, in the order of joining.
        members: Option<&'a [(SocketId, Member)]>,
        /// Whether members are shown with their socket ids.
        shows_sockets: bool,
    },
    /// A user joined a presence channel.
    Joined {
        /// The channel.
        channel: &'a str,
        /// The user.
        member: &'a Member,
        /// The socket that it joined with, if clients are told.
        socket: Option<SocketId>,
    },
    /// A user's last socket left a presence channel.
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
    /// A cache channel has no event for the socket that has just subscribed.
    CacheMiss {
        /// The channel.
        channel: &'a str,
    },
    /// The newest offset, in the push's `offset`: for clients that can resume.
    Position,
    /// Of the users that the socket's user watches, these have come online or gone offline.
    Watched {
        /// Users with a connection that is signed in.
        online: &'a [&'a str],
        /// Users without one.
        offline: &'a [&'a str],
    },
    /// The socket may not join the channel, or was removed from it.
    Refused {
        /// The channel.
        channel: &'a str,
        /// Why, as an HTTP status; 0 when the application could not be reached.
        status: u16,
    },
}

/// The encodings of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Socket.IO's events.
    SocketIo,
    /// Socket.IO's events, each with its offset as the last argument, for clients that can resume.
    Recoverable,
    /// Pusher's events.
    Pusher,
}

impl Dialect {
    const COUNT: usize = 3;
}

/// How a push waits for a slow client. The number identifies events of one name in one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Until it is written, whatever follows.
    All,
    /// Until it is written, or replaced by a newer one of the same number.
    Latest(u64),
    /// It is dropped while one of the same number waits, and when the queue is full.
    Volatile(u64),
}

/// A [`Message`] on its way to any number of sockets.
#[derive(Debug)]
pub struct Push<'a> {
    /// The message.
    pub message: Message<'a>,
    /// Its offset, if clients are told.
    pub offset: Option<Offset>,
    /// How it waits.
    pub keep: Keep,
    encodings: Encodings,
    deflated: Encodings,
}

type Encodings = [OnceCell<Option<Bytes>>; Dialect::COUNT];

impl<'a> Push<'a> {
    /// A message that is not encoded yet.
    #[must_use]
    pub const fn new(message: Message<'a>) -> Self {
        let encodings = [const { OnceCell::new() }; Dialect::COUNT];
        let deflated = [const { OnceCell::new() }; Dialect::COUNT];
        Self { message, offset: None, keep: Keep::All, encodings, deflated }
    }

    /// The message in a dialect, as `encode` encoded it on the first call. `None` for a message that the dialect does not send.
    pub fn encoded(&self, dialect: Dialect, encode: impl FnOnce(&Message<'a>, Option<Offset>) -> Option<Bytes>) -> Option<&Bytes> {
        self.encodings[dialect as usize].get_or_init(|| encode(&self.message, self.offset)).as_ref()
    }

    /// The compressed form of `encoded`, as `deflate` made it on the first call, or `encoded` itself. Only events are
    /// compressed: a list of members would be compressed for a single socket.
    pub fn deflated<'b>(&'b self, dialect: Dialect, encoded: &'b Bytes, deflate: impl FnOnce(&Bytes) -> Option<Bytes>) -> &'b Bytes {
        if !matches!(self.message, Message::Event { .. }) {
            return encoded;
        }
        self.deflated[dialect as usize].get_or_init(|| deflate(encoded)).as_ref().unwrap_or(encoded)
    }
}

/// Why a push was not added to a client's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError {
    /// The client is too slow: its queue is full, and it has now missed something.
    Full,
    /// The client is disconnected.
    Closed,
    /// It waits as [`Keep::Volatile`], and was dropped.
    Dropped,
}

/// A handle on one connected client; clones are handles on the same client.
pub trait Socket: Clone + Send + Sync + 'static {
    /// The client's id.
    fn id(&self) -> SocketId;

    /// Those headers of the handshake request that callbacks can need.
    fn handshake(&self) -> &http::HeaderMap;

    /// Address at the other end of the connection: the client, or a proxy in front of it.
    fn peer(&self) -> Option<IpAddr>;

    /// How much the client may ask for. It belongs to the connection, whatever the client does on it.
    fn allowance(&self) -> &Allowance;

    /// Adds a push to the client's queue, without waiting.
    ///
    /// # Errors
    /// [`PushError::Full`] when the queue is full, [`PushError::Closed`] when the client is gone.
    fn push(&self, push: &Push<'_>) -> Result<(), PushError>;

    /// Like [`Self::push`], for one of many receivers. `true`: the caller has to call [`Self::flush`], which writes the push.
    ///
    /// # Errors
    /// As [`Self::push`].
    fn defer(&self, push: &Push<'_>) -> Result<bool, PushError> {
        self.push(push).map(|()| false)
    }

    /// Like [`Self::defer`], for several pushes that wait as [`Keep::All`] and are written together.
    ///
    /// # Errors
    /// As [`Self::push`].
    fn defer_all(&self, pushes: &[&Push<'_>]) -> Result<bool, PushError> {
        pushes.iter().try_fold(false, |is_deferred, push| Ok(is_deferred | self.defer(push)?))
    }

    /// Writes what [`Self::defer`] queued.
    fn flush(&self) {}

    /// Whether both handles are of one connection. Different connections have different ids, unless a client resumed its session.
    fn is_same(&self, other: &Self) -> bool {
        self.id() == other.id()
    }

    /// Adds a frame that was encoded before to the client's queue, in the client's own dialect.
    ///
    /// # Errors
    /// As [`Self::push`].
    fn push_frame(&self, _frame: Bytes) -> Result<(), PushError> {
        Ok(())
    }

    /// Encodes a message for clients that can resume, as [`Self::push_frame`] takes it.
    fn recoverable(_message: &Message<'_>, _offset: Option<Offset>) -> Option<Bytes> {
        None
    }

    /// Whether the client can resume its session, and its events carry offsets.
    fn can_recover(&self) -> bool {
        false
    }

    /// Closes the connection; the client then reconnects by itself.
    fn close(&self);

    /// Tells the client to disconnect and not to reconnect by itself.
    fn terminate(&self);
}
