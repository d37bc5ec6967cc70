//! Several nodes on one Redis.

use std::collections::BTreeSet;

use laravel_echo_server::Config;
use serde_json::{Value, json};

use crate::support::server::KEY;
use crate::support::{Client, Laravel, Node, Redis, TestServer, merge, until};

mod failures;
mod grants;
mod pusher;
mod restarts;
mod watcher;

const ROOM: &str = "presence-room";

fn settings() -> Value {
    json!({
        "database": "redis",
        "databaseConfig": { "redis": { "keyPrefix": "app_" } },
        "cluster": { "enabled": true },
        "presence": { "lease": "2s" },
    })
}

/// A node in a process of its own.
async fn process(redis_port: u16, laravel: &Laravel) -> Node {
    let mut settings = settings();
    let redis = json!({ "redis": { "host": "127.0.0.1", "port": redis_port } });
    merge(&mut settings, json!({ "authHost": laravel.url, "databaseConfig": redis }));
    Node::start(settings).await
}

/// Two nodes that subscribe to Redis in this mode.
async fn nodes(mode: &str, redis: &Redis, laravel: &Laravel) -> [TestServer; 2] {
    nodes_with(json!({ "subscribers": { "redisMode": mode } }), redis, laravel).await
}

/// Two nodes with leases long enough to be kept, and to restore what Redis has lost, on a busy machine.
async fn patient_nodes(mode: &str, redis: &Redis, laravel: &Laravel) -> [TestServer; 2] {
    nodes_with(json!({ "subscribers": { "redisMode": mode }, "presence": { "lease": "12s" } }), redis, laravel).await
}

async fn nodes_with(extra: Value, redis: &Redis, laravel: &Laravel) -> [TestServer; 2] {
    let mut settings = settings();
    merge(&mut settings, extra);
    let nodes = [TestServer::with(redis, laravel, settings.clone()).await, TestServer::with(redis, laravel, settings).await];
    until("both nodes to listen", async || redis.publish_text("app_laravel-echo:nodes", "{}").await == 2).await;
    let mut probes = Vec::new();
    for (node, count) in nodes.iter().zip(1..) {
        let mut probe = node.client().await;
        probe.subscribe("probe").await;
        node.subscribed("probe", count).await;
        redis.publish("app_probe", "ready", &json!(1), None).await;
        probe.event("ready").await;
        probes.push(probe);
    }
    drop(probes);
    nodes[0].subscribed("probe", 0).await;
    nodes
}

async fn post(node: &TestServer, path: &str, body: &Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(node.url(path)).bearer_auth(KEY).body(body.to_string());
    let response = request.send().await.expect("the API answers");
    let status = response.status().as_u16();
    let text = response.text().await.expect("the API answers");
    (status, serde_json::from_str(&text).expect("the API answers JSON"))
}

async fn join(node: &TestServer, user: u32) -> (Client, Vec<u64>) {
    let mut client = node.client_of(user).await;
    client.subscribe(ROOM).await;
    let here = users(&client.event("presence:subscribed").await[1]);
    (client, here)
}

fn users(members: &Value) -> Vec<u64> {
    members.as_array().expect("a list").iter().map(|member| member["user_id"].as_u64().expect("an id")).collect()
}

/// Runs every case in both Redis modes.
macro_rules! in_both_modes {
    ($($case:ident),+ $(,)?) => {
        mod by_pattern {
            $(#[tokio::test]
            async fn $case() {
                super::$case("pattern").await;
            })+
        }
        mod exactly {
            $(#[tokio::test]
            async fn $case() {
                super::$case("exact").await;
            })+
        }
    };
}

in_both_modes!(
    members_on_all_nodes_see_each_other_once,
    events_and_whispers_reach_every_node_once_and_in_order,
    one_hundred_join_over_two_nodes_at_once,
    who_joins_a_known_channel_is_shown_it_without_asking_redis,
    the_data_of_a_users_newest_tab_is_shown_on_all_nodes,
    who_came_and_left_while_redis_was_full_is_not_shown_any_more,
    the_http_api_answers_for_all_nodes,
    without_redis_the_clients_of_a_node_reach_each_other,
    redis_restarts_empty_under_two_nodes,
    redis_is_emptied_under_two_nodes,
    members_join_while_redis_is_away,
);

