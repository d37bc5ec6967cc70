//! `/metrics`: access, its listener, and its counters.

use serde_json::json;

use super::{Answer, BEARER, get, post, send};
use crate::support::{Laravel, Redis, TestServer, free_port, until};

/// The value of a sample such as `laravel_echo_connections{engine="4"}`.
fn value(answer: &Answer, sample: &str) -> f64 {
    let line = answer.text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no sample {sample} in\n{}", answer.text)).parse().expect("a number")
}

#[tokio::test]
async fn the_main_port_requires_a_key() {
    let server = TestServer::start(json!({ "clients": [
        { "appId": "app", "key": "test-key" },
        { "appId": "signed", "key": "public-key", "secret": "s", "requireSignature": true },
    ] }))
    .await;
    assert_eq!(send(&server, "GET", "/metrics", &[], "").await.status, 401);
    for key in ["Bearer wrong", "Bearer ", "Bearer public-key"] {
        assert_eq!(send(&server, "GET", "/metrics", &[("authorization", key)], "").await.status, 403, "{key}");
    }
    assert_eq!(send(&server, "GET", "/metrics?auth_key=test-key", &[], "").await.status, 401);
    let metrics = send(&server, "GET", "/metrics", &[BEARER], "").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let prometheus = ("accept", "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2");
    let openmetrics = send(&server, "GET", "/metrics", &[BEARER, prometheus], "").await;
    assert_eq!(openmetrics.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(metrics.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_separate_port_requires_no_key() {
    let port = free_port();
    let server = TestServer::start(json!({ "metrics": { "port": port } })).await;
    assert_eq!(get(&server, "/metrics").await.status, 404);
    for (path, status) in [("/metrics", 200), ("/health", 200), ("/ready", 200), ("/apps/app/status", 404)] {
        let response = reqwest::get(format!("http://127.0.0.1:{port}{path}")).await.expect("the listener answers");
        assert_eq!(response.status(), status, "{path}");
    }
    server.stop().await;
    assert!(reqwest::get(format!("http://127.0.0.1:{port}/health")).await.is_err(), "the listener outlived the server");
}

#[tokio::test]
async fn metrics_can_be_disabled() {
    let port = free_port();
    let server = TestServer::start(json!({ "metrics": { "enabled": false, "port": port } })).await;
    assert_eq!(get(&server, "/metrics").await.status, 404);
    assert!(reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.is_err());
}

#[tokio::test]
async fn what_happens_is_counted() {
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    let (mut ann, mut bob) = (server.client_of(1).await, server.client_of(2).await);
    for client in [&mut ann, &mut bob] {
        client.subscribe("presence-room").await;
        client.event("presence:subscribed").await;
    }
    ann.subscribe("private-forbidden").await;
    ann.event("subscription_error").await;
    ann.subscribe("news").await;
    server.subscribed("news", 1).await;
    ann.whisper("presence-room", "client-typing", json!({})).await;
    bob.event("client-typing").await;
    ann.whisper("presence-room", "forged", json!({})).await;
    for body in [
        json!({ "channel": "presence-room", "name": "sent", "data": 1 }),
        json!({ "channel": "empty", "name": "sent", "data": 1 }),
        json!({}),
    ] {
        post(&server, "/apps/app/events", body).await;
    }
    redis.heard("x").await;
    redis.publish_text("news", "no JSON").await;

    let malformed = "laravel_echo_events_received_total{source=\"redis\",outcome=\"malformed\"}";
    until("the count", async || value(&get(&server, "/metrics").await, malformed) == 1.0).await;
    let metrics = get(&server, "/metrics").await;
    for (sample, expected) in [
        (r#"laravel_echo_connections{engine="4",transport="websocket"}"#, 2.0),
        (r#"laravel_echo_connections{engine="3",transport="polling"}"#, 0.0),
        ("laravel_echo_connects_total", 2.0),
        (r#"laravel_echo_subscriptions{kind="presence"}"#, 2.0),
        (r#"laravel_echo_subscriptions{kind="private"}"#, 0.0),
        (r#"laravel_echo_subscriptions{kind="public"}"#, 1.0),
        ("laravel_echo_presence_members", 2.0),
        (r#"laravel_echo_events_received_total{source="http",outcome="delivered"}"#, 1.0),
        (r#"laravel_echo_events_received_total{source="http",outcome="no_subscribers"}"#, 1.0),
        (r#"laravel_echo_events_received_total{source="http",outcome="malformed"}"#, 1.0),
        ("laravel_echo_deliveries_total", 2.0),
        ("laravel_echo_whispers_total", 1.0),
        (r#"laravel_echo_refusals_total{cause="unauthorized"}"#, 1.0),
        (r#"laravel_echo_refusals_total{cause="whisper"}"#, 1.0),
        (r#"laravel_echo_refusals_total{cause="origin"}"#, 0.0),
        (r#"laravel_echo_auth_callbacks_total{outcome="granted"}"#, 2.0),
        (r#"laravel_echo_auth_callbacks_total{outcome="refused"}"#, 1.0),
        ("laravel_echo_auth_callback_seconds_count", 3.0),
        ("laravel_echo_auth_callbacks_in_flight", 0.0),
        ("laravel_echo_redis_up", 1.0),
        ("laravel_echo_redis_losses_total", 0.0),
        ("laravel_echo_slow_clients_closed_total", 0.0),
        (concat!("laravel_echo_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(value(&metrics, sample), expected, "{sample}");
    }

    redis.down();
    until("the loss", async || value(&get(&server, "/metrics").await, "laravel_echo_redis_up") == 0.0).await;
    redis.up().await;
    until("the return", async || value(&get(&server, "/metrics").await, "laravel_echo_redis_reconnects_total") == 1.0).await;
    assert_eq!(value(&get(&server, "/metrics").await, "laravel_echo_redis_losses_total"), 1.0);
}
