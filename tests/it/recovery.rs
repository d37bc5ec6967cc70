//! Clients that resume their session after a lost connection, as socket.io-client 4.6 and newer do.

mod elsewhere;

use serde_json::{Value, json};

use crate::support::server::KEY;
use crate::support::{Client, Laravel, Redis, SlowApp, TestServer, metrics, until};

async fn publish(server: &TestServer, channel: &str, n: u64, socket: Option<&str>) {
    let body = json!({ "channel": channel, "name": "sent", "data": n + 1, "socket_id": socket }).to_string();
    let url = server.url(&format!("/apps/app/events?auth_key={KEY}"));
    let sent = reqwest::Client::new().post(url).header("content-type", "application/json").body(body).send().await;
    assert_eq!(sent.expect("an answer").status(), 200);
}

async fn server(settings: Value) -> (TestServer, Laravel) {
    let laravel = Laravel::start().await;
    let mut all = json!({ "authHost": laravel.url });
    crate::support::merge(&mut all, settings);
    (TestServer::start(all).await, laravel)
}

/// A client in a public, a private and a presence channel, and what it needs to resume.
async fn client(server: &TestServer) -> Client {
    let mut client = server.client_of(1).await;
    for channel in ["news", "private-orders", "presence-room"] {
        client.subscribe(channel).await;
        server.subscribed(channel, 1).await;
    }
    client.event("presence:subscribed").await;
    client
}

/// The numbers of the next events.
async fn numbers(client: &mut Client, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(client.event("sent").await[1].as_u64().expect("a number"));
    }
    numbers
}

/// Drops the connection without a CLOSE, and waits until the server has noticed.
async fn lose(server: &TestServer, client: Client) {
    client.vanish();
    server.subscribed("news", 0).await;
}

#[tokio::test]
async fn missed_events_arrive_once_and_in_order_before_new_ones() {
    let (server, laravel) = server(json!({})).await;
    let mut before = client(&server).await;
    publish(&server, "news", 0, None).await;
    assert_eq!(numbers(&mut before, 1).await, [1]);
    let (id, pid, offset) = (before.id.clone(), before.pid.clone(), before.offset.clone().expect("events have offsets"));
    lose(&server, before).await;
    publish(&server, "news", 1, None).await;
    publish(&server, "private-orders", 2, None).await;
    publish(&server, "private-other", 3, None).await;
    publish(&server, "news", 4, Some(&id)).await;
    publish(&server, "presence-room", 5, None).await;
    let callbacks = laravel.callbacks().len();
    let mut after = Client::come_back(server.address, &pid, Some(&offset)).await;
    assert_eq!((after.id.as_str(), after.pid.as_str()), (id.as_str(), pid.as_str()));
    publish(&server, "private-orders", 6, None).await;
    assert_eq!(numbers(&mut after, 4).await, [2, 3, 6, 7]);
    assert_eq!(after.event("presence:subscribed").await[1][0]["user_id"], 1);
    assert_eq!(laravel.callbacks().len(), callbacks, "grants remain valid");
    after.whisper("private-orders", "client-a", json!(1)).await;
    // It resumes once more, from its new position.
    let offset = after.offset.clone().expect("events have offsets");
    lose(&server, after).await;
    publish(&server, "news", 7, None).await;
    let mut again = Client::come_back(server.address, &pid, Some(&offset)).await;
    assert_eq!(again.id, id);
    assert_eq!(numbers(&mut again, 1).await, [8]);
}

#[tokio::test]
async fn a_client_without_any_event_can_resume_too() {
    let (server, _laravel) = server(json!({})).await;
    let before = client(&server).await;
    let (id, pid) = (before.id.clone(), before.pid.clone());
    lose(&server, before).await;
    publish(&server, "news", 0, None).await;
    let mut after = Client::come_back(server.address, &pid, None).await;
    assert_eq!(after.id, id);
    assert_eq!(numbers(&mut after, 1).await, [1]);
}

