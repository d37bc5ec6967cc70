//! Headers that a client wants kept.

use serde_json::json;

use crate::support::{Laravel, TestServer};

#[tokio::test]
async fn the_different_headers_of_one_socket_are_bounded_and_equal_ones_are_kept_once() {
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url })).await;
    let mut client = server.client_of(1).await;
    let headers = |text: String| json!({ "headers": { "Authorization": format!("Bearer {text}") } });
    // The same for each of a thousand channels is no more than once.
    for n in 0..200 {
        client.emit("subscribe", json!({ "channel": format!("private-same.{n}"), "auth": headers("x".repeat(20_000)) })).await;
    }
    server.subscribed("private-same.199", 1).await;
    let mut refused = 0;
    for n in 0..10 {
        let channel = format!("private-other.{n}");
        client.emit("subscribe", json!({ "channel": channel, "auth": headers(format!("{n}{}", "x".repeat(20_000))) })).await;
        // A public channel, once it is joined, tells that the subscribe before it was taken.
        client.subscribe(&"x".repeat(300)).await;
        let mut error = client.event("subscription_error").await;
        if error[1] == json!(431) {
            refused += 1;
            error = client.event("subscription_error").await;
        } else {
            server.subscribed(&channel, 1).await;
        }
        assert_eq!(error[1], json!(414));
    }
    assert_eq!(refused, 5, "128 KB hold six sets");
}
