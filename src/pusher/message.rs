//! What Pusher's clients send.
//!
//! Input: texts of a websocket. Output: [`Said`]. `data` may be JSON or the text of JSON: pusher-websocket-java sends text.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A message of a client.
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
    /// Signed byte for byte. Some clients send an object where nobody signed it.
    #[serde(default)]
    channel_data: Option<serde_json::Value>,
}

/// The `data` of `pusher:signin`.
#[derive(Debug, Deserialize)]
pub(super) struct SignIn {
    pub(super) auth: String,
    pub(super) user_data: String,
}

/// Who signs in.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    #[serde(default)]
    pub(super) user_info: Option<Box<RawValue>>,
    /// Users whose coming and going it wants to hear of.
    #[serde(default)]
    pub(super) watchlist: Vec<String>,
}

impl Said<'_> {
    /// The `data` as a value of this form.
    pub(super) fn data<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        let data = self.data?;
        if data.get().starts_with('"') {
            let text: String = serde_json::from_str(data.get()).ok()?;
            return serde_json::from_str(&text).ok();
        }
        serde_json::from_str(data.get()).ok()
    }

    /// The `data` of a client event as the others get it: an object or list that came as text is what it says.
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
    fn data_comes_as_json_and_as_its_text() {
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
    fn whispers_in_text_are_what_the_text_says() {
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
