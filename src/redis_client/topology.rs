//! [`Redis`]: a single Redis, a master behind sentinels, or a Redis Cluster, with the same two methods to connect.
//!
//! Input: [`RedisConfig`]. Output: a [`Connection`] for commands, and a connection for PUBLISHed messages. Every call looks up
//! the master, or a node that responds, again: after a connection breaks, callers drop it and connect again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, Pipeline, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    TlsMode, Value,
};
use tokio::sync::Mutex;
use tracing::warn;

use super::{Cause, RedisConfigError, certificates, client, tcp_settings};
use crate::config::value::Secret;
use crate::config::{RedisConfig, RedisNode};

/// Timeout for one step of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout for the reply to a pipeline: far longer than a busy Redis takes.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Part of `INFO cluster` on a node of a Redis Cluster.
pub const CLUSTER_NODE: &str = "cluster_enabled:1";

/// The Redis of `databaseConfig.redis`.
pub struct Redis {
    topology: Topology,
    /// The same without the password of Redis, of the sentinels, or both, because they may need none.
    open: Vec<Topology>,
    address: String,
    config: RedisConfig,
    has_told_of_password: AtomicBool,
    has_asked_for_cluster: Arc<AtomicBool>,
}

enum Topology {
    Single(Box<Client>),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster {
        client: Box<ClusterClient>,
        /// A message published on any node reaches all of them, so one that responds is enough.
        seeds: Vec<Client>,
        /// The seed to try next, so that one that hangs is not tried first each time.
        next: AtomicUsize,
    },
}

/// A connection for commands; clones share it.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    Single(MultiplexedConnection),
    /// To the nodes of a cluster.
    Cluster(ClusterConnection),
}

impl Connection {
    /// Checks that Redis responds.
    ///
    /// # Errors
    /// When it does not, or does not serve this connection.
    pub(crate) async fn ping(&mut self) -> RedisResult<()> {
        match redis::cmd("PING").exec_async(self).await {
            // A Redis that cannot save refuses PING as it does writes, but still serves reads and subscriptions.
            Err(error) if Cause::of(&error) == Cause::Disk => Ok(()),
            outcome => outcome,
        }
    }
}

impl Redis {
    /// Reads the settings; does not connect yet.
    ///
    /// # Errors
    /// [`RedisConfigError`] for an invalid address, URL or certificate.
    pub fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let list = |nodes: &[RedisNode]| {
            let addresses: Vec<_> = nodes.iter().map(|node| format!("{}:{}", node.host, node.port)).collect();
            addresses.join(", ")
        };
        let topology = Topology::new(config)?;
        let address = match &topology {
            Topology::Single(client) => super::address(client),
            Topology::Sentinel(_) => format!("{} of sentinels {}", config.name.as_deref().unwrap_or_default(), list(&config.sentinels)),
            Topology::Cluster { .. } => format!("cluster {}", list(&config.cluster)),
        };
        let open = without_passwords(config).iter().map(Topology::new).collect::<Result<_, _>>()?;
        let (has_told_of_password, has_asked_for_cluster) = (AtomicBool::new(false), Arc::default());
        Ok(Self { topology, open, address, config: config.clone(), has_told_of_password, has_asked_for_cluster })
    }

    /// The address, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How to fix an error of this Redis.
    #[must_use]
    pub fn hint(&self, cause: Cause) -> String {
        cause.hint(&self.config)
    }

    /// Whether this is a Redis Cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster { .. })
    }

    /// A connection for commands, which has responded to a PING.
    ///
    /// # Errors
    /// When no connection can be made within a few seconds.
    pub async fn connect(&self) -> RedisResult<Connection> {
        let (connection, _) = self.reach().await?;
        if let (Topology::Single(_), false) = (&self.topology, self.has_asked_for_cluster.load(Ordering::Relaxed)) {
            // In the background: nothing depends on the result.
            tokio::spawn(look_for_cluster(connection.clone(), self.address.clone(), Arc::clone(&self.has_asked_for_cluster)));
        }
        Ok(connection)
    }

    /// A connection for PUBLISHed messages.
    ///
    /// # Errors
    /// When no connection can be made within a few seconds.
    pub async fn pubsub(&self) -> RedisResult<PubSub> {
        match self.topology.pubsub().await {
            Err(error) if self.topology.may_need_no_password(&error) => match self.reach().await {
                Ok((_, topology)) => topology.pubsub().await,
                // This error is more specific.
                Err(error) => Err(error),
            },
            outcome => outcome,
        }
    }

    /// A connection, and the topology that it was made with. Like ioredis, this omits the password if Redis needs none.
    async fn reach(&self) -> RedisResult<(Connection, &Topology)> {
        let error = match self.topology.connect().await {
            Ok(connection) => return Ok((connection, &self.topology)),
            Err(error) => error,
        };
        if self.topology.may_need_no_password(&error) {
            for topology in &self.open {
                if let Ok(connection) = topology.connect().await {
                    if !self.has_told_of_password.swap(true, Ordering::Relaxed) {
                        let hint = "remove the password from databaseConfig.redis, or set one in Redis (requirepass)";
                        warn!(redis = self.address, hint, "a password is configured for a Redis that needs none; going on without it");
                    }
                    return Ok((connection, topology));
                }
            }
        }
        Err(match &self.topology {
            Topology::Single(client) => explained(client, error).await,
            Topology::Sentinel(_) | Topology::Cluster { .. } => error,
        })
    }
}

