//! Session timeouts in a complete server, with a paused clock.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::{Server, fault, http};
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
    tokio::spawn(http::http(stream, handle, server.reload.service(), CancellationToken::new()));
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
