//! Settings: the endpoint that Laravel can publish to without a Redis: `[redisServer]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::value::{self, As, ByteSize, Port, Secret, Toggle};

/// The built-in endpoint that Laravel can publish to without a Redis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisServerConfig {
    /// Whether it listens.
    #[serde(with = "As::<Toggle>")]
    pub enabled: bool,
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    #[serde(with = "As::<Port>")]
    pub port: u16,
    /// Password that clients must send.
    pub password: Option<Secret>,
    /// User that goes with the password.
    pub username: Option<String>,
    /// Maximum number of connections.
    #[serde(deserialize_with = "value::integer")]
    pub max_clients: u32,
    /// Maximum size of a command.
    #[serde(with = "As::<ByteSize>")]
    pub max_message_bytes: u64,
    /// TLS: `true`, or a table with a separate certificate.
    pub tls: RedisServerTls,
}

impl Default for RedisServerConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            host: "127.0.0.1".into(),
            port: 6380,
            password: None,
            username: None,
            max_clients: 1000,
            max_message_bytes: 10_000_000,
            tls: RedisServerTls::default(),
        }
    }
}

/// TLS of the built-in endpoint. Without its own files it uses the certificate of `sslCertPath`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisServerTls {
    /// Whether TLS is used.
    pub enabled: bool,
    /// File with the certificate (PEM).
    pub cert_path: String,
    /// File with its private key (PEM).
    pub key_path: String,
    /// File with the intermediate certificates (PEM).
    pub chain_path: String,
    /// Passphrase of the key.
    pub passphrase: Secret,
}

impl RedisServerTls {
    /// Whether it has its own files.
    #[must_use]
    pub fn has_files(&self) -> bool {
        [&self.cert_path, &self.key_path, &self.chain_path].iter().any(|path| !path.is_empty())
    }
}
