//! Validation of event request bodies.
//!
//! Input: a body and the limits. Output: [`HttpEvent`]s, or 400 with the invalid field.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::channels::Attributes;
use crate::api::{Api, ApiError};
use crate::event::{SocketId, is_reserved};

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

/// The original's message for an incomplete event (`src/subscribers/http-subscriber.ts:100`); the missing field follows it.
const INCOMPLETE: &str = "Event must include channel, event name and data";

/// An event in which a field is missing or empty.
fn incomplete(field: &str, is_there: bool) -> ApiError {
    let what = if is_there { "is empty" } else { "is missing" };
    ApiError::bad_request(format!("{INCOMPLETE}: `{field}` {what}"))
}

/// Fields of an event, each validated on its own so that errors can name it.
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
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BatchFields<'a> {
    #[serde(borrow, default)]
    batch: Option<&'a RawValue>,
}

/// A parsed event, for one or more channels.
#[derive(Debug)]
pub(super) struct HttpEvent {
    pub(super) channels: Vec<String>,
    pub(super) name: String,
    pub(super) data: Box<RawValue>,
    pub(super) except: Option<SocketId>,
    /// Channel attributes for the response.
    pub(super) info: Option<Attributes>,
}

/// Limits on lengths and counts in events.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    channels: usize,
    channel_name: usize,
    event_name: usize,
}

impl From<&Api> for Bounds {
    fn from(api: &Api) -> Self {
        Self { channels: api.channel_limit, channel_name: api.channel_name_limit, event_name: api.event_name_limit }
    }
}

/// Parses the body of `events`.
pub(super) fn event(body: &[u8], api: &Api) -> Result<HttpEvent, ApiError> {
    read_event(&object(body, "body")?, api.into())
}

/// Parses the body of `batch_events`: `{"batch":[{"channel":"news","name":"sent","data":"{}"},…]}`.
pub(super) fn batch(body: &[u8], api: &Api) -> Result<Vec<HttpEvent>, ApiError> {
    read_batch(body, api.into())
}

fn read_batch(body: &[u8], bounds: Bounds) -> Result<Vec<HttpEvent>, ApiError> {
    let fields: BatchFields<'_> = object(body, "body")?;
    let batch = fields.batch.ok_or_else(|| ApiError::bad_request("batch must be a list of events"))?;
    let events: Vec<&RawValue> = parse(batch, "batch", "a list of events")?;
    if events.len() > bounds.channels {
        return Err(ApiError::bad_request(format!(
            "batch: {} events are more than limits.apiChannels ({})",
            events.len(),
            bounds.channels
        )));
    }
    let events = events.into_iter().enumerate().map(|(index, event)| {
        let place = format!("batch[{index}]");
        let fields: Fields<'_> = object(event.get().as_bytes(), &place)?;
        if fields.channels.is_some() {
            return Err(ApiError::bad_request(format!("{place}: channels is for single events, expected channel")));
        }
        read_event(&fields, bounds).map_err(|error| error.within(&place))
    });
    events.collect()
}

/// Parses a JSON object. serde alone would also accept a list of the fields' values.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8], place: &str) -> Result<T, ApiError> {
    let refuse = |why: String| ApiError::bad_request(format!("{place}: must be a JSON object, {why}"));
    if json.trim_ascii_start().is_empty() {
        return Err(refuse("and is empty".into()));
    }
    let parsed = serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
    if json.trim_ascii_start().starts_with(b"{") { Ok(parsed) } else { Err(refuse("and is a list".into())) }
}

