//! The settings: plain data with defaults, under the key names users already know. No I/O happens here.
//!
//! Input: [`load`] reads a file, `.env` and the environment into a [`Config`]; [`validate`] rejects what cannot work.
//! Output: [`crate::server::Server`] takes the resolved value and hands typed parts down.
//!
//! Keys are camelCase in the TOML and in the legacy JSON alike. The first block of [`Config`] is that of
//! laravel-echo-server 1.6.3 (`src/echo-server.ts:17-48`); everything below it is new.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod env;
pub mod load;
pub mod schema;
mod tls;
pub mod validate;
pub mod value;

use value::{ByteSize, OneOrMany, Port, Seconds, Secret, Toggle};

/// Every setting of the server, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Base URL of the Laravel application, or several to choose from by the page's `Referer` or `Origin`.
    pub auth_host: OneOrMany,
    /// Path (and query) that is asked before anyone joins a private or presence channel.
    pub auth_endpoint: String,
    /// Applications that may use the HTTP API.
    pub clients: Vec<ApiClient>,
    /// Where presence members are kept.
    pub database: Database,
    /// Connection details of the databases.
    pub database_config: DatabaseConfig,
    /// Log joins, leaves and events.
    pub dev_mode: Toggle,
    /// Address to listen on; none means all interfaces.
    pub host: Option<String>,
    /// Port to listen on.
    pub port: Port,
    /// Port for plain HTTP beside `https`.
    pub http_port: Option<Port>,
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
    /// Further headers on every HTTP API response, as the original's undocumented `headers`.
    pub headers: std::collections::BTreeMap<String, String>,
    /// OpenSSL option bits of the original; read and ignored, TLS 1.2 is the least that is spoken.
    pub secure_options: Option<i64>,

    /// Channels (with `*`) also sent as `<channel>:<event>` to every connected socket.
    pub flat_channels: OneOrMany,
    /// Origins (with `*`) that may open sockets.
    pub allowed_origins: OneOrMany,
    /// Addresses (or networks) of proxies whose `X-Forwarded-For` is believed.
    pub trust_proxies: OneOrMany,
    /// What presence members see and how long they last.
    pub presence: PresenceConfig,
    /// Several nodes on one Redis.
    pub cluster: ClusterConfig,
    /// How the Laravel application is asked.
    pub auth: AuthConfig,
    /// The built-in endpoint that Laravel can publish to without a Redis.
    pub redis_server: RedisServerConfig,
    /// Limits against runaway or hostile clients.
    pub limits: Limits,
    /// Prometheus metrics.
    pub metrics: MetricsConfig,
    /// How the server ends.
    pub shutdown: ShutdownConfig,
    /// What is logged and how.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            auth_host: OneOrMany::one("http://localhost"),
            auth_endpoint: "/broadcasting/auth".into(),
            clients: Vec::new(),
            database: Database::Memory,
            database_config: DatabaseConfig::default(),
            dev_mode: Toggle(false),
            host: None,
            port: Port(6001),
            http_port: None,
            protocol: Protocol::Http,
            socketio: SocketIoConfig::default(),
            ssl_cert_path: String::new(),
            ssl_key_path: String::new(),
            ssl_cert_chain_path: String::new(),
            ssl_passphrase: Secret::default(),
            subscribers: Subscribers::default(),
            api_origin_allow: ApiOriginAllow::default(),
            headers: std::collections::BTreeMap::new(),
            secure_options: None,
            flat_channels: OneOrMany::none(),
            allowed_origins: OneOrMany::many(["*"]),
            trust_proxies: OneOrMany::none(),
            presence: PresenceConfig::default(),
            cluster: ClusterConfig::default(),
            auth: AuthConfig::default(),
            redis_server: RedisServerConfig::default(),
            limits: Limits::default(),
            metrics: MetricsConfig::default(),
            shutdown: ShutdownConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// One application that may use the HTTP API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiClient {
    /// Id in the path `/apps/<appId>/…`.
    #[serde(deserialize_with = "value::text")]
    pub app_id: String,
    /// Bearer key, also taken as `auth_key`.
    #[serde(default)]
    pub key: Secret,
    /// Secret of Pusher signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Refuse requests that carry no valid signature.
    #[serde(default)]
    pub require_signature: Toggle,
    /// Key that verifies JWTs for the API: an HS256 secret, or a PEM public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Secret>,
}

/// Where presence members are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    /// In this process.
    Memory,
    /// In Redis, shared by nodes.
    Redis,
    /// In a local SQLite file.
    Sqlite,
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

