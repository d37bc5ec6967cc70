//! Channel rules by pattern: `[[channels]]`.

use serde_json::{Value, json};

use crate::auth_jwt::{SECRET, token};
use crate::pusher::Pusher;
use crate::support::polling::Polling;
use crate::support::server::KEY;
use crate::support::{Client, DEADLINE, Laravel, Redis, SlowApp, TestServer, metrics, until};

async fn server(laravel: &Laravel, channels: Value) -> TestServer {
    crate::pusher::server(laravel, json!({ "channels": channels, "auth": { "jwt": { "algorithm": "HS256", "secret": SECRET } } })).await
}

async fn publish(server: &TestServer, channel: &str, name: &str, data: Value, socket: Option<&str>) {
    let body = json!({ "channel": channel, "name": name, "data": data, "socket_id": socket }).to_string();
    let url = server.url(&format!("/apps/app/events?auth_key={KEY}"));
    let sent = reqwest::Client::new().post(url).header("content-type", "application/json").body(body).send().await;
    assert_eq!(sent.expect("an answer").status(), 200);
}

async fn subscribe_with(client: &mut Client, channel: &str, token: &str) {
    let headers = json!({ "Authorization": format!("Bearer {token}") });
    client.emit("subscribe", json!({ "channel": channel, "auth": { "headers": headers } })).await;
}

/// The numbers in the Pusher client's next events.
async fn pusher_numbers(client: &mut Pusher, count: usize) -> Vec<Value> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let event = client.hear().await;
        assert_eq!(event["event"], "sent", "{event}");
        numbers.push(serde_json::from_str(event["data"].as_str().expect("data is text")).expect("JSON"));
    }
    numbers
}

async fn numbers(client: &mut Client, count: usize) -> Vec<Value> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(client.event("sent").await[1].clone());
    }
    numbers
}

#[tokio::test]
async fn stamped_whispers_carry_the_user_of_the_grant() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!([{ "pattern": "*.stamped", "whispers": "stamped" }])).await;
    let (mut ann, mut bob, mut pusher) = (server.client_of(1).await, server.client_of(2).await, Pusher::connect(&server).await);

    // A token's `sub`, and a callback that does not name the user.
    subscribe_with(&mut ann, "private-a.stamped", &token(&json!({ "sub": "7", "channels": ["private-a.stamped"] }))).await;
    bob.subscribe("private-a.stamped").await;
    pusher.subscribe("private-a.stamped", None).await;
    server.subscribed("private-a.stamped", 3).await;
    ann.whisper("private-a.stamped", "client-typing", json!({ "user": "8" })).await;
    assert_eq!(bob.event("client-typing").await, [json!("private-a.stamped"), json!({ "user": "8" }), json!("7")]);
    assert_eq!(pusher.hear().await["user_id"], "7");
    bob.whisper("private-a.stamped", "client-typing", json!("1-2")).await;
    assert_eq!(ann.event("client-typing").await, [json!("private-a.stamped"), json!("1-2"), json!(null)]);
    assert_eq!(pusher.hear().await.get("user_id"), None);

    // Members of presence channels.
    for client in [&mut ann, &mut bob] {
        client.subscribe("presence-b.stamped").await;
        client.event("presence:subscribed").await;
    }
    ann.event("presence:joining").await;
    bob.whisper("presence-b.stamped", "client-typing", json!(1)).await;
    assert_eq!(ann.event("client-typing").await, [json!("presence-b.stamped"), json!(1), json!("2")]);

    // Without a rule nothing changes, also for names that resemble those of other rules.
    for client in [&mut ann, &mut bob] {
        client.subscribe("private-a.other").await;
    }
    server.subscribed("private-a.other", 2).await;
    ann.whisper("private-a.other", "client-typing", json!(1)).await;
    assert_eq!(bob.event("client-typing").await, [json!("private-a.other"), json!(1)]);
}

