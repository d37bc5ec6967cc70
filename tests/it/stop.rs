//! Shutdown: members leave, and clients are disconnected in a way that lets them reconnect.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Laravel, TestServer};

#[tokio::test]
async fn clients_are_closed_without_a_disconnect_packet() {
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
async fn a_hanging_callback_does_not_delay_shutdown() {
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
async fn a_disconnected_client_does_not_delay_shutdown() {
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
async fn connections_without_a_request_and_refused_clients_do_not_delay_shutdown() {
    let settings = json!({ "shutdown": { "timeout": "10m" }, "clients": [{ "appId": "app", "key": "key", "secret": "secret" }] });
    let server = TestServer::start(settings).await;
    let refused = "GET /app/other HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut streams = Vec::new();
    for sent in ["", "GET /socket", refused] {
        let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
        stream.write_all(sent.as_bytes()).await.expect("the server reads");
        streams.push(stream);
    }
    streams[2].read_u8().await.expect("a refused client is told");
    server.stop().await;
}

#[tokio::test]
async fn many_clients_are_drained_in_groups() {
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
    // In groups, not all at once: the quarters end one after the other.
    let quarters: Vec<_> = ends.chunks(COUNT / 4).map(|quarter| quarter[0]).collect();
    assert!(quarters.windows(2).all(|pair| pair[1] - pair[0] > std::time::Duration::from_millis(200)), "{quarters:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_pending_poll_ends_with_its_group() {
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
    // The first heartbeat is queued at once; the poll after it has to wait.
    let mut seen = String::new();
    while !(seen.contains("40{") && seen.split(['\u{1e}', '|']).any(|packet| packet == "2")) {
        seen.push('|');
        seen += &http.get(&url).send().await.unwrap().text().await.unwrap();
    }
    let waiting = tokio::spawn(http.get(&url).send());
    server.begin_to_stop();
    // Cut off while it waits, or refused if it came too late: either way the client reconnects.
    let answer = waiting.await.unwrap();
    assert!(answer.as_ref().map_or(true, |answer| answer.status() == 400), "{answer:?}");
    server.stop().await;
}