#[tokio::test]
async fn who_joined_while_a_node_did_not_listen_is_listed() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    // With recovery, the channels of disconnected clients would be listened to.
    let extra = json!({
        "subscribers": { "redisMode": "exact" },
        "presence": { "leaveGrace": "1m" },
        "recovery": { "enabled": false },
    });
    let [one, other] = nodes_with(extra, &redis, &laravel).await;
    let (alice, _) = join(&one, 1).await;
    let (_bob, here) = join(&other, 2).await;
    assert_eq!(here, [2, 1]);
    drop(alice);
    until("one to stop listening", async || redis.subscribers(&[format!("app_{ROOM}")]).await == [1]).await;
    let (_carol, here) = join(&other, 3).await;
    assert_eq!(here, [3, 2, 1]);
    let (_dave, here) = join(&one, 4).await;
    assert_eq!(here, [4, 3, 2, 1]);
}

#[tokio::test]
async fn a_leave_is_told_after_redis_has_lost_the_channel_alone() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes_with(json!({ "databaseConfig": { "membersMirror": false } }), &redis, &laravel).await;
    let ((mut alice, _), (mut bob, _), (mut dave, _)) = (join(&one, 1).await, join(&one, 2).await, join(&other, 4).await);
    let (mut erin, _) = join(&other, 5).await;
    let mut tabs = Vec::new();
    until("a join that reads no list", async || {
        let before = redis.calls("hgetall").await;
        tabs.push(join(&one, 2).await);
        redis.calls("hgetall").await == before
    })
    .await;
    dave.unsubscribe(ROOM).await;
    for client in [&mut bob, &mut erin] {
        assert_eq!(client.event("presence:leaving").await[1]["user_id"], 4);
    }
    // As a Redis does that makes room for other data. The lease stays.
    for part in ["sockets", "users"] {
        redis.delete(&format!("app_laravel-echo:{{{ROOM}}}:{part}")).await;
    }
    alice.unsubscribe(ROOM).await;
    for client in [&mut bob, &mut erin] {
        assert_eq!(client.event("presence:leaving").await[1]["user_id"], 1);
    }
    let (_carol, mut here) = join(&one, 3).await;
    here.sort_unstable();
    assert_eq!(here, [2, 3, 5]);
}

#[tokio::test]
async fn who_is_wrongly_told_to_have_left_is_put_back() {
    const TELL: &str = "redis.call('HDEL', KEYS[1], ARGV[1]) redis.call('HDEL', KEYS[2], '1') \
        local version = redis.call('HINCRBY', KEYS[1], 'version', 1) \
        redis.call('PUBLISH', 'app_presence-room', \
            '{\"event\":\"presence:leaving\",\"data\":{\"user_id\":1},\"socket\":\"1.1\",\"presence\":' .. version .. '}')";
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let extra = json!({ "presence": { "lease": "1h" } });
    let [one, other] = nodes_with(extra, &redis, &laravel).await;
    // Two, for a node looks for one of its members now and then.
    let ((_first, _), (alice, _), (mut bob, _)) = (join(&one, 3).await, join(&one, 1).await, join(&other, 2).await);
    let keys = ["sockets", "users"].map(|part| format!("app_laravel-echo:{{{ROOM}}}:{part}"));
    redis.eval::<()>(TELL, &[&keys[0], &keys[1]], &[&alice.id]).await;
    assert_eq!(bob.event("presence:leaving").await[1]["user_id"], 1);
    assert_eq!(bob.event("presence:joining").await[1]["user_id"], 1);
    let (_carol, mut here) = join(&other, 4).await;
    here.sort_unstable();
    assert_eq!(here, [1, 2, 3, 4]);
}

