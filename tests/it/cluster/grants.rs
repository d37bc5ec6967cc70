//! Rights taken back on all nodes at once.

use std::time::Duration;

use serde_json::json;

use super::{nodes_with, post};
use crate::support::{Laravel, Redis, SlowApp};

const PATH: &str = "/apps/app/channels/private-orders/recheck";

#[tokio::test]
async fn a_recheck_asks_about_the_sockets_of_all_nodes() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    // Slower than other questions between nodes may be answered.
    let app = SlowApp::start(Duration::from_millis(1500)).await;
    let [one, other] = nodes_with(json!({ "authHost": app.url }), &redis, &laravel).await;
    let mut clients = [one.client_of(1).await, other.client_of(2).await, other.client_of(3).await];
    for client in &mut clients {
        client.subscribe("private-orders").await;
    }
    one.subscribed("private-orders", 3).await;
    assert_eq!(post(&one, PATH, &json!({})).await, (200, json!({ "checked": 3, "removed": 0, "undecided": 0 })));
    app.answers(500, "broken");
    assert_eq!(post(&one, PATH, &json!({})).await, (200, json!({ "checked": 3, "removed": 0, "undecided": 3 })));
    app.answers(403, "{}");
    assert_eq!(post(&other, PATH, &json!({})).await, (200, json!({ "checked": 3, "removed": 3, "undecided": 0 })));
    for client in &mut clients {
        assert_eq!(client.event("subscription_error").await, [json!("private-orders"), json!(403)]);
    }
    one.subscribed("private-orders", 0).await;
}
