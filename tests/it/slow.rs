//! Clients that do not read.

use serde_json::json;

use crate::support::{Laravel, Redis, TestServer};

#[tokio::test]
async fn a_client_that_falls_behind_is_closed_and_others_miss_nothing() {
    const COUNT: u64 = 600;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "limits": { "clientQueue": 100 } })).await;
    let mut frozen = server.client_in("news").await;
    redis.heard("x").await;
    // The kernel buffers several megabytes before the queue begins to fill.
    let data = "x".repeat(50_000);
    for n in 0..COUNT {
        redis.publish("news", "sent", &json!({ "n": n, "pad": data }), None).await;
    }
    server.subscribed("news", 0).await;
    // It gets what was already written, then the connection closes, so that it starts a new session.
    let packets = frozen.closed().await;
    assert!(
        !packets.is_empty() && packets.iter().zip(0..).all(|(packet, n)| packet.starts_with(&format!(r#"42["sent","news",{{"n":{n},"#))),
        "something is missing before the end"
    );
    let mut back = server.client_in("news").await;
    redis.publish("news", "after", &json!(1), None).await;
    back.event("after").await;
}

#[tokio::test]
async fn a_burst_for_one_client_leaves_as_it_comes() {
    const COUNT: usize = 20_000;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "limits": { "clientQueue": 100 } })).await;
    let mut client = server.client_in("news").await;
    redis.heard("x").await;
    redis.publish_all("news", (0..COUNT).map(|n| json!({ "event": "sent", "data": n }).to_string())).await;
    for n in 0..COUNT {
        assert_eq!(client.event("sent").await[1], n);
    }
}

#[tokio::test]
async fn the_queue_is_also_limited_in_bytes() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "limits": { "clientQueueBytes": "1MB" } })).await;
    let (mut frozen, mut alice) = (server.client().await, server.client().await);
    frozen.subscribe("news").await;
    alice.subscribe("news").await;
    server.subscribed("news", 2).await;
    redis.heard("x").await;
    // 30 MB: few messages for `clientQueue`, but far more bytes than the kernel and the queue hold together.
    let pad = "x".repeat(100_000);
    for n in 0..300 {
        redis.publish("news", "sent", &json!({ "n": n, "pad": pad }), None).await;
        assert_eq!(alice.event("sent").await[1]["n"], n);
    }
    server.subscribed("news", 1).await;
    frozen.closed().await;
}

#[tokio::test]
async fn a_message_larger_than_the_queue_fits_into_an_empty_queue() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "limits": { "clientQueueBytes": 1000 } })).await;
    let mut alice = server.client_in("news").await;
    redis.heard("x").await;
    let pad = "x".repeat(500_000);
    for n in 0..5 {
        redis.publish("news", "sent", &json!({ "n": n, "pad": pad }), None).await;
        assert_eq!(alice.event("sent").await[1]["n"], n);
    }
}

#[tokio::test]
async fn a_client_that_reads_gets_a_burst_completely_and_in_order() {
    const COUNT: u64 = 10_000;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    let mut alice = server.client_in("news").await;
    redis.heard("x").await;
    let publishing = redis.publish_all("news", (0..COUNT).map(|n| json!({ "event": "sent", "data": n }).to_string()));
    let reading = async {
        for n in 0..COUNT {
            assert_eq!(alice.event("sent").await[1], n);
        }
    };
    tokio::join!(publishing, reading);
}

#[tokio::test]
async fn a_frozen_member_leaves_when_its_heartbeat_is_due() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let settings = json!({
        "socketio": { "pingInterval": 1000, "pingTimeout": 1000 },
        "limits": { "clientQueueBytes": "1GB" },
        // A member that may still resume stays.
        "recovery": { "window": "1s" },
    });
    let server = TestServer::with(&redis, &laravel, settings).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe("presence-room").await;
    alice.event("presence:subscribed").await;
    let mut frozen = server.client_of(2).await;
    frozen.subscribe("presence-room").await;
    alice.event("presence:joining").await;
    redis.heard("x").await;
    // The write blocks in the middle of this event, so the heartbeat alone cannot end the session.
    let pad = "x".repeat(1_000_000);
    for n in 0..20 {
        redis.publish("presence-room", "sent", &json!({ "n": n, "pad": pad }), None).await;
        alice.event("sent").await;
    }
    let left = alice.event("presence:leaving").await;
    assert_eq!(left[1]["user_id"], 2);
    drop(frozen);
}