#[tokio::test]
async fn the_callback_of_a_private_channel_may_name_the_user() {
    let app = SlowApp::start(std::time::Duration::ZERO).await;
    app.answers(200, r#"{"channel_data":{"user_id":31}}"#);
    let server = TestServer::start(json!({ "authHost": app.url, "channels": [{ "pattern": "private-*", "whispers": "stamped" }] })).await;
    let (mut ann, mut bob) = (server.client().await, server.client().await);
    for client in [&mut ann, &mut bob] {
        client.subscribe("private-a").await;
    }
    server.subscribed("private-a", 2).await;
    ann.whisper("private-a", "client-typing", json!(1)).await;
    assert_eq!(bob.event("client-typing").await, [json!("private-a"), json!(1), json!("31")]);
}

#[tokio::test]
async fn whispers_can_be_off() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!([{ "pattern": "private-{room}", "whispers": "off" }])).await;
    let (mut ann, mut bob, mut pusher) = (server.client().await, server.client().await, Pusher::connect(&server).await);
    for channel in ["private-quiet", "private-talk.1"] {
        for client in [&mut ann, &mut bob] {
            client.subscribe(channel).await;
        }
        server.subscribed(channel, 2).await;
    }
    pusher.subscribe("private-quiet", None).await;
    pusher.whisper("private-quiet", json!(1)).await;
    assert_eq!(pusher.hear().await["data"]["code"], 4301);
    ann.whisper("private-quiet", "client-typing", json!(1)).await;
    ann.whisper("private-talk.1", "client-typing", json!(2)).await;
    assert_eq!(bob.event("client-typing").await, [json!("private-talk.1"), json!(2)]);
    assert!(bob.left_over().is_empty());
}

