//! Session timeouts in a complete server, with a paused clock.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::body::BODY_TIMEOUT;
use super::direct::Connection;
use super::{Server, fault, listen};
use crate::config::Config;
use crate::net::connection::ConnectionHandle;
use crate::net::stream::Stream;

/// How long socket.io waits for CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

async fn handshake(server: &Server) -> StatusCode {
    let request = Request::get("/socket.io/?EIO=4&transport=polling").body(Body::empty()).unwrap();
    let connection = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
    server.reload.service().load().answer(request, &connection).await.unwrap().status()
}

#[tokio::test(start_paused = true)]
async fn who_answers_heartbeats_and_never_connects_is_closed_and_leaves_its_place() {
    // The ping timeout is long enough that only the missing CONNECT can end a session here.
    let settings = json!({ "host": "127.0.0.1", "limits": { "connections": 1 }, "socketio": { "pingTimeout": 1_000_000 } });
    let mut config: Config = serde_json::from_value(settings).unwrap();
    config.port = 0;
    let server = Server::bind(config).await.unwrap();
    let (ours, theirs) = tokio::io::duplex(4096);
    let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
    let stream = Stream::boxed(ours).monitored(Vec::new(), &handle, CONNECT_TIMEOUT);
    tokio::spawn(listen::requests(Connection::watched(stream, handle, server.reload.service(), CancellationToken::new())));
    let (mut client, _) = client_async("ws://x/socket.io/?EIO=4&transport=websocket", theirs).await.unwrap();
    let started = Instant::now();
    let mut heartbeats = 0;
    while let Some(Ok(message)) = client.next().await {
        if message == Message::text("2") {
            assert_eq!(handshake(&server).await, StatusCode::SERVICE_UNAVAILABLE);
            heartbeats += 1;
            client.send(Message::text("3")).await.unwrap();
        }
    }
    assert_eq!(started.elapsed().as_secs(), CONNECT_TIMEOUT.as_secs());
    assert!(heartbeats > 0);
    // The same for a session that starts with polling.
    assert_eq!(handshake(&server).await, StatusCode::OK);
    assert_eq!(handshake(&server).await, StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::sleep(CONNECT_TIMEOUT + Duration::from_secs(1)).await;
    assert_eq!(handshake(&server).await, StatusCode::OK);
}

/// Reads a response and returns its body.
async fn body_of(client: &mut (impl AsyncRead + Unpin)) -> String {
    let (mut head, mut line) = (String::new(), Vec::new());
    while !head.ends_with("\r\n\r\n") {
        line.push(client.read_u8().await.unwrap());
        head = String::from_utf8_lossy(&line).into_owned();
    }
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("connection: close"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    client.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_a_connection_are_answered_in_order_however_they_arrive() {
    let mut config: Config = serde_json::from_value(json!({ "host": "127.0.0.1", "limits": { "handshakeHeaders": 40_000 } })).unwrap();
    config.port = 0;
    let server = Server::bind(config).await.unwrap();
    // The last one is too large for the gates' own reader.
    for (chunk, cookie) in [(usize::MAX, 100), (1, 100), (7, 3_000), (1_000, 7_000), (4_000, 20_000)] {
        let (ours, mut client) = tokio::io::duplex(64 * 1024);
        let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
        let stream = Stream::boxed(ours).monitored(Vec::new(), &handle, CONNECT_TIMEOUT);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(listen::requests(Connection::watched(stream, handle, server.reload.service(), stop.clone())));
        let cookie = format!("Cookie: {}\r\n", "x".repeat(cookie));
        let path = "/socket.io/?EIO=4&transport=polling";
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{cookie}\r\n").as_bytes()).await.unwrap();
        let open = body_of(&mut client).await;
        let sid = open.split('"').nth(3).unwrap();
        let poll = format!("GET {path}&sid={sid} HTTP/1.1\r\nHost: x\r\n{cookie}\r\n");
        let post = |body: &str| format!("POST {path}&sid={sid} HTTP/1.1\r\nContent-Length: {}\r\n{cookie}\r\n{body}", body.len());
        for part in [post("40"), poll.clone(), poll, post("1")].concat().as_bytes().chunks(chunk) {
            client.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(body_of(&mut client).await, "ok");
        assert!(body_of(&mut client).await.starts_with("40{"), "CONNECT is answered");
        assert!(body_of(&mut client).await.ends_with('2'), "a poll that waits for the ping");
        assert_eq!(body_of(&mut client).await, "ok", "a request that came while it waited");
        stop.cancel();
        serving.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_has_as_much_time_on_a_kept_connection_as_on_a_new_one() {
    let mut config: Config = serde_json::from_value(json!({ "host": "127.0.0.1" })).unwrap();
    config.port = 0;
    let server = Server::bind(config).await.unwrap();
    for idle in [0, 70] {
        let (ours, mut client) = tokio::io::duplex(64 * 1024);
        let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
        let stream = Stream::boxed(ours).monitored(Vec::new(), &handle, CONNECT_TIMEOUT);
        let serving =
            tokio::spawn(listen::requests(Connection::watched(stream, handle, server.reload.service(), CancellationToken::new())));
        if idle > 0 {
            client.write_all(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n\r\n").await.unwrap();
            body_of(&mut client).await;
            tokio::time::sleep(Duration::from_secs(idle)).await;
        }
        let preflight = b"OPTIONS /socket.io/ HTTP/1.1\r\nContent-Length: 3\r\n\r\n1";
        client.write_all(preflight).await.unwrap();
        tokio::time::sleep(Duration::from_secs(50)).await;
        client.write_all(b"23").await.unwrap();
        assert_eq!(body_of(&mut client).await, "");
        client.write_all(preflight).await.unwrap();
        let started = Instant::now();
        serving.await.unwrap();
        assert_eq!(started.elapsed(), BODY_TIMEOUT);
    }
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_turn_with_those_of_others() {
    let mut config: Config = serde_json::from_value(json!({ "host": "127.0.0.1" })).unwrap();
    config.port = 0;
    let server = Server::bind(config).await.unwrap();
    let (ours, mut client) = tokio::io::duplex(64 * 1024);
    let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
    let stream = Stream::boxed(ours).monitored(Vec::new(), &handle, CONNECT_TIMEOUT);
    client.write_all(&b"OPTIONS /socket.io/ HTTP/1.1\r\n\r\n".repeat(50)).await.unwrap();
    client.shutdown().await.unwrap();
    let serving = tokio::spawn(listen::requests(Connection::watched(stream, handle, server.reload.service(), CancellationToken::new())));
    let mut turns = 0;
    while !serving.is_finished() {
        tokio::task::yield_now().await;
        turns += 1;
    }
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 50);
    assert!(turns >= 50, "{turns} turns");
}

#[tokio::test]
async fn the_packets_of_a_large_post_are_handled_in_turn_with_those_of_others() {
    let mut config: Config = serde_json::from_value(json!({ "host": "127.0.0.1" })).unwrap();
    config.port = 0;
    let server = Server::bind(config).await.unwrap();
    let connection = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
    let answer = async |request: Request<Body>| server.reload.service().load().answer(request, &connection).await.unwrap();
    let path = "/socket.io/?EIO=4&transport=polling";
    let open = answer(Request::get(path).body(Body::empty()).unwrap()).await;
    let open = axum::body::to_bytes(open.into_body(), usize::MAX).await.unwrap();
    let sid = std::str::from_utf8(&open).unwrap().split('"').nth(3).unwrap().to_owned();
    let post = Request::post(format!("{path}&sid={sid}")).body(Body::from(["3"; 640].join("\u{1e}"))).unwrap();
    let mut posting = Box::pin(answer(post));
    let mut turns = 0;
    let answer = loop {
        turns += 1;
        if let Some(answer) = posting.as_mut().now_or_never() {
            break answer;
        }
    };
    assert_eq!((answer.status(), turns), (StatusCode::OK, 11));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_told_from_an_end() {
    let mut tasks = JoinSet::new();
    tasks.spawn(async {});
    tasks.spawn(std::future::pending());
    assert!(timeout(CONNECT_TIMEOUT, fault(&mut tasks)).await.is_err());
    tasks.spawn(async { panic!("a fault that this test makes") });
    let panic = fault(&mut tasks).await;
    assert_eq!(panic.downcast_ref(), Some(&"a fault that this test makes"));
}