/// Connection details of the databases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseConfig {
    /// The Redis that events come from, and members are kept in.
    pub redis: RedisConfig,
    /// The SQLite file.
    pub sqlite: SqliteConfig,
    /// Publish the member list on `PresenceChannelUpdated` at every change.
    pub publish_presence: Toggle,
    /// Keep the original's readable `<channel>:members` key.
    pub members_mirror: Toggle,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            redis: RedisConfig::default(),
            sqlite: SqliteConfig::default(),
            publish_presence: Toggle(false),
            members_mirror: Toggle(true),
        }
    }
}

/// Redis options under the names of ioredis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: Port,
    /// ACL user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Database number for stored members; PUBLISH knows no databases.
    #[serde(deserialize_with = "value::integer")]
    pub db: i64,
    /// Laravel's Redis prefix, cut off channel names.
    pub key_prefix: String,
    /// Unix socket, in place of host and port.
    pub path: Option<String>,
    /// `redis://` or `rediss://` URL, in place of all the above.
    pub url: Option<Secret>,
    /// TLS: `true`, or a table with `ca` and `rejectUnauthorized`.
    pub tls: RedisTls,
    /// Sentinels to ask for the master `name`.
    pub sentinels: Vec<RedisNode>,
    /// Name of the master the sentinels watch.
    pub name: Option<String>,
    /// Password of the sentinels.
    pub sentinel_password: Option<Secret>,
    /// First nodes of a Redis Cluster.
    pub cluster: Vec<RedisNode>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: Port(6379),
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
    pub port: Port,
}

impl RedisNode {
    const fn default_port() -> Port {
        Port(6379)
    }
}

/// TLS to Redis, with the names of Node's `tls` options.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisTls {
    /// Whether TLS is spoken.
    pub enabled: bool,
    /// File with the certificate authority (PEM), besides the system's.
    pub ca: Option<PathBuf>,
    /// `false` accepts any certificate.
    pub reject_unauthorized: bool,
}

impl Default for RedisTls {
    fn default() -> Self {
        Self { enabled: false, ca: None, reject_unauthorized: true }
    }
}

/// The SQLite file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SqliteConfig {
    /// Path below the working directory, as in the original; a leading slash does not make it absolute there.
    pub database_path: String,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self { database_path: "/database/laravel-echo-server.sqlite".into() }
    }
}

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

/// Sources of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subscribers {
    /// `POST /apps/:id/events`.
    pub http: Toggle,
    /// What is PUBLISHed to Redis.
    pub redis: Toggle,
    /// How Redis is listened to.
    pub redis_mode: RedisMode,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self { http: Toggle(true), redis: Toggle(true), redis_mode: RedisMode::Pattern }
    }
}

/// How Redis is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// One `PSUBSCRIBE <keyPrefix>*`.
    Pattern,
    /// `SUBSCRIBE` to the channels that sockets of this node are in, and `PSUBSCRIBE` for `flatChannels`.
    Exact,
}

/// CORS headers of the HTTP API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiOriginAllow {
    /// Whether they are sent at all.
    pub allow_cors: Toggle,
    /// `Access-Control-Allow-Origin`.
    pub allow_origin: String,
    /// `Access-Control-Allow-Methods`.
    pub allow_methods: String,
    /// `Access-Control-Allow-Headers`.
    pub allow_headers: String,
}

/// What presence members see and how long they last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PresenceConfig {
    /// Send `socketId` in member data to clients, as the original did.
    pub expose_socket_id: Toggle,
    /// Wait before `presence:leaving`, to hide a page reload.
    pub leave_grace: Seconds,
    /// How long the members of a dead node stay.
    pub lease: Seconds,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self { expose_socket_id: Toggle(false), leave_grace: Seconds(Duration::ZERO), lease: Seconds(Duration::from_secs(30)) }
    }
}

impl PresenceConfig {
    /// How often a node renews its lease at Redis and looks for leases that have ended: four times a lease, and every 10
    /// seconds at the least, so that members Redis has lost are back soon with a long lease, too.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        (self.lease.0 / 4).min(Duration::from_secs(10))
    }
}

/// Several nodes on one Redis.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterConfig {
    /// Whether other nodes use this Redis too.
    pub enabled: Toggle,
}