async fn members_on_all_nodes_see_each_other_once(mode: &str) {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(mode, &redis, &laravel).await;
    let (mut alice, here) = join(&one, 1).await;
    assert_eq!(here, [1]);
    let (mut bob, here) = join(&other, 2).await;
    assert_eq!(here, [2, 1], "newest first");
    assert_eq!(alice.event("presence:joining").await, [json!(ROOM), json!({ "user_id": 2, "user_info": { "id": 2 } })]);
    // Another tab of alice on the other node is not announced, nor is the end of the first one.
    let (mut tab, here) = join(&other, 1).await;
    assert_eq!(here, [1, 2]);
    drop(alice);
    one.subscribed(ROOM, 2).await;
    tab.unsubscribe(ROOM).await;
    assert_eq!(bob.event("presence:leaving").await, [json!(ROOM), json!({ "user_id": 1, "user_info": { "id": 1 } })]);
    let (_carol, here) = join(&one, 3).await;
    assert_eq!(here, [3, 2]);
    assert_eq!(bob.event("presence:joining").await[1]["user_id"], 3);
    assert!(bob.left_over().is_empty(), "{:?}", bob.left_over());
    assert!(tab.left_over().is_empty(), "{:?}", tab.left_over());
}

async fn events_and_whispers_reach_every_node_once_and_in_order(mode: &str) {
    const COUNT: u64 = 50;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(mode, &redis, &laravel).await;
    let (mut alice, mut bob) = (one.client_of(1).await, other.client_of(2).await);
    for client in [&mut alice, &mut bob] {
        client.subscribe("private-desk").await;
    }
    one.subscribed("private-desk", 2).await;
    for n in 0..COUNT {
        alice.whisper("private-desk", "client-typing", json!(n)).await;
    }
    for n in 0..COUNT {
        assert_eq!(bob.event("client-typing").await, [json!("private-desk"), json!(n)]);
    }
    for n in 0..COUNT {
        let body = json!({ "channel": "private-desk", "name": "sent", "data": { "n": n }, "socket_id": bob.id });
        let (status, answer) = post(&one, "/apps/app/events", &body).await;
        assert_eq!((status, answer), (200, json!({ "message": "ok" })));
    }
    for n in 0..COUNT {
        assert_eq!(alice.event("sent").await, [json!("private-desk"), json!({ "n": n })]);
    }
    bob.whisper("private-desk", "client-end", json!(null)).await;
    alice.event("client-end").await;
    alice.whisper("private-desk", "client-end", json!(null)).await;
    bob.event("client-end").await;
    assert!(alice.left_over().is_empty(), "received its own whisper, or something twice: {:?}", alice.left_over());
    assert!(bob.left_over().is_empty(), "the sender was not excluded: {:?}", bob.left_over());
}

async fn who_joins_a_known_channel_is_shown_it_without_asking_redis(mode: &str) {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let extra = json!({ "subscribers": { "redisMode": mode }, "databaseConfig": { "membersMirror": false } });
    let nodes = nodes_with(extra, &redis, &laravel).await;
    let mut clients = vec![join(&nodes[0], 1).await, join(&nodes[1], 2).await];
    // At first a node may have missed something.
    until("a join that reads no list", async || {
        let before = redis.calls("hgetall").await;
        let user = 1 + u32::try_from(clients.len()).expect("few clients");
        clients.push(join(&nodes[1], user).await);
        redis.calls("hgetall").await == before
    })
    .await;
    let newest = u64::try_from(clients.len()).expect("few clients");
    let (mut last, here) = clients.pop().expect("a client");
    let (mut first, _) = clients.swap_remove(0);
    assert_eq!(here, (1..=newest).rev().collect::<Vec<_>>(), "newest first");
    while first.event("presence:joining").await[1]["user_id"] != newest {}
    for (client, _) in &mut clients {
        client.unsubscribe(ROOM).await;
    }
    let mut gone = BTreeSet::new();
    while gone.len() + 2 < here.len() {
        assert!(gone.insert(last.event("presence:leaving").await[1]["user_id"].to_string()), "{gone:?}");
    }
    let (_late, here) = join(&nodes[1], 100_000).await;
    assert_eq!(here, [100_000, newest, 1]);
}

