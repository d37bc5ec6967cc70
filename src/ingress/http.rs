//! Events over HTTP: `POST /apps/:appId/events`.
//!
//! Input: `{"channel":"news","name":"sent","data":{…},"socket_id":"…"}`, or `channels` with a list, as Pusher's
//! libraries send it. Output: events for the hub.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::api::auth::App;
use crate::api::{Api, ApiError};
use crate::channel::ChannelName;
use crate::event::{Event, SocketId, is_reserved};
use crate::metrics::{Outcome, Source};

/// The original's words for a body with something missing (`src/subscribers/http-subscriber.ts:100`).
const INCOMPLETE: &str = "Event must include channel, event name and data";

/// Fields of the body; what each must be is checked one by one, so that errors can name it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    socket_id: Option<&'a RawValue>,
}

/// An event of the body, for one or more channels.
#[derive(Debug)]
struct HttpEvent {
    channels: Vec<String>,
    name: String,
    data: Box<RawValue>,
    except: Option<SocketId>,
}

/// Publishes an event.
///
/// # Errors
/// 400 for a body that is no event, 413 for one that is too large.
pub async fn events(_: App, State(api): State<Api>, body: Body) -> Result<Json<Value>, ApiError> {
    let published = publish(&api, body).await;
    if published.is_err() {
        api.hub.metrics().event(Source::Http, Outcome::Malformed);
    }
    published.map(|()| Json(json!({ "message": "ok" })))
}

async fn publish(api: &Api, body: Body) -> Result<(), ApiError> {
    let body = to_bytes(body, api.body_limit).await.map_err(|_| ApiError::too_large(api.body_limit))?;
    let event = read(&body, api)?;
    for channel in event.channels {
        let event =
            Event { channel: ChannelName::from(channel), name: event.name.as_str().into(), data: &event.data, except: event.except };
        api.hub.publish(&event, Source::Http);
    }
    Ok(())
}

fn read(body: &[u8], api: &Api) -> Result<HttpEvent, ApiError> {
    // A body that is no object at all fails here; a field of the wrong type fails below, by name.
    let fields: Fields<'_> =
        serde_json::from_slice(body).map_err(|error| ApiError::bad_request(format!("the body is no JSON object: {error}")))?;
    let incomplete = || ApiError::bad_request(INCOMPLETE);
    let name: String = parse(fields.name.ok_or_else(incomplete)?, "name", "text")?;
    let data = fields.data.filter(|data| !is_falsy(data)).ok_or_else(incomplete)?;
    let channels: Vec<String> = match (fields.channels, fields.channel) {
        (Some(channels), _) => parse(channels, "channels", "a list of channel names")?,
        (None, Some(channel)) => vec![parse(channel, "channel", "text")?],
        (None, None) => return Err(incomplete()),
    };
    if name.is_empty() || channels.iter().any(String::is_empty) {
        return Err(incomplete());
    }
    check("name", &name, api.event_name_limit, "limits.eventName")?;
    if is_reserved(&name) {
        return Err(ApiError::bad_request(format!("name: `{name}` is reserved by Socket.IO")));
    }
    if channels.len() > api.channel_limit {
        return Err(ApiError::bad_request(format!(
            "channels: {} are more than limits.apiChannels ({})",
            channels.len(),
            api.channel_limit
        )));
    }
    for channel in &channels {
        check("channel", channel, api.channel_name_limit, "limits.channelName")?;
    }
    let socket_id: Option<String> = match fields.socket_id {
        Some(id) => parse(id, "socket_id", "text or null")?,
        None => None,
    };
    Ok(HttpEvent { channels, name, data: decode_once(data), except: socket_id.as_deref().and_then(SocketId::parse) })
}

fn parse<'a, T: Deserialize<'a>>(value: &'a RawValue, field: &str, expected: &str) -> Result<T, ApiError> {
    serde_json::from_str(value.get()).map_err(|_| ApiError::bad_request(format!("{field} must be {expected}")))
}

fn check(field: &str, text: &str, limit: usize, key: &str) -> Result<(), ApiError> {
    if text.len() > limit {
        return Err(ApiError::bad_request(format!("{field} is {} bytes long, more than {key} ({limit})", text.len())));
    }
    Ok(())
}

/// What JavaScript takes for nothing, and the original refuses.
fn is_falsy(data: &RawValue) -> bool {
    matches!(data.get(), "null" | "false" | "0" | "-0" | "0.0" | "\"\"")
}

/// Pusher's libraries send data as text: text that is JSON is decoded once, any other is kept as text.
fn decode_once(data: &RawValue) -> Box<RawValue> {
    if data.get().starts_with('"')
        && let Ok(text) = serde_json::from_str::<String>(data.get())
        && let Ok(inner) = RawValue::from_string(text)
    {
        return inner;
    }
    data.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn text_that_is_json_is_decoded_once() {
        for (posted, delivered) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (r#""{\"a\":1}""#, r#"{"a":1}"#),
            (r#""\"quoted\"""#, r#""quoted""#),
            (r#""42""#, "42"),
            (r#""plain text""#, r#""plain text""#),
            (r#""{\"a\":""#, r#""{\"a\":""#),
            ("[5]", "[5]"),
        ] {
            assert_eq!(decode_once(&raw(posted)).get(), delivered, "{posted}");
        }
    }

    #[test]
    fn nothing_is_refused_and_empty_lists_are_not() {
        assert!(["null", "false", "0", "\"\""].into_iter().all(|json| is_falsy(&raw(json))));
        assert!(["[]", "{}", "true", "1", "\"0\""].into_iter().all(|json| !is_falsy(&raw(json))));
    }
}
