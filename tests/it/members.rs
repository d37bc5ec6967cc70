//! Guarded channels: callbacks, member lists, and whispers.

use serde_json::json;

use crate::support::{Laravel, TestServer, until};

async fn server(laravel: &Laravel) -> TestServer {
    TestServer::start(json!({ "authHost": laravel.url })).await
}

#[tokio::test]
async fn the_application_decides_who_joins() {
    let laravel = Laravel::start().await;
    let server = server(&laravel).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe("private-forbidden").await;
    assert_eq!(alice.event("subscription_error").await, [json!("private-forbidden"), json!(403)]);
    alice.subscribe("private-orders").await;
    server.subscribed("private-orders", 1).await;
    let callback = &laravel.callbacks()[1];
    assert_eq!(callback.channel, "private-orders");
    assert_eq!(callback.headers["cookie"], "user=1");
    assert_eq!(callback.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(callback.headers["x-requested-with"], "XMLHttpRequest");
}

#[tokio::test]
async fn an_unsubscribe_during_the_callback_takes_precedence() {
    let laravel = Laravel::start().await;
    let server = server(&laravel).await;
    let mut alice = server.client_of(1).await;
    laravel.hold();
    alice.subscribe("private-slow").await;
    until("the callback", async || laravel.callbacks().len() == 1).await;
    alice.unsubscribe("private-slow").await;
    alice.subscribe("marker").await;
    server.subscribed("marker", 1).await;
    laravel.release();
    // This answer comes after the one that was held back.
    alice.subscribe("private-after").await;
    server.subscribed("private-after", 1).await;
    assert_eq!(server.subscription_count("private-slow").await, 0);
}

#[tokio::test]
async fn a_disconnect_during_the_callback_leaves_nothing_behind() {
    let laravel = Laravel::start().await;
    let server = server(&laravel).await;
    let mut alice = server.client_of(1).await;
    laravel.hold();
    alice.subscribe("presence-room").await;
    until("the callback", async || laravel.callbacks().len() == 1).await;
    drop(alice);
    laravel.release();
    let mut bob = server.client_of(2).await;
    bob.subscribe("presence-room").await;
    let here = bob.event("presence:subscribed").await;
    assert_eq!(here[1], json!([{ "user_id": 2, "user_info": { "id": 2 } }]));
}

#[tokio::test]
async fn members_are_told_of_a_users_first_join_and_last_leave() {
    let laravel = Laravel::start().await;
    let server = server(&laravel).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe("presence-room").await;
    alice.event("presence:subscribed").await;

    let (mut tab, mut other_tab) = (server.client_of(2).await, server.client_of(2).await);
    tab.subscribe("presence-room").await;
    assert_eq!(alice.event("presence:joining").await, [json!("presence-room"), json!({ "user_id": 2, "user_info": { "id": 2 } })]);
    other_tab.subscribe("presence-room").await;
    let here = other_tab.event("presence:subscribed").await;
    assert_eq!(here[1].as_array().unwrap().len(), 2, "each user is listed once");
    drop(tab);
    server.subscribed("presence-room", 2).await;
    other_tab.unsubscribe("presence-room").await;
    assert_eq!(alice.event("presence:leaving").await[1], json!({ "user_id": 2, "user_info": { "id": 2 } }));
    assert!(alice.left_over().is_empty(), "{:?}", alice.left_over());
}

#[tokio::test]
async fn five_hundred_join_at_once() {
    const COUNT: u32 = 500;
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url, "auth": { "maxConcurrent": COUNT } })).await;
    let mut watcher = server.client_of(1_000_000).await;
    watcher.subscribe("presence-room").await;
    watcher.event("presence:subscribed").await;
    laravel.hold();
    let mut clients = Vec::new();
    for user in 0..COUNT {
        let mut client = server.client_of(user).await;
        client.subscribe("presence-room").await;
        clients.push(client);
    }
    until("all callbacks", async || laravel.callbacks().len() as u32 == COUNT + 1).await;
    laravel.release();
    let mut joined = std::collections::BTreeSet::new();
    while joined.len() < COUNT as usize {
        let member = watcher.event("presence:joining").await.remove(1);
        assert!(joined.insert(member["user_id"].as_u64().unwrap()), "{member} joined twice");
    }
    let mut late = server.client_of(2_000_000).await;
    late.subscribe("presence-room").await;
    assert_eq!(late.event("presence:subscribed").await[1].as_array().unwrap().len() as u32, COUNT + 2);
}

#[tokio::test]
async fn whispers_reach_the_other_members_and_follow_the_rules() {
    let laravel = Laravel::start().await;
    let server = server(&laravel).await;
    let (mut alice, mut bob) = (server.client_of(1).await, server.client_of(2).await);
    for client in [&mut alice, &mut bob] {
        client.subscribe("private-desk").await;
        client.subscribe("open").await;
    }
    server.subscribed("private-desk", 2).await;
    server.subscribed("open", 2).await;
    let big = "x".repeat(100_001);
    alice.whisper("open", "client-typing", json!(1)).await;
    alice.whisper("private-desk", "my-client-typing", json!(2)).await;
    alice.whisper("private-other", "client-typing", json!(3)).await;
    alice.whisper("private-desk", "client-typing", json!(big)).await;
    alice.emit("client event", json!(r#"{"channel":"private-desk","event":"client-text","data":4}"#)).await;
    alice.whisper("private-desk", "client-typing", json!({ "n": 5 })).await;
    assert_eq!(bob.event("client-typing").await, [json!("private-desk"), json!({ "n": 5 })]);
    assert_eq!(bob.left_over(), ["client-text"]);
}

#[tokio::test]
async fn limits_of_a_socket_are_reported_with_a_status() {
    let laravel = Laravel::start().await;
    let settings = json!({ "authHost": laravel.url, "limits": { "subscriptions": 2, "channelName": 20, "subscribesPerSecond": 3, "whispersPerSecond": 1 } });
    let server = TestServer::start(settings).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe(&"x".repeat(21)).await;
    assert_eq!(alice.event("subscription_error").await, [json!("x".repeat(21)), json!(414)]);
    for channel in ["a", "private-b", "c"] {
        alice.subscribe(channel).await;
    }
    assert_eq!(alice.event("subscription_error").await, [json!("c"), json!(429)]);
    for _ in 0..2 {
        alice.subscribe("a").await;
    }
    alice.subscribe("a").await;
    assert_eq!(alice.event("subscription_error").await, [json!("a"), json!(429)], "six per second is the burst");

    let mut bob = server.client_of(2).await;
    bob.subscribe("private-b").await;
    server.subscribed("private-b", 2).await;
    for n in 0..10 {
        alice.whisper("private-b", "client-n", json!(n)).await;
    }
    alice.unsubscribe("private-b").await;
    server.subscribed("private-b", 1).await;
    bob.emit("subscribe", json!({ "channel": "private-forbidden" })).await;
    bob.event("subscription_error").await;
    assert!(bob.left_over().len() < 10, "whispers are not limited");
}