async fn who_came_and_left_while_redis_was_full_is_not_shown_any_more(mode: &str) {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, _other] = nodes(mode, &redis, &laravel).await;
    let (mut first, _) = join(&one, 1).await;
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let (mut second, here) = join(&one, 2).await;
    assert_eq!(here.len(), 2);
    assert_eq!(first.event("presence:joining").await[1]["user_id"], 2);
    second.unsubscribe(ROOM).await;
    one.subscribed(ROOM, 1).await;
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(first.event("presence:leaving").await[1]["user_id"], 2);
}

async fn the_data_of_a_users_newest_tab_is_shown_on_all_nodes(mode: &str) {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes(mode, &redis, &laravel).await;
    let mut clients = vec![join(&one, 1).await.0, join(&one, 2).await.0];
    for turn in 0_u64.. {
        let mut tab = Client::connect(other.address, &[("cookie", &format!("user=1&info={turn}"))]).await;
        tab.subscribe(ROOM).await;
        tab.event("presence:subscribed").await;
        let before = redis.calls("hgetall").await;
        let mut late = one.client_of(3).await;
        late.subscribe(ROOM).await;
        let shown = late.event("presence:subscribed").await[1].clone();
        let is_from_redis = redis.calls("hgetall").await > before;
        assert_eq!(shown[1], json!({ "user_id": 1, "user_info": turn }), "from Redis: {is_from_redis}");
        clients.extend([tab, late]);
        if !is_from_redis {
            break;
        }
    }
    for user in [2, 3] {
        assert_eq!(clients[0].event("presence:joining").await[1]["user_id"], user, "a tab is no news");
    }
}

async fn one_hundred_join_over_two_nodes_at_once(mode: &str) {
    const COUNT: u64 = 100;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let nodes = nodes(mode, &redis, &laravel).await;
    laravel.hold();
    let mut clients = Vec::new();
    for user in 0..COUNT {
        let mut client = nodes[user as usize % 2].client_of(user as u32).await;
        client.subscribe(ROOM).await;
        clients.push(client);
    }
    until("all callbacks", async || laravel.callbacks().len() as u64 == COUNT).await;
    laravel.release();
    // The list each got, with the joins it saw later, has everyone exactly once.
    for client in &mut clients {
        let mut here = users(&client.event("presence:subscribed").await[1]);
        while (here.len() as u64) < COUNT {
            here.push(client.event("presence:joining").await[1]["user_id"].as_u64().expect("an id"));
        }
        here.sort_unstable();
        assert_eq!(here, (0..COUNT).collect::<Vec<_>>());
    }
    let half = clients.split_off(COUNT as usize / 2);
    drop(half);
    for client in &mut clients {
        let mut gone = Vec::new();
        while (gone.len() as u64) < COUNT / 2 {
            gone.push(client.event("presence:leaving").await[1]["user_id"].as_u64().expect("an id"));
        }
        gone.sort_unstable();
        assert_eq!(gone, (COUNT / 2..COUNT).collect::<Vec<_>>());
        assert!(client.left_over().is_empty(), "{:?}", client.left_over());
    }
}

async fn get(node: &TestServer, path: &str) -> Value {
    let response = reqwest::Client::new().get(node.url(path)).bearer_auth(KEY).send().await.expect("the API answers");
    serde_json::from_str(&response.text().await.expect("the API answers")).expect("the API answers JSON")
}