/// Warns if a Redis configured by a single address is a node of a cluster: events published there arrive, but members may
/// belong to other nodes.
async fn look_for_cluster(mut connection: Connection, address: String, has_asked: Arc<AtomicBool>) {
    let Ok(info) = redis::cmd("INFO").arg("cluster").query_async::<String>(&mut connection).await else { return };
    if !has_asked.swap(true, Ordering::Relaxed) && info.contains(CLUSTER_NODE) {
        let hint = "set its nodes in databaseConfig.redis.cluster = [{ host = \"…\", port = 6379 }], instead of host and port";
        warn!(redis = address, hint, "this Redis is a node of a Redis Cluster: presence channels fail with `Moved`");
    }
}

/// The settings without the password, without that of the sentinels, and without both: a Redis without a password refuses one.
/// Empty if there is a username, because users have passwords.
#[must_use]
pub fn without_passwords(config: &RedisConfig) -> Vec<RedisConfig> {
    if given(config.username.as_deref()).is_some() {
        return Vec::new();
    }
    let is_given = |password: &Option<Secret>| password.as_ref().is_some_and(|password| !password.expose().is_empty());
    let url = config.url.as_ref().and_then(|url| without_password(url.expose()));
    let (has_password, has_sentinels) = (is_given(&config.password) || url.is_some(), is_given(&config.sentinel_password));
    let open = |redis: bool, sentinels: bool| {
        let mut open = config.clone();
        if redis {
            open.password = None;
            open.url = url.clone().map(Secret).or(open.url);
        }
        if sentinels {
            open.sentinel_password = None;
        }
        open
    };
    let ways = [(true, false), (false, true), (true, true)];
    let possible = ways.into_iter().filter(|&(redis, sentinels)| (!redis || has_password) && (!sentinels || has_sentinels));
    possible.map(|(redis, sentinels)| open(redis, sentinels)).collect()
}

/// `redis://:password@host` without its password; `None` if it has no password, or a user.
fn without_password(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    user.strip_prefix(':').filter(|password| !password.is_empty())?;
    Some(format!("{scheme}://{}", &rest[user.len() + 1..]))
}

impl Topology {
    fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        if let (false, Some(name)) = (config.sentinels.is_empty(), &config.name) {
            return Ok(Self::Sentinel(Box::new(Mutex::new(sentinel(config, name)?))));
        }
        if !config.cluster.is_empty() {
            return cluster(config);
        }
        Ok(Self::Single(Box::new(client(config)?)))
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let connect = async {
            let config =
                AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(ANSWER_TIMEOUT));
            let mut connection = match self {
                Self::Single(client) => Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?),
                Self::Sentinel(sentinel) => Connection::Single(sentinel.lock().await.get_async_connection_with_config(&config).await?),
                Self::Cluster { client, .. } => Connection::Cluster(client.get_async_connection().await?),
            };
            // The kernel accepts connections even for a suspended server, so check that it responds.
            connection.ping().await?;
            Ok(connection)
        };
        within(connect).await
    }

    async fn pubsub(&self) -> RedisResult<PubSub> {
        match self {
            Self::Single(client) => within(client.get_async_pubsub()).await,
            Self::Sentinel(sentinel) => within(async { sentinel.lock().await.async_get_client().await?.get_async_pubsub().await }).await,
            Self::Cluster { seeds, next, .. } => {
                let seed = &seeds[next.load(Ordering::Relaxed) % seeds.len()];
                let pubsub = within(seed.get_async_pubsub()).await;
                if pubsub.is_err() {
                    next.fetch_add(1, Ordering::Relaxed);
                }
                pubsub
            }
        }
    }

    /// Whether the password may be the problem. Sentinels and clusters replace the error about it with others.
    fn may_need_no_password(&self, error: &RedisError) -> bool {
        match self {
            Self::Single(_) => error.kind() == ErrorKind::AuthenticationFailed,
            Self::Sentinel(_) | Self::Cluster { .. } => !error.is_timeout(),
        }
    }
}

