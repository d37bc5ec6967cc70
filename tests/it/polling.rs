//! Polling on the wire: on single-request and on keep-alive connections.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::server::KEY;
use crate::support::{DEADLINE, TestServer, until};

const PATH: &str = "/socket.io/?EIO=4&transport=polling";

/// An HTTP request: head and body.
fn request(method: &str, path: &str, header: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://page.test\r\n{header}{length}\r\n{body}")
}

/// The next response on a connection: its head in lowercase, and its body.
async fn answer(stream: &mut TcpStream) -> (String, String) {
    let read = async {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(bytes).expect("text").to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).await.expect("a body");
        (head, String::from_utf8(body).expect("text"))
    };
    timeout(DEADLINE, read).await.expect("an answer in time")
}

/// Sends a request on a new connection.
async fn ask(server: &TestServer, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    stream
}

/// The response on a single-request connection, which must then be closed.
async fn only(server: &TestServer, method: &str, path: &str, body: &str) -> (String, String) {
    let mut stream = ask(server, &request(method, path, "Connection: close\r\n", body)).await;
    let answered = answer(&mut stream).await;
    let end = timeout(DEADLINE, stream.read_u8()).await.expect("an end in time");
    assert!(end.is_err() && answered.0.contains("connection: close\r\n"), "{answered:?}");
    answered
}

fn sid(open: &str) -> String {
    let open: Value = serde_json::from_str(open.strip_prefix('0').expect("OPEN")).expect("JSON");
    open["sid"].as_str().expect("an id").to_owned()
}

async fn publish(server: &TestServer, name: &str) {
    let event = json!({ "name": name, "channel": "news", "data": "{}" });
    let url = server.url(&format!("/apps/app/events?auth_key={KEY}"));
    let answer = reqwest::Client::new().post(url).body(event.to_string()).send().await.expect("the API answers");
    assert!(answer.status().is_success(), "{answer:?}");
}

const SUBSCRIBE: &str = r#"42["subscribe",{"channel":"news","auth":{"headers":{}}}]"#;

#[tokio::test]
async fn a_single_request_connection_is_closed_after_its_response() {
    let server = TestServer::start(json!({})).await;
    let (head, open) = only(&server, "GET", PATH, "").await;
    assert!(head.starts_with("http/1.1 200 ok\r\n") && head.contains("\r\ndate: ") && head.contains("set-cookie: io="), "{head}");
    assert!(head.contains("access-control-allow-origin: http://page.test\r\n"), "{head}");
    let path = format!("{PATH}&sid={}", sid(&open));
    assert_eq!(only(&server, "POST", &path, "40").await.1, "ok");
    assert!(only(&server, "GET", &path, "").await.1.starts_with("40{"));
    assert_eq!(only(&server, "POST", &path, SUBSCRIBE).await.1, "ok");
    server.subscribed("news", 1).await;
    let (poll, ()) = tokio::join!(only(&server, "GET", &path, ""), publish(&server, "told"));
    assert!(poll.1.starts_with(r#"42["told","news""#), "{}", poll.1);
    // What the client sends meanwhile, and nobody reads, does not cost the response.
    let mut poll = ask(&server, &request("GET", &path, "Connection: close\r\n", "")).await;
    // Meanwhile the server reads the poll.
    assert_eq!(server.subscription_count("news").await, 1);
    poll.write_all(&[b'x'; 5000]).await.expect("it is buffered");
    publish(&server, "again").await;
    assert!(answer(&mut poll).await.1.starts_with(r#"42["again","news""#));
    // Errors are sent the same way.
    assert!(only(&server, "GET", &format!("{PATH}&sid=x"), "").await.0.starts_with("http/1.1 400 bad request\r\n"));
    assert!(only(&server, "GET", "/nowhere", "").await.0.starts_with("http/1.1 404 not found\r\n"));
}

#[tokio::test]
async fn a_connection_can_be_reused_after_a_poll() {
    let server = TestServer::start(json!({})).await;
    let mut stream = ask(&server, &request("GET", PATH, "", "")).await;
    let path = format!("{PATH}&sid={}", sid(&answer(&mut stream).await.1));
    let mut say = async |method: &str, body: &str| {
        stream.write_all(request(method, &path, "", body).as_bytes()).await.expect("the server reads");
        answer(&mut stream).await.1
    };
    assert_eq!(say("POST", "40").await, "ok");
    assert!(say("GET", "").await.starts_with("40{"));
    assert_eq!(say("POST", SUBSCRIBE).await, "ok");
    server.subscribed("news", 1).await;
    for name in ["first", "second"] {
        let poll = request("GET", &path, "", "");
        stream.write_all(poll.as_bytes()).await.expect("the server reads");
        // Part of the next request arrives early and has to wait.
        let next = request("GET", "/nowhere", "", "");
        let (early, late) = next.split_at(20);
        stream.write_all(early.as_bytes()).await.expect("the server reads");
        publish(&server, name).await;
        let (head, events) = answer(&mut stream).await;
        assert!(events.contains(&format!(r#"42["{name}","news""#)), "{events}");
        assert!(head.contains("access-control-allow-origin: http://page.test\r\n") && !head.contains("connection: close"), "{head}");
        stream.write_all(late.as_bytes()).await.expect("the server reads");
        assert!(answer(&mut stream).await.0.starts_with("http/1.1 404"));
    }
}

#[tokio::test]
async fn a_client_that_drops_its_pending_poll_is_disconnected() {
    let server = TestServer::start(json!({})).await;
    for header in ["", "Connection: close\r\n"] {
        let open = answer(&mut ask(&server, &request("GET", PATH, header, "")).await).await.1;
        let path = format!("{PATH}&sid={}", sid(&open));
        assert_eq!(only(&server, "POST", &path, "40").await.1, "ok");
        assert!(only(&server, "GET", &path, "").await.1.starts_with("40{"));
        assert_eq!(only(&server, "POST", &path, SUBSCRIBE).await.1, "ok");
        server.subscribed("news", 1).await;
        drop(ask(&server, &request("GET", &path, header, "")).await);
        until("the client to be gone", async || server.subscription_count("news").await == 0).await;
    }
}
