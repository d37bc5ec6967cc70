//! Settings: sources of events: `[subscribers]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::value::{As, Toggle};

/// Sources of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subscribers {
    /// `POST /apps/:id/events`.
    #[serde(with = "As::<Toggle>")]
    pub http: bool,
    /// Events PUBLISHed to Redis.
    #[serde(with = "As::<Toggle>")]
    pub redis: bool,
    /// How the server subscribes to Redis.
    pub redis_mode: RedisMode,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self { http: true, redis: true, redis_mode: RedisMode::Pattern }
    }
}

/// How the server subscribes to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// One `PSUBSCRIBE <keyPrefix>*`.
    Pattern,
    /// `SUBSCRIBE` to the channels that sockets of this node are in, and `PSUBSCRIBE` for `flatChannels`.
    Exact,
}
