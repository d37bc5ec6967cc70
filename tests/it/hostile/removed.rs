//! Users who were unsubscribed and try to rejoin with earlier credentials.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::server::KEY;
use crate::support::{Laravel, SlowApp, TestServer, until};

const SECRET: &str = "a secret that is long enough for everybody";

async fn post(server: &TestServer, path: &str, body: &Value) -> Value {
    let request = reqwest::Client::new().post(server.url(path)).bearer_auth(KEY).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.expect("an answer").text().await.expect("a whole answer");
    serde_json::from_str(&answer).expect("JSON")
}

#[tokio::test]
async fn a_cached_answer_does_not_readmit_a_removed_user() {
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url, "auth": { "cacheTtl": "60s" } })).await;
    let mut client = server.client_of(1).await;
    client.subscribe("presence-room").await;
    client.event("presence:subscribed").await;
    let removed = post(&server, "/apps/app/users/1/unsubscribe", &json!({ "channel": "presence-room" })).await;
    assert_eq!(removed["unsubscribed"], 1);
    client.event("subscription_error").await;
    assert_eq!(laravel.callbacks().len(), 1);
    client.subscribe("presence-room").await;
    client.event("presence:subscribed").await;
    assert_eq!(laravel.callbacks().len(), 2, "the application was asked again");
}

/// A client whose subscribe is waiting for the application's answer.
async fn on_the_way(server: &TestServer, app: &SlowApp, channel: &str) -> crate::support::Client {
    let mut client = server.client().await;
    let before = app.callbacks();
    client.subscribe(channel).await;
    until("the application to be asked", async || app.callbacks() > before).await;
    client
}

#[tokio::test]
async fn a_pending_answer_does_not_admit_a_user_removed_meanwhile() {
    let app = SlowApp::start(Duration::from_millis(500)).await;
    app.answers(200, r#"{"channel_data":{"user_id":7,"user_info":{}}}"#);
    let server = TestServer::start(json!({ "authHost": app.url })).await;
    for channel in ["private-a", "presence-a"] {
        let mut client = on_the_way(&server, &app, channel).await;
        post(&server, "/apps/app/users/7/unsubscribe", &json!({ "channel": channel })).await;
        assert_eq!(client.event("subscription_error").await, [json!(channel), json!(403)]);
        assert_eq!(server.subscription_count(channel).await, 0);
        // A new subscribe is judged on its own.
        client.subscribe(channel).await;
        server.subscribed(channel, 1).await;
        let mut other = on_the_way(&server, &app, "private-b").await;
        post(&server, "/apps/app/users/7/terminate_connections", &json!({})).await;
        other.closed().await;
        client.closed().await;
        server.subscribed(channel, 0).await;
        assert_eq!(server.subscription_count("private-b").await, 0);
    }
}

#[tokio::test]
async fn only_a_token_issued_after_the_removal_readmits_a_user() {
    laravel_echo_server::jws::install();
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url, "auth": { "jwt": { "algorithm": "HS256", "secret": SECRET } } })).await;
    let token = |issued: Option<u64>| {
        let mut claims = json!({ "sub": "7", "channels": ["*"] });
        if let Some(issued) = issued {
            claims["iat"] = json!(issued);
        }
        encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("claims can be signed")
    };
    let subscribe =
        |token: String| json!({ "channel": "private-a", "auth": { "headers": { "Authorization": format!("Bearer {token}") } } });
    let mut client = server.client().await;
    client.emit("subscribe", subscribe(token(None))).await;
    server.subscribed("private-a", 1).await;
    assert_eq!(post(&server, "/apps/app/users/7/unsubscribe", &json!({ "channel": "private-a" })).await["unsubscribed"], 1);
    client.event("subscription_error").await;
    for issued in [None, Some(0)] {
        client.emit("subscribe", subscribe(token(issued))).await;
        assert_eq!(client.event("subscription_error").await, [json!("private-a"), json!(403)]);
    }
    client.emit("subscribe", subscribe(token(Some(u64::from(u32::MAX))))).await;
    server.subscribed("private-a", 1).await;
    assert_eq!(laravel.callbacks().len(), 0);
}

#[tokio::test]
async fn a_token_without_a_user_does_not_readmit_a_removed_socket() {
    laravel_echo_server::jws::install();
    let laravel = SlowApp::start(Duration::ZERO).await;
    laravel.answers(403, "{}");
    let server = TestServer::start(json!({ "authHost": laravel.url, "auth": { "jwt": { "algorithm": "HS256", "secret": SECRET } } })).await;
    let token = |nonce: u32| {
        let claims = json!({ "channels": ["private-*"], "nonce": nonce });
        encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("claims can be signed")
    };
    let subscribe =
        |channel: &str, token: &str| json!({ "channel": channel, "auth": { "headers": { "Authorization": format!("Bearer {token}") } } });
    let mut client = server.client().await;
    for channel in ["private-a", "private-b"] {
        client.emit("subscribe", subscribe(channel, &token(1))).await;
        server.subscribed(channel, 1).await;
    }
    // The application does not know the user of this token and refuses.
    let rechecked = post(&server, "/apps/app/channels/private-a/recheck", &json!({})).await;
    assert_eq!(rechecked, json!({ "checked": 1, "removed": 1, "undecided": 0 }));
    client.event("subscription_error").await;
    client.emit("subscribe", subscribe("private-a", &token(1))).await;
    assert_eq!(client.event("subscription_error").await, [json!("private-a"), json!(403)]);
    let mut other = server.client().await;
    other.emit("subscribe", subscribe("private-a", &token(1))).await;
    assert_eq!(other.event("subscription_error").await, [json!("private-a"), json!(403)], "on another connection");
    // Other channels and other tokens are not affected.
    assert_eq!(server.subscription_count("private-b").await, 1);
    other.emit("subscribe", subscribe("private-b", &token(1))).await;
    server.subscribed("private-b", 2).await;
    other.emit("subscribe", subscribe("private-a", &token(2))).await;
    server.subscribed("private-a", 1).await;
}
