//! Invariants for anything that clients and callers of the HTTP API send. Input: bytes. Output: a panic when one is
//! violated. The target is a complete server, reached through in-memory streams.

use std::cell::OnceCell;
use std::sync::OnceLock;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::direct::Connection;
use super::{Server, listen};
use crate::config::Config;
use crate::fuzzing::block_on;
use crate::net::connection::ConnectionHandle;
use crate::net::stream::Stream;

mod polling;

pub use polling::polling_sessions;

const SECRET: &str = "fuzzing";
/// Placeholder in packets for a token that grants every channel.
const TOKEN: &str = "%TOKEN%";
/// Maximum message size of a client, low enough for short inputs to reach it.
const LARGEST_MESSAGE: usize = 2_000;
/// Time for the server to notice that clients have disconnected.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(20);

const HANDSHAKE: &[u8] = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

const PUSHER_HANDSHAKE: &[u8] = b"GET /app/key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

thread_local! {
    static SERVER: OnceCell<Server> = const { OnceCell::new() };
}

/// Runs with the server of most targets, which is reused for all inputs.
fn with_server<T>(run: impl FnOnce(&Server) -> T) -> T {
    SERVER.with(|server| run(server.get_or_init(|| start(50))))
}

/// A server for at most this many clients (0: no limit), whose application is unreachable.
fn start(connections: u64) -> Server {
    let settings = json!({
        "host": "127.0.0.1",
        "authHost": "http://127.0.0.1:1",
        "auth": { "jwt": { "algorithm": "HS256", "secret": SECRET } },
        "clients": [{ "appId": "app", "key": "key", "secret": "secret" }],
        "subscribers": { "redis": false },
        "socketio": { "maxHttpBufferSize": LARGEST_MESSAGE, "pingInterval": 100, "pingTimeout": 100 },
        "limits": { "connections": connections, "subscriptions": 10, "channelName": 60, "eventName": 60, "apiBody": 4000 },
    });
    let mut config: Config = serde_json::from_value(settings).expect("valid settings");
    config.port = 0;
    block_on(Server::bind(config)).expect("the server can be bound")
}

/// Two clients send the same packets, one per line: as a text frame, unless the line begins with one of the bytes 1 (binary
/// frame), 2 (raw bytes without a frame) and 3 (text in two frames). After both have left, no state of them remains.
pub fn client_packets(bytes: &[u8]) {
    let sent = [HANDSHAKE, &frames(bytes)].concat();
    with_server(|server| {
        block_on(async {
            let (first, second) = tokio::join!(converse(server, &sent), converse(server, &sent));
            for answer in [first, second] {
                assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
            }
            emptied(server).await;
        });
    });
}

/// As [`client_packets`], in Pusher's protocol. Each answer is an event whose data is a string, as native clients require.
pub fn pusher_packets(bytes: &[u8]) {
    let sent = [PUSHER_HANDSHAKE, &frames(bytes)].concat();
    with_server(|server| {
        block_on(async {
            let (first, second) = tokio::join!(converse(server, &sent), converse(server, &sent));
            for answer in [first, second] {
                assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
                let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("the head ends") + 4;
                for text in texts(&answer[end..]) {
                    let message: Value = serde_json::from_str(text).expect("messages are JSON");
                    let event = message["event"].as_str().expect("messages are events");
                    let data = &message["data"];
                    let is_object = matches!(event, "pusher:error" | "pusher:subscription_error");
                    assert!(if is_object { data.is_object() } else { data.is_string() || event == "pusher:cache_miss" }, "{text}");
                }
            }
            emptied(server).await;
        });
    });
}

/// The payloads of the server's text frames.
fn texts(mut frames: &[u8]) -> Vec<&str> {
    let mut texts = Vec::new();
    while let [opcode, short, rest @ ..] = frames {
        let (length, rest) = match (short, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [_, _, _, _, a, b, c, d, rest @ ..]) => (u32::from_be_bytes([*a, *b, *c, *d]) as usize, rest),
            (length, rest) => (usize::from(*length), rest),
        };
        // The connection may end in the middle of a frame.
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        if *opcode == 0x81 {
            texts.push(std::str::from_utf8(payload).expect("texts are UTF-8"));
        }
        frames = rest;
    }
    texts
}