#[tokio::test]
async fn the_last_events_are_sent_after_the_subscribe_oldest_first() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!([{ "pattern": "*doc.*", "last": 3 }, { "pattern": "presence-*", "last": 1 }])).await;
    for n in 1..6 {
        publish(&server, "doc.1", "sent", json!(n), None).await;
        publish(&server, "presence-room", "sent", json!(n), None).await;
    }
    let mut ann = server.client_of(1).await;
    ann.subscribe("doc.1").await;
    assert_eq!(numbers(&mut ann, 3).await, [3, 4, 5]);
    let mut pusher = Pusher::connect(&server).await;
    assert_eq!(pusher.subscribe("doc.1", None).await["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(pusher_numbers(&mut pusher, 3).await, [3, 4, 5]);

    ann.subscribe("presence-room").await;
    let names = [ann.next().await.unwrap()[0].clone(), ann.next().await.unwrap()[0].clone()];
    assert_eq!(names, ["presence:subscribed", "sent"]);
    let members = Some(r#"{"user_id":"2"}"#);
    assert_eq!(pusher.subscribe("presence-room", members).await["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(pusher_numbers(&mut pusher, 1).await, [5]);
    ann.event("presence:joining").await;

    // Whispers are only for present members, excluded events stay excluded, and whoever is subscribed has had them already.
    ann.whisper("presence-room", "client-typing", json!(1)).await;
    assert_eq!(pusher.hear().await["event"], "client-typing");
    publish(&server, "presence-room", "sent", json!("toOthers"), Some(&ann.id)).await;
    assert_eq!(pusher_numbers(&mut pusher, 1).await, ["toOthers"]);
    ann.unsubscribe("presence-room").await;
    server.subscribed("presence-room", 1).await;
    ann.subscribe("presence-room").await;
    ann.event("presence:subscribed").await;
    ann.subscribe("doc.1").await;
    publish(&server, "doc.1", "sent", json!("new"), None).await;
    assert_eq!(numbers(&mut ann, 1).await, ["new"]);
    assert!(ann.left_over().is_empty(), "{:?}", ann.left_over());
}

#[tokio::test]
async fn no_event_is_sent_before_the_grant() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!([{ "pattern": "private-*", "last": 10 }])).await;
    publish(&server, "private-forbidden", "sent", json!("secret"), None).await;
    publish(&server, "private-doc", "sent", json!(1), None).await;
    let mut ann = server.client().await;
    ann.subscribe("private-forbidden").await;
    assert_eq!(ann.event("subscription_error").await[1], 403);
    laravel.hold();
    ann.subscribe("private-doc").await;
    until("the callback", async || laravel.callbacks().len() == 2).await;
    publish(&server, "private-doc", "sent", json!(2), None).await;
    assert!(ann.left_over().is_empty(), "{:?}", ann.left_over());
    laravel.release();
    assert_eq!(numbers(&mut ann, 2).await, [1, 2]);
    assert!(ann.left_over().is_empty(), "{:?}", ann.left_over());
}

#[tokio::test]
async fn a_subscribe_amid_events_misses_none_and_repeats_none() {
    const COUNT: u64 = 3_000;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    for recovery in [true, false] {
        let settings = json!({ "channels": [{ "pattern": "*", "last": 1000 }], "recovery": { "enabled": recovery } });
        let server = TestServer::with(&redis, &laravel, settings).await;
        redis.heard("x").await;
        let mut publisher = redis.publisher().await;
        let publishing = async {
            for n in 0..COUNT {
                publisher.publish("private-doc", "sent", &json!(n)).await;
            }
        };
        let joining = async {
            for _ in 0..20 {
                let mut client = server.client().await;
                client.subscribe("private-doc").await;
                let first = client.event("sent").await[1].as_u64().expect("a number");
                for n in first + 1..(first + 50).min(COUNT) {
                    assert_eq!(client.event("sent").await[1], n);
                }
            }
        };
        tokio::join!(publishing, joining);
    }
}

/// Reads until the last event; returns the numbers of the received events, and of the others, in order.
async fn drain(client: &mut Client, last: u64) -> (Vec<u64>, Vec<u64>) {
    let (mut ticks, mut others) = (Vec::new(), Vec::new());
    while ticks.last() != Some(&last) || others.last() != Some(&last) {
        let event = client.next().await.expect("no client is closed");
        let number = event[2]["n"].as_u64().expect("a number");
        if event[0] == "tick" { ticks.push(number) } else { others.push(number) }
    }
    (ticks, others)
}

#[tokio::test]
async fn with_deliver_latest_a_slow_client_gets_the_newest_and_is_not_closed() {
    const COUNT: u64 = 2_000;
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let settings = json!({
        "channels": [{ "pattern": "position.*", "deliver": "latest" }],
        "limits": { "clientQueue": 100, "clientQueueBytes": "1MB" },
    });
    let server = TestServer::with(&redis, &laravel, settings).await;
    let mut frozen = Vec::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        client.subscribe("position.1").await;
        client.subscribe("orders").await;
        frozen.push(client);
    }
    let mut polling = Polling::connect(server.address, 4, "127.0.0.1".parse().expect("an address"), &[]).await;
    polling.subscribe("position.1").await;
    let mut reading = server.client().await;
    reading.subscribe("position.1").await;
    reading.subscribe("orders").await;
    server.subscribed("position.1", 5).await;
    server.subscribed("orders", 4).await;
    redis.heard("x").await;
    let pad = "x".repeat(20_000);
    let mut publisher = redis.publisher().await;
    let publishing = async {
        for n in 1..=COUNT {
            publisher.publish("position.1", "tick", &json!({ "n": n, "pad": pad })).await;
            if n.is_multiple_of(100) {
                publisher.publish("orders", "sent", &json!({ "n": n })).await;
            }
        }
    };
    let (_, (ticks, others)) = tokio::join!(publishing, drain(&mut reading, COUNT));
    assert!(ticks.is_sorted() && others == (1..=20).map(|n| n * 100).collect::<Vec<_>>());
    for client in &mut frozen {
        let (ticks, others) = drain(client, COUNT).await;
        assert!(ticks.is_sorted_by(|one, next| one < next) && ticks.len() < usize::try_from(COUNT).unwrap(), "{}", ticks.len());
        assert_eq!(others, (1..=20).map(|n| n * 100).collect::<Vec<_>>(), "all other events arrived");
    }
    while polling.event("tick").await[1]["n"] != COUNT {}
    assert_eq!(server.subscription_count("position.1").await, 5, "no client was closed");
}

#[tokio::test]
async fn volatile_events_close_no_client() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let settings = json!({
        "channels": [{ "pattern": "noise", "deliver": "volatile" }],
        "limits": { "clientQueue": 10, "clientQueueBytes": "100KB" },
    });
    let server = TestServer::with(&redis, &laravel, settings).await;
    let mut frozen = server.client().await;
    frozen.subscribe("noise").await;
    frozen.subscribe("news").await;
    server.subscribed("noise", 1).await;
    server.subscribed("news", 1).await;
    redis.heard("x").await;
    let (pad, mut publisher) = ("x".repeat(20_000), redis.publisher().await);
    for n in 0..1_000 {
        publisher.publish("noise", &format!("noise-{}", n % 20), &json!({ "n": n, "pad": pad })).await;
    }
    publisher.publish("news", "sent", &json!(1)).await;
    redis.heard("x").await;
    let (mut count, mut last) = (0, None);
    loop {
        let event = frozen.next().await.expect("no client is closed");
        if event[0] == "sent" {
            break;
        }
        let number = event[2]["n"].as_u64();
        assert!(number > last, "in order");
        (count, last) = (count + 1, number);
    }
    assert!(count < 1_000, "{count}");
    // What was dropped does not count as delivered.
    let metrics = metrics(server.address).await;
    assert!(metrics.contains(&format!("laravel_echo_deliveries_total {}\n", count + 1)), "{count}: {metrics}");
}

