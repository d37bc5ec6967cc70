//! Clients that do not read.

use serde_json::json;

use crate::support::{Laravel, Redis, TestServer, until};

#[tokio::test]
async fn a_client_that_does_not_keep_up_is_closed_and_the_others_miss_nothing() {
    const COUNT: u64 = 600;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "limits": { "clientQueue": 100 } })).await;
    let mut frozen = server.client().await;
    frozen.subscribe("news").await;
    server.subscribed("news", 1).await;
    until("the server to listen", async || redis.publish("x", "x", &json!(1), None).await == 1).await;
    // The kernel's buffers take some megabytes before the queue begins to fill.
    let data = "x".repeat(50_000);
    for n in 0..COUNT {
        redis.publish("news", "sent", &json!({ "n": n, "pad": data }), None).await;
    }
    server.subscribed("news", 0).await;
    // What had got through comes, then the end, so that the client starts afresh.
    frozen.closed().await;
    let mut back = server.client().await;
    back.subscribe("news").await;
    server.subscribed("news", 1).await;
    redis.publish("news", "after", &json!(1), None).await;
    back.event("after").await;
}

#[tokio::test]
async fn a_burst_larger_than_the_queue_closes_a_client_that_had_no_time_to_read() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "limits": { "clientQueue": 100 } })).await;
    let mut busy = server.client().await;
    busy.subscribe("news").await;
    server.subscribed("news", 1).await;
    until("the server to listen", async || redis.publish("x", "x", &json!(1), None).await == 1).await;
    redis.publish_all("news", (0..20_000).map(|n| json!({ "event": "sent", "data": n }).to_string())).await;
    server.subscribed("news", 0).await;
    let packets = busy.closed().await;
    assert!(
        packets.iter().zip(0..).all(|(packet, n)| *packet == format!(r#"42["sent","news",{n}]"#)),
        "something is missing in {packets:?}"
    );
}
