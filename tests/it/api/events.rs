//! Publishing through the API.

use serde_json::json;

use super::{BEARER, post, send};
use crate::support::{Laravel, Redis, TestServer};

#[tokio::test]
async fn a_batch_is_published_in_order() {
    let server = TestServer::start(json!({})).await;
    let (mut alice, mut bob) = (server.client().await, server.client().await);
    for client in [&mut alice, &mut bob] {
        client.subscribe("news").await;
    }
    server.subscribed("news", 2).await;
    let event = |n: u32, socket: Option<&str>| json!({ "channel": "news", "name": "sent", "data": n.to_string(), "socket_id": socket });
    let answer =
        post(&server, "/apps/app/batch_events", json!({ "batch": [event(1, None), event(2, Some(&alice.id)), event(3, None)] })).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    for n in [1, 3] {
        assert_eq!(alice.event("sent").await, [json!("news"), json!(n)]);
    }
    for n in [1, 2, 3] {
        assert_eq!(bob.event("sent").await, [json!("news"), json!(n)]);
    }
}

#[tokio::test]
async fn a_batch_with_an_invalid_event_publishes_nothing() {
    let server = TestServer::start(json!({})).await;
    let mut alice = server.client_in("news").await;
    let good = json!({ "channel": "news", "name": "early", "data": "1" });
    let answer = post(&server, "/apps/app/batch_events", json!({ "batch": [good, { "channel": "news", "name": "x" }] })).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (400, "batch[1]: Event must include channel, event name and data: `data` is missing")
    );
    post(&server, "/apps/app/events", json!({ "channel": "news", "name": "marker", "data": 1 })).await;
    alice.event("marker").await;
    assert!(alice.left_over().is_empty(), "{:?}", alice.left_over());
}

#[tokio::test]
async fn without_the_http_subscriber_the_routes_do_not_exist() {
    let server = TestServer::start(json!({ "subscribers": { "http": false } })).await;
    for path in ["/apps/app/events", "/apps/app/batch_events"] {
        let answer = send(&server, "POST", path, &[BEARER], "{}").await;
        assert_eq!((answer.status, answer.error().as_str()), (404, "Not Found"));
    }
}

#[tokio::test]
async fn a_published_event_succeeds_even_if_its_info_cannot_be_read() {
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "database": "redis" })).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe("presence-room").await;
    alice.event("presence:subscribed").await;
    redis.down();
    let info = "subscription_count,user_count";
    let event = json!({ "channel": "presence-room", "name": "sent", "data": 1, "info": info });
    let room = json!({ "subscription_count": 1, "partial": true });
    let answer = post(&server, "/apps/app/events", event.clone()).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "message": "ok", "channels": { "presence-room": room } })));
    let answer = post(&server, "/apps/app/batch_events", json!({ "batch": [event] })).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "batch": [room] })));
    for _ in 0..2 {
        assert_eq!(alice.event("sent").await, [json!("presence-room"), json!(1)]);
    }
}
