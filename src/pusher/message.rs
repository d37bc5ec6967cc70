//! Messages that Pusher clients send.
//!
//! Input: text messages of a websocket. Output: [`Said`]. `data` may be JSON or a string of JSON, as from pusher-websocket-java.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A client's message.
#[derive(Debug, Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow)]
    pub(super) event: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) channel: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

/// The `data` of `pusher:subscribe` and `pusher:unsubscribe`.
#[derive(Debug, Deserialize)]
pub(super) struct Subscribe {
    pub(super) channel: String,
    #[serde(default)]
    pub(super) auth: Option<String>,
    /// Signed byte for byte. Some clients send an unsigned object instead of a string.
    #[serde(default)]
    channel_data: Option<serde_json::Value>,
}

/// The `data` of `pusher:signin`.
#[derive(Debug, Deserialize)]
pub(super) struct SignIn {
    pub(super) auth: String,
    pub(super) user_data: String,
}

/// The user who signs in.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    #[serde(default)]
    pub(super) user_info: Option<Box<RawValue>>,
    /// Ids of users whose online status the client wants to follow.
    #[serde(default)]
    pub(super) watchlist: Vec<String>,
}

impl Said<'_> {
    /// Parses `data` as `T`, whether it is JSON or a string of JSON.
    pub(super) fn data<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        let data = self.data?;
        if data.get().starts_with('"') {
            let text: String = serde_json::from_str(data.get()).ok()?;
            return serde_json::from_str(&text).ok();
        }
        serde_json::from_str(data.get()).ok()
    }

    /// The `data` of a client event as other clients receive it: a string that holds an object or list is unwrapped.
    pub(super) fn whisper(&self) -> Cow<'_, RawValue> {
        let Some(data) = self.data else { return Cow::Borrowed(RawValue::NULL) };
        let inner = || {
            let text: String = data.get().starts_with('"').then(|| serde_json::from_str(data.get()).ok()).flatten()?;
            text.trim_start().starts_with(['{', '[']).then(|| RawValue::from_string(text).ok()).flatten()
        };
        inner().map_or(Cow::Borrowed(data), Cow::Owned)
    }
}

impl Subscribe {
    /// `channel_data` as it was signed.
    pub(super) fn channel_data(&self) -> Option<&str> {
        self.channel_data.as_ref()?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_may_be_json_or_a_string_of_json() {
        for text in [
            r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":"k:s","channel_data":"{\"user_id\":1}"}}"#,
            r#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\",\"auth\":\"k:s\",\"channel_data\":\"{\\\"user_id\\\":1}\"}"}"#,
        ] {
            let said: Said<'_> = serde_json::from_str(text).unwrap();
            let subscribe: Subscribe = said.data().unwrap();
            assert_eq!((subscribe.channel.as_str(), subscribe.channel_data()), ("a", Some(r#"{"user_id":1}"#)));
        }
    }

    #[test]
    fn whispers_in_strings_are_unwrapped() {
        for (data, expected) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (r#""{\"a\":1}""#, r#"{"a":1}"#),
            (r#""hi""#, r#""hi""#),
            (r#""{broken""#, r#""{broken""#),
            ("5", "5"),
        ] {
            let text = format!(r#"{{"event":"client-a","channel":"private-a","data":{data}}}"#);
            let said: Said<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(said.whisper().get(), expected);
        }
        let said: Said<'_> = serde_json::from_str(r#"{"event":"client-a","channel":"private-a"}"#).unwrap();
        assert_eq!(said.whisper().get(), "null");
    }
}
