//! Settings: clients that speak Pusher's protocol: `[pusher]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{As, Seconds, Toggle};

/// Clients that speak Pusher's protocol. They need an entry in `clients` with `key` and `secret`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PusherConfig {
    /// Whether they are served.
    #[serde(with = "As::<Toggle>")]
    pub enabled: bool,
    /// The prefix of `/app/<key>`, which is `wsPath` of the client; `/apps` works with and without it.
    pub path: String,
    /// After this time without a message the client sends a ping.
    #[serde(with = "As::<Seconds>")]
    pub activity_timeout: Duration,
    /// How long the last event of a cache channel is kept.
    #[serde(with = "As::<Seconds>")]
    pub cache_ttl: Duration,
    /// Whether subscribers are told how many sockets are subscribed.
    #[serde(with = "As::<Toggle>")]
    pub subscription_count: bool,
}

impl PusherConfig {
    /// The path without a trailing slash, such as `/ws`; empty if there is none.
    #[must_use]
    pub fn prefix(&self) -> String {
        match self.path.trim_matches('/') {
            "" => String::new(),
            path => format!("/{path}"),
        }
    }
}

impl Default for PusherConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            path: String::new(),
            activity_timeout: Duration::from_secs(30),
            cache_ttl: Duration::from_secs(30 * 60),
            subscription_count: false,
        }
    }
}
