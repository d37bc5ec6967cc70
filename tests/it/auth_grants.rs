//! Grants that expire, and grants revoked through the HTTP API.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::KEY;
use crate::support::{Laravel, SlowApp, TestServer, until};

async fn post(server: &TestServer, path: &str, body: Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(server.url(path)).bearer_auth(KEY).body(body.to_string());
    let response = request.send().await.expect("the API answers");
    let status = response.status().as_u16();
    let body = response.text().await.expect("the API answers");
    (status, serde_json::from_str(&body).expect("the API answers JSON"))
}

#[tokio::test]
async fn an_expiring_grant_is_renewed_or_revoked_by_another_callback() {
    let app = SlowApp::start(Duration::ZERO).await;
    app.answers(200, r#"{"expires_in":1.2}"#);
    let server = TestServer::start(json!({ "authHost": app.url })).await;
    let mut client = server.client_of(1).await;
    client.subscribe("private-orders").await;
    until("two renewals", async || app.callbacks() == 3).await;
    assert_eq!(server.subscription_count("private-orders").await, 1);
    app.answers(403, "{}");
    assert_eq!(client.event("subscription_error").await, [json!("private-orders"), json!(401)]);
    assert_eq!(server.subscription_count("private-orders").await, 0);
}

#[tokio::test]
async fn an_unreachable_application_does_not_extend_a_grant() {
    let app = SlowApp::start(Duration::ZERO).await;
    app.answers(200, r#"{"expires_in":3}"#);
    let server = TestServer::start(json!({ "authHost": app.url })).await;
    let mut client = server.client_of(1).await;
    client.subscribe("private-orders").await;
    server.subscribed("private-orders", 1).await;
    app.answers(500, "broken");
    assert_eq!(client.event("subscription_error").await, [json!("private-orders"), json!(401)]);
    assert!(app.callbacks() >= 3, "it was asked only {} times", app.callbacks());
}

#[tokio::test]
async fn a_hanging_application_does_not_extend_a_grant() {
    let app = SlowApp::start(Duration::ZERO).await;
    app.answers(200, r#"{"expires_in":2}"#);
    let server = TestServer::start(json!({ "authHost": app.url, "auth": { "timeout": "1h" } })).await;
    let mut client = server.client_of(1).await;
    client.subscribe("private-orders").await;
    server.subscribed("private-orders", 1).await;
    app.takes(Duration::from_secs(3600));
    assert_eq!(client.event("subscription_error").await, [json!("private-orders"), json!(401)]);
    assert_eq!(server.subscription_count("private-orders").await, 0);
}

#[tokio::test]
async fn a_recheck_unsubscribes_sockets_that_are_refused_now() {
    let app = SlowApp::start(Duration::ZERO).await;
    let server = TestServer::start(json!({ "authHost": app.url, "auth": { "cacheTtl": "60s" } })).await;
    let (mut alice, mut bob) = (server.client_of(1).await, server.client_of(2).await);
    alice.subscribe("private-orders").await;
    bob.subscribe("private-orders").await;
    server.subscribed("private-orders", 2).await;
    let path = "/apps/app/channels/private-orders/recheck";
    assert_eq!(post(&server, path, json!({})).await, (200, json!({ "checked": 2, "removed": 0, "undecided": 0 })));
    app.answers(500, "broken");
    assert_eq!(post(&server, path, json!({})).await, (200, json!({ "checked": 2, "removed": 0, "undecided": 2 })));
    app.answers(403, "{}");
    assert_eq!(post(&server, path, json!({})).await, (200, json!({ "checked": 2, "removed": 2, "undecided": 0 })));
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.event("subscription_error").await, [json!("private-orders"), json!(403)]);
    }
    assert_eq!(server.subscription_count("private-orders").await, 0);
    assert_eq!(post(&server, "/apps/app/channels/news/recheck", json!({})).await.0, 400);
}

#[tokio::test]
async fn a_user_can_be_unsubscribed_from_a_channel() {
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url })).await;
    let mut watcher = server.client_of(9).await;
    watcher.subscribe("presence-room").await;
    watcher.event("presence:subscribed").await;
    let mut tabs = [server.client_of(1).await, server.client_of(1).await];
    for tab in &mut tabs {
        tab.subscribe("presence-room").await;
        tab.event("presence:subscribed").await;
        tab.subscribe("private-orders").await;
    }
    watcher.subscribe("private-orders").await;
    server.subscribed("private-orders", 3).await;
    let path = "/apps/app/users/1/unsubscribe";
    // A socket is known as the user's from its presence channel.
    assert_eq!(post(&server, path, json!({ "channel": "private-orders" })).await, (200, json!({ "unsubscribed": 2 })));
    assert_eq!(post(&server, path, json!({ "channel": "presence-room" })).await, (200, json!({ "unsubscribed": 2 })));
    assert_eq!(post(&server, path, json!({ "channel": "presence-room" })).await, (200, json!({ "unsubscribed": 0 })));
    for tab in &mut tabs {
        assert_eq!(tab.event("subscription_error").await, [json!("private-orders"), json!(403)]);
        assert_eq!(tab.event("subscription_error").await, [json!("presence-room"), json!(403)]);
    }
    assert_eq!(watcher.event("presence:leaving").await[1]["user_id"], json!(1));
    assert_eq!(server.subscription_count("private-orders").await, 1);
    let (status, answer) = post(&server, path, json!({})).await;
    assert_eq!(status, 400, "{answer}");
    let anonymous = reqwest::Client::new().post(server.url(path)).body("{}").send().await.expect("the API answers");
    assert_eq!(anonymous.status().as_u16(), 403);
}

#[tokio::test]
async fn credentials_in_auth_host_are_sent_unless_the_client_sends_its_own() {
    let laravel = Laravel::start().await;
    let host = laravel.url.replace("http://", "http://Gate:p%40ss@") + "/";
    let server = TestServer::start(json!({ "authHost": host })).await;
    let mut client = server.client_of(1).await;
    client.subscribe("private-one").await;
    server.subscribed("private-one", 1).await;
    client.emit("subscribe", json!({ "channel": "private-two", "auth": { "headers": { "Authorization": "Bearer t" } } })).await;
    server.subscribed("private-two", 1).await;
    let callbacks = laravel.callbacks();
    let authorization: Vec<_> = callbacks.iter().map(|callback| callback.headers["authorization"].to_str().unwrap()).collect();
    // `Gate:p@ss` in base64.
    assert_eq!(authorization, ["Basic R2F0ZTpwQHNz", "Bearer t"]);
}
