//! Invariants for anything that polling clients send. Input: bytes. Output: a panic when one is violated.

use std::cell::OnceCell;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use serde_json::Value;

use super::{Server, TOKEN, answered, block_on, emptied, start, token};

/// The separator between packets in Engine.IO 4.
const SEPARATOR: char = '\u{1e}';

thread_local! {
    static SERVER: OnceCell<Server> = const { OnceCell::new() };
}

/// One action of a client.
enum Step {
    /// Sends these packets, encoded for its protocol version.
    Packets(String),
    /// Sends this body unchanged, with this content type.
    Body(Vec<u8>, &'static str),
    /// Sends another poll while one is pending.
    Poll,
}

/// A session with its protocol version, 3 or 4, and its id.
struct Session<'a> {
    server: &'a Server,
    version: u8,
    id: String,
}

/// The same session with Engine.IO 3 and 4. Each line is a request with text packets, unless it begins with one of the
/// bytes 1 (a raw binary body), 2 (a raw text body) and 3 (one more poll). Answers are complete packets or errors; after
/// both clients have left, no state of them remains.
pub fn polling_sessions(bytes: &[u8]) {
    let steps: Vec<Step> = bytes.split(|byte| *byte == b'\n').map(step).collect();
    SERVER.with(|server| {
        let server = server.get_or_init(|| start(0));
        block_on(async {
            tokio::join!(converse(server, 3, &steps), converse(server, 4, &steps));
            emptied(server).await;
        });
    });
}

fn step(line: &[u8]) -> Step {
    match line {
        [1, rest @ ..] => Step::Body(rest.to_vec(), "application/octet-stream"),
        [2, rest @ ..] => Step::Body(rest.to_vec(), "text/plain"),
        [3, ..] => Step::Poll,
        text => match std::str::from_utf8(text) {
            Ok(text) => Step::Packets(text.replace(TOKEN, token())),
            Err(_) => Step::Body(text.to_vec(), "text/plain"),
        },
    }
}

/// Runs a session from start to end; the client always sends a close packet last.
async fn converse(server: &Server, version: u8, steps: &[Step]) {
    let mut session = Session { server, version, id: String::new() };
    let open = session.poll().await.expect("the server takes clients");
    let open: Value = serde_json::from_str(open[0].strip_prefix('0').expect("an open packet")).expect("JSON");
    session.id = format!("&sid={}", open["sid"].as_str().expect("an id"));
    let reading = async {
        while let Some(packets) = session.poll().await {
            if packets.iter().any(|packet| packet == "1") {
                break;
            }
        }
    };
    let writing = async {
        for step in steps {
            match step {
                Step::Packets(packets) => session.send(packets).await,
                Step::Body(body, content_type) => session.post(body.clone(), content_type).await,
                Step::Poll => drop(session.poll().await),
            }
        }
        session.send("1").await;
    };
    tokio::join!(reading, writing);
}

impl Session<'_> {
    async fn request(&self, method: Method, body: Vec<u8>, content_type: &str) -> (StatusCode, String) {
        let uri = format!("/socket.io/?EIO={}&transport=polling{}", self.version, self.id);
        let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, content_type);
        let request = request.body(Body::from(body)).expect("a valid request");
        let Some(response) = answered(self.server, request).await else {
            return (StatusCode::BAD_REQUEST, String::new());
        };
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("answers are whole");
        let text = String::from_utf8(body.into()).expect("nothing binary is sent");
        if status == StatusCode::BAD_REQUEST && !text.is_empty() {
            let error: Value = serde_json::from_str(&text).expect("errors are JSON");
            assert!(error["code"].is_u64() && error["message"].is_string(), "{error}");
        }
        (status, text)
    }

    /// The packets queued for the client; `None` when the session has ended.
    async fn poll(&self) -> Option<Vec<String>> {
        let (status, text) = self.request(Method::GET, Vec::new(), "text/plain").await;
        if status == StatusCode::BAD_REQUEST || text.is_empty() {
            return None;
        }
        assert_eq!(status, StatusCode::OK, "{text}");
        let packets = if self.version == 4 { text.split(SEPARATOR).map(str::to_owned).collect() } else { packets(&text) };
        for packet in &packets {
            assert!(packet.starts_with(|kind: char| ('0'..='6').contains(&kind)), "{packet} in {text}");
        }
        Some(packets)
    }

    async fn send(&self, packets: &str) {
        let body = match self.version {
            4 => packets.to_owned(),
            _ => packets.split(SEPARATOR).map(|packet| format!("{}:{packet}", packet.chars().count())).collect(),
        };
        self.post(body.into(), "text/plain;charset=UTF-8").await;
    }

    async fn post(&self, body: Vec<u8>, content_type: &str) {
        let (status, text) = self.request(Method::POST, body, content_type).await;
        match status {
            StatusCode::OK => assert_eq!(text, "ok"),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {}
            _ => panic!("{status} {text}"),
        }
    }
}

/// Decodes packets of Engine.IO 3, each prefixed with its length in characters.
fn packets(payload: &str) -> Vec<String> {
    let (mut packets, mut rest) = (Vec::new(), payload);
    while !rest.is_empty() {
        let (length, after) = rest.split_once(':').expect("a length");
        let length = length.parse().expect("a length");
        let packet: String = after.chars().take(length).collect();
        assert_eq!(packet.chars().count(), length, "{payload}");
        rest = &after[packet.len()..];
        packets.push(packet);
    }
    packets
}
