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
            origins: None,
            client_path: None,
        }
    }
}

/// Name of the session cookie; `false` in the file means none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(pub Option<String>);
