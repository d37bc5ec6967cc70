//! Clients that resume on another node: theirs was stopped or killed, or still runs and they reached another one.

use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{client, numbers, post};
use crate::support::server::KEY;
use crate::support::{Client, Laravel, Node, Redis, TestServer, merge, metrics, until};

fn settings(redis: &Redis, laravel: &Laravel) -> Value {
    json!({
        "authHost": laravel.url,
        "database": "redis",
        "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port } },
        "cluster": { "enabled": true },
        "presence": { "lease": "2s" },
    })
}

async fn node(redis: &Redis, laravel: &Laravel) -> TestServer {
    let mut all = settings(redis, laravel);
    merge(&mut all, json!({ "subscribers": { "redis": true } }));
    let node = TestServer::start(all).await;
    let ready = node.url("/ready");
    until("the node to be ready", async || reqwest::get(&ready).await.is_ok_and(|answer| answer.status() == 200)).await;
    node
}

/// Two nodes that assign the same offsets.
async fn nodes(redis: &Redis, laravel: &Laravel) -> [TestServer; 2] {
    let nodes = [node(redis, laravel).await, node(redis, laravel).await];
    in_order(redis, [nodes[0].address, nodes[1].address]).await;
    nodes
}

/// Waits until these nodes give the same event the same offset.
async fn in_order(redis: &Redis, addresses: [std::net::SocketAddr; 2]) {
    until("both nodes to subscribe to Redis", async || redis.publish_text("x", "{}").await == 2).await;
    let mut probes = Vec::new();
    for (address, count) in addresses.into_iter().zip(1..) {
        let mut probe = Client::connect(address, &[("cookie", "user=9")]).await;
        probe.subscribe("presence-probe").await;
        assert_eq!(probe.event("presence:subscribed").await[1].as_array().map(Vec::len), Some(count.min(1)));
        probes.push(probe);
    }
    until("the nodes to count alike", async || {
        redis.publish("presence-probe", "probe", &json!(1), None).await;
        let mut offsets = Vec::new();
        for probe in &mut probes {
            probe.event("probe").await;
            offsets.push(probe.offset.clone());
        }
        offsets[0] == offsets[1]
    })
    .await;
}

/// Waits until this many sessions, each with this channel, can be resumed on other nodes.
async fn written(redis: &Redis, count: usize, channel: &str) {
    until("the sessions to be written", async || {
        let keys = redis.keys("laravel-echo:session:*").await;
        let mut found = 0;
        for key in &keys {
            found += usize::from(redis.get(key).await.is_some_and(|session| session.contains(&format!("\"{channel}\""))));
        }
        found == count
    })
    .await;
}

async fn publish(redis: &Redis, channel: &str, n: u64, socket: Option<&str>) {
    redis.publish(channel, "sent", &json!(n), socket).await;
}

#[tokio::test]
async fn a_session_with_a_rule_opened_private_channel_is_resumed() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let open = async || {
        let mut all = settings(&redis, &laravel);
        merge(&mut all, json!({ "subscribers": { "redis": true }, "channels": [{ "pattern": "private-feed", "auth": "none" }] }));
        TestServer::start(all).await
    };
    let [one, other] = [open().await, open().await];
    in_order(&redis, [one.address, other.address]).await;
    let mut before = one.client_of(1).await;
    before.subscribe("private-feed").await;
    one.subscribed("private-feed", 1).await;
    publish(&redis, "private-feed", 1, None).await;
    assert_eq!(numbers(&mut before, 1).await, [1]);
    let (id, pid, offset) = (before.id.clone(), before.pid.clone(), before.offset.clone().expect("events have offsets"));
    written(&redis, 1, "private-feed").await;
    before.vanish();
    let after = Client::come_back(other.address, &pid, Some(&offset)).await;
    assert_eq!(after.id, id);
}

