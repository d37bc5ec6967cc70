//! `/health` and `/ready`, for load balancers and orchestrators. Neither asks for a key.
//!
//! Input: what the server knows of Redis and of its own end. Output: 200, or 503 with the reason.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ingress::redis::RedisState;

/// Whether the server does its work.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// Whether events can arrive from Redis.
    pub redis: watch::Receiver<RedisState>,
    /// Cancelled when the server begins to end.
    pub draining: CancellationToken,
    /// When the server started; other settings change nothing about it.
    pub started: Instant,
}

impl Readiness {
    /// A word and a sentence on why clients had better go elsewhere; nothing when all is well.
    fn obstacle(&self) -> Option<(&'static str, &'static str)> {
        if self.draining.is_cancelled() {
            return Some(("draining", "the server is shutting down"));
        }
        // The cause is in the log: whoever asks here need not learn host names.
        match &*self.redis.borrow() {
            RedisState::Off | RedisState::Up => None,
            RedisState::Connecting => Some(("redis", "Redis is not connected yet")),
            RedisState::Lost(_) => Some(("redis", "the connection to Redis is lost")),
        }
    }
}

/// `{"status":"ok"}` as long as the process answers at all.
pub async fn health() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// `{"status":"ready"}`, or 503 with `{"status":"unavailable","reason":"redis","error":"…"}`.
pub async fn ready(State(readiness): State<Readiness>) -> Response {
    match readiness.obstacle() {
        None => Json(json!({ "status": "ready" })).into_response(),
        Some((reason, error)) => {
            let body = json!({ "status": "unavailable", "reason": reason, "error": error });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_and_the_end_are_obstacles() {
        let (state, redis) = watch::channel(RedisState::Off);
        let readiness = Readiness { redis, draining: CancellationToken::new(), started: Instant::now() };
        let reason = || readiness.obstacle().map(|(reason, _)| reason);
        assert_eq!(reason(), None);
        for (now, expected) in [
            (RedisState::Connecting, Some("redis")),
            (RedisState::Up, None),
            (RedisState::Lost("reset".into()), Some("redis")),
            (RedisState::Up, None),
        ] {
            state.send_replace(now);
            assert_eq!(reason(), expected);
        }
        readiness.draining.cancel();
        assert_eq!(reason(), Some("draining"));
    }
}
