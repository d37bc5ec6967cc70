//! `limits.connections` and `limits.connectionsPerIp`, and from which proxies client addresses are accepted.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{TestServer, until};

const HANDSHAKE: &str = "/socket.io/?EIO=4&transport=polling";

/// Starts a polling session on behalf of `client`; returns the status and body of the response.
async fn handshake(server: &TestServer, client: &str) -> (StatusCode, String) {
    let request = reqwest::Client::new().get(server.url(HANDSHAKE)).header("x-forwarded-for", client);
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.text().await.expect("a body"))
}

fn message(body: &str) -> Value {
    serde_json::from_str::<Value>(body).expect("JSON")["message"].take()
}

#[tokio::test]
async fn a_client_over_limits_connections_is_refused_until_a_slot_is_free() {
    let server = TestServer::start(json!({ "limits": { "connections": 2 } })).await;
    let (mut alice, mut bob) = (server.client().await, server.client().await);
    let (status, body) = handshake(&server, "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(message(&body), "limits.connections (2) is reached");
    // Connected clients are not affected.
    alice.subscribe("news").await;
    server.subscribed("news", 1).await;
    bob.send_text("1").await;
    bob.closed().await;
    until("the place to be free", async || handshake(&server, "").await.0 == StatusCode::OK).await;
}

#[tokio::test]
async fn a_session_that_never_sends_connect_takes_a_slot_too() {
    let server = TestServer::start(json!({ "limits": { "connections": 1 } })).await;
    assert_eq!(handshake(&server, "").await.0, StatusCode::OK);
    assert_eq!(handshake(&server, "").await.0, StatusCode::SERVICE_UNAVAILABLE);
    // Requests that do not start a session take no slot.
    let unknown = reqwest::get(server.url("/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA")).await.unwrap();
    assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn encoded_or_repeated_query_names_do_not_bypass_the_limits() {
    let server = TestServer::start(json!({ "limits": { "connectionsPerIp": 1 } })).await;
    assert_eq!(handshake(&server, "").await.0, StatusCode::OK);
    for more in ["&sid", "&sid=", "&Sid=AAAAAAAAAAAAAAAA", "&sid=&sid=AAAAAAAAAAAAAAAA"] {
        let answer = reqwest::get(server.url(&format!("{HANDSHAKE}{more}"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "{more}");
    }
    // A session id, though unknown.
    for more in ["&%73id=AAAAAAAAAAAAAAAA", "&s%69d=x", "&sid=1.2", "&%73id=x&sid="] {
        let answer = reqwest::get(server.url(&format!("{HANDSHAKE}{more}"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{more}");
    }
}

#[tokio::test]
async fn a_failed_handshake_takes_no_slot() {
    let server = TestServer::start(json!({ "limits": { "connections": 1 } })).await;
    for _ in 0..3 {
        let odd = reqwest::get(server.url("/socket.io/?EIO=4&transport=flashsocket")).await.unwrap();
        assert_eq!(odd.status(), StatusCode::BAD_REQUEST);
    }
    assert_eq!(handshake(&server, "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn client_addresses_are_accepted_only_from_trusted_proxies() {
    let limits = json!({ "connectionsPerIp": 1 });
    let server = TestServer::start(json!({ "limits": limits, "trustProxies": ["127.0.0.0/8"] })).await;
    assert_eq!(handshake(&server, "203.0.113.1").await.0, StatusCode::OK);
    let (status, body) = handshake(&server, "6.6.6.6, 203.0.113.1").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(message(&body), "limits.connectionsPerIp (1) is reached");
    assert_eq!(handshake(&server, "203.0.113.2").await.0, StatusCode::OK);

    let server = TestServer::start(json!({ "limits": limits })).await;
    assert_eq!(handshake(&server, "203.0.113.1").await.0, StatusCode::OK);
    assert_eq!(handshake(&server, "203.0.113.2").await.0, StatusCode::TOO_MANY_REQUESTS);
}

/// Sends bytes on a new connection and reads until the server closes it.
async fn raw(server: &TestServer, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    stream.write_all(bytes).await.expect("the server reads");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(crate::support::DEADLINE, stream.read_to_end(&mut answer)).await.expect("the server ends in time");
    // A reset also counts as the end.
    let _ = read;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn trusted_proxies_may_use_the_proxy_protocol() {
    let settings = json!({ "limits": { "connectionsPerIp": 1 }, "trustProxies": ["127.0.0.1"] });
    let server = TestServer::start(settings).await;
    let request = format!("GET {HANDSHAKE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let version_1 = |client: &str| [format!("PROXY TCP4 {client} 10.0.0.1 5000 6001\r\n").as_bytes(), request.as_bytes()].concat();
    let version_2 = |client: [u8; 4]| {
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c";
        [head.as_slice(), &client, &[10, 0, 0, 1, 0x13, 0x88, 0x17, 0x71], request.as_bytes()].concat()
    };
    assert!(raw(&server, &version_1("203.0.113.1")).await.starts_with("HTTP/1.1 200"));
    assert!(raw(&server, &version_2([203, 0, 113, 1])).await.starts_with("HTTP/1.1 429"));
    assert!(raw(&server, &version_2([203, 0, 113, 2])).await.starts_with("HTTP/1.1 200"));
    // The proxy's own requests have no header.
    assert!(raw(&server, request.as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert_eq!(raw(&server, b"PROXY TCP4 nonsense\r\n").await, "");

    let server = TestServer::start(json!({})).await;
    assert!(raw(&server, &version_1("203.0.113.1")).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn request_heads_have_a_maximum_size() {
    let server = TestServer::start(json!({})).await;
    let cookie = |length: usize| format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {}\r\n\r\n", "x".repeat(length));
    assert!(raw(&server, cookie(30_000).as_bytes()).await.starts_with("HTTP/1.1 200"));
    // The server does not read the rest, which can cost the client the response.
    let answer = raw(&server, cookie(200_000).as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let headers: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert!(raw(&server, format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.starts_with("HTTP/1.1 431"));
}
