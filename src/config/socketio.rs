//! Settings: options of the engine: `[socketio]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::value::{self, ByteSize, OneOrMany};

/// Engine options under the names of socket.io 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SocketIoConfig {
    /// Path of the endpoint.
    pub path: String,
    /// Milliseconds between heartbeats.
    #[serde(deserialize_with = "value::integer")]
    pub ping_interval: u64,
    /// Milliseconds to wait for the answer to a heartbeat.
    #[serde(deserialize_with = "value::integer")]
    pub ping_timeout: u64,
    /// Largest message a client may send, on both transports.
    pub max_http_buffer_size: ByteSize,
    /// `polling`, `websocket` or both.
    pub transports: OneOrMany,
    /// Name of the cookie with the session id on polling handshakes (for sticky sessions), or `false`.
    pub cookie: CookieName,
    /// Answers to polls in gzip: `true`, `false`, or `{ threshold = 1024 }`.
    pub http_compression: Compression,
    /// Most packets in the answer to a poll (0: all that wait). python-socketio takes 16.
    #[serde(deserialize_with = "value::integer")]
    pub max_poll_packets: u64,
    /// socket.io 2's origins (`"*:*"`, space separated); `allowedOrigins` wins when it is given.
    pub origins: Option<OneOrMany>,
    /// Folder with `socket.io.js` to serve.
    pub client_path: Option<PathBuf>,
}

impl Default for SocketIoConfig {
    fn default() -> Self {
        Self {
            path: "/socket.io".into(),
            ping_interval: 25_000,
            ping_timeout: 20_000,
            max_http_buffer_size: ByteSize(1_000_000),
            transports: OneOrMany::many(["polling", "websocket"]),
            cookie: CookieName(Some("io".into())),
            http_compression: Compression::default(),
            max_poll_packets: 0,
            origins: None,
            client_path: None,
        }
    }
}

/// Name of the session cookie; `false` in the file means none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(pub Option<String>);

/// Answers in gzip from so many bytes on; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression(pub Option<u64>);

impl Default for Compression {
    /// The threshold of Engine.IO.
    fn default() -> Self {
        Self(Some(1024))
    }
}

impl Compression {
    /// Bytes from which on an answer is compressed.
    #[must_use]
    pub const fn threshold(self) -> Option<u64> {
        self.0
    }
}
