//! [`Publisher`]: turns a message of a Redis client into an event.
//!
//! Input: channel and payload. Output: events for the [`Hub`]; in a cluster, messages for its Redis, from which all nodes,
//! including this one, receive them.

use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::warn;

use crate::config::Config;
use crate::hub::{Hub, Socket};
use crate::ingress::redis::{PRESENCE_UPDATES, receive, without_prefix};
use crate::metrics::{Outcome, Source};
use crate::redis_client::{Connection, Redis, RedisConfigError};

/// Publishes messages to the hub or the cluster.
pub(super) struct Publisher<S> {
    hub: Arc<Hub<S>>,
    key_prefix: String,
    cluster: Option<Cluster>,
}

struct Cluster {
    redis: Redis,
    /// Opened when first needed, and again after a failure.
    link: Mutex<Option<Connection>>,
    /// Whether this node receives what it publishes (`subscribers.redis`).
    is_heard_here: bool,
}

/// The cluster's Redis did not accept a message.
#[derive(Debug, thiserror::Error)]
#[error("cluster.enabled is true, and the Redis of the cluster does not answer")]
pub(super) struct ClusterError;

impl<S: Socket> Publisher<S> {
    pub(super) fn new(config: &Config, hub: Arc<Hub<S>>) -> Result<Self, RedisConfigError> {
        let redis = &config.database_config.redis;
        let cluster = match config.cluster.enabled {
            true => Some(Cluster { redis: Redis::new(redis)?, link: Mutex::default(), is_heard_here: config.subscribers.redis }),
            false => None,
        };
        Ok(Self { hub, key_prefix: redis.key_prefix.clone(), cluster })
    }

    /// Publishes a message. Returns how many sockets it reached; in a cluster, the result of `PUBLISH`.
    pub(super) async fn publish(&self, channel: &[u8], payload: &[u8]) -> Result<usize, ClusterError> {
        let Ok(channel) = std::str::from_utf8(channel) else {
            self.hub.metrics().event(Source::RedisServer, Outcome::Malformed);
            return Ok(0);
        };
        // A publisher that uses no prefix means the same channel.
        let name = without_prefix(channel, &self.key_prefix).unwrap_or(channel);
        if name == PRESENCE_UPDATES {
            return Ok(0);
        }
        if let Some(cluster) = &self.cluster {
            // Boxed, so that connections of single servers, which are most of them, do not carry this future.
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
                warn!(%error, "cannot forward a broadcast to the cluster's Redis");
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
            warn!(%error, "cannot reach the cluster's Redis");
            ClusterError
        })?;
        *link = Some(fresh.clone());
        Ok(fresh)
    }
}