#[tokio::test]
async fn a_session_whose_connection_seems_alive_can_be_resumed() {
    let (server, _laravel) = server(json!({})).await;
    let mut before = client(&server).await;
    publish(&server, "news", 0, None).await;
    let after = Client::come_back(server.address, &before.pid, None).await;
    assert_eq!(after.id, before.id);
    assert!(before.closed().await.iter().all(|packet| packet.starts_with("42")));
    server.subscribed("news", 1).await;
}

#[tokio::test]
async fn a_session_cannot_resume_with_a_channel_that_is_now_closed() {
    let rules = |auth: &str| json!({ "channels": [{ "pattern": "private-feed", "auth": auth }] });
    let (server, _laravel) = server(rules("none")).await;
    let lost = async |server: &TestServer| {
        let mut before = server.client_of(1).await;
        before.subscribe("private-feed").await;
        server.subscribed("private-feed", 1).await;
        let (id, pid) = (before.id.clone(), before.pid.clone());
        before.vanish();
        server.subscribed("private-feed", 0).await;
        (id, pid)
    };
    let (id, pid) = lost(&server).await;
    assert_eq!(Client::come_back(server.address, &pid, None).await.id, id, "it is open still");
    server.subscribed("private-feed", 0).await;
    let (id, pid) = lost(&server).await;
    server.reload.reload(&server.changed(rules("callback"))).expect("valid settings");
    let after = Client::come_back(server.address, &pid, None).await;
    assert_ne!(after.id, id);
    assert_eq!(server.subscription_count("private-feed").await, 0);
}

#[tokio::test]
async fn a_client_that_left_or_was_terminated_starts_a_new_session() {
    let (server, _laravel) = server(json!({})).await;
    let mut left = client(&server).await;
    left.send_text("41").await;
    server.subscribed("news", 0).await;
    let fresh = Client::come_back(server.address, &left.pid, None).await;
    assert_ne!(fresh.id, left.id);

    let removed = client(&server).await;
    let pid = removed.pid.clone();
    lose(&server, removed).await;
    let url = server.url(&format!("/apps/app/users/1/unsubscribe?auth_key={KEY}"));
    let body = json!({ "channel": "presence-room" }).to_string();
    let answer = reqwest::Client::new().post(url).header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let fresh = Client::come_back(server.address, &pid, None).await;
    assert!(!pid.starts_with(&fresh.id));
}

