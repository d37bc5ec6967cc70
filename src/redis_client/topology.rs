//! [`Redis`]: one Redis, a master that sentinels watch, or a Redis Cluster, behind the same two questions.
//!
//! Input: [`RedisConfig`]. Output: a [`Connection`] for commands, and a connection for PUBLISHed messages. Every call looks
//! for the master, or for a node that answers, afresh: whoever holds a broken connection drops it and asks again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, Pipeline, RedisError, RedisFuture, RedisResult, TlsMode, Value};
use tokio::sync::Mutex;

use super::{RedisConfigError, certificates, client, tcp_settings};
use crate::config::{RedisConfig, RedisNode};

/// Time for one step of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the answer to a pipeline: far more than a busy Redis takes.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where `databaseConfig.redis` leads.
pub struct Redis {
    topology: Topology,
    address: String,
}

enum Topology {
    Single(Box<Client>),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster {
        client: Box<ClusterClient>,
        /// A message published on any node reaches all of them, so one that answers is enough.
        seeds: Vec<Client>,
        /// The seed to try next; one that hangs is not to be tried first each time.
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

impl Redis {
    /// Reads the settings; nothing is connected yet.
    ///
    /// # Errors
    /// [`RedisConfigError`] when an address, URL or certificate cannot be used.
    pub fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let list = |nodes: &[RedisNode]| {
            let addresses: Vec<_> = nodes.iter().map(|node| format!("{}:{}", node.host, node.port.0)).collect();
            addresses.join(", ")
        };
        if let (false, Some(name)) = (config.sentinels.is_empty(), &config.name) {
            let topology = Topology::Sentinel(Box::new(Mutex::new(sentinel(config, name)?)));
            return Ok(Self { topology, address: format!("{name} of sentinels {}", list(&config.sentinels)) });
        }
        if !config.cluster.is_empty() {
            return Ok(Self { topology: cluster(config)?, address: format!("cluster {}", list(&config.cluster)) });
        }
        let client = client(config)?;
        Ok(Self { address: super::address(&client), topology: Topology::Single(Box::new(client)) })
    }

    /// Where this leads, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether this is a Redis Cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster { .. })
    }

    /// A connection for commands, known to answer.
    ///
    /// # Errors
    /// When none can be had within a few seconds.
    pub async fn connect(&self) -> RedisResult<Connection> {
        let connect = async {
            let config =
                AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(ANSWER_TIMEOUT));
            let mut connection = match &self.topology {
                Topology::Single(client) => Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?),
                Topology::Sentinel(sentinel) => Connection::Single(sentinel.lock().await.get_async_connection_with_config(&config).await?),
                Topology::Cluster { client, .. } => Connection::Cluster(client.get_async_connection().await?),
            };
            // A stopped server's kernel accepts connections as well.
            redis::cmd("PING").exec_async(&mut connection).await?;
            Ok(connection)
        };
        within(connect).await
    }

    /// A connection for PUBLISHed messages.
    ///
    /// # Errors
    /// When none can be had within a few seconds.
    pub async fn pubsub(&self) -> RedisResult<PubSub> {
        match &self.topology {
            Topology::Single(client) => within(client.get_async_pubsub()).await,
            Topology::Sentinel(sentinel) => {
                within(async { sentinel.lock().await.async_get_client().await?.get_async_pubsub().await }).await
            }
            Topology::Cluster { seeds, next, .. } => {
                let seed = &seeds[next.load(Ordering::Relaxed) % seeds.len()];
                let pubsub = within(seed.get_async_pubsub()).await;
                if pubsub.is_err() {
                    next.fetch_add(1, Ordering::Relaxed);
                }
                pubsub
            }
        }
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
            ConnectionAddr::TcpTls { host: node.host.clone(), port: node.port.0, insecure: mode == TlsMode::Insecure, tls_params: None }
        }
        None => ConnectionAddr::Tcp(node.host.clone(), node.port.0),
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
    // A cluster has no databases but 0.
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
