//! [`Publisher`]: from a message of a Redis client to an event.
//!
//! Input: channel and payload. Output: events for the [`Hub`], or, in a cluster, messages for its Redis. Then this
//! node hears them from there, as all others do.

use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::warn;

use crate::config::Config;
use crate::hub::{Hub, Socket};
use crate::ingress::redis::{PRESENCE_UPDATES, receive, without_prefix};
use crate::metrics::{Outcome, Source};
use crate::redis_client::{Connection, Redis, RedisConfigError};

/// The way of messages into the server.
pub(super) struct Publisher<S> {
    hub: Arc<Hub<S>>,
    key_prefix: String,
    cluster: Option<Cluster>,
}

struct Cluster {
    redis: Redis,
    /// Made when first needed, and again after it failed.
    link: Mutex<Option<Connection>>,
    /// Whether this node hears what it publishes (`subscribers.redis`).
    is_heard_here: bool,
}

/// The Redis of the cluster did not take a message.
#[derive(Debug, thiserror::Error)]
#[error("cluster.enabled is true, and the Redis of the cluster does not answer")]
pub(super) struct ClusterError;

impl<S: Socket> Publisher<S> {
    pub(super) fn new(config: &Config, hub: Arc<Hub<S>>) -> Result<Self, RedisConfigError> {
        let redis = &config.database_config.redis;
        let cluster = match config.cluster.enabled.0 {
            true => Some(Cluster { redis: Redis::new(redis)?, link: Mutex::default(), is_heard_here: config.subscribers.redis.0 }),
            false => None,
        };
        Ok(Self { hub, key_prefix: redis.key_prefix.clone(), cluster })
    }

    /// Publishes a message. Returns how many sockets it reached, or in a cluster what its Redis says.
    pub(super) async fn publish(&self, channel: &[u8], payload: &[u8]) -> Result<usize, ClusterError> {
        let Ok(channel) = std::str::from_utf8(channel) else {
            self.hub.metrics().event(Source::RedisServer, Outcome::Malformed);
            return Ok(0);
        };
        // A publisher that knows of no prefix means the same channel.
        let name = without_prefix(channel, &self.key_prefix).unwrap_or(channel);
        if name == PRESENCE_UPDATES {
            return Ok(0);
        }
        if let Some(cluster) = &self.cluster {
            // Boxed: most servers are alone, and their connections shall not take the memory for it.
            let count = Box::pin(cluster.publish(&format!("{}{name}", self.key_prefix), payload)).await?;
            if cluster.is_heard_here {
                return Ok(count);
            }
        }
        Ok(receive(&self.hub, Source::RedisServer, name, payload))
    }
}

impl Cluster {
    async fn publish(&self, channel: &str, payload: &[u8]) -> Result<usize, ClusterError> {
        let mut link = self.link().await?;
        let published = redis::cmd("PUBLISH").arg(channel).arg(payload).query_async(&mut link).await;
        match published {
            Ok(count) => Ok(count),
            Err(error) => {
                let error: redis::RedisError = error;
                warn!(%error, "could not pass a broadcast on to the Redis of the cluster");
                *self.link.lock().await = None;
                Err(ClusterError)
            }
        }
    }

    async fn link(&self) -> Result<Connection, ClusterError> {
        let mut link = self.link.lock().await;
        if let Some(link) = &*link {
            return Ok(link.clone());
        }
        let fresh = self.redis.connect().await.map_err(|error| {
            warn!(%error, "the Redis of the cluster cannot be reached");
            ClusterError
        })?;
        *link = Some(fresh.clone());
        Ok(fresh)
    }
}
