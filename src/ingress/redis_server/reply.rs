//! [`Reply`]: what a client is answered, in RESP2 or RESP3.
//!
//! Input: replies of commands. Output: bytes, written by `redis_protocol`.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::encode::extend_encode as encode2;
use redis_protocol::resp2::types::BytesFrame as Frame2;
use redis_protocol::resp3::encode::complete::extend_encode as encode3;
use redis_protocol::resp3::types::BytesFrame as Frame3;

/// The version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status(&'static str),
    /// Begins with a code in capitals, such as `ERR`.
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    Null,
    List(Vec<Self>),
    /// Keys and values in turn; a list in RESP2.
    Map(Vec<(Self, Self)>),
    /// A message that no command asked for; a list in RESP2.
    Push(Vec<Self>),
    /// Several answers to one command.
    Many(Vec<Self>),
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

    /// Appends the answer to what is to be written.
    pub(super) fn encode(self, protocol: Protocol, out: &mut BytesMut) {
        const ROOM: &str = "the buffer grows with what is written";
        match (self, protocol) {
            (Self::Many(replies), _) => replies.into_iter().for_each(|reply| reply.encode(protocol, out)),
            // What `PUBLISH` is answered, and the same in both: a frame would take longer than all the rest.
            (Self::Integer(number), _) => write!(out, ":{number}\r\n").expect(ROOM),
            (reply, Protocol::Resp2) => _ = encode2(out, &reply.into_frame2(), false).expect(ROOM),
            (reply, Protocol::Resp3) => _ = encode3(out, &reply.into_frame3(), false).expect(ROOM),
        }
    }

    fn into_frame2(self) -> Frame2 {
        match self {
            Self::Status(text) => Frame2::SimpleString(Bytes::from_static(text.as_bytes())),
            Self::Error(text) => Frame2::Error(one_line(text).into()),
            Self::Integer(number) => Frame2::Integer(number),
            Self::Bulk(bytes) => Frame2::BulkString(bytes),
            Self::Null => Frame2::Null,
            Self::List(items) | Self::Push(items) | Self::Many(items) => Frame2::Array(items.into_iter().map(Self::into_frame2).collect()),
            Self::Map(pairs) => {
                Frame2::Array(pairs.into_iter().flat_map(|(key, value)| [key.into_frame2(), value.into_frame2()]).collect())
            }
        }
    }

    fn into_frame3(self) -> Frame3 {
        let attributes = None;
        match self {
            Self::Status(text) => Frame3::SimpleString { data: Bytes::from_static(text.as_bytes()), attributes },
            Self::Error(text) => Frame3::SimpleError { data: one_line(text).into(), attributes },
            Self::Integer(data) => Frame3::Number { data, attributes },
            Self::Bulk(data) => Frame3::BlobString { data, attributes },
            Self::Null => Frame3::Null,
            Self::List(items) | Self::Many(items) => Frame3::Array { data: items.into_iter().map(Self::into_frame3).collect(), attributes },
            Self::Push(items) => Frame3::Push { data: items.into_iter().map(Self::into_frame3).collect(), attributes },
            Self::Map(pairs) => {
                let data = pairs.into_iter().map(|(key, value)| (key.into_frame3(), value.into_frame3())).collect();
                Frame3::Map { data, attributes }
            }
        }
    }
}

/// An error is one line, whatever a client has put into it.
fn one_line(text: String) -> String {
    if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], " ") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(reply: Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        reply.encode(protocol, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn maps_and_pushes_are_lists_in_the_old_protocol() {
        let map = Reply::Map(vec![(Reply::text("proto"), Reply::Integer(2))]);
        assert_eq!(encoded(map.clone(), Protocol::Resp2), "*2\r\n$5\r\nproto\r\n:2\r\n");
        assert_eq!(encoded(map, Protocol::Resp3), "%1\r\n$5\r\nproto\r\n:2\r\n");
        let push = Reply::Push(vec![Reply::text("message")]);
        assert_eq!(encoded(push.clone(), Protocol::Resp2), "*1\r\n$7\r\nmessage\r\n");
        assert_eq!(encoded(push, Protocol::Resp3), ">1\r\n$7\r\nmessage\r\n");
        assert_eq!(encoded(Reply::Null, Protocol::Resp2), "$-1\r\n");
        assert_eq!(encoded(Reply::Null, Protocol::Resp3), "_\r\n");
    }

    #[test]
    fn an_error_cannot_be_made_to_look_like_more_answers() {
        assert_eq!(encoded(Reply::error("x\r\n+OK"), Protocol::Resp2), "-ERR x  +OK\r\n");
    }
}
