//! Events that Socket.IO clients send: `subscribe`, `unsubscribe` and `client event`.
//!
//! Input: Socket.IO events of a `Session`. Output: calls to the [`Hub`], in the order each client sent them.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::debug;

use crate::auth::SubscribeHeaders;
use crate::event::SocketId;
use crate::hub::{Hub, Right, Socket, Whisper};
use crate::metrics::Refusal;

/// Handles a client's event; other names are ignored. `packet` is the event's JSON, `["event", argument, …]`; `is_binary`: parts of it
/// are in binary attachments.
pub fn take<S: Socket>(hub: &Arc<Hub<S>>, id: SocketId, event: &str, packet: &str, is_binary: bool) {
    let argument = || first_argument(packet);
    let done = match event {
        "subscribe" => argument().and_then(|argument| subscribe(hub, id, argument)),
        "unsubscribe" => argument().and_then(|argument| unsubscribe(hub, id, argument)),
        "client event" => argument().and_then(|argument| client_event(hub, id, argument, is_binary)),
        _ => return,
    };
    if done.is_none() {
        hub.metrics().refusal(Refusal::Malformed);
        debug!(socket_id = %id, "ignored a malformed message");
    }
}

/// The first argument of `["event", argument, …]`.
fn first_argument(packet: &str) -> Option<&RawValue> {
    let parts: Vec<&RawValue> = serde_json::from_str(packet).ok()?;
    parts.get(1).copied()
}

/// The name of a channel. A page may name it with a number, as in `Echo.channel(5)`.
fn channel_name(channel: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let json = channel.get();
    if json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Some(Cow::Borrowed(json));
    }
    serde_json::from_str(json).ok().map(|Text(name)| name)
}

/// `{"channel": "…", "auth": {"headers": {…}}}`; an invalid `auth` is treated as missing.
#[derive(Deserialize)]
struct SubscribeMessage<'a> {
    #[serde(borrow)]
    channel: &'a RawValue,
    #[serde(borrow)]
    auth: Option<&'a RawValue>,
}

fn subscribe<S: Socket>(hub: &Arc<Hub<S>>, id: SocketId, argument: &RawValue) -> Option<()> {
    let message: SubscribeMessage<'_> = serde_json::from_str(argument.get()).ok()?;
    let channel = channel_name(message.channel).filter(|name| !name.is_empty())?;
    hub.subscribe(id, &channel, Right::Ask(message.auth.map(auth_headers).unwrap_or_default()));
    Some(())
}

/// Headers of `{"headers": {"Authorization": "Bearer …"}}`. Values may be strings, numbers or booleans; others are skipped.
fn auth_headers(auth: &RawValue) -> SubscribeHeaders {
    let Ok(serde_json::Value::Object(mut auth)) = serde_json::from_str(auth.get()) else {
        return Vec::new();
    };
    let Some(serde_json::Value::Object(headers)) = auth.remove("headers") else {
        return Vec::new();
    };
    let text = |value| match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(is_true) => Some(is_true.to_string()),
        _ => None,
    };
    headers.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

#[derive(Deserialize)]
struct UnsubscribeMessage<'a> {
    #[serde(borrow)]
    channel: &'a RawValue,
}

fn unsubscribe<S: Socket>(hub: &Arc<Hub<S>>, id: SocketId, argument: &RawValue) -> Option<()> {
    let message: UnsubscribeMessage<'_> = serde_json::from_str(argument.get()).ok()?;
    hub.unsubscribe(id, &channel_name(message.channel)?);
    Some(())
}

#[derive(Deserialize)]
struct ClientEventMessage<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The argument is an object or, from native clients, a string of its JSON (`src/channels/channel.ts:56`).
fn client_event<S: Socket>(hub: &Arc<Hub<S>>, id: SocketId, argument: &RawValue, is_binary: bool) -> Option<()> {
    let inner: String;
    let mut json = argument.get();
    if json.starts_with('"') {
        inner = serde_json::from_str(json).ok()?;
        json = &inner;
    }
    let message: ClientEventMessage<'_> = serde_json::from_str(json).ok()?;
    let data = message.data.unwrap_or(RawValue::NULL);
    let whisper = Whisper { channel: &message.channel, event: &message.event, data, is_binary };
    // The hub counts refused whispers; like the original, the client gets no error.
    let _ = hub.whisper(id, whisper);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_follow_the_event_name() {
        assert_eq!(first_argument(r#"["subscribe",{"a":1},2]"#).unwrap().get(), r#"{"a":1}"#);
        for packet in [r#"["subscribe"]"#, "[]", "{}", "null", "", "["] {
            assert!(first_argument(packet).is_none(), "{packet}");
        }
    }

    #[test]
    fn a_number_can_name_a_channel() {
        let name = |json: &str| channel_name(serde_json::from_str(json).unwrap()).map(Cow::into_owned);
        for (json, expected) in [("5", Some("5")), ("-1.5", Some("-1.5")), (r#""\u0061""#, Some("a")), ("null", None), ("[5]", None)] {
            assert_eq!(name(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn invalid_auth_is_treated_as_missing() {
        let headers = |json: &str| auth_headers(serde_json::from_str(json).unwrap());
        assert_eq!(
            headers(r#"{"headers":{"A":"x","B":5,"C":null,"D":{},"E":true}}"#),
            [("A".to_owned(), "x".to_owned()), ("B".to_owned(), "5".to_owned()), ("E".to_owned(), "true".to_owned())]
        );
        for auth in ["null", "5", "{}", r#"{"headers":"text"}"#, r#"{"headers":[]}"#] {
            assert_eq!(headers(auth), [], "{auth}");
        }
    }
}
