//! Requests that are almost websocket handshakes, and frames that are almost valid.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::TestServer;

/// The server's answer to a request and the bytes after it.
async fn answer(server: &TestServer, headers: &str, then: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let head = format!("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n{key}\r\n{headers}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), then].concat()).await.expect("the server reads");
    let mut answer = Vec::new();
    let reading = async { while stream.read_buf(&mut answer).await.unwrap_or_default() > 0 {} };
    let _ = tokio::time::timeout(std::time::Duration::from_millis(500), reading).await;
    answer
}

#[tokio::test]
async fn only_complete_handshakes_become_websockets() {
    let server = TestServer::start(json!({})).await;
    for (headers, status) in [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13", "101"),
        ("Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13", "101"),
        ("Upgrade: websocket\r\nSec-WebSocket-Version: 13", "400"),
        ("Connection: Upgrade\r\nSec-WebSocket-Version: 13", "400"),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8", "426"),
    ] {
        let answer = answer(&server, headers, b"").await;
        assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{headers}: {}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn a_protocol_violation_is_answered_with_its_close_code() {
    let server = TestServer::start(json!({})).await;
    let whole = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13";
    for (frame, code) in [
        (&[0x81, 0x01, b'x'][..], 1002_u16),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        (&[0x81, 0xff, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0], 1009),
    ] {
        let answer = answer(&server, whole, frame).await;
        let close = [&[0x88, 2][..], &code.to_be_bytes()].concat();
        assert!(answer.ends_with(&close), "{code}: {answer:?}");
    }
}