async fn the_http_api_answers_for_all_nodes(mode: &str) {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = patient_nodes(mode, &redis, &laravel).await;
    let (mut alice, _) = join(&one, 1).await;
    let (bob, _) = join(&other, 2).await;
    alice.event("presence:joining").await;
    alice.subscribe("news").await;
    one.subscribed("news", 1).await;
    for node in [&one, &other] {
        let list = get(node, "/apps/app/channels").await;
        let room = json!({ "subscription_count": 2, "occupied": true });
        assert_eq!(list, json!({ "channels": { "news": { "subscription_count": 1, "occupied": true }, ROOM: room } }));
        let room = get(node, "/apps/app/channels/presence-room").await;
        assert_eq!(room, json!({ "subscription_count": 2, "occupied": true, "user_count": 2 }));
        let users = get(node, "/apps/app/channels/presence-room/users").await;
        assert_eq!(users["users"].as_array().expect("a list").len(), 2);
        assert_eq!(get(node, "/apps/app/status").await["subscription_count"], 2);
    }
    // A request on one node ends connections on the other.
    assert_eq!(post(&one, "/apps/app/users/2/terminate_connections", &json!({})).await, (200, json!({})));
    assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 2);
    one.subscribed(ROOM, 1).await;
    drop(bob);
    // A node that has a lease but does not answer makes the result partial.
    let config = json!({
        "database": "redis",
        "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port, "keyPrefix": "app_" } },
        "presence": { "lease": "1h" },
    });
    let silent = laravel_echo_server::store::open(&serde_json::from_value(config).expect("valid settings")).await.expect("a store");
    silent.heartbeat().await.expect("a lease");
    let news = get(&one, "/apps/app/channels/news").await;
    assert_eq!(news, json!({ "subscription_count": 1, "occupied": true, "partial": true }));
    let unsubscribe = post(&one, "/apps/app/users/2/unsubscribe", &json!({ "channel": "news" })).await;
    assert_eq!(unsubscribe, (200, json!({ "unsubscribed": 0, "partial": true })));
    assert_eq!(post(&one, "/apps/app/users/2/terminate_connections", &json!({})).await, (200, json!({ "partial": true })));
}

async fn without_redis_the_clients_of_a_node_reach_each_other(mode: &str) {
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, _other] = nodes(mode, &redis, &laravel).await;
    redis.down();
    let body = json!({ "channel": "news", "name": "sent", "data": 1 });
    let (mut alice, mut bob) = (one.client_of(1).await, one.client_of(2).await);
    for client in [&mut alice, &mut bob] {
        client.subscribe("news").await;
        client.subscribe("private-desk").await;
    }
    until("both to be in", async || local_count(&one, "private-desk").await == 2).await;
    // It reaches the sockets of this node, and the caller learns that other nodes did not get it.
    let (status, answer) = post(&one, "/apps/app/events", &body).await;
    assert_eq!((status, answer), (200, json!({ "message": "ok", "partial": true })));
    let batch = json!({ "batch": [body] });
    assert_eq!(post(&one, "/apps/app/batch_events", &batch).await, (200, json!({ "partial": true })));
    alice.whisper("private-desk", "client-typing", json!(2)).await;
    for _ in 0..2 {
        assert_eq!(bob.event("sent").await, [json!("news"), json!(1)]);
    }
    assert_eq!(bob.event("client-typing").await, [json!("private-desk"), json!(2)]);
    redis.up().await;
    until("Redis to be back", async || post(&one, "/apps/app/events", &body).await == (200, json!({ "message": "ok" }))).await;
    assert_eq!(alice.event("sent").await, [json!("news"), json!(1)]);
}

/// Number of sockets in a channel of this node, while other nodes cannot be asked.
async fn local_count(node: &TestServer, channel: &str) -> u64 {
    get(node, &format!("/apps/app/channels/{channel}")).await["subscription_count"].as_u64().expect("a count")
}

/// Waits for these changes in the room, as (event, user) in any order, and fails on any other.
async fn changes(client: &mut Client, expected: &[(&str, u64)]) {
    let mut heard = BTreeSet::new();
    while heard.len() < expected.len() {
        let event = client.next().await.expect("the connection stays");
        let change = (event[0].as_str().expect("a name").to_owned(), event[2]["user_id"].as_u64().expect("an id"));
        assert!(expected.contains(&(change.0.as_str(), change.1)), "{change:?} is not true");
        assert!(heard.insert(change.clone()), "{change:?} came twice");
    }
}