/// How the Laravel application is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthConfig {
    /// Time for one callback.
    pub timeout: Seconds,
    /// Certificate of `authHost`.
    pub tls: AuthTls,
    /// Callbacks in flight per host.
    #[serde(deserialize_with = "value::integer")]
    pub max_concurrent: u32,
    /// How long a subscribe may wait for its turn.
    pub queue_timeout: Seconds,
    /// Share an answer for so long; 0 turns it off.
    pub cache_ttl: Seconds,
    /// Further handshake headers to pass on.
    pub forward: OneOrMany,
    /// Tokens that grant channels without a callback.
    pub jwt: JwtConfig,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            timeout: Seconds(Duration::from_secs(10)),
            tls: AuthTls::default(),
            max_concurrent: 64,
            queue_timeout: Seconds(Duration::from_secs(30)),
            cache_ttl: Seconds(Duration::ZERO),
            forward: OneOrMany::none(),
            jwt: JwtConfig::default(),
        }
    }
}

/// Certificate of `authHost`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthTls {
    /// `false` accepts any certificate.
    pub verify: Toggle,
    /// File with the certificate authority (PEM), besides the system's.
    pub ca: Option<PathBuf>,
}

impl Default for AuthTls {
    fn default() -> Self {
        Self { verify: Toggle(true), ca: None }
    }
}

/// Tokens that grant channels without a callback. Nothing set means that no token is looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtConfig {
    /// Signature algorithm, such as `HS256` or `RS256`.
    pub algorithm: Option<String>,
    /// Secret of the HS algorithms.
    pub secret: Option<Secret>,
    /// File with the public key (PEM) of the RS, PS, ES and Ed algorithms.
    pub public_key: Option<PathBuf>,
    /// File or URL of a JWKS.
    pub jwks: Option<String>,
    /// Required `iss`.
    pub issuer: Option<String>,
    /// Required `aud`.
    pub audience: Option<String>,
    /// Clock difference that is forgiven.
    pub leeway: Seconds,
    /// Claim with the list of channels.
    pub channels_claim: String,
    /// Claim that becomes `user_info`.
    pub info_claim: String,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            algorithm: None,
            secret: None,
            public_key: None,
            jwks: None,
            issuer: None,
            audience: None,
            leeway: Seconds(Duration::ZERO),
            channels_claim: "channels".into(),
            info_claim: "info".into(),
        }
    }
}

/// The built-in endpoint that Laravel can publish to without a Redis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisServerConfig {
    /// Whether it listens.
    pub enabled: Toggle,
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: Port,
    /// Password that clients must send.
    pub password: Option<Secret>,
    /// User that goes with the password.
    pub username: Option<String>,
    /// Connections at once.
    #[serde(deserialize_with = "value::integer")]
    pub max_clients: u32,
    /// Largest command.
    pub max_message_bytes: ByteSize,
    /// TLS: `true`, or a table with a certificate of its own.
    pub tls: RedisServerTls,
}

/// TLS of the built-in endpoint. Without files of its own it shows the certificate of `sslCertPath`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisServerTls {
    /// Whether TLS is spoken.
    pub enabled: bool,
    /// File with the certificate (PEM).
    pub cert_path: String,
    /// File with its private key (PEM).
    pub key_path: String,
    /// File with the certificates between it and the authority's (PEM).
    pub chain_path: String,
    /// Passphrase of the key.
    pub passphrase: Secret,
}

impl RedisServerTls {
    /// Whether it names files of its own.
    #[must_use]
    pub fn has_files(&self) -> bool {
        [&self.cert_path, &self.key_path, &self.chain_path].iter().any(|path| !path.is_empty())
    }
}

impl Default for RedisServerConfig {
    fn default() -> Self {
        Self {
            enabled: Toggle(false),
            host: "127.0.0.1".into(),
            port: Port(6380),
            password: None,
            username: None,
            max_clients: 1000,
            max_message_bytes: ByteSize(10_000_000),
            tls: RedisServerTls::default(),
        }
    }
}

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

/// Prometheus metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsConfig {
    /// Whether `/metrics` answers.
    pub enabled: Toggle,
    /// Address of the separate listener.
    pub host: String,
    /// Port of a separate listener that asks for no key; none means the main port, with a client's key.
    pub port: Option<Port>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { enabled: Toggle(true), host: "127.0.0.1".into(), port: None }
    }
}

/// How the server ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShutdownConfig {
    /// Time over which clients are moved off in small groups.
    pub drain: Seconds,
    /// Time after which the process ends in any case.
    pub timeout: Seconds,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { drain: Seconds(Duration::from_secs(5)), timeout: Seconds(Duration::from_secs(15)) }
    }
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,laravel_echo_server=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
