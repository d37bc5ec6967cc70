//! [`Readiness`]: whether the server does its work.
//!
//! Input: the ingress from Redis reports its [`RedisState`], the server its end. Output: the answer of `/ready`.

use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::redis_client::Loss;

/// Whether events can arrive from Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisState {
    /// `subscribers.redis` is false.
    Off,
    /// Not there yet since the start.
    Connecting,
    /// Subscribed.
    Up,
    /// Lost, or never reached.
    Lost(Loss),
}

/// Whether the server does its work.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// Whether events can arrive from Redis.
    pub redis: watch::Receiver<RedisState>,
    /// Cancelled once it is known by what clients can come back to other nodes, where they can.
    pub has_session_key: Option<CancellationToken>,
    /// Cancelled when the server begins to end.
    pub draining: CancellationToken,
    /// When the server started; other settings change nothing about it.
    pub started: Instant,
}

impl Readiness {
    /// A word and a sentence on why clients had better go elsewhere; nothing when all is well.
    pub(crate) fn obstacle(&self) -> Option<(&'static str, &'static str)> {
        if self.draining.is_cancelled() {
            return Some(("draining", "the server is shutting down"));
        }
        // The full reason is in the log: whoever asks here need not learn host names.
        match &*self.redis.borrow() {
            RedisState::Off | RedisState::Up if self.has_session_key.as_ref().is_some_and(|known| !known.is_cancelled()) => {
                Some(("redis", "the key of sessions was not read from Redis yet"))
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
