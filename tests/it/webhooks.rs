//! Webhooks: the application is notified about channels by deliveries that it can verify.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Laravel, TestServer, metrics, until};

mod faults;
mod queue;
mod receiver;
mod shared;

use receiver::{Answer, Receiver, SECRET};

/// A server that delivers to `receiver`; `webhook` and `settings` are merged into the defaults.
async fn server(receiver: &Receiver, webhook: Value, settings: Value) -> (TestServer, Laravel) {
    let laravel = Laravel::start().await;
    let mut entry = json!({ "url": receiver.url, "key": "echo", "secret": SECRET });
    crate::support::merge(&mut entry, webhook);
    let mut all = json!({ "authHost": laravel.url, "webhooks": [entry], "webhooksDelivery": { "grace": "200ms" } });
    crate::support::merge(&mut all, settings);
    (TestServer::start(all).await, laravel)
}

/// Events as `name channel user`.
fn short(events: &[Value]) -> Vec<String> {
    let text = |event: &Value, key: &str| event[key].as_str().map(str::to_owned);
    let parts = |event| [text(event, "name"), text(event, "channel"), text(event, "user_id")].into_iter().flatten().collect::<Vec<_>>();
    events.iter().map(|event| parts(event).join(" ")).collect()
}

/// Waits until this many events have arrived, and returns all.
async fn told(receiver: &Receiver, count: usize) -> Vec<Value> {
    until(&format!("{count} events"), async || receiver.events().len() >= count).await;
    receiver.events()
}

async fn metric(server: &TestServer, name: &str) -> u64 {
    metric_at(server.address, name).await
}

