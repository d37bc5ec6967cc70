//! `/health` and `/ready`.

use serde_json::{Value, json};

use super::send;
use crate::support::{Laravel, Redis, TestServer, free_port, until};

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

#[tokio::test]
async fn a_server_that_is_shutting_down_is_not_ready() {
    let port = free_port();
    let server = TestServer::start(json!({ "metrics": { "port": port }, "shutdown": { "drain": "2s" } })).await;
    // Enough clients that they are drained in several steps.
    let mut clients = Vec::new();
    for _ in 0..120 {
        clients.push(server.client().await);
    }
    let ready = async || {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/ready")).await.expect("the listener answers");
        let status = answer.status().as_u16();
        (status, serde_json::from_str::<Value>(&answer.text().await.expect("a whole answer")).expect("JSON")["reason"].clone())
    };
    assert_eq!(ready().await, (200, json!(null)));
    server.begin_to_stop();
    server.draining.cancelled().await;
    assert_eq!(ready().await, (503, json!("draining")));
    drop(clients);
    server.stop().await;
}