#[tokio::test]
async fn a_stopping_node_hands_over_its_sessions() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(&redis, &laravel).await;
    let mut before = client(&one).await;
    publish(&redis, "news", 1, None).await;
    assert_eq!(numbers(&mut before, 1).await, [1]);
    let (id, pid, offset) = (before.id.clone(), before.pid.clone(), before.offset.clone());
    one.stop().await;
    before.closed().await;
    publish(&redis, "news", 2, None).await;
    publish(&redis, "private-orders", 3, None).await;
    publish(&redis, "private-other", 4, None).await;
    publish(&redis, "news", 5, Some(&id)).await;
    publish(&redis, "presence-room", 6, None).await;
    let callbacks = laravel.callbacks().len();
    let mut after = Client::come_back(other.address, &pid, offset.as_deref()).await;
    assert_eq!((after.id.as_str(), after.pid.as_str()), (id.as_str(), pid.as_str()));
    publish(&redis, "private-orders", 7, None).await;
    assert_eq!(numbers(&mut after, 4).await, [2, 3, 6, 7]);
    assert_eq!(after.event("presence:subscribed").await[1][0]["user_id"], 1);
    assert_eq!(laravel.callbacks().len(), callbacks, "grants remain valid");
}

#[tokio::test]
async fn clients_of_a_killed_node_resume_on_another_node_and_after_its_restart() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let mut killed = Node::start(settings(&redis, &laravel)).await;
    let other = node(&redis, &laravel).await;
    in_order(&redis, [killed.address, other.address]).await;
    let mut before = Client::connect(killed.address, &[("cookie", "user=1")]).await;
    before.subscribe("news").await;
    before.subscribe("presence-room").await;
    before.event("presence:subscribed").await;
    written(&redis, 1, "presence-room").await;
    let (id, pid) = (before.id.clone(), before.pid.clone());
    killed.signal(Signal::KILL);
    before.closed().await;
    publish(&redis, "news", 1, None).await;
    // It had received no event, so it gets everything since it subscribed.
    let mut after = Client::come_back(other.address, &pid, None).await;
    assert_eq!(after.id, id);
    assert_eq!(numbers(&mut after, 1).await, [1]);
    assert_eq!(after.event("presence:subscribed").await[1].as_array().map(Vec::len), Some(1));
    // And back to the first node, once that has restarted and received an event.
    killed.again().await;
    in_order(&redis, [killed.address, other.address]).await;
    publish(&redis, "news", 2, None).await;
    assert_eq!(numbers(&mut after, 1).await, [2]);
    let offset = after.offset.clone();
    written(&redis, 1, "presence-room").await;
    after.vanish();
    publish(&redis, "news", 3, None).await;
    let mut again = Client::come_back(killed.address, &pid, offset.as_deref()).await;
    assert_eq!(again.id, id);
    assert_eq!(numbers(&mut again, 1).await, [3]);
}

#[tokio::test]
async fn a_client_that_resumes_on_another_node_leaves_nothing_behind() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(&redis, &laravel).await;
    let mut watcher = other.client_of(2).await;
    watcher.subscribe("presence-room").await;
    watcher.event("presence:subscribed").await;
    let mut before = one.client_of(1).await;
    before.subscribe("presence-room").await;
    before.event("presence:subscribed").await;
    watcher.event("presence:joining").await;
    written(&redis, 2, "presence-room").await;
    let (id, pid) = (before.id.clone(), before.pid.clone());
    // The first node has not noticed the broken connection.
    let mut after = Client::come_back(other.address, &pid, None).await;
    assert_eq!(after.id, id);
    assert!(before.closed().await.iter().all(|packet| packet.starts_with("42")));
    after.event("presence:subscribed").await;
    until("the first node to let go", async || other.subscription_count("presence-room").await == 2).await;
    publish(&redis, "presence-room", 1, None).await;
    assert_eq!(numbers(&mut after, 1).await, [1]);
    let mut carol = one.client_of(3).await;
    carol.subscribe("presence-room").await;
    assert_eq!(carol.event("presence:subscribed").await[1].as_array().map(Vec::len), Some(3));
    assert_eq!(watcher.event("presence:joining").await[1]["user_id"], 3);
    assert_eq!(watcher.left_over(), ["sent"], "no member joined or left");
    drop(after);
    assert_eq!(watcher.event("presence:leaving").await[1]["user_id"], 1);
}

