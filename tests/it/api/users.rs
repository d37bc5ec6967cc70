//! Logging a user out everywhere.

use serde_json::json;

use super::post;
use crate::support::{Laravel, TestServer, until};

#[tokio::test]
async fn all_sockets_of_the_user_are_closed_and_no_others() {
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url })).await;
    let mut ann = server.client_of(1).await;
    ann.subscribe("presence-room").await;
    ann.event("presence:subscribed").await;
    let mut tabs = Vec::new();
    for channel in ["presence-room", "presence-lobby"] {
        let mut tab = server.client_of(2).await;
        tab.subscribe(channel).await;
        tab.event("presence:subscribed").await;
        tabs.push(tab);
    }
    let mut anonymous = server.client_of(2).await;
    anonymous.subscribe("news").await;
    server.subscribed("news", 1).await;

    let answer = post(&server, "/apps/app/users/2/terminate_connections", json!({})).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    for tab in &mut tabs {
        // The packet after which clients do not reconnect automatically. A `presence:leaving` may come before it.
        while tab.packet().await.expect("a disconnect packet") != "41" {}
    }
    assert_eq!(ann.event("presence:leaving").await[1]["user_id"], 2);
    until("the sockets to be gone", async || server.subscription_count("presence-lobby").await == 0).await;
    assert_eq!(server.subscription_count("presence-room").await, 1);
    assert_eq!(server.subscription_count("news").await, 1);
}

#[tokio::test]
async fn an_unknown_user_has_no_connections_to_close() {
    let server = TestServer::start(json!({})).await;
    assert_eq!(post(&server, "/apps/app/users/Ann%20Lee/terminate_connections", json!({})).await.json(), json!({}));
    let refused = post(&server, "/apps/app/users/2/terminate_connections", json!([])).await;
    assert_eq!(refused.status, 400);
    assert!(refused.error().starts_with("body: must be a JSON object"), "{}", refused.text);
}
