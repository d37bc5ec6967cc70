//! The values that travel through the server: an [`Event`] for a channel, the [`SocketId`] that it may leave out, and the
//! [`CloseReason`] of a client that has disconnected.
//!
//! Every ingress creates events and hands them to [`crate::hub::Hub::publish`].

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Event names that client libraries reserve: an emitter that receives one of them from outside misbehaves or throws.
const RESERVED: [&str; 6] = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Whether Socket.IO clients reserve this event name.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// An event for the subscribers of one channel.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// The channel's name, without the Redis prefix.
    pub channel: &'a str,
    /// The event's name, such as `App\Events\OrderShipped`.
    pub name: Cow<'a, str>,
    /// The event's data, byte for byte as it arrived: any JSON.
    pub data: &'a RawValue,
    /// The socket that does not receive the event (Laravel's `toOthers()`).
    pub except: Option<SocketId>,
    /// The id of the user who sent it: for whispers in presence channels, and for stamped whispers.
    pub user: Option<Cow<'a, str>>,
}

/// Who sent a message that arrived through Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The application, or a client that whispers.
    Application,
    /// A node that received it from the application over HTTP.
    Http,
    /// The presence store of a node: the message is a change of a channel's members, which brought the channel to this version.
    Presence(u64),
}

/// Id of a connected socket: two random numbers, such as `4253708921.880171`.
///
/// All of Laravel's drivers accept this form as `X-Socket-ID`; `pusher` and `reverb` throw for any other. The id is also the
/// session id of an Engine.IO 3 session, so it is long enough to be a secret.
///
/// Compat: the original's ids are 20 letters, which Laravel's `pusher` driver rejects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(u64, u64);

impl SocketId {
    /// A new id that cannot be guessed.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random(), rand::random())
    }

    /// An id from its two numbers.
    #[must_use]
    pub const fn new(first: u64, second: u64) -> Self {
        Self(first, second)
    }

    /// Parses an id. `None` for text that cannot be the id of any socket, such as an id of an older server; an event with such
    /// an id is sent to every subscriber.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            let is_plain = digits == "0" || !digits.starts_with(['0', '+']);
            digits.parse().ok().filter(|_| is_plain)
        };
        let (first, second) = text.split_once('.')?;
        Some(Self(number(first)?, number(second)?))
    }

    /// Both numbers combined into one.
    #[must_use]
    pub const fn number(self) -> u128 {
        (self.0 as u128) << 64 | self.1 as u128
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SocketId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SocketId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected a socket id"))
    }
}

/// Why a client disconnected, or left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed the connection, or failed to send what the protocol requires.
    TransportClose,
    /// The client's page was closed or left. It leaves its presence channels at once.
    PageLeft,
    /// The connection broke.
    TransportError,
    /// The client violated the protocol.
    ParseError,
    /// The client was silent for too long.
    PingTimeout,
    /// The server told the client to disconnect.
    ServerLeft,
    /// The client left on its own and may stay connected.
    ClientLeft,
    /// The client does not read what it is sent fast enough.
    TooSlow,
    /// The server is stopping.
    ServerShutdown,
}

impl CloseReason {
    /// Whether the client may resume its session.
    #[must_use]
    pub const fn is_recoverable(self) -> bool {
        matches!(
            self,
            Self::TransportClose | Self::PageLeft | Self::TransportError | Self::PingTimeout | Self::TooSlow | Self::ServerShutdown
        )
    }

    /// The reason as socket.io 2 words it, which is what the original logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose | Self::PageLeft => "transport close",
            Self::TransportError => "transport error",
            Self::ParseError => "parse error",
            Self::PingTimeout => "ping timeout",
            Self::ServerLeft => "server namespace disconnect",
            Self::ClientLeft => "client namespace disconnect",
            Self::TooSlow => "too slow",
            Self::ServerShutdown => "server shutting down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_socket_is_a_socket_id() {
        let id = SocketId::parse("4253708921.880171").unwrap();
        assert_eq!(id, SocketId::new(4_253_708_921, 880_171));
        assert_eq!(id.to_string(), "4253708921.880171");
        assert_eq!(SocketId::parse("0.18446744073709551615").unwrap().to_string(), "0.18446744073709551615");
        for text in [
            "",
            ".",
            "1.",
            ".1",
            "1",
            "01.1",
            "1.+1",
            "1.-1",
            "1.1 ",
            "1.2.3",
            "1.18446744073709551616",
            "constructor",
            "AbCd-_0123456789AbCd",
        ] {
            assert_eq!(SocketId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn laravel_takes_the_ids_given_out() {
        for _ in 0..100 {
            let id = SocketId::random();
            assert_eq!(SocketId::parse(&id.to_string()), Some(id));
        }
    }
}
