//! Settings: what is kept for clients that reconnect: `[recovery]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{self, As, ByteSize, Seconds, Toggle};

/// What is kept for clients that reconnect after a lost connection: socket.io-client 4.6 and newer request it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecoveryConfig {
    /// Whether events and sessions are kept; events to socket.io-client 3 and 4 then end with their offset.
    #[serde(with = "As::<Toggle>")]
    pub enabled: bool,
    /// How long they are kept.
    #[serde(with = "As::<Seconds>")]
    pub window: Duration,
    /// Maximum number of events.
    #[serde(deserialize_with = "value::integer")]
    pub events: u64,
    /// Maximum bytes of events.
    #[serde(with = "As::<ByteSize>")]
    pub bytes: u64,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self { enabled: true, window: Duration::from_secs(120), events: 10_000, bytes: 64_000_000 }
    }
}
