//! `subscribers.redisMode = "exact"`: a node subscribes only to its clients' channels in Redis.
//!
//! The result of PUBLISH is the number of connections that received the message.

use serde_json::{Value, json};

use crate::support::{Client, Laravel, Redis, TestServer, merge, metrics, until};

async fn node(redis: &Redis, laravel: &Laravel, settings: Value) -> TestServer {
    let mut all = json!({
        "subscribers": { "redisMode": "exact" },
        "databaseConfig": { "redis": { "keyPrefix": "app_" } },
    });
    merge(&mut all, settings);
    let node = TestServer::with(redis, laravel, all).await;
    until("the node to listen", async || redis.subscribers(&["app_laravel-echo:nodes".to_owned()]).await == [1]).await;
    node
}

async fn publish(redis: &Redis, channel: &str, data: Value) -> usize {
    redis.publish(&format!("app_{channel}"), "sent", &data, None).await
}

#[tokio::test]
async fn a_node_subscribes_to_its_clients_channels_and_unsubscribes_later() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    // With recovery, channels of disconnected clients would be kept, too.
    let server = node(&redis, &laravel, json!({ "recovery": { "enabled": false } })).await;
    assert_eq!(publish(&redis, "news", json!(0)).await, 0, "no client is subscribed");
    let (mut alice, mut bob) = (server.client().await, server.client().await);
    for (client, count) in [(&mut alice, 1), (&mut bob, 2)] {
        client.subscribe("news").await;
        server.subscribed("news", count).await;
        assert_eq!(publish(&redis, "news", json!(count)).await, 1, "a client that has joined receives it");
        assert_eq!(client.event("sent").await, [json!("news"), json!(count)]);
    }
    assert_eq!(publish(&redis, "sport", json!(0)).await, 0);
    drop(alice);
    server.subscribed("news", 1).await;
    assert_eq!(publish(&redis, "news", json!(3)).await, 1, "bob is subscribed");
    // After a page change the channel is kept for the next page.
    bob.unsubscribe("news").await;
    server.subscribed("news", 0).await;
    assert_eq!(redis.calls("unsubscribe").await, 0);
    bob.subscribe("news").await;
    server.subscribed("news", 1).await;
    assert_eq!(redis.calls("subscribe").await, 2, "the control channel, and news once");
    bob.unsubscribe("news").await;
    until("the release", async || redis.subscribers(&["app_news".to_owned()]).await == [0]).await;
    bob.subscribe("news").await;
    server.subscribed("news", 1).await;
    assert_eq!(publish(&redis, "news", json!(4)).await, 1);
    for n in [3, 4] {
        assert_eq!(bob.event("sent").await[1], n);
    }
    assert!(bob.left_over().is_empty(), "{:?}", bob.left_over());
}

#[tokio::test]
async fn a_granted_channel_receives_events_once_the_application_has_answered() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = node(&redis, &laravel, json!({})).await;
    let mut alice = server.client_of(1).await;
    laravel.hold();
    for channel in ["private-desk", "presence-room"] {
        alice.subscribe(channel).await;
        let topic = [format!("app_{channel}")];
        until("Redis to be asked meanwhile", async || redis.subscribers(&topic).await == [1]).await;
    }
    laravel.release();
    alice.event("presence:subscribed").await;
    server.subscribed("private-desk", 1).await;
    for channel in ["private-desk", "presence-room"] {
        assert_eq!(publish(&redis, channel, json!(channel)).await, 1);
        assert_eq!(alice.event("sent").await, [json!(channel), json!(channel)]);
    }
    assert!(alice.left_over().is_empty(), "{:?}", alice.left_over());
}

