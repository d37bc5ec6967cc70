//! Redis starts late, goes down and comes back; invalid messages are skipped.

use serde_json::json;

use crate::support::{Laravel, Redis, TestServer, until};

#[tokio::test]
async fn a_redis_that_starts_late_or_restarts_is_found_again() {
    let (mut redis, laravel) = (Redis::not_yet(), Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    let mut alice = server.client().await;
    alice.subscribe("news").await;
    for round in 0..2 {
        redis.up().await;
        redis.heard("x").await;
        redis.publish("news", "sent", &json!({ "round": round }), None).await;
        assert_eq!(alice.event("sent").await[1], json!({ "round": round }));
        redis.down();
    }
}

/// `/ready` shows the kind of the failure, and the log has a warning for each: somebody has to act after an outage.
#[tokio::test]
async fn a_redis_that_requires_a_password_after_a_restart_is_reported() {
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    redis.heard("x").await;
    redis.down();
    let ready = async || reqwest::get(server.url("/ready")).await.expect("an answer").text().await.expect("a body");
    until("the loss", async || ready().await.contains("the connection to Redis is lost")).await;
    redis.up_with(&["--requirepass", "secret"]).await;
    until("the reason", async || ready().await.contains("Redis asks for a password (NOAUTH)")).await;
    redis.down();
    redis.up().await;
    redis.heard("x").await;
    until("the recovery", async || ready().await.contains("\"ready\"")).await;
}

#[tokio::test]
async fn an_http_server_on_the_redis_port_is_reported() {
    let laravel = Laravel::start().await;
    let port: u16 = laravel.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let server = TestServer::start(json!({ "subscribers": { "redis": true }, "databaseConfig": { "redis": { "port": port } } })).await;
    let ready = async || reqwest::get(server.url("/ready")).await.expect("an answer").text().await.expect("a body");
    until("the reason", async || ready().await.contains("does not speak the Redis protocol")).await;
}

#[tokio::test]
async fn messages_that_are_not_events_are_skipped() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    let mut alice = server.client_in("news").await;
    redis.heard("x").await;
    for text in ["", "5", "null", "{}", "[]", "not json", r#"{"event":5}"#, r#"{"event":"disconnect","data":1}"#, r#"{"event":"\ud800"}"#] {
        redis.publish_text("news", text).await;
    }
    redis.publish("news", "sent", &json!({ "n": 1 }), None).await;
    assert_eq!(alice.event("sent").await[1], json!({ "n": 1 }));
    assert!(alice.left_over().is_empty(), "{:?}", alice.left_over());
}
