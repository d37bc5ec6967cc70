//! A Redis that hangs, and one that other programs write to.

use serde_json::json;

use crate::support::{Laravel, Redis, TestServer, until};

#[tokio::test]
async fn a_redis_that_hangs_is_not_ready() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    let ready = async || reqwest::get(server.url("/ready")).await.expect("an answer").status().as_u16();
    until("ready", async || ready().await == 200).await;
    redis.pause();
    until("not ready", async || ready().await == 503).await;
    redis.resume();
    until("ready again", async || ready().await == 200).await;
}

#[tokio::test]
async fn a_foreign_entry_in_the_member_list_does_not_prevent_joins() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "database": "redis" })).await;
    let mut first = server.client_of(1).await;
    first.subscribe("presence-room").await;
    first.event("presence:subscribed").await;
    let key = redis.keys("*presence-room*").await.into_iter().find(|key| key.ends_with(":sockets")).expect("the members");
    for (field, value) in [("foreign", "text"), ("1.2", "neither"), ("999.999", "{}")] {
        redis.set_field(&key, field, value).await;
    }
    let mut second = server.client_of(2).await;
    second.subscribe("presence-room").await;
    assert_eq!(second.event("presence:subscribed").await[1].as_array().expect("a list").len(), 2);
    assert_eq!(first.event("presence:joining").await[1]["user_id"], 2);
}