#[tokio::test]
async fn a_forged_private_id_starts_a_new_session() {
    let (server, _laravel) = server(json!({ "recovery": { "events": 2 } })).await;
    let mut before = client(&server).await;
    publish(&server, "news", 0, None).await;
    numbers(&mut before, 1).await;
    let (id, pid, offset) = (before.id.clone(), before.pid.clone(), before.offset.clone().unwrap());
    lose(&server, before).await;
    let long = "1".repeat(5000);
    for forged in ["", "1.2", &format!("{id}.{}", "0".repeat(32)), &format!("{pid}0"), &long] {
        assert_ne!(Client::come_back(server.address, forged, Some(&offset)).await.id, id);
    }
    let (epoch, _) = offset.split_once('-').unwrap();
    for n in 1..4 {
        publish(&server, "news", n, None).await;
    }
    // Partial recovery never happens: the first of three events is no longer kept.
    let fresh = Client::come_back(server.address, &pid, Some(&format!("{epoch}-1"))).await;
    assert_ne!(fresh.id, id);
    let metrics = metrics(server.address).await;
    assert!(metrics.contains("laravel_echo_recoveries_total{outcome=\"gap\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn an_offset_that_cannot_be_placed_starts_a_new_session() {
    let (server, _laravel) = server(json!({})).await;
    let long = format!("{}-1", "9".repeat(400));
    for forged in ["", "-", "x", "deadbeef-7", "ffffffffffffffff-18446744073709551615", &long] {
        let mut before = client(&server).await;
        publish(&server, "news", 0, None).await;
        numbers(&mut before, 1).await;
        let (id, pid) = (before.id.clone(), before.pid.clone());
        lose(&server, before).await;
        let after = Client::come_back(server.address, &pid, Some(forged)).await;
        assert_ne!(after.id, id, "{forged}: what it has received is unknown, and nothing may come twice");
    }
}

#[tokio::test]
async fn a_thousand_concurrent_resumes_share_one_session() {
    let (server, _laravel) = server(json!({})).await;
    let before = client(&server).await;
    let (id, pid) = (before.id.clone(), before.pid.clone());
    lose(&server, before).await;
    let all = (0..100).map(|_| Client::come_back(server.address, &pid, None));
    let clients = futures_util::future::join_all(all).await;
    assert!(clients.iter().any(|client| client.id == id));
    drop(clients);
    until("all clients to be gone", async || server.subscription_count("news").await == 0).await;
}

/// A server that subscribes to Redis.
async fn with_redis(redis: &Redis, settings: Value) -> (TestServer, Laravel) {
    let laravel = Laravel::start().await;
    let server = TestServer::with(redis, &laravel, settings).await;
    redis.heard("x").await;
    (server, laravel)
}

#[tokio::test]
async fn events_of_this_node_are_delivered_and_kept_while_redis_is_away() {
    let mut redis = Redis::start().await;
    let (server, _laravel) = with_redis(&redis, json!({})).await;
    let (mut stays, mut before) = (client(&server).await, server.client_of(2).await);
    before.subscribe("news").await;
    before.subscribe("private-orders").await;
    server.subscribed("private-orders", 2).await;
    redis.down();
    until("the loss", async || metrics(server.address).await.contains("laravel_echo_redis_up 0\n")).await;
    publish(&server, "news", 0, None).await;
    assert_eq!(numbers(&mut before, 1).await, [1]);
    let (id, pid, offset) = (before.id.clone(), before.pid.clone(), before.offset.clone());
    before.vanish();
    server.subscribed("news", 1).await;
    publish(&server, "news", 1, None).await;
    stays.whisper("private-orders", "client-typing", json!(2)).await;
    let mut after = Client::come_back(server.address, &pid, offset.as_deref()).await;
    assert_eq!(after.id, id);
    assert_eq!(numbers(&mut after, 1).await, [2]);
    assert_eq!(after.event("client-typing").await[1], 2);
}

#[tokio::test]
async fn no_session_resumes_across_a_redis_outage() {
    let mut redis = Redis::start().await;
    let (server, _laravel) = with_redis(&redis, json!({})).await;
    let mut before = client(&server).await;
    publish(&server, "news", 0, None).await;
    numbers(&mut before, 1).await;
    let (id, pid, offset) = (before.id.clone(), before.pid.clone(), before.offset.clone());
    lose(&server, before).await;
    redis.down();
    until("the loss", async || metrics(server.address).await.contains("laravel_echo_redis_up 0\n")).await;
    redis.up().await;
    redis.heard("x").await;
    until("Redis to be back", async || metrics(server.address).await.contains("laravel_echo_redis_up 1\n")).await;
    let mut after = Client::come_back(server.address, &pid, offset.as_deref()).await;
    assert_ne!(after.id, id);
    assert!(metrics(server.address).await.contains("laravel_echo_recoveries_total{outcome=\"gap\"} 1\n"));
    // From here on everything works as before.
    after.subscribe("news").await;
    server.subscribed("news", 1).await;
    let (id, pid) = (after.id.clone(), after.pid.clone());
    lose(&server, after).await;
    redis.publish("news", "sent", &json!(5), None).await;
    // The old offset is still the client's last: it has received nothing in this session.
    let mut again = Client::come_back(server.address, &pid, offset.as_deref()).await;
    assert_eq!(again.id, id);
    assert_eq!(numbers(&mut again, 1).await, [5]);
}

#[tokio::test]
async fn a_quiet_channel_among_busy_ones_causes_no_gap() {
    let settings = json!({ "recovery": { "events": 10 }, "socketio": { "pingInterval": 200, "pingTimeout": 20000 } });
    let (server, _laravel) = server(settings).await;
    let mut before = client(&server).await;
    publish(&server, "news", 0, None).await;
    assert_eq!(numbers(&mut before, 1).await, [1]);
    let mut busy = server.client_in("busy").await;
    for n in 1..30 {
        publish(&server, "busy", n, None).await;
    }
    numbers(&mut busy, 29).await;
    let place = |client: &Client| client.offset.as_deref().and_then(|offset| offset.split_once('-')?.1.parse::<u64>().ok());
    // With the next heartbeats it learns the current position.
    while place(&before) < place(&busy) {
        let known = before.offset.clone();
        before.position_after(known.as_deref()).await;
    }
    let (id, pid, offset) = (before.id.clone(), before.pid.clone(), before.offset.clone());
    lose(&server, before).await;
    publish(&server, "news", 30, None).await;
    let metrics = metrics(server.address).await;
    for line in ["events 10\n", "bytes ", "age_seconds "] {
        assert!(metrics.contains(&format!("laravel_echo_recovery_log_{line}")), "{metrics}");
    }
    assert!(metrics.contains("laravel_echo_recovery_sessions 1\n"), "{metrics}");
    let mut after = Client::come_back(server.address, &pid, offset.as_deref()).await;
    assert_eq!(after.id, id);
    assert_eq!(numbers(&mut after, 1).await, [31]);
}

/// A member who watches, and one who is about to lose the connection.
async fn two_members(server: &TestServer) -> (Client, Client) {
    let mut alice = server.client_of(1).await;
    alice.subscribe("presence-room").await;
    alice.event("presence:subscribed").await;
    let mut bob = server.client_of(2).await;
    bob.subscribe("presence-room").await;
    assert_eq!(alice.event("presence:joining").await[1]["user_id"], 2);
    (alice, bob)
}

/// Another member joins; asserts that alice was told of no change before that.
async fn hears_nothing_before(server: &TestServer, alice: &mut Client) -> Client {
    let mut carol = server.client_of(3).await;
    carol.subscribe("presence-room").await;
    assert_eq!(alice.event("presence:joining").await[1]["user_id"], 3);
    assert!(alice.left_over().is_empty(), "{:?}", alice.left_over());
    carol
}

#[tokio::test]
async fn a_short_disconnect_of_a_member_is_not_announced() {
    let (server, _laravel) = server(json!({})).await;
    let (mut alice, bob) = two_members(&server).await;
    let pid = bob.pid.clone();
    bob.vanish();
    for _ in 0..2 {
        server.subscribed("presence-room", 1).await;
        let mut bob = Client::come_back(server.address, &pid, None).await;
        assert_eq!(bob.event("presence:subscribed").await[1].as_array().map(Vec::len), Some(2));
        bob.vanish();
    }
    server.subscribed("presence-room", 1).await;
    let bob = Client::come_back(server.address, &pid, None).await;
    server.subscribed("presence-room", 2).await;
    let _carol = hears_nothing_before(&server, &mut alice).await;
    drop(bob);
    assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 2);
}

#[tokio::test]
async fn a_member_who_does_not_resume_leaves_after_the_window() {
    let (server, _laravel) = server(json!({ "recovery": { "window": "2s" } })).await;
    let (mut alice, bob) = two_members(&server).await;
    bob.vanish();
    server.subscribed("presence-room", 1).await;
    let lost = std::time::Instant::now();
    assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 2);
    assert!(lost.elapsed() >= std::time::Duration::from_millis(1500), "{:?}", lost.elapsed());
}

