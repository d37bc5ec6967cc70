//! The settings: plain data with defaults, under the key names of the original. No I/O happens here.
//!
//! Input: [`load`] reads a file, `.env` and the environment into a [`Config`]; [`validate`] rejects what cannot work.
//! Output: the resolved value, whose typed parts [`crate::server::Server`] passes on. Each table has its own file.
//!
//! Keys are camelCase in both TOML and the legacy JSON. The first block of [`Config`] has the keys of laravel-echo-server
//! 1.6.3 (`src/echo-server.ts:17-48`); everything below it is new.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod advice;
mod api;
mod auth;
mod channels;
mod cluster;
mod dashboard;
mod database;
pub mod env;
mod limits;
pub mod load;
pub(crate) mod log;
mod metrics;
mod presence;
mod pusher;
mod recovery;
mod redis_server;
pub mod schema;
pub mod secrets;
mod shutdown;
mod socketio;
mod subscribers;
mod tls;
pub mod validate;
pub mod value;
mod webhooks;

pub use api::{ApiClient, ApiOriginAllow};
pub use auth::{AuthConfig, AuthTls, JwtConfig};
pub use channels::{ChannelAuth, ChannelRule, Deliver, Whispers};
pub use cluster::ClusterConfig;
pub use dashboard::DashboardConfig;
pub use database::{Database, DatabaseConfig, RedisConfig, RedisNode, RedisTls, SqliteConfig};
pub use limits::Limits;
pub use log::{LogConfig, LogFormat};
pub use metrics::MetricsConfig;
pub use presence::PresenceConfig;
pub use pusher::PusherConfig;
pub use recovery::RecoveryConfig;
pub use redis_server::{RedisServerConfig, RedisServerTls};
pub use shutdown::ShutdownConfig;
pub use socketio::{Cookie, SameSite, SocketIoConfig};
pub use subscribers::{RedisMode, Subscribers};
use value::{As, OneOrMany, Port, Secret, Toggle};
pub use webhooks::{Webhook, WebhookConfig, WebhookEvent, WebhookStore, WebhookTarget, WebhooksDelivery};

/// Every setting of the server, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Base URL of the Laravel application, or several to choose from by the page's `Referer` or `Origin`.
    #[serde(with = "As::<OneOrMany>")]
    pub auth_host: Vec<String>,
    /// Path (and query) of the request that authorises joining a private or presence channel.
    pub auth_endpoint: String,
    /// Applications that may use the HTTP API.
    pub clients: Vec<ApiClient>,
    /// Where presence members are kept.
    pub database: Database,
    /// Connection details of the databases.
    pub database_config: DatabaseConfig,
    /// Log joins, leaves and events.
    #[serde(with = "As::<Toggle>")]
    pub dev_mode: bool,
    /// Address to listen on; none means all interfaces.
    pub host: Option<String>,
    /// Port to listen on.
    #[serde(with = "As::<Port>")]
    pub port: u16,
    /// Port for plain HTTP in addition to `https`.
    #[serde(with = "As::<Option<Port>>")]
    pub http_port: Option<u16>,
    /// `http` or `https`.
    pub protocol: Protocol,
    /// Engine options under the names of socket.io 2.
    pub socketio: SocketIoConfig,
    /// Certificate (PEM) for `https`.
    pub ssl_cert_path: String,
    /// Private key (PEM) for `https`.
    pub ssl_key_path: String,
    /// Intermediate certificates (PEM), unless they are in `sslCertPath`.
    pub ssl_cert_chain_path: String,
    /// Passphrase of the private key.
    pub ssl_passphrase: Secret,
    /// Sources of events.
    pub subscribers: Subscribers,
    /// CORS headers of the HTTP API.
    pub api_origin_allow: ApiOriginAllow,
    /// Additional headers in every HTTP API response, like the original's undocumented `headers`.
    pub headers: BTreeMap<String, String>,
    /// OpenSSL option bits of the original; ignored, because TLS 1.2 is always the minimum.
    pub secure_options: Option<i64>,

    /// Channels (with `*`) also sent as `<channel>:<event>` to every connected socket.
    #[serde(with = "As::<OneOrMany>")]
    pub flat_channels: Vec<String>,
    /// Channel rules by pattern; the first one that matches applies.
    pub channels: Vec<ChannelRule>,
    /// Origins (with `*`) that may open sockets.
    #[serde(with = "As::<OneOrMany>")]
    pub allowed_origins: Vec<String>,
    /// Addresses (or networks) of proxies whose `X-Forwarded-For` is trusted.
    #[serde(with = "As::<OneOrMany>")]
    pub trust_proxies: Vec<String>,
    /// Presence members: what clients see, and leases.
    pub presence: PresenceConfig,
    /// Clients that speak Pusher's protocol.
    pub pusher: PusherConfig,
    /// What is kept for clients that reconnect.
    pub recovery: RecoveryConfig,
    /// Several nodes on one Redis.
    pub cluster: ClusterConfig,
    /// Targets of webhooks.
    pub webhooks: Vec<WebhookConfig>,
    /// How webhooks are delivered.
    pub webhooks_delivery: WebhooksDelivery,
    /// Authorization by the Laravel application or tokens.
    pub auth: AuthConfig,
    /// The built-in endpoint that Laravel can publish to without a Redis.
    pub redis_server: RedisServerConfig,
    /// Limits against runaway or hostile clients.
    pub limits: Limits,
    /// Prometheus metrics.
    pub metrics: MetricsConfig,
    /// The dashboard page.
    pub dashboard: DashboardConfig,
    /// How the server shuts down.
    pub shutdown: ShutdownConfig,
    /// What is logged and how.
    pub log: LogConfig,
}

impl Config {
    /// Whether Pusher clients can connect: that takes an entry of `clients` with a key and a secret.
    #[must_use]
    pub fn serves_pusher(&self) -> bool {
        let is_open = |client: &ApiClient| {
            !client.key.expose().is_empty() && client.secret.as_ref().is_some_and(|secret| !secret.expose().is_empty())
        };
        self.pusher.enabled && self.clients.iter().any(is_open)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            auth_host: vec!["http://localhost".to_owned()],
            auth_endpoint: "/broadcasting/auth".into(),
            clients: Vec::new(),
            database: Database::Memory,
            database_config: DatabaseConfig::default(),
            dev_mode: false,
            host: None,
            port: 6001,
            http_port: None,
            protocol: Protocol::Http,
            socketio: SocketIoConfig::default(),
            ssl_cert_path: String::new(),
            ssl_key_path: String::new(),
            ssl_cert_chain_path: String::new(),
            ssl_passphrase: Secret::default(),
            subscribers: Subscribers::default(),
            api_origin_allow: ApiOriginAllow::default(),
            headers: BTreeMap::new(),
            secure_options: None,
            flat_channels: Vec::new(),
            channels: Vec::new(),
            allowed_origins: ["*"].map(str::to_owned).into(),
            trust_proxies: Vec::new(),
            presence: PresenceConfig::default(),
            pusher: PusherConfig::default(),
            recovery: RecoveryConfig::default(),
            cluster: ClusterConfig::default(),
            webhooks: Vec::new(),
            webhooks_delivery: WebhooksDelivery::default(),
            auth: AuthConfig::default(),
            redis_server: RedisServerConfig::default(),
            limits: Limits::default(),
            metrics: MetricsConfig::default(),
            dashboard: DashboardConfig::default(),
            shutdown: ShutdownConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Plain HTTP.
    Http,
    /// TLS with `sslCertPath` and `sslKeyPath`.
    Https,
}
