//! Access revoked on all nodes at once.

use std::time::Duration;

use serde_json::{Value, json};

use super::{nodes_with, post};
use crate::support::{Laravel, Redis, SlowApp};

const PATH: &str = "/apps/app/channels/private-orders/recheck";

#[tokio::test]
async fn a_recheck_asks_about_the_sockets_of_all_nodes() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    // Slower than the timeout of other questions between nodes.
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

#[tokio::test]
async fn a_token_revoked_on_one_node_is_refused_on_another() {
    laravel_echo_server::jws::install();
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let app = SlowApp::start(Duration::ZERO).await;
    app.answers(403, "{}");
    let secret = "a secret that is long enough for everybody";
    let settings = json!({ "authHost": app.url, "auth": { "jwt": { "algorithm": "HS256", "secret": secret } } });
    let [one, other] = nodes_with(settings, &redis, &laravel).await;
    let subscribe = |claims: &Value| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("claims can be signed");
        json!({ "channel": "private-orders", "auth": { "headers": { "Authorization": format!("Bearer {token}") } } })
    };
    let nobody = json!({ "channels": ["private-orders"] });
    let (before, after) =
        (json!({ "channels": ["private-orders"], "sub": "7", "n": 1 }), json!({ "channels": ["private-orders"], "sub": "7", "n": 2 }));
    let mut clients = [one.client().await, one.client().await];
    for (client, claims) in clients.iter_mut().zip([&nobody, &before]) {
        client.emit("subscribe", subscribe(claims)).await;
    }
    one.subscribed("private-orders", 2).await;
    assert_eq!(post(&other, PATH, &json!({})).await, (200, json!({ "checked": 2, "removed": 2, "undecided": 0 })));
    let mut again = other.client().await;
    // Neither the same token nor another one of the same user is accepted.
    for claims in [&nobody, &before, &after] {
        again.emit("subscribe", subscribe(claims)).await;
        assert_eq!(again.event("subscription_error").await, [json!("private-orders"), json!(403)], "{claims}");
    }
}