/// Waits until the server has no connections and no channels.
async fn emptied(server: &Server) {
    let hub = &server.reload.parts().hub;
    let leaving = async {
        while hub.connections() > 0 || !hub.channels("").is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let is_empty = tokio::time::timeout(DISCONNECT_TIMEOUT, leaving).await.is_ok();
    assert!(is_empty, "{} connections and {:?} are left", hub.connections(), hub.channels(""));
}

/// Sends bytes on a new connection and returns the response.
async fn converse(server: &Server, sent: &[u8]) -> Vec<u8> {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let handle = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
    let stream = Stream::boxed(ours).monitored(Vec::new(), &handle, DISCONNECT_TIMEOUT);
    let serving = tokio::spawn(listen::requests(Connection::watched(stream, handle, server.reload.service(), CancellationToken::new())));
    let (mut reader, mut writer) = tokio::io::split(theirs);
    let writing = async {
        // The server may close the connection before everything is written.
        let _ = writer.write_all(sent).await;
        let _ = writer.shutdown().await;
    };
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(writing, reader.read_to_end(&mut answer));
    read.expect("memory can be read");
    serving.await.expect("no connection panics");
    answer
}

/// The token that replaces [`TOKEN`].
fn token() -> &'static str {
    static TOKEN_TEXT: OnceLock<String> = OnceLock::new();
    TOKEN_TEXT.get_or_init(|| {
        crate::jws::install();
        let claims = json!({ "sub": 7, "channels": ["*"], "info": { "name": "Ann" } });
        encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("claims are JSON")
    })
}

fn frames(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        match line {
            [1, rest @ ..] => frame(&mut out, 0x82, rest),
            [2, rest @ ..] => out.extend(rest),
            [3, rest @ ..] => {
                let (first, second) = rest.split_at(rest.len() / 2);
                frame(&mut out, 0x01, first);
                frame(&mut out, 0x80, second);
            }
            text => match std::str::from_utf8(text) {
                Ok(text) => frame(&mut out, 0x81, text.replace(TOKEN, token()).as_bytes()),
                Err(_) => frame(&mut out, 0x81, text),
            },
        }
    }
    out
}

/// Appends a client frame, masked with zeros.
fn frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    const MASKED: u8 = 0x80;
    out.push(opcode);
    match payload.len() {
        length @ 0..126 => out.push(MASKED | length as u8),
        length @ 126..0x1_0000 => {
            out.push(MASKED | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
}

/// A request: a line such as `POST /apps/app/events?auth_key=key`, header lines, an empty line, the body. It is answered
/// without an internal error, and errors of the API are JSON with an `error`.
pub fn http_request(bytes: &[u8]) {
    let Some(request) = request(bytes) else { return };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    with_server(|server| {
        block_on(async {
            let Some(response) = answered(server, request).await else { return };
            let status = response.status();
            let body = to_bytes(response.into_body(), usize::MAX).await.expect("answers are whole");
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}");
            if path.starts_with("/apps/") && method != Method::HEAD && status.is_client_error() {
                let answer: Value = serde_json::from_slice(&body).expect("errors are JSON");
                assert!(answer["error"].is_string(), "{method} {path}: {answer}");
            }
        });
    });
}

/// The response to a request; `None` when the server closes the connection without one.
async fn answered(server: &Server, request: Request<Body>) -> Option<Response<Body>> {
    let connection = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
    let answer = server.reload.service().load().answer(request, &connection);
    answer.await.ok()
}

fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((bytes, &[] as &[u8]), |end| (&bytes[..end], &bytes[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, uri) = first.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(uri).body(Body::from(body.to_vec())).ok()?;
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (HeaderName::from_bytes(&line[..at]).ok()?, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
        request.headers_mut().append(name, value);
    }
    Some(request)
}
