//! Many clients against an application that is slow, fails, or comes back.

use std::time::Duration;

use serde_json::json;

use crate::support::{SlowApp, TestServer, free_port, until};

#[tokio::test]
async fn a_burst_of_5000_subscribes_stays_within_the_cap_and_all_are_granted() {
    const SOCKETS: u64 = 50;
    const CHANNELS: u64 = 100;
    let app = SlowApp::start(Duration::from_millis(50)).await;
    let server = TestServer::start(json!({ "authHost": app.url })).await;
    let mut clients = Vec::new();
    for n in 0..SOCKETS {
        let mut client = server.client().await;
        for channel in 0..CHANNELS {
            client.subscribe(&format!("private-{n}.{channel}")).await;
        }
        clients.push(client);
    }
    for n in 0..SOCKETS {
        for channel in [0, CHANNELS / 2, CHANNELS - 1] {
            server.subscribed(&format!("private-{n}.{channel}"), 1).await;
        }
    }
    until("all callbacks", async || app.callbacks() as u64 == SOCKETS * CHANNELS).await;
    assert_eq!(app.peak(), 64);
    for client in &mut clients {
        // The response to this subscribe comes last: an earlier one would be a refusal.
        client.subscribe(&"x".repeat(201)).await;
        assert_eq!(client.event("subscription_error").await[1], json!(414));
    }
}

#[tokio::test]
async fn equal_subscribes_share_a_callback() {
    let app = SlowApp::start(Duration::from_millis(300)).await;
    let server = TestServer::start(json!({ "authHost": app.url })).await;
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut client = server.client_of(n % 2).await;
        client.subscribe("marker").await;
        clients.push(client);
    }
    server.subscribed("marker", 20).await;
    for client in &mut clients {
        client.subscribe("private-orders").await;
    }
    server.subscribed("private-orders", 20).await;
    assert!(app.callbacks() < 20, "{} callbacks for 20 subscribes of 2 users", app.callbacks());
}

#[tokio::test]
async fn answers_are_cached_for_auth_cache_ttl() {
    let app = SlowApp::start(Duration::ZERO).await;
    let server = TestServer::start(json!({ "authHost": app.url, "auth": { "cacheTtl": "60s" } })).await;
    for count in 1..=3 {
        let mut client = server.client_of(1).await;
        client.subscribe("private-orders").await;
        server.subscribed("private-orders", 1).await;
        drop(client);
        server.subscribed("private-orders", 0).await;
        assert_eq!(app.callbacks(), 1, "after {count} subscribes");
    }
    let mut other = server.client_of(2).await;
    other.subscribe("private-orders").await;
    server.subscribed("private-orders", 1).await;
    assert_eq!(app.callbacks(), 2);
}

#[tokio::test]
async fn a_subscribe_queued_longer_than_auth_queue_timeout_gets_503() {
    let app = SlowApp::start(Duration::from_secs(3)).await;
    let server = TestServer::start(json!({ "authHost": app.url, "auth": { "maxConcurrent": 1, "queueTimeout": "100ms" } })).await;
    let mut client = server.client().await;
    client.subscribe("private-first").await;
    until("the callback", async || app.callbacks() == 1).await;
    client.subscribe("private-second").await;
    assert_eq!(client.event("subscription_error").await, [json!("private-second"), json!(503)]);
    server.subscribed("private-first", 1).await;
    assert_eq!(app.callbacks(), 1);
}

#[tokio::test]
async fn a_closed_socket_cancels_its_queued_callbacks() {
    let app = SlowApp::start(Duration::from_millis(500)).await;
    let server = TestServer::start(json!({ "authHost": app.url, "auth": { "maxConcurrent": 1 } })).await;
    let (mut gone, mut patient) = (server.client().await, server.client().await);
    for n in 0..100 {
        gone.subscribe(&format!("private-gone.{n}")).await;
    }
    until("the first callback", async || app.callbacks() == 1).await;
    gone.subscribe("marker").await;
    server.subscribed("marker", 1).await;
    patient.subscribe("private-patient").await;
    drop(gone);
    server.subscribed("private-patient", 1).await;
    assert!(app.callbacks() < 10, "{} callbacks, most of them for closed sockets", app.callbacks());
}

#[tokio::test]
async fn callbacks_resume_when_the_application_is_back() {
    let port = free_port();
    let server = TestServer::start(json!({ "authHost": format!("http://127.0.0.1:{port}") })).await;
    let mut client = server.client().await;
    for n in 0..10 {
        client.subscribe(&format!("private-{n}")).await;
        assert_eq!(client.event("subscription_error").await, [json!(format!("private-{n}")), json!(0)]);
    }
    // From here on, subscribes are queued.
    for n in 10..110 {
        client.subscribe(&format!("private-{n}")).await;
    }
    let app = SlowApp::start_on(port, Duration::ZERO).await;
    server.subscribed("private-109", 1).await;
    assert!(app.callbacks() >= 100, "only {} of 100 waited", app.callbacks());
    client.subscribe("private-after").await;
    server.subscribed("private-after", 1).await;
}

#[tokio::test]
async fn configured_handshake_headers_are_forwarded() {
    let laravel = crate::support::Laravel::start().await;
    let settings = json!({ "authHost": laravel.url, "auth": { "forward": ["X-Forwarded-For", "User-Agent"] } });
    let server = TestServer::start(settings).await;
    let headers = [("user-agent", "Browser/1.0"), ("x-forwarded-for", "6.6.6.6"), ("x-other", "1")];
    let mut client = crate::support::Client::connect(server.address, &headers).await;
    client.subscribe("private-orders").await;
    server.subscribed("private-orders", 1).await;
    let callback = &laravel.callbacks()[0];
    assert_eq!(callback.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(callback.headers["user-agent"], "Browser/1.0");
    assert!(!callback.headers.contains_key("x-other"));
}

#[tokio::test]
async fn a_socket_with_many_callbacks_does_not_delay_others() {
    const CHANNELS: usize = 500;
    let app = SlowApp::start(Duration::from_millis(20)).await;
    let server = TestServer::start(json!({ "authHost": app.url, "auth": { "maxConcurrent": 1 } })).await;
    let (mut busy, mut other) = (server.client().await, server.client().await);
    for n in 0..CHANNELS {
        busy.subscribe(&format!("private-{n}")).await;
    }
    until("the queue", async || app.callbacks() > 1).await;
    other.subscribe("private-other").await;
    server.subscribed("private-other", 1).await;
    assert!(app.callbacks() < CHANNELS / 2, "it had to wait for {} others", app.callbacks());
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let app = SlowApp::start(Duration::ZERO).await;
    let server = TestServer::start(json!({ "authHost": app.url })).await;
    let mut client = server.client().await;
    for (channel, length) in [("private-fits", 30_000), ("private-large", 33_000), ("news", 33_000)] {
        let auth = json!({ "headers": { "X-Pad": "x".repeat(length) } });
        client.emit("subscribe", json!({ "channel": channel, "auth": auth })).await;
    }
    assert_eq!(client.event("subscription_error").await, [json!("private-large"), json!(431)]);
    server.subscribed("private-fits", 1).await;
    server.subscribed("news", 1).await;
    assert_eq!(app.callbacks(), 1);
}
