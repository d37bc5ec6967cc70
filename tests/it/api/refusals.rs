//! Requests that cannot be served are answered with a status and a reason.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{BEARER, get, post, send};
use crate::support::{DEADLINE, TestServer};

#[tokio::test]
async fn errors_about_bodies_name_the_field() {
    let server = TestServer::start(json!({ "limits": { "apiChannels": 3 } })).await;
    let event = |field: &str, value: Value| {
        let mut event = json!({ "channel": "news", "name": "sent", "data": {} });
        event[field] = value;
        event
    };
    let incomplete = |what: &str| format!("Event must include channel, event name and data: {what}");
    for (body, error) in [
        (event("name", json!(5)), "name must be text"),
        (event("name", json!("")), &*incomplete("`name` is empty")),
        (event("name", json!("connect_error")), "name: `connect_error` is reserved by Socket.IO"),
        (event("name", json!("n".repeat(201))), "name is 201 bytes long, more than limits.eventName (200)"),
        (event("channel", json!(["news"])), "channel must be text"),
        (event("channel", json!("c".repeat(201))), "channel is 201 bytes long, more than limits.channelName (200)"),
        (event("channels", json!("abc")), "channels must be a list of channel names"),
        (event("channels", json!([5])), "channels must be a list of channel names"),
        (event("channels", json!(["a", "b", "c", "d"])), "channels: 4 are more than limits.apiChannels (3)"),
        (event("socket_id", json!({})), "socket_id must be text or null"),
        (event("info", json!(["user_count"])), "info must be text such as `subscription_count,user_count`"),
        (event("data", json!("")), &incomplete("`data` is empty")),
        (json!({}), &incomplete("`name` is missing")),
    ] {
        let answer = post(&server, "/apps/app/events", body.clone()).await;
        assert_eq!((answer.status, answer.error().as_str()), (400, error), "{body}");
    }
    for body in ["", "hello", "null", "5", "[]", r#"["news",null,"sent",{}]"#, r#"{"channel":"news","name":"se"#] {
        for path in ["/apps/app/events", "/apps/app/batch_events"] {
            let answer = send(&server, "POST", path, &[BEARER], body).await;
            assert_eq!(answer.status, 400, "{body}");
            assert!(answer.error().starts_with("body: must be a JSON object"), "{body}: {}", answer.text);
        }
    }
    let not_text = reqwest::Client::new().post(server.url("/apps/app/events?auth_key=test-key")).body(&b"{\"channel\":\"\xff\"}"[..]);
    assert_eq!(not_text.send().await.expect("an answer").status(), 400);
}

#[tokio::test]
async fn bodies_that_are_too_large_or_compressed_are_refused() {
    let server = TestServer::start(json!({ "limits": { "apiBody": "1KB" } })).await;
    let large = post(&server, "/apps/app/events", json!({ "channel": "news", "name": "sent", "data": "x".repeat(3_000_000) })).await;
    assert_eq!((large.status, large.error().as_str()), (413, "body: larger than limits.apiBody (1000 bytes)"));
    let packed = send(&server, "POST", "/apps/app/events", &[BEARER, ("content-encoding", "gzip")], "{}").await;
    assert_eq!(packed.status, 415);
    assert!(packed.error().starts_with("Content-Encoding: "), "{}", packed.text);
}

#[tokio::test]
async fn an_interrupted_body_is_answered() {
    let server = TestServer::start(json!({})).await;
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    let head = "POST /apps/app/events?auth_key=test-key HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"channel\":";
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    stream.shutdown().await.expect("the server reads");
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains(r#"{"error":"body: "#), "{answer}");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let server = TestServer::start(json!({})).await;
    for (method, path, status, error) in [
        ("GET", "/nothing", 404, "Not Found"),
        ("GET", "/apps", 404, "Not Found"),
        ("GET", "/apps/app/channels//", 404, "Not Found"),
        ("DELETE", "/", 405, "Method Not Allowed"),
        ("PUT", "/apps/app/events", 405, "Method Not Allowed"),
        ("GET", "/apps/app/channels/%ff", 400, "path: not a valid percent-encoding of UTF-8 text"),
        ("GET", "/apps/%C3/status", 400, "path: not a valid percent-encoding of UTF-8 text"),
        ("POST", "/apps/app/users/%zz/terminate_connections", 400, "path: not a valid percent-encoding of UTF-8 text"),
    ] {
        let answer = send(&server, method, path, &[BEARER], "").await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error), "{method} {path}");
        assert_eq!(answer.header("content-type"), "application/json; charset=utf-8", "{method} {path}");
    }
    assert_eq!(send(&server, "PUT", "/apps/app/events", &[], "").await.header("allow"), "POST,OPTIONS");
    assert_eq!(get(&server, "/apps/app/channels?filter_by_prefix=%ff%zz&info=%").await.status, 200);
}

#[tokio::test]
async fn preflights_list_the_methods_of_the_route() {
    let allow =
        json!({ "allowCors": true, "allowOrigin": "https://app.test", "allowMethods": "GET, POST", "allowHeaders": "Authorization" });
    let server = TestServer::start(json!({ "apiOriginAllow": allow, "headers": { "X-Frame-Options": "DENY" } })).await;
    for (path, methods) in [("/", "GET,HEAD"), ("/apps/app/channels/news", "GET,HEAD"), ("/apps/app/events", "POST")] {
        let answer = send(&server, "OPTIONS", path, &[], "").await;
        assert_eq!((answer.status, answer.header("allow"), answer.text.as_str()), (200, methods, methods), "{path}");
        for (name, value) in [("origin", "https://app.test"), ("methods", "GET, POST"), ("headers", "Authorization")] {
            assert_eq!(answer.header(&format!("access-control-allow-{name}")), value, "{path}");
        }
        assert_eq!(answer.header("x-frame-options"), "DENY");
    }
    assert_eq!(get(&server, "/apps/app/status").await.header("access-control-allow-origin"), "https://app.test");
    assert_eq!(send(&server, "GET", "/apps/app/status", &[], "").await.header("access-control-allow-origin"), "https://app.test");

    let silent = TestServer::start(json!({})).await;
    let answer = send(&silent, "OPTIONS", "/apps/app/events", &[], "").await;
    assert_eq!((answer.status, answer.header("allow"), answer.header("access-control-allow-origin")), (200, "POST", ""));
}
