//! Hostile clients, and a healthy one beside them that must not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Client, TestServer};

/// The longest that the healthy client may wait for an event. Its server shares a machine with all other tests.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a generator with a fixed seed, so that a failure can be seen again.
fn garbage(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Sends bytes on a connection of its own, and goes away once the server has answered or a moment has passed.
async fn throw(server: std::net::SocketAddr, bytes: Vec<u8>) {
    let Ok(mut stream) = TcpStream::connect(server).await else { return };
    // A server that has heard enough closes the connection under us.
    let _ = stream.write_all(&bytes).await;
    let mut answer = [0; 512];
    let _ = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut answer)).await;
}

/// Publishes events while `attack` goes on, and sees each of them come in time and in order.
async fn unharmed(server: &TestServer, attack: impl Future<Output = ()>) {
    let mut healthy = server.client().await;
    healthy.subscribe("news").await;
    server.subscribed("news", 1).await;
    let events = server.url("/apps/app/events?auth_key=test-key");
    let http = reqwest::Client::new();
    let is_over = AtomicBool::new(false);
    let attack = async {
        attack.await;
        is_over.store(true, Ordering::Relaxed);
    };
    let living = async {
        // Some events after the attack, too.
        let mut left = 5;
        for count in 0.. {
            let started = Instant::now();
            let event = json!({ "channel": "news", "name": "sent", "data": { "n": count } }).to_string();
            assert_eq!(http.post(&events).body(event).send().await.expect("an answer").status(), 200);
            assert_eq!(healthy.event("sent").await[1]["n"], count);
            assert!(started.elapsed() < PATIENCE, "event {count} took {:?}", started.elapsed());
            if is_over.load(Ordering::Relaxed) {
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
    };
    tokio::join!(attack, living);
    assert_eq!(healthy.left_over(), [] as [&str; 0]);
}

#[tokio::test]
async fn garbage_and_half_handshakes() {
    let server = TestServer::start(json!({})).await;
    let address = server.address;
    unharmed(&server, async {
        let upgrade = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut attackers = JoinSet::new();
        for seed in 0..200 {
            let noise = garbage(seed, 50 + 20 * seed as usize);
            let bytes = match seed % 5 {
                0 => noise,
                // Frames that are none, after a good handshake.
                1 => [upgrade.as_bytes(), &noise].concat(),
                // Half a handshake.
                2 => upgrade.as_bytes()[..seed as usize % upgrade.len()].to_vec(),
                // A body that is announced and does not come.
                3 => b"POST /apps/app/events?auth_key=test-key HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{".to_vec(),
                _ => [b"GET / HTTP/1.1\r\nHost: ".as_slice(), &noise, b"\r\n\r\n"].concat(),
            };
            attackers.spawn(throw(address, bytes));
        }
        attackers.join_all().await;
    })
    .await;
}

#[tokio::test]
async fn huge_names_thousands_of_subscribes_and_packets_without_sense() {
    let server = TestServer::start(json!({})).await;
    let address = server.address;
    unharmed(&server, async {
        let mut attackers = JoinSet::new();
        for attacker in 0..5 {
            attackers.spawn(async move {
                let mut client = Client::connect(address, &[]).await;
                for n in 0..2000 {
                    client.subscribe(&format!("channel-{attacker}-{n}")).await;
                }
                client.subscribe(&"x".repeat(100_000)).await;
                client.whisper("private-x", &"client-x".repeat(10_000), json!(null)).await;
                for packet in
                    ["42", "42[", "42{}", "42[1]", "42[\"subscribe\"]", "4", "452-[\"subscribe\"]", "42[\"subscribe\",{\"channel\":5}]"]
                {
                    // The engine may end the connection over one of them.
                    if client.try_send(packet).await.is_err() {
                        break;
                    }
                }
            });
        }
        attackers.join_all().await;
    })
    .await;
}

#[tokio::test]
async fn connections_that_come_and_go() {
    let server = TestServer::start(json!({})).await;
    let address = server.address;
    unharmed(&server, async {
        for _ in 0..10 {
            let mut round = JoinSet::new();
            for _ in 0..30 {
                round.spawn(async move {
                    let mut client = Client::connect(address, &[]).await;
                    client.subscribe("news").await;
                });
            }
            round.join_all().await;
        }
    })
    .await;
    // The healthy client is gone, too.
    server.subscribed("news", 0).await;
}