/// User 1 on one node, users 2 and 3 on another, all of whom see each other.
async fn three(one: &TestServer, other: &TestServer) -> [Client; 3] {
    let (mut first, _) = join(one, 1).await;
    let (mut second, _) = join(other, 2).await;
    let (third, _) = join(other, 3).await;
    changes(&mut first, &[("presence:joining", 2), ("presence:joining", 3)]).await;
    changes(&mut second, &[("presence:joining", 3)]).await;
    [first, second, third]
}

async fn redis_restarts_empty_under_two_nodes(mode: &str) {
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = patient_nodes(mode, &redis, &laravel).await;
    let [mut alice, mut bob, gone] = three(&one, &other).await;
    redis.down();
    // A member that leaves while Redis is down is removed in the end.
    drop(gone);
    redis.up().await;
    // No remaining member is taken for gone meanwhile.
    let (mut late, _) = join(&one, 4).await;
    for client in [&mut alice, &mut bob] {
        changes(client, &[("presence:joining", 4), ("presence:leaving", 3)]).await;
    }
    changes(&mut late, &[("presence:leaving", 3)]).await;
    let (_last, here) = join(&other, 5).await;
    assert_eq!(here.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 4, 5]));
    for client in [&mut alice, &mut bob, &mut late] {
        changes(client, &[("presence:joining", 5)]).await;
    }
}

async fn members_join_while_redis_is_away(mode: &str) {
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = patient_nodes(mode, &redis, &laravel).await;
    let [mut alice, mut bob, mut carol] = three(&one, &other).await;
    redis.down();
    let (mut dave, here) = join(&one, 4).await;
    assert_eq!(here.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3, 4]), "known members are kept");
    changes(&mut alice, &[("presence:joining", 4)]).await;
    let (gone, _) = join(&one, 5).await;
    for client in [&mut alice, &mut dave] {
        changes(client, &[("presence:joining", 5)]).await;
    }
    drop(gone);
    redis.up().await;
    for client in [&mut alice, &mut dave] {
        changes(client, &[("presence:leaving", 5)]).await;
    }
    for client in [&mut bob, &mut carol] {
        changes(client, &[("presence:joining", 4)]).await;
    }
    let (_last, here) = join(&other, 6).await;
    assert_eq!(here.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3, 4, 6]));
    for client in [&mut alice, &mut bob, &mut carol, &mut dave] {
        changes(client, &[("presence:joining", 6)]).await;
    }
}

async fn redis_is_emptied_under_two_nodes(mode: &str) {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = patient_nodes(mode, &redis, &laravel).await;
    let [mut alice, mut bob, gone] = three(&one, &other).await;
    redis.flush().await;
    // These joins find an empty list, or one without the members of the other node.
    let (mut dave, here) = join(&one, 4).await;
    assert_eq!(here.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3, 4]), "known members are kept");
    let (_erin, _) = join(&one, 5).await;
    for client in [&mut alice, &mut bob] {
        changes(client, &[("presence:joining", 4), ("presence:joining", 5)]).await;
    }
    changes(&mut dave, &[("presence:joining", 5)]).await;
    drop(gone);
    for client in [&mut alice, &mut bob, &mut dave] {
        changes(client, &[("presence:leaving", 3)]).await;
    }
    let (_last, here) = join(&other, 6).await;
    assert_eq!(here.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 4, 5, 6]));
    for client in [&mut alice, &mut bob, &mut dave] {
        changes(client, &[("presence:joining", 6)]).await;
    }
}

#[tokio::test]
async fn a_cluster_needs_redis() {
    let config: Config = serde_json::from_value(json!({
        "cluster": { "enabled": true }, "database": "redis", "subscribers": { "redis": false },
    }))
    .expect("valid settings");
    let problems = laravel_echo_server::config::validate::check(&config).expect_err("nodes that do not listen").to_string();
    assert!(problems.contains("`cluster.enabled` is true, expected `subscribers.redis` to be true"), "{problems}");
}
