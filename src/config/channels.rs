//! Settings: channel rules by pattern: `[[channels]]`.
//!
//! Input: the tables as [`load`](super::load) finds them, in their order. Output: a part of [`Config`](super::Config); the
//! first rule whose pattern matches a channel applies to it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WebhookEvent;
use super::value::{self, As, Seconds};

/// Maximum value of `last`.
pub(super) const MAX_LAST: u32 = 1000;

/// A rule for the channels of a pattern. Fields that are not set behave as without a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelRule {
    /// The channels: `*` matches any text, `{name}` one segment.
    pub pattern: String,
    /// Who may whisper, and whether receivers see the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whispers: Option<Whispers>,
    /// What happens to events for clients that do not keep up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<Deliver>,
    /// How many of the last events a new subscriber gets.
    #[serde(default, deserialize_with = "value::some_integer", skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Maximum age of these events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Option<Seconds>>")]
    pub last_for: Option<Duration>,
    /// Maximum number of users in a presence channel; 0: no limit.
    #[serde(default, deserialize_with = "value::some_integer", skip_serializing_if = "Option::is_none")]
    pub max_members: Option<u32>,
    /// Who decides who may join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ChannelAuth>,
    /// The webhook events that are sent for these channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<Vec<WebhookEvent>>,
}

/// Who may whisper, and whether receivers see the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whispers {
    /// Every subscriber.
    #[default]
    Members,
    /// No one.
    Off,
    /// Every subscriber, and receivers also get the sender's user id.
    Stamped,
}

/// What happens to events for clients that do not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deliver {
    /// All are delivered; a client that does not keep up is closed.
    #[default]
    All,
    /// A newer event replaces a queued one with the same name.
    Latest,
    /// An event is dropped while one with the same name is queued.
    Volatile,
}

/// Who decides who may join a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelAuth {
    /// Only the application; tokens are ignored.
    Callback,
    /// Only tokens of `auth.jwt`.
    Jwt,
    /// No one: anyone may join.
    None,
}

impl ChannelRule {
    /// A rule that changes nothing.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self {
            pattern: pattern.to_owned(),
            whispers: None,
            deliver: None,
            last: None,
            last_for: None,
            max_members: None,
            auth: None,
            webhooks: None,
        }
    }
}
