//! The end: members leave, clients are told in a way that lets them come back.

use serde_json::json;

use crate::support::{Laravel, TestServer};

#[tokio::test]
async fn clients_are_closed_without_a_goodbye_that_keeps_them_away() {
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url })).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe("presence-room").await;
    alice.event("presence:subscribed").await;
    server.stop().await;
    let packets = alice.closed().await;
    assert!(!packets.iter().any(|packet| packet.starts_with("41")), "{packets:?} keeps clients from reconnecting");
}

#[tokio::test]
async fn a_callback_that_hangs_does_not_hold_up_the_end() {
    let laravel = Laravel::start().await;
    let settings = json!({ "authHost": laravel.url, "auth": { "timeout": "10m" }, "shutdown": { "timeout": "10m" } });
    let server = TestServer::start(settings).await;
    let mut alice = server.client_of(1).await;
    laravel.hold();
    alice.subscribe("private-slow").await;
    crate::support::until("the callback", async || laravel.callbacks().len() == 1).await;
    server.stop().await;
}