/// The error with Redis's own message about a refused password.
pub async fn explained(client: &Client, error: RedisError) -> RedisError {
    if error.kind() != ErrorKind::AuthenticationFailed {
        return error;
    }
    let info = client.get_connection_info();
    let (user, password) = (info.redis_settings().username(), info.redis_settings().password().unwrap_or_default());
    let ask = async {
        let plain = Client::open(info.clone().set_redis_settings(RedisConnectionInfo::default()))?;
        let mut connection = plain.get_multiplexed_async_connection().await?;
        redis::cmd("AUTH").arg(user).arg(password).exec_async(&mut connection).await
    };
    match within(ask).await {
        Err(reason) if matches!(reason.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
            let detail = reason.detail().map_or_else(|| reason.to_string(), str::to_owned);
            (ErrorKind::AuthenticationFailed, Cause::WrongPassword.sentence(), detail).into()
        }
        _ => error,
    }
}

async fn within<T>(connect: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(CONNECT_TIMEOUT * 2, connect).await.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer").into()
}

fn tls_mode(config: &RedisConfig) -> Option<TlsMode> {
    let mode = if config.tls.reject_unauthorized { TlsMode::Secure } else { TlsMode::Insecure };
    config.tls.enabled.then_some(mode)
}

fn sentinel(config: &RedisConfig, name: &str) -> Result<SentinelClient, RedisConfigError> {
    let address = |node: &RedisNode| match tls_mode(config) {
        Some(mode) => {
            ConnectionAddr::TcpTls { host: node.host.clone(), port: node.port, insecure: mode == TlsMode::Insecure, tls_params: None }
        }
        None => ConnectionAddr::Tcp(node.host.clone(), node.port),
    };
    let mut builder = SentinelClientBuilder::new(config.sentinels.iter().map(address), name, SentinelServerType::Master)?
        .set_client_to_redis_db(config.db)
        .set_client_to_redis_tcp_settings(tcp_settings())
        .set_client_to_sentinel_tcp_settings(tcp_settings());
    if let Some(mode) = tls_mode(config) {
        builder = builder.set_client_to_redis_tls_mode(mode);
    }
    if let Some(certificates) = certificates(config)? {
        builder = builder.set_client_to_redis_certificates(certificates.clone()).set_client_to_sentinel_certificates(certificates);
    }
    if let Some(username) = given(config.username.as_deref()) {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = given(config.password.as_ref().map(|password| password.expose())) {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(password) = given(config.sentinel_password.as_ref().map(|password| password.expose())) {
        builder = builder.set_client_to_sentinel_password(password);
    }
    Ok(builder.build()?)
}

fn cluster(config: &RedisConfig) -> Result<Topology, RedisConfigError> {
    // A cluster only has database 0.
    let seed = |node: &RedisNode| RedisConfig { host: node.host.clone(), port: node.port, db: 0, ..config.clone() };
    let seeds = config.cluster.iter().map(|node| client(&seed(node))).collect::<Result<Vec<_>, _>>()?;
    let nodes = seeds.iter().map(|seed| seed.get_connection_info().clone());
    let mut builder = ClusterClient::builder(nodes)
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(ANSWER_TIMEOUT)
        .overall_response_timeout(Some(ANSWER_TIMEOUT))
        .tcp_settings(tcp_settings());
    if let Some(mode) = tls_mode(config) {
        builder = builder.tls(mode);
    }
    if let Some(certificates) = certificates(config)? {
        builder = builder.certs(certificates);
    }
    Ok(Topology::Cluster { client: Box::new(builder.build()?), seeds, next: AtomicUsize::new(0) })
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(&'a mut self, cmd: &'a Pipeline, offset: usize, count: usize) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_password_alone_is_left_out_of_a_url() {
        for (url, expected) in [
            ("redis://:p%40w@redis.test:6380/2", Some("redis://redis.test:6380/2")),
            ("rediss://:p@w@redis.test?x=1", Some("rediss://redis.test?x=1")),
            ("redis://user:pw@redis.test", None),
            ("redis://redis.test/0", None),
        ] {
            assert_eq!(without_password(url).as_deref(), expected, "{url}");
        }
    }
}