#[tokio::test]
async fn a_presence_channel_has_a_maximum_number_of_users() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!([{ "pattern": "presence-room.{id}", "maxMembers": 2 }])).await;
    let mut clients = Vec::new();
    for user in [1, 2, 1] {
        let mut client = server.client_of(user).await;
        client.subscribe("presence-room.1").await;
        client.event("presence:subscribed").await;
        clients.push(client);
    }
    let mut third = server.client_of(3).await;
    third.subscribe("presence-room.1").await;
    assert_eq!(third.event("subscription_error").await, [json!("presence-room.1"), json!(409)]);
    let mut pusher = Pusher::connect(&server).await;
    let refused = pusher.subscribe("presence-room.1", Some(r#"{"user_id":"3"}"#)).await;
    assert_eq!((&refused["data"]["status"], &refused["data"]["error"]), (&json!(409), &json!("the channel is full")));
    third.subscribe("presence-room.1.other").await;
    third.event("presence:subscribed").await;
    // Other members were not told of it, and the slot of a member that leaves is free.
    drop(clients.remove(1));
    let first = &mut clients[0];
    assert_eq!(first.event("presence:joining").await[1]["user_id"], 2);
    first.event("presence:leaving").await;
    assert!(first.left_over().is_empty(), "{:?}", first.left_over());
    third.subscribe("presence-room.1").await;
    third.event("presence:subscribed").await;
}

#[tokio::test]
async fn rules_choose_who_authorizes_and_can_be_reloaded() {
    let laravel = Laravel::start().await;
    let rules = |auth: &str| json!([{ "pattern": "private-feed.*", "auth": auth }]);
    let server = server(&laravel, rules("none")).await;
    let (mut ann, mut bob, mut pusher) = (server.client_of(1).await, server.client_of(2).await, Pusher::connect(&server).await);
    ann.subscribe("private-feed.1").await;
    server.subscribed("private-feed.1", 1).await;
    pusher.say(json!({ "event": "pusher:subscribe", "data": { "channel": "private-feed.1" } })).await;
    assert_eq!(pusher.hear().await["event"], "pusher_internal:subscription_succeeded");
    ann.whisper("private-feed.1", "client-typing", json!(1)).await;
    publish(&server, "private-feed.1", "sent", json!(1), None).await;
    assert_eq!(pusher_numbers(&mut pusher, 1).await, [1], "an unknown user cannot whisper");
    assert_eq!(laravel.callbacks().len(), 0);

    // Closed again: clients that joined without a grant are removed.
    assert_eq!(server.reload.reload(&server.changed(json!({ "channels": rules("jwt") }))).unwrap(), [""; 0]);
    assert_eq!(ann.event("subscription_error").await, [json!("private-feed.1"), json!(401)]);
    assert_eq!(pusher.hear().await["event"], "pusher:subscription_error");
    let good = token(&json!({ "sub": "7", "channels": ["private-feed.{id}"] }));
    subscribe_with(&mut ann, "private-feed.1", &good).await;
    server.subscribed("private-feed.1", 1).await;
    bob.subscribe("private-feed.1").await;
    assert_eq!(bob.event("subscription_error").await, [json!("private-feed.1"), json!(401)]);
    subscribe_with(&mut bob, "private-feed.1", &token(&json!({ "sub": "7" }))).await;
    assert_eq!(bob.event("subscription_error").await, [json!("private-feed.1"), json!(403)], "a token without channels");
    assert_eq!(laravel.callbacks().len(), 0);

    // The application decides again, also about clients with a token.
    server.reload.reload(&server.changed(json!({ "channels": rules("callback") }))).unwrap();
    assert_eq!(server.subscription_count("private-feed.1").await, 1, "a client with a grant stays");
    subscribe_with(&mut bob, "private-feed.2", &good).await;
    server.subscribed("private-feed.2", 1).await;
    assert_eq!(laravel.callbacks().len(), 1);
}

#[tokio::test]
async fn a_resumed_client_gets_the_newest_of_latest_channels_and_all_of_others() {
    let laravel = Laravel::start().await;
    let rules = json!([{ "pattern": "position.*", "deliver": "latest" }, { "pattern": "noise", "deliver": "volatile" }]);
    let server = server(&laravel, rules).await;
    let mut before = server.client().await;
    for channel in ["position.1", "noise", "news"] {
        before.subscribe(channel).await;
        server.subscribed(channel, 1).await;
    }
    publish(&server, "position.1", "a", json!(9), None).await;
    publish(&server, "position.1", "b", json!(9), None).await;
    before.event("b").await;
    let (id, pid, offset) = (before.id.clone(), before.pid.clone(), before.offset.clone().expect("events have offsets"));
    drop(before);
    server.subscribed("news", 0).await;
    for n in 1..4 {
        publish(&server, "position.1", "a", json!(n), None).await;
        publish(&server, "noise", "noise", json!(n), None).await;
        publish(&server, "news", "sent", json!(n), None).await;
    }
    let mut after = Client::come_back(server.address, &pid, Some(&offset)).await;
    assert_eq!(after.id, id);
    let mut heard = Vec::new();
    for _ in 0..4 {
        let event = after.next().await.expect("an event");
        heard.push((event[0].as_str().expect("a name").to_owned(), event[2].clone()));
    }
    let expected = [("sent", 1), ("sent", 2), ("sent", 3), ("a", 3)];
    assert_eq!(heard, expected.map(|(name, n)| (name.to_owned(), json!(n))));
    // From that offset on, nothing is sent again.
    let offset = after.offset.clone().expect("events have offsets");
    drop(after);
    server.subscribed("news", 0).await;
    publish(&server, "news", "sent", json!(4), None).await;
    let mut again = Client::come_back(server.address, &pid, Some(&offset)).await;
    let event = tokio::time::timeout(DEADLINE, again.next()).await.unwrap().unwrap();
    assert_eq!((again.id.as_str(), &event[0], &event[2]), (id.as_str(), &json!("sent"), &json!(4)));
}

#[tokio::test]
async fn the_last_events_work_in_exact_mode() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let settings = json!({ "subscribers": { "redisMode": "exact" }, "channels": [{ "pattern": "doc.{id}", "last": 5 }] });
    let server = TestServer::with(&redis, &laravel, settings).await;
    redis.heard("doc.0").await;
    redis.publish("doc.1", "sent", &json!(1), None).await;
    redis.publish("doc.1.2", "sent", &json!(1), None).await;
    let mut ann = server.client_in("doc.1").await;
    assert_eq!(numbers(&mut ann, 1).await, [1]);
    redis.publish("doc.1", "sent", &json!(2), None).await;
    assert_eq!(numbers(&mut ann, 1).await, [2], "once");
    assert!(ann.left_over().is_empty());
}