#[tokio::test]
async fn a_member_that_disconnects_or_is_terminated_leaves_at_once() {
    let (server, _laravel) = server(json!({})).await;
    let (mut alice, mut bob) = two_members(&server).await;
    bob.send_text("41").await;
    assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 2);
    drop(bob);
    for path in ["/users/2/terminate_connections", "/users/2/unsubscribe", "/channels/presence-room/recheck"] {
        let mut bob = server.client_of(2).await;
        bob.subscribe("presence-room").await;
        assert_eq!(alice.event("presence:joining").await[1]["user_id"], 2);
        bob.vanish();
        server.subscribed("presence-room", 1).await;
        post(&server, path, json!({ "channel": "presence-room" })).await;
        assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 2, "{path}");
    }
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let (server, _laravel) = server(json!({ "recovery": { "enabled": false } })).await;
    let mut client = client(&server).await;
    publish(&server, "news", 0, None).await;
    numbers(&mut client, 1).await;
    assert_eq!((client.pid.as_str(), client.offset.as_deref()), ("", None));
}

#[tokio::test]
async fn a_flat_channel_event_is_kept_while_no_client_is_connected() {
    let (server, _laravel) = server(json!({ "flatChannels": ["*"] })).await;
    let before = client(&server).await;
    let pid = before.pid.clone();
    lose(&server, before).await;
    publish(&server, "elsewhere", 0, None).await;
    let mut after = Client::come_back(server.address, &pid, None).await;
    assert_eq!(after.event("elsewhere:sent").await, [1]);
}

