//! Webhooks stored in Redis: from several nodes, and across the death of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Answer, Receiver, SECRET, metric_at, short, told};
use crate::support::{Client, Laravel, Node, Redis, merge, until};

async fn node(redis: &Redis, laravel: &Laravel, receiver: &Receiver, extra: Value) -> Node {
    let entry = json!({ "url": receiver.url, "key": "echo", "secret": SECRET });
    let mut settings = json!({
        "authHost": laravel.url,
        "subscribers": { "redis": true },
        "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port, "keyPrefix": "app_" } },
        "presence": { "lease": "2s" },
        // A client with unread messages closes with a reset, which may look like a lost connection.
        "recovery": { "window": "1s" },
        "webhooks": [entry],
        "webhooksDelivery": { "grace": "300ms", "store": "redis", "retryFor": "1h" },
    });
    merge(&mut settings, extra);
    Node::start(settings).await
}

fn cluster() -> Value {
    json!({ "database": "redis", "cluster": { "enabled": true } })
}

async fn metric(node: &Node, name: &str) -> u64 {
    metric_at(node.address, name).await
}

async fn join(node: &Node, user: u32, channel: &str) -> Client {
    let mut client = Client::connect(node.address, &[("cookie", &format!("user={user}"))]).await;
    client.subscribe(channel).await;
    client.event("presence:subscribed").await;
    client
}

/// The members per channel according to the events. An event whose `seq` is not above the last one of its channel is skipped.
fn view(events: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut view: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seqs: BTreeMap<String, u64> = BTreeMap::new();
    for event in events {
        let channel = event["channel"].as_str().expect("a channel").to_owned();
        let seq = event["seq"].as_u64().expect("a number");
        let last = seqs.entry(channel.clone()).or_default();
        if seq <= *last {
            continue;
        }
        *last = seq;
        let user = || event["user_id"].as_str().expect("a user").to_owned();
        match event["name"].as_str().expect("a name") {
            "channel_occupied" => assert!(view.insert(channel, BTreeSet::new()).is_none(), "occupied twice: {event}"),
            "channel_vacated" => assert!(view.remove(&channel).is_some_and(|users| users.is_empty()), "vacated too early: {event}"),
            "member_added" => assert!(view.get_mut(&channel).expect("it is occupied").insert(user()), "added twice: {event}"),
            "member_removed" => assert!(view.get_mut(&channel).expect("it is occupied").remove(&user()), "removed twice: {event}"),
            other => panic!("unexpected event {other}"),
        }
    }
    view
}

/// Asserts that the `seq`s of each channel increase in order of arrival, except for repeated deliveries.
fn assert_no_repetition(events: &[Value]) {
    let all: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().expect("a number")).collect();
    assert!(all.is_sorted_by(|one, next| one < next), "{all:?}");
}

#[tokio::test]
async fn three_nodes_deliver_every_change_once() {
    let (redis, laravel, receiver) = (Redis::start().await, Laravel::start().await, Receiver::start().await);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(node(&redis, &laravel, &receiver, cluster()).await);
    }
    let mut here: BTreeMap<(u32, usize), (Client, String)> = BTreeMap::new();
    // 1,000 joins and leaves of 30 users in 5 channels.
    let mut random = 7_u32;
    for _ in 0..1000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (user, room, at) = (random >> 8 & 0x1f, (random >> 16) as usize % 5, (random >> 24) as usize % 3);
        if here.remove(&(user, room)).is_none() {
            let channel = format!("presence-{room}");
            here.insert((user, room), (join(&nodes[at], user, &channel).await, channel));
        }
    }
    let mut truth: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ((user, _), (_, channel)) in &here {
        truth.entry(channel.clone()).or_default().insert(user.to_string());
    }
    until("the truth to be told", async || view(&receiver.events()) == truth).await;
    let events = receiver.events();
    assert_no_repetition(&events);
    // All clients leave, and one of the nodes is killed meanwhile.
    nodes[1].signal(Signal::KILL);
    drop(here);
    until("all leaves to be delivered", async || view(&receiver.events()).is_empty()).await;
}

