//! [`Readiness`]: whether the server is ready for clients.
//!
//! Input: the [`RedisState`] of the Redis ingress, and the server's shutdown. Output: the answer of `/ready`.

use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::redis_client::Loss;

/// Whether events can arrive from Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisState {
    /// `subscribers.redis` is false.
    Off,
    /// Not connected yet since the start.
    Connecting,
    /// Subscribed.
    Up,
    /// Lost, or never reached.
    Lost(Loss),
}

/// Whether the server is ready for clients.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// Whether events can arrive from Redis.
    pub redis: watch::Receiver<RedisState>,
    /// Cancelled once the session key is known; `None` where clients cannot resume sessions on other nodes.
    pub has_session_key: Option<CancellationToken>,
    /// Cancelled when shutdown begins.
    pub draining: CancellationToken,
    /// When the server started; a reload does not change it.
    pub started: Instant,
}

impl Readiness {
    /// Why the server is not ready, as a code and a sentence; `None` when it is.
    pub(crate) fn obstacle(&self) -> Option<(&'static str, &'static str)> {
        if self.draining.is_cancelled() {
            return Some(("draining", "the server is shutting down"));
        }
        // The full reason is in the log: callers of `/ready` need not learn host names.
        match &*self.redis.borrow() {
            RedisState::Off | RedisState::Up if self.has_session_key.as_ref().is_some_and(|known| !known.is_cancelled()) => {
                Some(("redis", "the session key has not been read from Redis yet"))
            }
            RedisState::Off | RedisState::Up => None,
            RedisState::Connecting => Some(("redis", "Redis is not connected yet")),
            RedisState::Lost(loss) => Some(("redis", loss.cause.sentence())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_and_the_end_are_obstacles() {
        let (state, redis) = watch::channel(RedisState::Off);
        let has_session_key = CancellationToken::new();
        let known = Some(has_session_key.clone());
        let readiness = Readiness { redis, has_session_key: known, draining: CancellationToken::new(), started: Instant::now() };
        let reason = || readiness.obstacle().map(|(reason, _)| reason);
        assert_eq!(reason(), Some("redis"), "clients that come now could not go on at other nodes");
        has_session_key.cancel();
        assert_eq!(reason(), None);
        for (now, expected) in [
            (RedisState::Connecting, Some("redis")),
            (RedisState::Up, None),
            (RedisState::Lost(Loss::unreachable("reset")), Some("redis")),
            (RedisState::Up, None),
        ] {
            state.send_replace(now);
            assert_eq!(reason(), expected);
        }
        readiness.draining.cancel();
        assert_eq!(reason(), Some("draining"));
    }
}
