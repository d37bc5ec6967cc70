//! [`Member`]: a user in a presence channel, as the Laravel application described it.
//!
//! Input: the `channel_data` of a callback, or a store's copy of it. Output: the same JSON, and the user's id.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::SocketId;

/// A user in a presence channel, as the Laravel application described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member(Arc<MemberData>);

#[derive(Debug, PartialEq, Eq)]
struct MemberData {
    user: Box<str>,
    json: Box<str>,
}

/// What is wrong with the `channel_data` of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// It is missing.
    #[error("the answer has no channel_data")]
    Missing,
    /// It is neither a JSON object nor a string that contains one.
    #[error("channel_data is not an object")]
    NotAnObject,
    /// It has no `user_id`, or one that is not a string, number or boolean.
    #[error("channel_data has no user_id")]
    NoUserId,
}

/// The keys of a member that the server reads.
#[derive(Deserialize)]
struct MemberKeys<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    user_info: Option<&'a RawValue>,
}

/// Distinguishes a key that is `null` from one that is missing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// `user_id` and `user_info` of a member, as the application sent them.
#[derive(Debug, Clone, Copy)]
pub struct MemberView<'a> {
    /// The id: a string, number or boolean.
    pub user_id: &'a RawValue,
    /// What the application says about the user; absent when it said nothing.
    pub user_info: Option<&'a RawValue>,
}

impl Member {
    /// Parses `channel_data`: an object such as `{"user_id":1,"user_info":{"name":"Ann"}}`, or a string that contains its
    /// JSON, as sent by Laravel's Pusher broadcaster. Other keys are kept.
    ///
    /// # Errors
    /// [`MemberError::NotAnObject`], [`MemberError::NoUserId`].
    pub fn parse(channel_data: &str) -> Result<Self, MemberError> {
        let text = channel_data.trim();
        if text.starts_with('"') {
            let inner: String = serde_json::from_str(text).map_err(|_| MemberError::NotAnObject)?;
            return Self::from_object(inner.trim());
        }
        Self::from_object(text)
    }

    fn from_object(json: &str) -> Result<Self, MemberError> {
        if !json.starts_with('{') {
            return Err(MemberError::NotAnObject);
        }
        let keys: MemberKeys<'_> = serde_json::from_str(json).map_err(|_| MemberError::NotAnObject)?;
        let user = keys.user_id.and_then(id_text).ok_or(MemberError::NoUserId)?;
        Ok(Self(Arc::new(MemberData { user: user.into(), json: json.into() })))
    }

    /// The user's id as text. Members with the same text are the same user: `1` and `"1"` are equal.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.0.user
    }

    /// The member as JSON, byte for byte as received.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.0.json
    }

    /// Appends the member's JSON to `json`, with a `socketId` as its last key if `socket` is given.
    pub fn push_json(&self, json: &mut String, socket: Option<SocketId>) {
        let Some(socket) = socket else {
            return json.push_str(self.json());
        };
        // The object is never empty (it has a user_id), so the comma is valid.
        let object = self.json().trim_end().strip_suffix('}').expect("a member is an object");
        let _ = write!(json, "{object},\"socketId\":\"{socket}\"}}");
    }

    /// `user_id` and `user_info`.
    #[must_use]
    pub fn view(&self) -> MemberView<'_> {
        let keys: MemberKeys<'_> = serde_json::from_str(&self.0.json).expect("the JSON was parsed before");
        MemberView { user_id: keys.user_id.expect("a member has a user_id"), user_info: keys.user_info }
    }
}

/// The text of an id, whatever its JSON type.
fn id_text(id: &RawValue) -> Option<String> {
    match serde_json::from_str(id.get()).ok()? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(_) => Some(id.get().to_owned()),
        serde_json::Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_as_object_or_as_text() {
        let json = r#"{"user_id":1,"user_info":{"name":"Žofie"},"extra":"kept"}"#;
        assert_eq!(Member::parse(json).unwrap().json(), json);
        let text = serde_json::to_string(json).unwrap();
        assert_eq!(Member::parse(&text).unwrap().json(), json);
    }

    #[test]
    fn users_are_equal_when_their_ids_read_the_same() {
        let number = Member::parse(r#"{"user_id":1}"#).unwrap();
        let text = Member::parse(r#"{"user_id":"1"}"#).unwrap();
        assert_eq!(number.user(), text.user());
        assert_eq!(number.view().user_id.get(), "1");
        assert_eq!(text.view().user_id.get(), "\"1\"");
        assert!(text.view().user_info.is_none());
        let null = Member::parse(r#"{"user_id":1,"user_info":null}"#).unwrap();
        assert_eq!(null.view().user_info.unwrap().get(), "null");
    }

    #[test]
    fn what_cannot_be_a_member_says_why() {
        for (data, error) in [
            ("true", MemberError::NotAnObject),
            ("[]", MemberError::NotAnObject),
            ("\"text\"", MemberError::NotAnObject),
            ("{", MemberError::NotAnObject),
            ("{}", MemberError::NoUserId),
            (r#"{"user_id":null}"#, MemberError::NoUserId),
            (r#"{"user_id":{"id":1}}"#, MemberError::NoUserId),
        ] {
            assert_eq!(Member::parse(data), Err(error), "{data}");
        }
    }
}
