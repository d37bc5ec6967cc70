//! Events from Laravel to the sockets of a channel.

use serde_json::json;

use crate::support::{Laravel, Redis, TestServer};

#[tokio::test]
async fn an_event_reaches_its_channel_unchanged_and_without_the_prefix() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let settings = json!({ "databaseConfig": { "redis": { "keyPrefix": "laravel_database_" } } });
    let server = TestServer::with(&redis, &laravel, settings).await;
    let mut alice = server.client_in("news").await;
    redis.heard("laravel_database_x").await;

    redis.publish("news", "sent", &json!({ "n": 0 }), None).await;
    redis.publish_text("laravel_database_news", r#"{"event":"App\\Events\\Sent","data":{"b":1.0,"a":"\u017e"},"socket":null}"#).await;
    assert_eq!(alice.event("App\\Events\\Sent").await, [json!("news"), json!({ "b": 1.0, "a": "ž" })]);
    assert!(alice.left_over().is_empty(), "an event without the prefix came through");
}

#[tokio::test]
async fn the_socket_that_caused_an_event_is_excluded() {
    let server = TestServer::start(json!({})).await;
    let (mut alice, mut bob) = (server.client().await, server.client().await);
    for client in [&mut alice, &mut bob] {
        client.subscribe("news").await;
    }
    server.subscribed("news", 2).await;
    for (n, socket) in [(1, Some(alice.id.clone())), (2, None), (3, Some("constructor".into()))] {
        post(&server, json!({ "channel": "news", "name": "sent", "data": { "n": n }, "socket_id": socket })).await;
    }
    assert_eq!(alice.event("sent").await[1], json!({ "n": 2 }));
    assert_eq!(alice.event("sent").await[1], json!({ "n": 3 }));
    assert_eq!(bob.event("sent").await[1], json!({ "n": 1 }));
}

#[tokio::test]
async fn events_of_flat_channels_reach_every_client_unless_guarded() {
    let server = TestServer::start(json!({ "flatChannels": ["news", "*"] })).await;
    let (mut alice, bob) = (server.client().await, server.client().await);
    post(&server, json!({ "channel": "private-secret", "name": "sent", "data": { "n": 1 } })).await;
    post(&server, json!({ "channel": "news", "name": "sent", "data": [1, 2], "socket_id": bob.id })).await;
    assert_eq!(alice.event("news:sent").await, [json!([1, 2])]);
    assert!(alice.left_over().is_empty());
}

#[tokio::test]
async fn events_of_a_channel_keep_their_order_in_a_burst() {
    const COUNT: u64 = 5_000;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    let mut alice = server.client_in("news").await;
    redis.heard("x").await;
    let messages = (0..COUNT).map(|n| json!({ "event": "sent", "data": n }).to_string());
    redis.publish_all("news", messages).await;
    for n in 0..COUNT {
        assert_eq!(alice.event("sent").await[1], json!(n));
    }
}

/// Publishes through the HTTP API.
async fn post(server: &TestServer, body: serde_json::Value) {
    let url = server.url(&format!("/apps/app/events?auth_key={}", crate::support::server::KEY));
    let response = reqwest::Client::new().post(url).body(body.to_string()).send().await.expect("the API answers");
    assert_eq!(response.status(), 200);
}