async fn metric_at(address: SocketAddr, name: &str) -> u64 {
    let text = metrics(address).await;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("laravel_echo_webhook_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

#[tokio::test]
async fn joins_and_leaves_are_delivered_signed_and_in_order() {
    let receiver = Receiver::start().await;
    let (server, _laravel) = server(&receiver, json!({ "headers": { "X-Tenant": "one" } }), json!({})).await;
    let mut ann = server.client_of(1).await;
    ann.subscribe("presence-room").await;
    ann.event("presence:subscribed").await;
    told(&receiver, 2).await;
    let mut again = server.client_of(1).await;
    again.subscribe("presence-room").await;
    again.event("presence:subscribed").await;
    let mut ben = server.client_of(2).await;
    ben.subscribe("presence-room").await;
    ben.event("presence:subscribed").await;
    told(&receiver, 3).await;
    drop(again);
    drop(ben);
    told(&receiver, 4).await;
    drop(ann);
    let events = told(&receiver, 6).await;
    assert_eq!(
        short(&events),
        [
            "channel_occupied presence-room",
            "member_added presence-room 1",
            "member_added presence-room 2",
            "member_removed presence-room 2",
            "member_removed presence-room 1",
            "channel_vacated presence-room",
        ]
    );
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().expect("a number")).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
    assert!(events.iter().all(|event| event["time_ms"].is_u64()));
    let first = &receiver.deliveries()[0];
    assert_eq!((first.header("x-pusher-key"), first.header("content-type"), first.header("x-tenant")), ("echo", "application/json", "one"));
    assert_eq!(metric(&server, "events_sent_total").await, 6);
}

#[tokio::test]
async fn a_reload_within_the_grace_period_is_not_delivered() {
    let receiver = Receiver::start().await;
    let (server, _laravel) = server(&receiver, json!({}), json!({ "webhooksDelivery": { "grace": "5s" } })).await;
    for _ in 0..3 {
        let mut client = server.client_of(1).await;
        client.subscribe("presence-room").await;
        client.event("presence:subscribed").await;
        told(&receiver, 2).await;
        drop(client);
        server.subscribed("presence-room", 0).await;
    }
    let _other = server.client_in("news").await;
    let events = told(&receiver, 3).await;
    assert_eq!(short(&events), ["channel_occupied presence-room", "member_added presence-room 1", "channel_occupied news"]);
}

#[tokio::test]
async fn a_target_gets_the_events_it_asked_for() {
    let receiver = Receiver::start().await;
    let names = json!(["connected", "disconnected", "subscribe_refused", "client_event", "cache_miss", "subscription_count"]);
    // Cache channels exist only if Pusher clients do, which need a secret.
    let clients = json!([{ "appId": "app", "key": crate::support::server::KEY, "secret": "app-secret" }]);
    let webhook = json!({ "events": names, "channels": ["private-*", "cache-*", "news"] });
    let (server, _laravel) = server(&receiver, webhook, json!({ "clients": clients })).await;
    let mut client = server.client().await;
    for channel in ["private-forbidden", "private-orders", "cache-news", "elsewhere", "news"] {
        client.subscribe(channel).await;
    }
    for channel in ["private-orders", "cache-news", "news"] {
        server.subscribed(channel, 1).await;
    }
    client.whisper("private-orders", "client-typing", json!({ "at": [] })).await;
    let find = |events: &[Value], name: &str| events.iter().filter(|event| event["name"] == name).cloned().collect::<Vec<_>>();
    until("a whisper", async || !find(&receiver.events(), "client_event").is_empty()).await;
    let id = client.id.clone();
    drop(client);
    until("the end", async || !find(&receiver.events(), "disconnected").is_empty()).await;
    let events = receiver.events();
    let whisper = &find(&events, "client_event")[0];
    assert_eq!((&whisper["event"], &whisper["channel"]), (&json!("client-typing"), &json!("private-orders")));
    assert_eq!((&whisper["data"], &whisper["socket_id"]), (&json!(r#"{"at":[]}"#), &json!(id)));
    assert!(whisper["user_id"].is_null());
    let refused = &find(&events, "subscribe_refused")[0];
    assert_eq!((&refused["channel"], &refused["status"]), (&json!("private-forbidden"), &json!(403)));
    assert_eq!(find(&events, "cache_miss")[0]["channel"], "cache-news");
    assert_eq!(find(&events, "connected")[0]["socket_id"], json!(id));
    // Pusher's libraries read the channel of every event.
    assert_eq!(find(&events, "connected")[0]["channel"], "");
    until("the counts", async || find(&receiver.events(), "subscription_count").len() >= 6).await;
    let mut counts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in find(&receiver.events(), "subscription_count") {
        let channel = event["channel"].as_str().expect("a channel").to_owned();
        counts.entry(channel).or_default().push(event["subscription_count"].as_u64().expect("a count"));
    }
    assert_eq!(counts, ["cache-news", "news", "private-orders"].map(|channel| (channel.to_owned(), vec![1, 0])).into());
    assert!(find(&events, "channel_occupied").is_empty());
}

#[tokio::test]
async fn a_member_that_may_resume_is_not_reported_as_removed() {
    let receiver = Receiver::start().await;
    let settings = json!({ "webhooksDelivery": { "grace": "100ms" }, "recovery": { "window": "3s" } });
    let (server, _laravel) = server(&receiver, json!({ "channels": ["presence-*"] }), settings).await;
    let mut ann = server.client_of(1).await;
    ann.subscribe("presence-room").await;
    ann.event("presence:subscribed").await;
    told(&receiver, 2).await;
    ann.vanish();
    server.subscribed("presence-room", 0).await;
    // Another channel is reported as vacated: by then the grace period of the first one is over, too.
    let mut other = server.client_of(3).await;
    other.subscribe("presence-other").await;
    other.event("presence:subscribed").await;
    told(&receiver, 4).await;
    drop(other);
    let events = told(&receiver, 6).await;
    assert!(events[2..].iter().all(|event| event["channel"] == "presence-other"), "{events:?}");
    let mut bob = server.client_of(2).await;
    bob.subscribe("presence-room").await;
    assert_eq!(bob.event("presence:subscribed").await[1].as_array().map(Vec::len), Some(2), "both are here");
    told(&receiver, 7).await;
    drop(bob);
    let events = told(&receiver, 10).await;
    let mut gone = short(&events)[7..9].to_vec();
    gone.sort_unstable();
    assert_eq!(short(&events)[6], "member_added presence-room 2");
    assert_eq!(gone, ["member_removed presence-room 1", "member_removed presence-room 2"]);
    assert_eq!(short(&events)[9], "channel_vacated presence-room");
}

#[tokio::test]
async fn shutdown_reports_all_members_as_removed() {
    let receiver = Receiver::start().await;
    let (server, _laravel) = server(&receiver, json!({}), json!({ "webhooksDelivery": { "grace": "1h" } })).await;
    let mut client = server.client_of(1).await;
    client.subscribe("presence-room").await;
    client.event("presence:subscribed").await;
    told(&receiver, 2).await;
    server.stop().await;
    assert_eq!(short(&receiver.events())[2..], ["member_removed presence-room 1", "channel_vacated presence-room"]);
}

#[tokio::test]
async fn webhooks_of_a_client_are_signed_with_its_secret() {
    let receiver = Receiver::start().await;
    let client = json!({ "appId": "app", "key": crate::support::server::KEY, "secret": SECRET, "webhooks": [{ "url": receiver.url }] });
    let server = TestServer::start(json!({ "clients": [client] })).await;
    let _client = server.client_in("news").await;
    assert_eq!(short(&told(&receiver, 1).await), ["channel_occupied news"]);
    assert_eq!(receiver.deliveries()[0].header("x-pusher-key"), crate::support::server::KEY);
    receiver.answer(Answer::Status(410));
    let _other = server.client_in("other").await;
    until("the event to be given up", async || metric(&server, "events_dropped_total").await == 1).await;
    receiver.answer(Answer::Status(200));
    let _third = server.client_in("third").await;
    assert_eq!(short(&told(&receiver, 2).await), ["channel_occupied news", "channel_occupied third"]);
}

#[tokio::test]
async fn a_rule_selects_the_webhook_events_of_its_channels() {
    let receiver = Receiver::start().await;
    let channels = json!([
        { "pattern": "presence-mute.*", "webhooks": [] },
        { "pattern": "presence-some.*", "webhooks": ["member_added", "client_event"] },
    ]);
    let (server, _laravel) =
        server(&receiver, json!({ "events": ["channel_occupied", "member_added"] }), json!({ "channels": channels })).await;
    let mut ann = server.client_of(1).await;
    for channel in ["presence-mute.1", "presence-some.1", "presence-all.1"] {
        ann.subscribe(channel).await;
        ann.event("presence:subscribed").await;
    }
    let expected = ["member_added presence-some.1 1", "channel_occupied presence-all.1", "member_added presence-all.1 1"];
    let mut events = short(&told(&receiver, 3).await);
    events.sort_by_key(|event| expected.iter().position(|other| other == event));
    assert_eq!(events, expected);
    // Rules are reloaded without dropping connections.
    server.reload.reload(&server.changed(json!({ "channels": [] }))).expect("good settings");
    ann.subscribe("presence-mute.2").await;
    ann.event("presence:subscribed").await;
    assert_eq!(short(&told(&receiver, 5).await)[3..], ["channel_occupied presence-mute.2", "member_added presence-mute.2 1"]);
}
