//! What travels through the server: an [`Event`] for a channel, and the [`SocketId`] it may leave out.
//!
//! Every ingress makes these; only [`crate::hub::Hub::publish`] takes them.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

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
}

/// Names that a client library keeps for itself: an emitter that gets one from outside misbehaves or throws.
const RESERVED: [&str; 6] = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Whether Socket.IO clients keep this event name for themselves.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Id of a connected socket: 16 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId([u8; 16]);

impl SocketId {
    /// Reads an id. Text that cannot be the id of any socket is `None`, and so leaves nobody out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 16] = text.as_bytes().try_into().ok()?;
        let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        bytes.iter().all(is_valid).then_some(Self(bytes))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("ids are made from ASCII alone")
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SocketId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_socket_is_a_socket_id() {
        assert_eq!(SocketId::parse("AbCd-_0123456789").unwrap().as_str(), "AbCd-_0123456789");
        for text in ["", "constructor", "AbCd-_012345678", "AbCd-_01234567890", "AbCd-_01234567ž"] {
            assert_eq!(SocketId::parse(text), None, "{text}");
        }
    }
}
