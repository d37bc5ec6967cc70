//! Settings: limits against runaway or hostile clients: `[limits]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::value::{self, ByteSize};

/// Limits against runaway or hostile clients; 0 means no limit where the comment says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Sockets in all (0: no limit).
    #[serde(deserialize_with = "value::integer")]
    pub connections: u64,
    /// Sockets per client address (0: no limit).
    #[serde(deserialize_with = "value::integer")]
    pub connections_per_ip: u64,
    /// Headers of the request that opens a session or a websocket, in bytes.
    pub handshake_headers: ByteSize,
    /// Channels per socket.
    #[serde(deserialize_with = "value::integer")]
    pub subscriptions: u64,
    /// Length of a channel name in bytes.
    pub channel_name: ByteSize,
    /// Length of an event name in bytes.
    pub event_name: ByteSize,
    /// Subscribes per second and socket, with a burst of twice as many.
    #[serde(deserialize_with = "value::integer")]
    pub subscribes_per_second: u32,
    /// Whispers per second and socket, with a burst of twice as many.
    #[serde(deserialize_with = "value::integer")]
    pub whispers_per_second: u32,
    /// Data of one whisper.
    pub whisper_bytes: ByteSize,
    /// Undelivered messages per socket; beyond, it is closed.
    #[serde(deserialize_with = "value::integer")]
    pub client_queue: u64,
    /// Undelivered bytes per socket; beyond, it is closed.
    pub client_queue_bytes: ByteSize,
    /// Body of an HTTP API request.
    pub api_body: ByteSize,
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
            handshake_headers: ByteSize(32_000),
            subscriptions: 1000,
            channel_name: ByteSize(200),
            event_name: ByteSize(200),
            subscribes_per_second: 1000,
            whispers_per_second: 200,
            whisper_bytes: ByteSize(100_000),
            client_queue: 10_000,
            client_queue_bytes: ByteSize(8_000_000),
            api_body: ByteSize(10_000_000),
            api_channels: 100,
            api_requests_per_second: 0,
        }
    }
}
