//! Fuzz target for messages from Redis. Input: bytes. Output: a panic if an assertion fails.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cluster::envelope::{MessageError, message_of};
use crate::event::{Event, Origin, SocketId, is_reserved};

mod nodes;

pub use nodes::node_messages;

/// A message of Laravel's broadcaster: the bytes of `data` are unchanged, and a parsed event can be serialized and parsed
/// again.
pub fn redis_message(payload: &[u8]) {
    match message_of("news", payload) {
        Ok((event, origin)) => {
            assert!(payload.trim_ascii_start().starts_with(b"{"), "a message is an object");
            assert!(!is_reserved(&event.name));
            let data = event.data.get();
            assert!(payload.as_ptr_range().contains(&data.as_ptr()) || data == "null", "data is part of what came");
            let written = written(&event, origin);
            let (again, same_origin) = message_of("news", written.as_bytes()).expect("what was written can be read");
            assert_eq!((&again.name, again.data.get(), again.except, same_origin), (&event.name, data, event.except, origin));
        }
        Err(MessageError::Reserved(name)) => assert!(is_reserved(&name)),
        Err(MessageError::Malformed(error)) => {
            // Duplicate keys are rejected, and anything that is not an object with a name.
            if let Ok(Value::Object(message)) = serde_json::from_slice(payload)
                && !error.to_string().starts_with("duplicate field")
            {
                assert!(!message.get("event").is_some_and(Value::is_string), "refused, though it has a name: {error}");
            }
        }
    }
}

fn written(event: &Event<'_>, origin: Origin) -> String {
    #[derive(Serialize)]
    struct Message<'a> {
        event: &'a str,
        data: &'a RawValue,
        socket: Option<SocketId>,
        presence: Option<u64>,
        http: bool,
    }
    let presence = if let Origin::Presence(version) = origin { Some(version) } else { None };
    let http = origin == Origin::Http;
    let message = Message { event: &event.name, data: event.data, socket: event.except, presence, http };
    serde_json::to_string(&message).expect("texts and JSON serialise")
}
