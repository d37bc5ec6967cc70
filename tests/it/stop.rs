//! The end: members leave, clients are told in a way that lets them come back.

use serde_json::json;

use crate::support::{Laravel, TestServer};

#[tokio::test]
async fn clients_are_closed_without_a_goodbye_that_keeps_them_away() {
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url })).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe("presence-room").await;
    alice.event("presence:subscribed").await;
    server.stop().await;
    let packets = alice.closed().await;
    assert!(!packets.iter().any(|packet| packet.starts_with("41")), "{packets:?} keeps clients from reconnecting");
}

#[tokio::test]
async fn a_callback_that_hangs_does_not_hold_up_the_end() {
    let laravel = Laravel::start().await;
    let settings = json!({ "authHost": laravel.url, "auth": { "timeout": "10m" }, "shutdown": { "timeout": "10m" } });
    let server = TestServer::start(settings).await;
    let mut alice = server.client_of(1).await;
    laravel.hold();
    alice.subscribe("private-slow").await;
    crate::support::until("the callback", async || laravel.callbacks().len() == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_said_disconnect_does_not_hold_up_the_end() {
    let server = TestServer::start(json!({ "shutdown": { "timeout": "10m" } })).await;
    let mut alice = server.client().await;
    alice.subscribe("news").await;
    server.subscribed("news", 1).await;
    alice.send_text("41").await;
    server.subscribed("news", 0).await;
    server.stop().await;
    alice.closed().await;
}

#[tokio::test]
async fn many_clients_are_moved_off_bit_by_bit() {
    const COUNT: usize = 120;
    let server = TestServer::start(json!({ "shutdown": { "drain": "2s" } })).await;
    let mut clients = Vec::new();
    for _ in 0..COUNT {
        clients.push(server.client().await);
    }
    let _reader = server.client_in("news").await;
    let started = std::time::Instant::now();
    server.begin_to_stop();
    server.draining.cancelled().await;
    let ends = clients.into_iter().map(|mut client| async move {
        let packets = client.closed().await;
        assert!(!packets.iter().any(|packet| packet.starts_with("41")), "{packets:?} keeps clients from reconnecting");
        started.elapsed()
    });
    let mut ends = futures_util::future::join_all(ends).await;
    ends.sort();
    // Groups, not all at once: the quarters come one after the other.
    let quarters: Vec<_> = ends.chunks(COUNT / 4).map(|quarter| quarter[0]).collect();
    assert!(quarters.windows(2).all(|pair| pair[1] - pair[0] > std::time::Duration::from_millis(200)), "{quarters:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_waiting_poll_ends_with_its_group() {
    let server = TestServer::start(json!({ "shutdown": { "drain": "1s" } })).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(server.client().await);
    }
    let url = server.url("/socket.io/?EIO=4&transport=polling");
    let http = reqwest::Client::new();
    let open = http.get(&url).send().await.unwrap().text().await.unwrap();
    let sid = serde_json::from_str::<serde_json::Value>(&open[1..]).unwrap()["sid"].as_str().unwrap().to_owned();
    let url = format!("{url}&sid={sid}");
    http.post(&url).body("40").send().await.unwrap();
    // The first heartbeat comes at once; the poll after it has nothing to bring.
    let mut seen = String::new();
    while !(seen.contains("40{") && seen.split(['\u{1e}', '|']).any(|packet| packet == "2")) {
        seen.push('|');
        seen += &http.get(&url).send().await.unwrap().text().await.unwrap();
    }
    let waiting = tokio::spawn(http.get(&url).send());
    server.begin_to_stop();
    // Cut while it waits, or refused when it comes too late to wait: either way its client starts over.
    let answer = waiting.await.unwrap();
    assert!(answer.as_ref().map_or(true, |answer| answer.status() == 400), "{answer:?}");
    server.stop().await;
}
