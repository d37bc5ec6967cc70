//! `/health` and `/ready`.

use serde_json::json;

use super::send;
use crate::support::{Laravel, Redis, TestServer, until};

#[tokio::test]
async fn a_server_without_redis_is_ready_at_once() {
    let server = TestServer::start(json!({})).await;
    let health = send(&server, "GET", "/health", &[], "").await;
    assert_eq!((health.status, health.json()), (200, json!({ "status": "ok" })));
    let ready = send(&server, "GET", "/ready", &[], "").await;
    assert_eq!((ready.status, ready.json()), (200, json!({ "status": "ready" })));
}

#[tokio::test]
async fn a_server_is_not_ready_while_redis_is_away() {
    let (mut redis, laravel) = (Redis::not_yet(), Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    let status = async || send(&server, "GET", "/ready", &[], "").await.status;
    let away = send(&server, "GET", "/ready", &[], "").await;
    assert_eq!(away.status, 503);
    assert_eq!((&away.json()["status"], &away.json()["reason"]), (&json!("unavailable"), &json!("redis")));
    redis.up().await;
    until("ready", async || status().await == 200).await;
    redis.down();
    until("not ready", async || status().await == 503).await;
    assert_eq!(send(&server, "GET", "/ready", &[], "").await.error(), "the connection to Redis is lost");
    assert_eq!(send(&server, "GET", "/health", &[], "").await.status, 200);
    redis.up().await;
    until("ready again", async || status().await == 200).await;
}