#[tokio::test]
async fn a_member_who_resumes_on_another_node_is_not_told_of_those_who_were_there() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(&redis, &laravel).await;
    let mut stays = one.client_of(1).await;
    let mut moves = one.client_of(2).await;
    for client in [&mut stays, &mut moves] {
        client.subscribe("presence-room").await;
        client.event("presence:subscribed").await;
    }
    written(&redis, 2, "presence-room").await;
    // Nobody on that node is in the channel yet.
    let mut moved = Client::come_back(other.address, &moves.pid, None).await;
    assert_eq!(moved.id, moves.id);
    assert_eq!(moved.event("presence:subscribed").await[1].as_array().map(Vec::len), Some(2));
    assert!(moved.left_over().is_empty(), "{:?}", moved.left_over());
    let mut late = one.client_of(3).await;
    late.subscribe("presence-room").await;
    for client in [&mut stays, &mut moved] {
        while client.event("presence:joining").await[1]["user_id"] != 3 {}
        assert!(client.left_over().is_empty(), "{:?}", client.left_over());
    }
}

#[tokio::test]
async fn a_resumed_client_gets_no_events_from_before_its_subscribe() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(&redis, &laravel).await;
    let mut thief = one.client_of(1).await;
    thief.subscribe("news").await;
    one.subscribed("news", 1).await;
    publish(&redis, "news", 1, None).await;
    numbers(&mut thief, 1).await;
    let early = thief.offset.clone();
    publish(&redis, "private-orders", 2, None).await;
    publish(&redis, "news", 3, None).await;
    numbers(&mut thief, 1).await;
    thief.subscribe("private-orders").await;
    one.subscribed("private-orders", 1).await;
    written(&redis, 1, "private-orders").await;
    let (id, pid) = (thief.id.clone(), thief.pid.clone());
    thief.vanish();
    publish(&redis, "private-orders", 4, None).await;
    let mut after = Client::come_back(other.address, &pid, early.as_deref()).await;
    assert_eq!(after.id, id);
    publish(&redis, "private-orders", 5, None).await;
    assert_eq!(numbers(&mut after, 3).await, [3, 4, 5]);
}

#[tokio::test]
async fn a_forged_private_id_starts_a_new_session() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(&redis, &laravel).await;
    let foreign = TestServer::start(json!({})).await.client().await;
    for (pid, offset) in [
        (format!("{}.{}", foreign.id, "0".repeat(32)), "1-1".to_owned()),
        (foreign.pid.clone(), "1-1".to_owned()),
        ("1".repeat(5000), "1".repeat(5000)),
    ] {
        let fresh = Client::come_back(other.address, &pid, Some(&offset)).await;
        assert!(!pid.starts_with(&fresh.id));
    }
    for offset in ["1-1", "ffffffffffffffff-1", "0-18446744073709551615", "x", "", "1-99999999999999999999999"] {
        let mut before = client(&one).await;
        written(&redis, 1, "presence-room").await;
        let pid = before.pid.clone();
        let fresh = Client::come_back(other.address, &pid, Some(offset)).await;
        assert!(!pid.starts_with(&fresh.id), "{offset}");
        // Resuming ends the earlier session on any node.
        before.closed().await;
        written(&redis, 0, "presence-room").await;
        let again = Client::come_back(one.address, &pid, None).await;
        assert!(!pid.starts_with(&again.id), "{offset}");
    }
}

#[tokio::test]
async fn only_one_of_many_concurrent_resumes_succeeds() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(&redis, &laravel).await;
    let before = client(&one).await;
    written(&redis, 1, "presence-room").await;
    let (id, pid) = (before.id.clone(), before.pid.clone());
    before.vanish();
    let all = (0..100).map(|n| Client::come_back([one.address, other.address][n % 2], &pid, None));
    let clients = futures_util::future::join_all(all).await;
    assert!(clients.iter().any(|client| client.id == id));
    drop(clients);
    until("all clients to be gone", async || one.subscription_count("news").await + other.subscription_count("news").await == 0).await;
}

#[tokio::test]
async fn packets_held_while_a_session_is_looked_up_are_bounded() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(&redis, &laravel).await;
    let before = client(&one).await;
    written(&redis, 1, "presence-room").await;
    redis.pause();
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", other.address);
    let mut again = Client::open(Ipv4Addr::LOCALHOST.into(), other.address, &url, &[]).await.expect("the server takes websockets");
    again.packet().await.expect("an open packet");
    again.send_text(&format!("40{}", json!({ "pid": before.pid }))).await;
    for _ in 0..5 {
        // The connection may already be closed.
        let _ = again.try_send(&format!("42{}", json!(["subscribe", { "channel": "x".repeat(40_000) }]))).await;
    }
    assert_eq!(again.closed().await, Vec::<String>::new());
    redis.resume();
}

