//! What travels through the server: an [`Event`] for a channel, the [`SocketId`] it may leave out, and the
//! [`CloseReason`] of a client that is gone.
//!
//! Every ingress makes these; only [`crate::hub::Hub::publish`] takes them.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Names that client libraries keep for themselves: an emitter that gets one from outside misbehaves or throws.
const RESERVED: [&str; 6] = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Whether Socket.IO clients keep this event name for themselves.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// An event for the subscribers of one channel.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// The channel, without Redis prefix.
    pub channel: &'a str,
    /// The event's name, such as `App\Events\OrderShipped`.
    pub name: Cow<'a, str>,
    /// The event's data as it came: any JSON, not a byte of it touched.
    pub data: &'a RawValue,
    /// The socket that is left out (Laravel's `toOthers()`).
    pub except: Option<SocketId>,
    /// Of a whisper in a presence channel, the id of the user who sent it.
    pub user: Option<Cow<'a, str>>,
}

/// Who wrote a message that came through Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The application, or a client that whispers.
    Application,
    /// A node that took it from the application by HTTP.
    Http,
    /// The presence store of a node: a change of a channel, which has this version by it.
    Presence(u64),
}

/// Id of a connected socket: two random numbers, as `4253708921.880171`.
///
/// All of Laravel's drivers take this form for `X-Socket-ID`; `pusher` and `reverb` throw for any other. It is long enough
/// to be the secret of an Engine.IO 3 session, whose id it is, too.
///
/// Compat: the original has 20 letters, which Laravel's `pusher` driver refuses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(u64, u64);

impl SocketId {
    /// A new id; nobody can guess it.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random(), rand::random())
    }

    /// An id made of these numbers.
    #[must_use]
    pub const fn new(first: u64, second: u64) -> Self {
        Self(first, second)
    }

    /// Reads an id. Text that cannot be the id of any socket, such as one of an older server, is `None`, and so leaves
    /// nobody out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            let is_plain = digits == "0" || !digits.starts_with(['0', '+']);
            digits.parse().ok().filter(|_| is_plain)
        };
        let (first, second) = text.split_once('.')?;
        Some(Self(number(first)?, number(second)?))
    }

    /// Both numbers as one.
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

/// Why a client is gone, or has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed the connection, or never said what it should have.
    TransportClose,
    /// The page of the client was closed or left; it takes its session with it.
    PageLeft,
    /// The connection broke.
    TransportError,
    /// The client broke the rules of the protocol.
    ParseError,
    /// The client showed no sign of life.
    PingTimeout,
    /// The client was told to go.
    ServerLeft,
    /// The client left by itself and may stay connected.
    ClientLeft,
    /// The client does not keep up with what it is sent.
    TooSlow,
    /// The server is stopping.
    ServerShutdown,
}

impl CloseReason {
    /// Whether the client may come back to its session.
    #[must_use]
    pub const fn is_recoverable(self) -> bool {
        matches!(
            self,
            Self::TransportClose | Self::PageLeft | Self::TransportError | Self::PingTimeout | Self::TooSlow | Self::ServerShutdown
        )
    }

    /// The reason in the words of socket.io 2, as the original logs them.
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
