//! Hostile clients, beside a healthy one that must not be affected.

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

/// Maximum delay of an event for the healthy client. The machine also runs all other tests.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

const UPGRADE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Pseudo-random bytes with a fixed seed, so that failures can be reproduced.
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

/// Sends bytes on a new connection, and closes it once the server has answered or after a moment.
async fn throw(server: std::net::SocketAddr, bytes: Vec<u8>) {
    let Ok(mut stream) = TcpStream::connect(server).await else { return };
    // The server may close the connection while it is written to.
    let _ = stream.write_all(&bytes).await;
    let mut answer = [0; 512];
    let _ = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut answer)).await;
}

/// A server whose application grants every channel.
async fn server(settings: Value) -> TestServer {
    let laravel = Laravel::start().await;
    let mut all = json!({ "authHost": laravel.url });
    merge(&mut all, settings);
    TestServer::start(all).await
}

/// Publishes events during `attack` and checks that each arrives in time and in order. With each event, the healthy client
/// also joins a presence channel and waits for the answer.
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
        // Some more events after the attack.
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
async fn garbage_and_incomplete_handshakes() {
    let server = server(json!({})).await;
    let address = server.address;
    unharmed(&server, async {
        let mut attackers = JoinSet::new();
        for seed in 0..200 {
            let noise = garbage(seed, 50 + 20 * seed as usize);
            let bytes = match seed % 5 {
                0 => noise,
                // Invalid frames after a valid handshake.
                1 => [UPGRADE.as_bytes(), &noise].concat(),
                // An incomplete handshake.
                2 => UPGRADE.as_bytes()[..seed as usize % UPGRADE.len()].to_vec(),
                // An announced body that does not arrive.
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
async fn huge_names_thousands_of_subscribes_and_malformed_packets() {
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
                    // The server may end the connection because of one of them.
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
async fn many_short_connections() {
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
    // The healthy client has disconnected, too.
    server.subscribed("news", 0).await;
}

/// Sends `begun` at once, then `rest` byte by byte, on a connection that stays open.
async fn trickle(server: std::net::SocketAddr, begun: &str, rest: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server).await.expect("the server listens");
    stream.write_all(begun.as_bytes()).await.expect("the server waits");
    for byte in rest {
        // The server may already have closed the connection.
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stream
}

#[tokio::test]
async fn slow_request_heads_and_bodies() {
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
        // All connections are open until the last one has sent its last byte.
        let streams = join_all(attackers).await;
        drop(streams);
    })
    .await;
}

#[tokio::test]
async fn a_slow_websocket_frame_does_not_replace_a_heartbeat() {
    let server = server(json!({ "socketio": { "pingInterval": 1000, "pingTimeout": 1000 } })).await;
    let address = server.address;
    unharmed(&server, async {
        let attackers = (0..50).map(async |_| {
            let mut stream = TcpStream::connect(address).await.expect("the server listens");
            stream.write_all(UPGRADE.as_bytes()).await.expect("the server reads");
            // CONNECT in a complete frame, then a text of 60,000 bytes that is never completed.
            stream.write_all(b"\x81\x82\0\0\0\x0040\x81\xfe\xea\x60\0\0\0\0").await.expect("the server reads");
            let (mut reader, mut writer) = stream.into_split();
            let sending = tokio::spawn(async move {
                while writer.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            let mut answer = Vec::new();
            // A reset also counts as the end.
            let _ = tokio::time::timeout(DEADLINE, reader.read_to_end(&mut answer)).await.expect("the server ends it in time");
            sending.abort();
            assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        });
        join_all(attackers).await;
    })
    .await;
}

#[tokio::test]
async fn clients_that_stop_reading() {
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
        // The kernel buffers several megabytes before a queue begins to fill.
        while server.subscription_count("heavy").await > 0 {
            publish(&server, "heavy", json!({ "pad": pad })).await;
        }
        for mut client in frozen {
            client.closed().await;
        }
    };
    unharmed(&server, Box::pin(attack)).await;
}
