//! Settings: where members are kept, and the Redis that events come from: `database` and `[databaseConfig]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::value::{self, As, Port, Secret, Toggle};

/// Where presence members are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    /// In this process.
    Memory,
    /// In Redis, shared by nodes.
    Redis,
    /// The original's SQLite table: kept in memory as well, because old content is useless after a restart.
    Sqlite,
}

/// Connection details of the databases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseConfig {
    /// The Redis that events come from and members are kept in.
    pub redis: RedisConfig,
    /// The original's SQLite settings; accepted but not used.
    pub sqlite: SqliteConfig,
    /// Publish the member list on `PresenceChannelUpdated` at every change.
    #[serde(with = "As::<Toggle>")]
    pub publish_presence: bool,
    /// Copy the list to the original's `<channel>:members` key.
    #[serde(with = "As::<Toggle>")]
    pub members_mirror: bool,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { redis: RedisConfig::default(), sqlite: SqliteConfig::default(), publish_presence: false, members_mirror: true }
    }
}

/// Redis options under the names of ioredis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    #[serde(with = "As::<Port>")]
    pub port: u16,
    /// ACL user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Database number for stored members; PUBLISH does not depend on it.
    #[serde(deserialize_with = "value::integer")]
    pub db: i64,
    /// Laravel's Redis prefix, which is removed from channel names.
    pub key_prefix: String,
    /// Unix socket, instead of host and port.
    pub path: Option<String>,
    /// `redis://` or `rediss://` URL, instead of all the above.
    pub url: Option<Secret>,
    /// TLS: `true`, or a table with `ca` and `rejectUnauthorized`.
    pub tls: RedisTls,
    /// Sentinels to ask for the master `name`.
    pub sentinels: Vec<RedisNode>,
    /// Name of the master that the sentinels monitor.
    pub name: Option<String>,
    /// Password of the sentinels.
    pub sentinel_password: Option<Secret>,
    /// Initial nodes of a Redis Cluster.
    pub cluster: Vec<RedisNode>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 6379,
            username: None,
            password: None,
            db: 0,
            key_prefix: String::new(),
            path: None,
            url: None,
            tls: RedisTls::default(),
            sentinels: Vec::new(),
            name: None,
            sentinel_password: None,
            cluster: Vec::new(),
        }
    }
}

/// Address of a sentinel or of a cluster node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisNode {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    #[serde(default = "RedisNode::default_port")]
    #[serde(with = "As::<Port>")]
    pub port: u16,
}

impl RedisNode {
    const fn default_port() -> u16 {
        6379
    }
}

/// TLS to Redis, with the names of Node's `tls` options.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisTls {
    /// Whether TLS is used.
    pub enabled: bool,
    /// File with the certificate authority (PEM), in addition to the system's.
    pub ca: Option<PathBuf>,
    /// `false` accepts any certificate.
    pub reject_unauthorized: bool,
}

impl Default for RedisTls {
    fn default() -> Self {
        Self { enabled: false, ca: None, reject_unauthorized: true }
    }
}

/// The original's SQLite file; accepted but not used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SqliteConfig {
    /// Its path.
    pub database_path: String,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self { database_path: "/database/laravel-echo-server.sqlite".into() }
    }
}
