//! [`Reply`]: the reply to a command, in RESP2 or RESP3.
//!
//! Input: replies of commands. Output: bytes.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};

/// The protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// A reply to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status(&'static str),
    /// Starts with a code in capitals, such as `ERR`.
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    Null,
    List(Vec<Self>),
    /// Keys and values; a flat list in RESP2.
    Map(Vec<(Self, Self)>),
}

impl Reply {
    pub(super) const OK: Self = Self::Status("OK");

    pub(super) fn error(message: impl std::fmt::Display) -> Self {
        Self::Error(format!("ERR {message}"))
    }

    pub(super) fn text(text: &str) -> Self {
        Self::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    pub(super) fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Appends the encoded reply to the output.
    pub(super) fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        let written = match (self, protocol) {
            (Self::Status(text), _) => write!(out, "+{text}\r\n"),
            (Self::Error(text), _) => write!(out, "-{}\r\n", one_line(text)),
            (Self::Integer(number), _) => write!(out, ":{number}\r\n"),
            (Self::Bulk(bytes), _) => {
                let begun = write!(out, "${}\r\n", bytes.len());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
                begun
            }
            (Self::Null, Protocol::Resp2) => write!(out, "$-1\r\n"),
            (Self::Null, Protocol::Resp3) => write!(out, "_\r\n"),
            (Self::List(items), _) => write!(out, "*{}\r\n", items.len()),
            (Self::Map(pairs), Protocol::Resp2) => write!(out, "*{}\r\n", 2 * pairs.len()),
            (Self::Map(pairs), Protocol::Resp3) => write!(out, "%{}\r\n", pairs.len()),
        };
        written.expect("the buffer grows with what is written");
        match self {
            Self::List(items) => items.iter().for_each(|item| item.encode(protocol, out)),
            Self::Map(pairs) => pairs.iter().for_each(|(key, value)| {
                key.encode(protocol, out);
                value.encode(protocol, out);
            }),
            _ => {}
        }
    }
}

/// Makes an error a single line, whatever a client has put into it.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], " ").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(reply: &Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        reply.encode(protocol, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn maps_are_lists_in_resp2() {
        let map = Reply::Map(vec![(Reply::text("proto"), Reply::Integer(2))]);
        assert_eq!(encoded(&map, Protocol::Resp2), "*2\r\n$5\r\nproto\r\n:2\r\n");
        assert_eq!(encoded(&map, Protocol::Resp3), "%1\r\n$5\r\nproto\r\n:2\r\n");
        assert_eq!(encoded(&Reply::Null, Protocol::Resp2), "$-1\r\n");
        assert_eq!(encoded(&Reply::Null, Protocol::Resp3), "_\r\n");
    }

    #[test]
    fn an_error_cannot_be_made_to_look_like_several_replies() {
        assert_eq!(encoded(&Reply::error("x\r\n+OK"), Protocol::Resp2), "-ERR x  +OK\r\n");
    }
}
