//! The format of events in Redis: that of Laravel's `RedisBroadcaster`, with keys of our own for what nodes tell each other.
//!
//! Input: a channel without prefix and a payload, `{"event":"…","data":…,"socket":"…"}`. Output: an [`Event`] that keeps
//! `data` byte for byte, or why the message is not an event; and the other way round. Besides this module only the scripts of
//! the presence store (`store/redis/join.lua`, `leave.lua`) write the format, in the step that makes the change.

use std::borrow::Cow;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::event::{Event, Origin, SocketId, is_reserved};

/// A message as anyone may have written it.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    socket: Option<&'a RawValue>,
    /// Set by another node's presence store: the version of the channel's list. Laravel sends no such key.
    #[serde(borrow, default)]
    presence: Option<&'a RawValue>,
    /// The sender of a whisper in a presence channel on another node.
    #[serde(borrow, default)]
    user_id: Option<&'a RawValue>,
    /// Set in events that another node received over HTTP.
    #[serde(borrow, default)]
    http: Option<&'a RawValue>,
}

/// Why a message is not an event.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not a JSON object with an event name.
    #[error("the payload is not a JSON object with an event name")]
    Malformed(#[from] serde_json::Error),
    /// The event name is reserved by Socket.IO clients.
    #[error("event name `{0}` is reserved by Socket.IO")]
    Reserved(String),
}

/// A message as a node writes it.
#[derive(Serialize)]
struct Written<'a> {
    event: &'a str,
    data: &'a RawValue,
    socket: Option<SocketId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    http: bool,
}

/// The payload of an event. `http`: it was submitted through the HTTP API.
pub(super) fn payload_of(event: &Event<'_>, http: bool) -> Vec<u8> {
    let Event { name, data, except, user, .. } = event;
    let written = Written { event: name, data, socket: *except, user_id: user.as_deref(), http };
    serde_json::to_vec(&written).expect("texts and JSON serialize")
}

/// Parses a message of a channel (without prefix), and its origin.
///
/// # Errors
/// [`MessageError`] if it is not an event.
pub fn message_of<'a>(channel: &'a str, payload: &'a [u8]) -> Result<(Event<'a>, Origin), MessageError> {
    if payload.trim_ascii_start().starts_with(b"[") {
        // serde would accept a list of the fields' values as an object.
        return Err(serde_json::Error::invalid_type(Unexpected::Seq, &"an object").into());
    }
    // Checks UTF-8 once for the whole payload, which is faster than once per string.
    let payload = std::str::from_utf8(payload).map_err(serde_json::Error::custom)?;
    let envelope: Envelope<'a> = serde_json::from_str(payload)?;
    if is_reserved(&envelope.event) {
        return Err(MessageError::Reserved(envelope.event.into_owned()));
    }
    let socket: Option<Cow<'_, str>> = envelope.socket.and_then(|id| serde_json::from_str(id.get()).ok());
    let version = envelope.presence.and_then(|version| version.get().parse().ok());
    let is_from_http = envelope.http.is_some_and(|http| http.get() == "true");
    let origin = version.map_or(if is_from_http { Origin::Http } else { Origin::Application }, Origin::Presence);
    let event = Event {
        channel,
        name: envelope.event,
        data: envelope.data.unwrap_or(RawValue::NULL),
        except: socket.and_then(|id| SocketId::parse(&id)),
        user: envelope.user_id.and_then(|user| serde_json::from_str(user.get()).ok()),
    };
    Ok((event, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_its_data_byte_for_byte() {
        let payload = r#"{"event":"App\\Events\\Sent","data":{"b":1.0,"a":"\u017e\/", "socket":null},"socket":"123.456"}"#;
        let (event, origin) = message_of("news", payload.as_bytes()).unwrap();
        assert_eq!(origin, Origin::Application);
        assert_eq!(event.name, "App\\Events\\Sent");
        assert_eq!(event.data.get(), r#"{"b":1.0,"a":"\u017e\/", "socket":null}"#);
        assert_eq!(event.except, SocketId::parse("123.456"));
    }

    #[test]
    fn an_invalid_socket_id_excludes_no_client() {
        for socket in ["null", "5", "{}", "\"\"", "\"constructor\""] {
            let payload = format!(r#"{{"event":"sent","socket":{socket},"more":1}}"#);
            let (event, _) = message_of("news", payload.as_bytes()).unwrap();
            assert_eq!(event.except, None, "{socket}");
            assert_eq!(event.data.get(), "null");
        }
    }

    #[test]
    fn messages_that_are_not_events_are_refused() {
        for payload in ["", "5", "null", "{}", "[]", r#"["sent",{},null,null]"#, "text", r#"{"event":5}"#, r#"{"event":null}"#, "\u{1}"] {
            assert!(matches!(message_of("news", payload.as_bytes()), Err(MessageError::Malformed(_))), "{payload}");
        }
        assert!(matches!(message_of("news", b"{\"event\":\"\xff\"}"), Err(MessageError::Malformed(_))));
        assert!(matches!(message_of("news", br#"{"event":"disconnect"}"#), Err(MessageError::Reserved(_))));
    }

    #[test]
    fn deeply_nested_data_is_accepted() {
        let payload = format!(r#"{{"event":"sent","data":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(message_of("news", payload.as_bytes()).is_ok());
    }

    #[test]
    fn what_a_node_writes_can_be_read() {
        let data = RawValue::from_string(r#"{"a": "\u017e"}"#.to_owned()).unwrap();
        for (except, user, http, origin) in
            [(None, None, true, Origin::Http), (SocketId::parse("1.2"), Some("7".into()), false, Origin::Application)]
        {
            let event = Event { channel: "news", name: "sent".into(), data: &data, except, user };
            let payload = payload_of(&event, http);
            let (again, same_origin) = message_of("news", &payload).unwrap();
            assert_eq!((&*again.name, again.data.get(), again.except, same_origin), ("sent", data.get(), except, origin));
            assert_eq!(again.user, event.user);
        }
    }
}
