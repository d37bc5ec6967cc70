//! Settings: limits against runaway or hostile clients: `[limits]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::value::{self, As, ByteSize};

/// Limits against runaway or hostile clients; 0 means no limit if the comment says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Sockets in total (0: no limit).
    #[serde(deserialize_with = "value::integer")]
    pub connections: u64,
    /// Sockets per client address (0: no limit).
    #[serde(deserialize_with = "value::integer")]
    pub connections_per_ip: u64,
    /// Headers of the request that opens a session or a websocket, in bytes.
    #[serde(with = "As::<ByteSize>")]
    pub handshake_headers: u64,
    /// Channels per socket.
    #[serde(deserialize_with = "value::integer")]
    pub subscriptions: u64,
    /// Length of a channel name in bytes.
    #[serde(with = "As::<ByteSize>")]
    pub channel_name: u64,
    /// Length of an event name in bytes.
    #[serde(with = "As::<ByteSize>")]
    pub event_name: u64,
    /// Subscribes per second and socket; bursts of twice as many are allowed.
    #[serde(deserialize_with = "value::integer")]
    pub subscribes_per_second: u32,
    /// Whispers per second and socket; bursts of twice as many are allowed.
    #[serde(deserialize_with = "value::integer")]
    pub whispers_per_second: u32,
    /// Size of a whisper's data.
    #[serde(with = "As::<ByteSize>")]
    pub whisper_bytes: u64,
    /// Undelivered messages per socket; beyond this it is closed.
    #[serde(deserialize_with = "value::integer")]
    pub client_queue: u64,
    /// Undelivered bytes per socket; beyond this it is closed.
    #[serde(with = "As::<ByteSize>")]
    pub client_queue_bytes: u64,
    /// Size of an HTTP API request body.
    #[serde(with = "As::<ByteSize>")]
    pub api_body: u64,
    /// Channels of one HTTP event.
    #[serde(deserialize_with = "value::integer")]
    pub api_channels: u64,
    /// HTTP API requests per second and application (0: no limit).
    #[serde(deserialize_with = "value::integer")]
    pub api_requests_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 0,
            connections_per_ip: 0,
            handshake_headers: 32_000,
            subscriptions: 1000,
            channel_name: 200,
            event_name: 200,
            subscribes_per_second: 1000,
            whispers_per_second: 200,
            whisper_bytes: 100_000,
            client_queue: 10_000,
            client_queue_bytes: 8_000_000,
            api_body: 10_000_000,
            api_channels: 100,
            api_requests_per_second: 0,
        }
    }
}