#[tokio::test]
async fn the_death_of_the_leader_loses_no_event() {
    let (redis, laravel, receiver) = (Redis::start().await, Laravel::start().await, Receiver::start().await);
    // The first node becomes the leader.
    let first = node(&redis, &laravel, &receiver, cluster()).await;
    let ann = join(&first, 1, "presence-room").await;
    told(&receiver, 2).await;
    let second = node(&redis, &laravel, &receiver, cluster()).await;
    receiver.answer(Answer::Status(500));
    let _ben = join(&second, 2, "presence-room").await;
    until("a try", async || receiver.refused() > 0).await;
    first.signal(Signal::KILL);
    drop(ann);
    receiver.answer(Answer::Status(200));
    let events = told(&receiver, 4).await;
    assert_eq!(
        short(&events),
        [
            "channel_occupied presence-room",
            "member_added presence-room 1",
            "member_added presence-room 2",
            "member_removed presence-room 1",
        ]
    );
    assert_no_repetition(&events);
}

#[tokio::test]
async fn a_restarted_node_delivers_what_was_queued() {
    let (redis, laravel, receiver) = (Redis::start().await, Laravel::start().await, Receiver::start().await);
    receiver.answer(Answer::Status(500));
    let events = json!(["channel_occupied", "channel_vacated", "member_added", "member_removed", "client_event"]);
    let entry = json!({ "url": receiver.url, "key": "echo", "secret": SECRET, "events": events });
    let mut node = node(&redis, &laravel, &receiver, json!({ "webhooks": [entry] })).await;
    let mut ann = join(&node, 1, "presence-room").await;
    for n in 0..20 {
        ann.whisper("presence-room", "client-a", json!(n)).await;
    }
    until("22 events to wait", async || metric(&node, "events_waiting").await == 22).await;
    node.signal(Signal::KILL);
    node.again().await;
    receiver.answer(Answer::Status(200));
    let events = told(&receiver, 24).await;
    let mut expected = vec!["channel_occupied presence-room".to_owned(), "member_added presence-room 1".to_owned()];
    expected.extend(std::iter::repeat_n("client_event presence-room 1".to_owned(), 20));
    expected.extend(["member_removed presence-room 1".to_owned(), "channel_vacated presence-room".to_owned()]);
    assert_eq!(short(&events), expected);
    assert_no_repetition(&events);
    let data: Vec<_> = events[2..22].iter().map(|event| event["data"].as_str().expect("text").to_owned()).collect();
    assert_eq!(data, (0..20).map(|n: u32| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_stream_drops_whispers_first() {
    let (redis, laravel, receiver) = (Redis::start().await, Laravel::start().await, Receiver::start().await);
    receiver.answer(Answer::Status(500));
    let events = json!(["channel_occupied", "member_added", "client_event"]);
    let entry = json!({ "url": receiver.url, "key": "echo", "secret": SECRET, "events": events });
    let node = node(&redis, &laravel, &receiver, json!({ "webhooks": [entry], "webhooksDelivery": { "queue": 10 } })).await;
    let mut ann = join(&node, 1, "presence-room").await;
    for n in 0..30 {
        ann.whisper("presence-room", "client-a", json!(n)).await;
    }
    until("22 events to be dropped", async || metric(&node, "events_dropped_total").await == 22).await;
    let _ben = join(&node, 2, "presence-room").await;
    until("one more to be dropped", async || metric(&node, "events_dropped_total").await == 23).await;
    receiver.answer(Answer::Status(200));
    let events = told(&receiver, 10).await;
    let names = ["channel_occupied", "member_added"].iter().chain([&"client_event"; 7]).chain(&["member_added"]);
    assert_eq!(events.iter().map(|event| event["name"].as_str().expect("a name")).collect::<Vec<_>>(), names.copied().collect::<Vec<_>>());
    assert_eq!(
        events[2..9].iter().map(|event| event["data"].clone()).collect::<Vec<_>>(),
        (23..30).map(|n| json!(n.to_string())).collect::<Vec<_>>()
    );
    until("the empty list of whispers to be gone", async || redis.keys("app_laravel-echo:*out:*:clients").await.is_empty()).await;
}

/// The number of bytes queued for a target.
const BYTES: &str = "local n = 0 for _, one in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do n = n + #one[2][4] end return n";

#[tokio::test]
async fn a_stream_is_bounded_in_bytes() {
    let (redis, laravel, receiver) = (Redis::start().await, Laravel::start().await, Receiver::start().await);
    receiver.answer(Answer::Status(500));
    let events = json!(["channel_occupied", "member_added", "client_event"]);
    let entry = json!({ "url": receiver.url, "key": "echo", "secret": SECRET, "events": events });
    let node = node(&redis, &laravel, &receiver, json!({ "webhooks": [entry], "webhooksDelivery": { "queueBytes": "20KB" } })).await;
    let mut ann = join(&node, 1, "presence-room").await;
    for _ in 0..30 {
        ann.whisper("presence-room", "client-a", json!("x".repeat(4_000))).await;
    }
    let all = async || metric(&node, "events_dropped_total").await + metric(&node, "events_waiting").await;
    until("every event to wait or to be dropped", async || metric(&node, "events_dropped_total").await > 20 && all().await == 32).await;
    let counter = redis.keys("app_laravel-echo:*out:*:bytes").await.pop().expect("bytes are counted");
    let bytes: i64 = redis.eval(BYTES, &[counter.trim_end_matches(":bytes")], &[]).await;
    assert_eq!(redis.get(&counter).await, Some(bytes.to_string()));
    assert!((15_000..=20_000).contains(&bytes), "{bytes} bytes wait");
    receiver.answer(Answer::Status(200));
    let left = usize::try_from(metric(&node, "events_waiting").await).expect("a small number");
    let events = told(&receiver, left).await;
    assert_eq!(short(&events)[..2], ["channel_occupied presence-room", "member_added presence-room 1"]);
    until("nothing to be counted", async || redis.keys("app_laravel-echo:*out:*:bytes").await.is_empty()).await;
}

#[tokio::test]
async fn bytes_of_a_delivery_recorded_twice_count_once() {
    const DONE: &str = include_str!("../../../src/webhooks/done.lua");
    let redis = Redis::start().await;
    let add = async |json: &str, of_clients: &str| {
        let script = "redis.call('INCRBY', KEYS[1] .. ':bytes', #ARGV[1])
            local id = redis.call('XADD', KEYS[1], '*', 't', 1, 'j', ARGV[1], 'c', ARGV[2])
            if ARGV[2] == '1' then redis.call('RPUSH', KEYS[1] .. ':clients', id) end
            return id";
        redis.eval::<String>(script, &["out"], &[json, of_clients]).await
    };
    let (first, second) = (add("{\"a\":1", "1").await, add("{\"name\":1", "0").await);
    for _ in 0..2 {
        redis.eval::<()>(DONE, &["out"], &[&first]).await;
        assert_eq!(redis.get("out:bytes").await.as_deref(), Some("9"));
        assert_eq!(redis.eval::<i64>(BYTES, &["out"], &[]).await, 9);
    }
    redis.eval::<()>(DONE, &["out"], &[&first, &second]).await;
    // The stream itself remains, so that no id is reused.
    assert_eq!(redis.keys("*").await, ["out"]);
}

#[tokio::test]
async fn the_queue_for_the_leader_is_bounded_in_bytes() {
    const MOST: i64 = 16 * 1024 * 1024;
    let (redis, laravel, receiver) = (Redis::start().await, Laravel::start().await, Receiver::start().await);
    // Another node is the leader, and does nothing.
    redis.eval::<()>("redis.call('SET', KEYS[1], 'another')", &["app_laravel-echo:{webhooks}:leader"], &[]).await;
    let entry = json!({ "url": receiver.url, "key": "echo", "secret": SECRET, "events": ["client_event"] });
    let node = node(&redis, &laravel, &receiver, json!({ "webhooks": [entry] })).await;
    let mut ann = join(&node, 1, "presence-room").await;
    for _ in 0..190 {
        ann.whisper("presence-room", "client-a", json!("x".repeat(99_000))).await;
    }
    until("some to be dropped", async || metric(&node, "events_dropped_total").await > 10).await;
    let sum = "local n = 0 for _, one in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do n = n + #one end return n";
    let bytes: i64 = redis.eval(sum, &["app_laravel-echo:{webhooks}:events"], &[]).await;
    assert!((MOST - 100_000..=MOST).contains(&bytes), "{bytes} bytes wait");
    let counted = redis.get("app_laravel-echo:{webhooks}:events:bytes").await.expect("bytes are counted");
    assert_eq!(counted, bytes.to_string());
    redis.delete("app_laravel-echo:{webhooks}:leader").await;
    until("all to be told", async || redis.keys("app_laravel-echo:*events*").await.is_empty()).await;
}

#[tokio::test]
async fn public_subscribes_do_not_displace_member_events() {
    for store in ["memory", "redis"] {
        let (redis, laravel, receiver) = (Redis::start().await, Laravel::start().await, Receiver::start().await);
        receiver.answer(Answer::Status(500));
        let events = json!(["channel_occupied", "member_added", "subscription_count"]);
        let entry = json!({ "url": receiver.url, "key": "echo", "secret": SECRET, "events": events });
        let delivery = json!({ "queue": 10, "store": store });
        let node = node(&redis, &laravel, &receiver, json!({ "webhooks": [entry], "webhooksDelivery": delivery })).await;
        let mut ann = join(&node, 1, "presence-room").await;
        until("2 events to wait", async || metric(&node, "events_waiting").await == 2).await;
        for n in 0..30 {
            ann.subscribe(&format!("public-{n}")).await;
        }
        until("52 events to be dropped", async || metric(&node, "events_dropped_total").await == 52).await;
        receiver.answer(Answer::Status(200));
        let events = told(&receiver, 10).await;
        assert_eq!(short(&events)[..2], ["channel_occupied presence-room", "member_added presence-room 1"], "{store}");
    }
}

#[tokio::test]
async fn restarts_and_redis_outages_cause_no_events() {
    let (redis, laravel, receiver) = (Redis::start().await, Laravel::start().await, Receiver::start().await);
    let mut node = node(&redis, &laravel, &receiver, json!({ "webhooksDelivery": { "grace": "15s" } })).await;
    let ann = join(&node, 1, "presence-room").await;
    told(&receiver, 2).await;
    redis.pause();
    let ben = join(&node, 2, "presence-room").await;
    redis.resume();
    told(&receiver, 3).await;
    node.signal(Signal::TERM);
    node.again().await;
    drop((ann, ben));
    let _ann = join(&node, 1, "presence-room").await;
    let _ben = join(&node, 2, "presence-room").await;
    let _eve = join(&node, 3, "presence-room").await;
    let events = told(&receiver, 4).await;
    assert_eq!(short(&events)[1..], ["1", "2", "3"].map(|user| format!("member_added presence-room {user}")));
    tokio::time::timeout(Duration::from_secs(20), async { drop(node) }).await.expect("it ends");
}

#[tokio::test]
async fn targets_with_the_same_url_have_a_queue_each() {
    let (redis, laravel, receiver) = (Redis::start().await, Laravel::start().await, Receiver::start().await);
    let entry = |key: &str, event: &str| json!({ "url": receiver.url, "key": key, "secret": SECRET, "events": [event] });
    let webhooks = [entry("one", "channel_occupied"), entry("two", "member_added"), entry("two", "subscription_count")];
    let node = node(&redis, &laravel, &receiver, json!({ "webhooks": webhooks })).await;
    let mut ann = join(&node, 1, "presence-room").await;
    ann.subscribe("news").await;
    told(&receiver, 4).await;
    let mut all: Vec<_> = Vec::new();
    for delivery in receiver.deliveries() {
        let names =
            delivery.body["events"].as_array().expect("a list").iter().map(|event| event["name"].as_str().expect("a name").to_owned());
        all.extend(names.map(|name| format!("{} {name}", delivery.header("x-pusher-key"))));
    }
    all.sort_unstable();
    assert_eq!(all, ["one channel_occupied", "one channel_occupied", "two member_added", "two subscription_count"]);
}