#[tokio::test]
async fn all_channels_are_subscribed_again_after_a_lost_connection() {
    const SOCKETS: usize = 3;
    const EACH: usize = 400;
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = node(&redis, &laravel, json!({ "metrics": { "enabled": true } })).await;
    let mut clients = Vec::new();
    for socket in 0..SOCKETS {
        let mut client = server.client().await;
        for n in 0..EACH {
            client.subscribe(&format!("{socket}.{n}")).await;
        }
        clients.push(client);
    }
    let topics: Vec<_> = (0..SOCKETS).flat_map(|socket| (0..EACH).map(move |n| format!("app_{socket}.{n}"))).collect();
    for round in 0..2 {
        until("all channels", async || redis.subscribers(&topics).await.iter().all(|&count| count == 1)).await;
        for (socket, client) in clients.iter_mut().enumerate() {
            let channel = format!("{socket}.{}", EACH - 1);
            server.subscribed(&channel, 1).await;
            assert_eq!(publish(&redis, &channel, json!(round)).await, 1);
            assert_eq!(client.event("sent").await, [json!(channel), json!(round)]);
        }
        until("the gauge", async || redis_subscriptions(&server).await == SOCKETS * EACH + 1 + round).await;
        redis.down();
        until("the loss", async || redis_subscriptions(&server).await == 0).await;
        // Without Redis clients can still join, and get events once it is back.
        clients[0].subscribe("late").await;
        server.subscribed("late", 1).await;
        redis.up().await;
    }
    until("the late one", async || redis.subscribers(&["app_late".to_owned()]).await == [1]).await;
    assert_eq!(publish(&redis, "late", json!("late")).await, 1);
    assert_eq!(clients[0].event("sent").await[0], "late");
}

async fn redis_subscriptions(server: &TestServer) -> usize {
    let text = metrics(server.address).await;
    let line = text.lines().find_map(|line| line.strip_prefix("laravel_echo_redis_subscriptions "));
    line.expect("the gauge").parse().expect("a number")
}

#[tokio::test]
async fn flat_channels_are_received_without_a_subscribe_and_once() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = node(&redis, &laravel, json!({ "flatChannels": ["news.*", "*.sport"] })).await;
    let (mut alice, mut bob) = (server.client().await, server.client().await);
    alice.subscribe("news.sport").await;
    alice.subscribe("orders").await;
    server.subscribed("news.sport", 1).await;
    server.subscribed("orders", 1).await;
    // Both patterns match in Redis.
    assert_eq!(publish(&redis, "news.sport", json!(1)).await, 2);
    assert_eq!(publish(&redis, "other.sport", json!(2)).await, 1);
    assert_eq!(publish(&redis, "orders", json!(3)).await, 1);
    assert_eq!(alice.event("sent").await, [json!("news.sport"), json!(1)]);
    assert_eq!(alice.event("sent").await, [json!("orders"), json!(3)]);
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.event("news.sport:sent").await, [json!(1)]);
        assert_eq!(client.event("other.sport:sent").await, [json!(2)]);
    }
    assert!(alice.left_over().is_empty(), "{:?}", alice.left_over());
    assert!(bob.left_over().is_empty(), "{:?}", bob.left_over());
}

#[tokio::test]
async fn glob_characters_in_names_are_literal() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = node(&redis, &laravel, json!({})).await;
    let mut alice = server.client().await;
    for channel in ["*", "a[bc]?", "with space\r\n\"quote\"", "žluť \u{1f600}", "laravel-echo:nodes"] {
        alice.subscribe(channel).await;
        // Redis may deliver to the node before alice has joined.
        server.subscribed(channel, 1).await;
        until("a subscribe", async || publish(&redis, channel, json!(channel)).await == 1).await;
        assert_eq!(alice.event("sent").await, [json!(channel), json!(channel)]);
    }
    assert_eq!(publish(&redis, "ab1", json!(1)).await, 0);
    // Leaving a channel of that name does not end the node's own subscription.
    alice.unsubscribe("laravel-echo:nodes").await;
    server.subscribed("laravel-echo:nodes", 0).await;
    assert_eq!(publish(&redis, "laravel-echo:nodes", json!(1)).await, 1);
}

#[tokio::test]
async fn a_burst_keeps_its_order_while_other_channels_change() {
    const COUNT: u64 = 2_000;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = node(&redis, &laravel, json!({})).await;
    let mut alice = server.client_in("news").await;
    let coming_and_going = async {
        let mut bob: Client = server.client().await;
        for n in 0..300 {
            bob.subscribe(&n.to_string()).await;
            bob.unsubscribe(&n.to_string()).await;
        }
    };
    let messages = (0..COUNT).map(|n| json!({ "event": "sent", "data": n }).to_string());
    tokio::join!(redis.publish_all("app_news", messages), coming_and_going);
    for n in 0..COUNT {
        assert_eq!(alice.event("sent").await[1], json!(n));
    }
}
