//! Settings: how channels behave, by pattern: `[[channels]]`.
//!
//! Input: the tables as [`load`](super::load) finds them, in their order. Output: a part of [`Config`](super::Config); the
//! first whose pattern fits a channel is that channel's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WebhookEvent;
use super::value::{self, As, Seconds};

/// Most events that `last` may ask for.
pub(super) const MAX_LAST: u32 = 1000;

/// How the channels of a pattern behave. What is not set is as without a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelRule {
    /// The channels: `*` stands for any text, `{name}` for one segment.
    pub pattern: String,
    /// Who may whisper, and what the others are told of the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whispers: Option<Whispers>,
    /// What becomes of events for clients that do not keep up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<Deliver>,
    /// How many of the last events whoever subscribes gets.
    #[serde(default, deserialize_with = "value::some_integer", skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// How old these may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Option<Seconds>>")]
    pub last_for: Option<Duration>,
    /// Most users in a presence channel; 0: any number.
    #[serde(default, deserialize_with = "value::some_integer", skip_serializing_if = "Option::is_none")]
    pub max_members: Option<u32>,
    /// Who decides who may join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ChannelAuth>,
    /// What the application's webhooks are told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<Vec<WebhookEvent>>,
}

/// Who may whisper, and what the others are told of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whispers {
    /// Whoever is in the channel.
    #[default]
    Members,
    /// Nobody.
    Off,
    /// Whoever is in the channel, and the others get the sender's user id with it.
    Stamped,
}

/// What becomes of events for clients that do not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deliver {
    /// All are delivered; a client that does not keep up is closed.
    #[default]
    All,
    /// A newer event takes the place of one of the same name that still waits.
    Latest,
    /// An event is dropped while one of the same name still waits.
    Volatile,
}

/// Who decides who may join a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelAuth {
    /// The application alone, whatever tokens say.
    Callback,
    /// Tokens of `auth.jwt` alone.
    Jwt,
    /// Nobody: anyone may join.
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
