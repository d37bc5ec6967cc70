//! Redis that comes late, goes away and comes back, and messages that are none.

use serde_json::json;

use crate::support::{Laravel, Redis, TestServer};

#[tokio::test]
async fn a_redis_that_comes_late_or_goes_away_is_found_again() {
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

#[tokio::test]
async fn what_is_no_event_is_skipped() {
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
