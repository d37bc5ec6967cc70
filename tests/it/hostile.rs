//! Hostile clients, and a healthy one beside them that must not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Client, DEADLINE, Laravel, TestServer, merge};

mod callbacks;
mod handshakes;
mod headers;
mod memory;
mod redis;
mod removed;
mod secrets;

/// The longest that the healthy client may wait for an event. Its server shares a machine with all other tests.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

const UPGRADE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

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

/// A server whose application lets everybody in.
async fn server(settings: Value) -> TestServer {
    let laravel = Laravel::start().await;
    let mut all = json!({ "authHost": laravel.url });
    merge(&mut all, settings);
    TestServer::start(all).await
}

/// Publishes events while `attack` goes on, and sees each of them come in time and in order. The healthy client joins a
/// presence channel beside each event, and is answered.
async fn unharmed(server: &TestServer, attack: impl Future<Output = ()>) {
    let mut healthy = server.client_of(1).await;
    healthy.subscribe("news").await;
    server.subscribed("news", 1).await;
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
            publish(server, "news", json!({ "n": count })).await;
            assert_eq!(healthy.event("sent").await[1]["n"], count);
            let room = format!("presence-room-{count}");
            healthy.subscribe(&room).await;
            let joined = healthy.event("presence:subscribed").await;
            assert_eq!((joined[0].as_str(), &joined[1][0]["user_id"]), (Some(&*room), &json!(1)));
            healthy.unsubscribe(&room).await;
            assert!(started.elapsed() < EVENT_TIMEOUT, "event {count} took {:?}", started.elapsed());
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

/// Publishes over the HTTP API.
async fn publish(server: &TestServer, channel: &str, data: Value) {
    let event = json!({ "channel": channel, "name": "sent", "data": data }).to_string();
    let request = reqwest::Client::new().post(server.url("/apps/app/events?auth_key=test-key")).body(event);
    assert_eq!(request.send().await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn garbage_and_half_handshakes() {
    let server = server(json!({})).await;
    let address = server.address;
    unharmed(&server, async {
        let mut attackers = JoinSet::new();
        for seed in 0..200 {
            let noise = garbage(seed, 50 + 20 * seed as usize);
            let bytes = match seed % 5 {
                0 => noise,
                // Frames that are none, after a good handshake.
                1 => [UPGRADE.as_bytes(), &noise].concat(),
                // Half a handshake.
                2 => UPGRADE.as_bytes()[..seed as usize % UPGRADE.len()].to_vec(),
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
    let server = server(json!({})).await;
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
    let server = server(json!({})).await;
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

/// Sends `begun` at once, then `rest` byte by byte; the connection stays open all the while.
async fn trickle(server: std::net::SocketAddr, begun: &str, rest: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server).await.expect("the server listens");
    stream.write_all(begun.as_bytes()).await.expect("the server waits");
    for byte in rest {
        // The server may have heard enough.
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stream
}

#[tokio::test]
async fn heads_and_bodies_that_trickle_in() {
    let server = server(json!({})).await;
    let address = server.address;
    unharmed(&server, async {
        let begun = [
            "G",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: ",
            "POST /apps/app/events?auth_key=test-key HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
            "POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n4",
            "POST /apps/app/events?auth_key=test-key HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n{",
        ];
        let attackers = (0..300).map(|number| trickle(address, begun[number % begun.len()], &[b'x'; 100]));
        // All are there at once until the last has sent its last byte.
        let streams = join_all(attackers).await;
        drop(streams);
    })
    .await;
}

#[tokio::test]
async fn a_websocket_that_trickles_in_ends_when_its_heartbeat_is_due() {
    let server = server(json!({ "socketio": { "pingInterval": 1000, "pingTimeout": 1000 } })).await;
    let address = server.address;
    unharmed(&server, async {
        let attackers = (0..50).map(async |_| {
            let mut stream = TcpStream::connect(address).await.expect("the server listens");
            stream.write_all(UPGRADE.as_bytes()).await.expect("the server reads");
            // CONNECT as a whole frame, then a text of 60,000 bytes that never comes to its end.
            stream.write_all(b"\x81\x82\0\0\0\x0040\x81\xfe\xea\x60\0\0\0\0").await.expect("the server reads");
            let (mut reader, mut writer) = stream.into_split();
            let sending = tokio::spawn(async move {
                while writer.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            let mut answer = Vec::new();
            // A reset is an end, too.
            let _ = tokio::time::timeout(DEADLINE, reader.read_to_end(&mut answer)).await.expect("the server ends it in time");
            sending.abort();
            assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        });
        join_all(attackers).await;
    })
    .await;
}

#[tokio::test]
async fn readers_that_freeze() {
    const FROZEN: u64 = 8;
    let server = server(json!({ "limits": { "clientQueueBytes": "1MB" } })).await;
    let attack = async {
        let mut frozen = Vec::new();
        for _ in 0..FROZEN {
            let mut client = server.client().await;
            client.subscribe("heavy").await;
            frozen.push(client);
        }
        server.subscribed("heavy", FROZEN).await;
        let pad = "x".repeat(400_000);
        // The kernel's buffers take some megabytes before a queue begins to fill.
        while server.subscription_count("heavy").await > 0 {
            publish(&server, "heavy", json!({ "pad": pad })).await;
        }
        for mut client in frozen {
            client.closed().await;
        }
    };
    unharmed(&server, Box::pin(attack)).await;
}