#[tokio::test]
async fn a_user_terminated_after_its_node_was_killed_cannot_resume() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    for path in ["/users/1/terminate_connections", "/users/1/unsubscribe", "/channels/private-orders/recheck"] {
        let killed = Node::start(settings(&redis, &laravel)).await;
        let other = node(&redis, &laravel).await;
        in_order(&redis, [killed.address, other.address]).await;
        let mut before = Client::connect(killed.address, &[("cookie", "user=1")]).await;
        before.subscribe("private-orders").await;
        before.subscribe("presence-room").await;
        before.event("presence:subscribed").await;
        written(&redis, 1, "private-orders").await;
        written(&redis, 1, "presence-room").await;
        let (id, pid) = (before.id.clone(), before.pid.clone());
        killed.signal(Signal::KILL);
        before.closed().await;
        post(&other, path, json!({ "channel": "presence-room" })).await;
        assert_ne!(Client::come_back(other.address, &pid, None).await.id, id, "{path}");
        redis.flush().await;
    }
}

#[tokio::test]
async fn an_offset_known_to_one_node_only_is_not_resumed_on_another() {
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(&redis, &laravel).await;
    let mut before = client(&one).await;
    redis.down();
    // It only reaches clients of this node.
    let url = one.url(&format!("/apps/app/events?auth_key={KEY}"));
    let body = json!({ "channel": "news", "name": "sent", "data": 1 }).to_string();
    until("an event to go to this node", async || {
        // A connection that breaks in the middle is an error.
        let sent = reqwest::Client::new().post(&url).header("content-type", "application/json").body(body.clone()).send().await;
        sent.expect("an answer").status() == 200
    })
    .await;
    assert_eq!(numbers(&mut before, 1).await, [1]);
    let alone = before.offset.clone();
    redis.up().await;
    in_order(&redis, [one.address, other.address]).await;
    written(&redis, 1, "presence-room").await;
    let (id, pid) = (before.id.clone(), before.pid.clone());
    before.vanish();
    assert_ne!(Client::come_back(other.address, &pid, alone.as_deref()).await.id, id);
}

#[tokio::test]
async fn in_exact_mode_a_client_starts_a_new_session_on_another_node() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let mut all = settings(&redis, &laravel);
    merge(&mut all, json!({ "subscribers": { "redis": true, "redisMode": "exact" } }));
    let [one, other] = [TestServer::start(all.clone()).await, TestServer::start(all).await];
    for node in [&one, &other] {
        let up = async || metrics(node.address).await.contains("laravel_echo_redis_up 1\n");
        until("Redis", up).await;
    }
    let before = client(&one).await;
    let pid = before.pid.clone();
    before.vanish();
    assert!(!pid.starts_with(&Client::come_back(other.address, &pid, None).await.id));
    assert!(redis.keys("laravel-echo:session:*").await.is_empty());
    // On its own node it resumes.
    assert!(pid.starts_with(&Client::come_back(one.address, &pid, None).await.id));
}

#[tokio::test]
async fn stored_sessions_expire() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let mut all = settings(&redis, &laravel);
    merge(&mut all, json!({ "subscribers": { "redis": true }, "recovery": { "window": "1s" } }));
    let one = TestServer::start(all).await;
    let stays = client(&one).await;
    written(&redis, 1, "presence-room").await;
    let left = one.client_of(2).await;
    let mut gone = one.client_of(3).await;
    gone.subscribe("presence-room").await;
    gone.event("presence:subscribed").await;
    written(&redis, 2, "presence-room").await;
    gone.send_text("41").await;
    written(&redis, 1, "presence-room").await;
    // Longer than the lifetime of a stored session that is not renewed.
    tokio::time::sleep(Duration::from_secs(4)).await;
    written(&redis, 1, "presence-room").await;
    stays.vanish();
    written(&redis, 0, "presence-room").await;
    drop(left);
}