#[tokio::test]
async fn string_data_of_a_cache_channel_is_not_taken_for_an_offset() {
    let (server, _laravel) = server(json!({ "clients": [{ "appId": "app", "key": KEY, "secret": "s" }] })).await;
    let url = server.url(&format!("/apps/app/events?auth_key={KEY}"));
    let body = json!({ "channel": "cache-word", "name": "sent", "data": "a word" }).to_string();
    let sent = reqwest::Client::new().post(url).header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    let mut before = client(&server).await;
    before.subscribe("cache-word").await;
    assert_eq!(before.event("sent").await[1], "a word");
    let (id, pid, offset) = (before.id.clone(), before.pid.clone(), before.offset.clone().expect("cached events have offsets, too"));
    lose(&server, before).await;
    publish(&server, "news", 1, None).await;
    let mut after = Client::come_back(server.address, &pid, Some(&offset)).await;
    assert_eq!(after.id, id);
    assert_eq!(numbers(&mut after, 1).await, [2]);
}

async fn post(server: &TestServer, path: &str, body: Value) {
    let url = server.url(&format!("/apps/app{path}?auth_key={KEY}"));
    let answer = reqwest::Client::new().post(url).header("content-type", "application/json").body(body.to_string()).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_recheck_covers_disconnected_sessions() {
    let (server, _laravel) = server(json!({})).await;
    let before = client(&server).await;
    let (id, pid) = (before.id.clone(), before.pid.clone());
    lose(&server, before).await;
    post(&server, "/channels/private-orders/recheck", json!({})).await;
    assert_ne!(Client::come_back(server.address, &pid, None).await.id, id);
}

#[tokio::test]
async fn a_session_cannot_resume_with_an_expired_grant() {
    let app = SlowApp::start(std::time::Duration::ZERO).await;
    app.answers(200, r#"{"expires_in":1}"#);
    let server = TestServer::start(json!({ "authHost": app.url })).await;
    let mut client = server.client_of(1).await;
    client.subscribe("private-orders").await;
    server.subscribed("private-orders", 1).await;
    let (id, pid) = (client.id.clone(), client.pid.clone());
    app.answers(500, "broken");
    client.vanish();
    // Until the grant expires it can resume every time.
    until("a fresh session", async || Client::come_back(server.address, &pid, None).await.id != id).await;
    assert_eq!(server.subscription_count("private-orders").await, 0);
}

#[tokio::test]
async fn a_terminated_client_cannot_resume_by_not_reading() {
    let (server, _laravel) = server(json!({ "limits": { "clientQueueBytes": "64MB" } })).await;
    let mut before = client(&server).await;
    let (id, pid) = (before.id.clone(), before.pid.clone());
    // Each is echoed in the error about an unknown namespace.
    let large = format!("40/{},", "n".repeat(900_000));
    for _ in 0..20 {
        before.send_text(&large).await;
    }
    post(&server, "/users/1/terminate_connections", json!({})).await;
    assert_ne!(Client::come_back(server.address, &pid, None).await.id, id);
    drop(before);
    server.subscribed("presence-room", 0).await;
}

#[tokio::test]
async fn a_replay_larger_than_the_queue_is_not_repeated() {
    let (server, _laravel) = server(json!({ "limits": { "clientQueue": 10 } })).await;
    let before = client(&server).await;
    let (id, pid) = (before.id.clone(), before.pid.clone());
    lose(&server, before).await;
    for n in 0..10 {
        publish(&server, "news", n, None).await;
    }
    assert_ne!(Client::come_back(server.address, &pid, None).await.id, id);
}