fn read_event(fields: &Fields<'_>, bounds: Bounds) -> Result<HttpEvent, ApiError> {
    let name: String = parse(fields.name.ok_or_else(|| incomplete("name", false))?, "name", "text")?;
    let data = fields.data.filter(|data| !is_falsy(data)).ok_or_else(|| incomplete("data", fields.data.is_some()))?;
    let channel: Option<String> = fields.channel.map(|channel| parse(channel, "channel", "text")).transpose()?;
    let channels: Option<Vec<String>> = fields.channels.map(|list| parse(list, "channels", "a list of channel names")).transpose()?;
    let mut named = channel.iter().chain(channels.iter().flatten());
    if name.is_empty() {
        return Err(incomplete("name", true));
    }
    if named.clone().any(String::is_empty) {
        return Err(incomplete("channel", true));
    }
    named.try_for_each(|channel| check("channel", channel, bounds.channel_name, "limits.channelName"))?;
    let channels = channels.or_else(|| channel.map(|channel| vec![channel])).ok_or_else(|| incomplete("channel", false))?;
    check("name", &name, bounds.event_name, "limits.eventName")?;
    if is_reserved(&name) {
        return Err(ApiError::bad_request(format!("name: `{name}` is reserved by Socket.IO")));
    }
    if channels.len() > bounds.channels {
        return Err(ApiError::bad_request(format!("channels: {} are more than limits.apiChannels ({})", channels.len(), bounds.channels)));
    }
    let socket_id: Option<String> = fields.socket_id.map(|id| parse(id, "socket_id", "text or null")).transpose()?;
    let info: Option<String> = fields.info.map(|info| parse(info, "info", "text such as `subscription_count,user_count`")).transpose()?;
    Ok(HttpEvent {
        channels,
        name,
        data: decode_once(data),
        except: socket_id.as_deref().and_then(SocketId::parse),
        info: info.as_deref().map(Attributes::parse),
    })
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

/// Falsy values in JavaScript, which the original refuses.
fn is_falsy(data: &RawValue) -> bool {
    let json = data.get();
    matches!(json, "null" | "false" | "\"\"") || json.parse::<f64>().is_ok_and(|number| number == 0.0)
}

/// Pusher's libraries send data as a string: a string that holds JSON is decoded once, any other is kept as a string.
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

    const BOUNDS: Bounds = Bounds { channels: 2, channel_name: 10, event_name: 10 };

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn refusal(body: &str) -> String {
        object(body.as_bytes(), "body").and_then(|fields| read_event(&fields, BOUNDS)).unwrap_err().message().to_owned()
    }

    #[test]
    fn a_string_that_holds_json_is_decoded_once() {
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
    fn falsy_data_is_refused_and_empty_lists_are_not() {
        assert!(["null", "false", "0", "-0", "0.00", "0e5", "\"\""].into_iter().all(|json| is_falsy(&raw(json))));
        assert!(["[]", "{}", "true", "1", "\"0\""].into_iter().all(|json| !is_falsy(&raw(json))));
    }

    #[test]
    fn errors_name_the_invalid_field() {
        for (body, error) in [
            ("", "body: must be a JSON object, and is empty"),
            (r#"["news",null,"sent",{}]"#, "body: must be a JSON object, and is a list"),
            (r#"{"channel":"news","name":"sent"}"#, "Event must include channel, event name and data: `data` is missing"),
            (r#"{"channel":"news","name":"sent","data":0}"#, "Event must include channel, event name and data: `data` is empty"),
            (r#"{"channel":"news","data":1}"#, "Event must include channel, event name and data: `name` is missing"),
            (r#"{"name":"sent","data":1}"#, "Event must include channel, event name and data: `channel` is missing"),
            (r#"{"channel":"","name":"sent","data":1}"#, "Event must include channel, event name and data: `channel` is empty"),
            (r#"{"channel":"news","name":5,"data":1}"#, "name must be text"),
            (r#"{"channel":["news"],"name":"sent","data":1}"#, "channel must be text"),
            (r#"{"channels":"news","name":"sent","data":1}"#, "channels must be a list of channel names"),
            (r#"{"channels":["a","b","c"],"name":"sent","data":1}"#, "channels: 3 are more than limits.apiChannels (2)"),
            (r#"{"channel":"news-is-long","name":"sent","data":1}"#, "channel is 12 bytes long, more than limits.channelName (10)"),
            (r#"{"channel":"news","name":"disconnect","data":1}"#, "name: `disconnect` is reserved by Socket.IO"),
            (r#"{"channel":"news","name":"sent","data":1,"socket_id":5}"#, "socket_id must be text or null"),
            (r#"{"channel":"news","name":"sent","data":1,"info":5}"#, "info must be text such as `subscription_count,user_count`"),
        ] {
            assert_eq!(refusal(body), error, "{body}");
        }
        assert!(refusal("{").starts_with("body: must be a JSON object, EOF while parsing"));
    }

    #[test]
    fn errors_in_a_batch_name_the_event() {
        let refusal = |body: &str| read_batch(body.as_bytes(), BOUNDS).unwrap_err().message().to_owned();
        let good = r#"{"channel":"news","name":"sent","data":"{}"}"#;
        assert_eq!(refusal("{}"), "batch must be a list of events");
        assert_eq!(refusal(r#"{"batch":{}}"#), "batch must be a list of events");
        assert_eq!(refusal(&format!(r#"{{"batch":[{good},5]}}"#)).split(", ").next().unwrap(), "batch[1]: must be a JSON object");
        assert_eq!(refusal(&format!(r#"{{"batch":[{good},{{"name":5}}]}}"#)), "batch[1]: name must be text");
        assert_eq!(refusal(&format!(r#"{{"batch":[{good},{good},{good}]}}"#)), "batch: 3 events are more than limits.apiChannels (2)");
        assert_eq!(
            refusal(r#"{"batch":[{"channels":["a","b"],"name":"sent","data":1}]}"#),
            "batch[0]: channels is for single events, expected channel"
        );
        assert_eq!(read_batch(format!(r#"{{"batch":[{good}]}}"#).as_bytes(), BOUNDS).unwrap().len(), 1);
    }
}
