//! Compressed messages (`permessage-deflate`) on the wire: negotiation, sending and receiving.

use std::io::Read as _;
use std::net::SocketAddr;

use flate2::Compression;
use flate2::bufread::{DeflateDecoder, DeflateEncoder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{DEADLINE, TestServer, metrics};

const TEXT: u8 = 0x81;
const DEFLATED_TEXT: u8 = 0xc1;
const CLOSE: u8 = 0x88;
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A client that sees raw frames.
struct Wire {
    stream: TcpStream,
    /// The extensions in the server's answer.
    extensions: Option<String>,
}

impl Wire {
    async fn open(address: SocketAddr, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("the connection is open");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(DEADLINE, stream.read_u8()).await.expect("an answer in time").expect("an answer"));
        }
        let head = String::from_utf8(head).expect("a head is text").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        let extensions = head.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: ")).map(str::to_owned);
        Self { stream, extensions }
    }

    /// The next frame: its first byte and its payload. `None`: the connection has ended.
    async fn try_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let first = self.stream.read_u8().await.ok()?;
            let length = match self.stream.read_u8().await.ok()? {
                126 => self.stream.read_u16().await.ok()?.into(),
                127 => self.stream.read_u64().await.ok()?,
                length => length.into(),
            };
            let mut payload = vec![0; usize::try_from(length).expect("it fits into memory")];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some((first, payload))
        };
        tokio::time::timeout(DEADLINE, read).await.expect("a frame in time")
    }

    async fn frame(&mut self) -> (u8, Vec<u8>) {
        self.try_frame().await.expect("the connection goes on")
    }

    /// The next frame whose text contains `part`: its first byte, its length on the wire, and its text.
    async fn with(&mut self, part: &str) -> (u8, usize, String) {
        loop {
            let (first, payload) = self.frame().await;
            let plain = if first == DEFLATED_TEXT { inflated(&payload) } else { payload.clone() };
            let text = String::from_utf8(plain).expect("messages are text");
            if text.contains(part) {
                return (first, payload.len(), text);
            }
        }
    }

    async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(length).expect("tests send little").to_be_bytes());
            }
        }
        // A mask of zeros leaves the payload unchanged.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await.expect("the connection is open");
    }

    /// A Socket.IO client that has subscribed to the channel.
    async fn in_channel(server: &TestServer, headers: &str, channel: &str) -> Self {
        let mut wire = Self::open(server.address, "/socket.io/?EIO=4&transport=websocket", headers).await;
        let before = server.subscription_count(channel).await;
        let subscribe = format!(r#"42["subscribe",{{"channel":"{channel}"}}]"#);
        if wire.extensions.is_some() {
            wire.send(DEFLATED_TEXT, &deflated(b"40")).await;
            // In two frames; only the first one marks the message as compressed.
            let packed = deflated(subscribe.as_bytes());
            let (begin, end) = packed.split_at(packed.len() / 2);
            wire.send(0x41, begin).await;
            wire.send(0x80, end).await;
        } else {
            wire.send(TEXT, b"40").await;
            wire.send(TEXT, subscribe.as_bytes()).await;
        }
        server.subscribed(channel, before + 1).await;
        wire
    }
}

/// Compresses like a client: without the last four bytes of the flush.
fn deflated(plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    DeflateEncoder::new(plain, Compression::best()).read_to_end(&mut packed).expect("reading memory cannot fail");
    // The encoder ends with a final block; a flushed empty block after it ends a message (RFC 7692, 7.2.3.4).
    packed.push(0);
    packed
}

fn inflated(message: &[u8]) -> Vec<u8> {
    let whole = [message, &[0, 0, 0xff, 0xff, 3, 0]].concat();
    let mut plain = Vec::new();
    DeflateDecoder::new(&whole[..]).read_to_end(&mut plain).expect("a compressed message");
    plain
}

fn offering(more: &str) -> String {
    format!("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n{more}")
}

async fn publish(server: &TestServer, data: &Value) {
    let url = server.url("/apps/app/events?auth_key=test-key");
    let body = json!({ "channel": "news", "name": "sent", "data": data.to_string() }).to_string();
    let answer = reqwest::Client::new().post(url).body(body).send().await.expect("the server answers");
    assert_eq!(answer.status(), 200);
}

/// About 20 KB, like a table of customers.
fn rows() -> Value {
    (0..200)
        .map(|n| json!({ "id": n, "name": format!("Customer {n}"), "mail": format!("customer{n}@example.com"), "note": "wörld" }))
        .collect()
}

#[tokio::test]
async fn long_events_are_compressed_for_clients_that_agreed() {
    let server = TestServer::start(json!({})).await;
    let mut packed = Wire::in_channel(&server, &offering(""), "news").await;
    let mut plain = Wire::in_channel(&server, "", "news").await;
    let safari = "User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15\r\n";
    let mut apple = Wire::in_channel(&server, &offering(safari), "news").await;
    assert_eq!((packed.extensions.as_deref(), &plain.extensions, &apple.extensions), (Some(AGREED), &None, &None));
    publish(&server, &rows()).await;
    let (first, bytes, text) = packed.with("Customer 199").await;
    assert_eq!((first, bytes < text.len() / 5), (DEFLATED_TEXT, true), "{bytes} of {}", text.len());
    assert!(text.starts_with(r#"42["sent","news",[{"id":0"#), "{text}");
    for other in [&mut plain, &mut apple] {
        let (first, bytes, same) = other.with("Customer 199").await;
        assert_eq!((first, bytes, &same), (TEXT, text.len(), &text));
    }
    publish(&server, &json!({ "n": 1 })).await;
    assert_eq!(packed.with("\"n\":1").await.0, TEXT, "short events are not compressed");
}

#[tokio::test]
async fn the_threshold_is_configurable() {
    for (option, first) in [(json!(false), TEXT), (json!({ "threshold": 1_000_000 }), TEXT), (json!({ "threshold": 10 }), DEFLATED_TEXT)] {
        let server = TestServer::start(json!({ "socketio": { "perMessageDeflate": option } })).await;
        let mut client = Wire::in_channel(&server, &offering(""), "news").await;
        assert_eq!(client.extensions.is_some(), option != json!(false));
        publish(&server, &json!("equal parts ".repeat(50))).await;
        assert_eq!(client.with("equal parts").await.0, first, "{option}");
    }
}

#[tokio::test]
async fn pusher_clients_can_use_it_too() {
    let server = TestServer::start(json!({ "clients": [{ "appId": "app", "key": "test-key", "secret": "s" }] })).await;
    let mut client = Wire::open(server.address, "/app/test-key?protocol=7", &offering("")).await;
    assert_eq!(client.extensions.as_deref(), Some(AGREED));
    client.send(DEFLATED_TEXT, &deflated(br#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#)).await;
    client.with("subscription_succeeded").await;
    publish(&server, &rows()).await;
    let (first, bytes, text) = client.with("Customer 199").await;
    assert_eq!((first, bytes < text.len() / 5), (DEFLATED_TEXT, true));
}

#[tokio::test]
async fn an_upgraded_client_gets_compressed_events() {
    let server = TestServer::start(json!({})).await;
    let http = reqwest::Client::new();
    let url = server.url("/socket.io/?EIO=4&transport=polling");
    let open = http.get(&url).send().await.unwrap().text().await.unwrap();
    let open: Value = serde_json::from_str(&open[1..]).unwrap();
    let sid = open["sid"].as_str().unwrap();
    let url = format!("{url}&sid={sid}");
    let post = async |packet: &str| assert_eq!(http.post(&url).body(packet.to_owned()).send().await.unwrap().status(), 200);
    post("40").await;
    post(r#"42["subscribe",{"channel":"news"}]"#).await;
    server.subscribed("news", 1).await;
    let path = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
    let mut wire = Wire::open(server.address, &path, &offering("")).await;
    assert!(wire.extensions.is_some());
    // Before the upgrade, a poll gets the event uncompressed.
    publish(&server, &rows()).await;
    let polled = http.get(&url).send().await.unwrap().text().await.unwrap();
    assert!(polled.contains("Customer 199") && polled.contains("wörld"));
    wire.send(DEFLATED_TEXT, &deflated(b"2probe")).await;
    assert_eq!(wire.frame().await, (TEXT, b"3probe".to_vec()));
    wire.send(TEXT, b"5").await;
    // The upgrade is complete once the session handles a later message.
    wire.send(TEXT, br#"42["subscribe",{"channel":"more"}]"#).await;
    server.subscribed("more", 1).await;
    publish(&server, &rows()).await;
    assert_eq!(wire.with("Customer 199").await.0, DEFLATED_TEXT);
}

#[tokio::test]
async fn the_size_of_a_compressed_message_is_limited_after_decompression() {
    for limit in [json!({}), json!({ "socketio": { "maxHttpBufferSize": "20KB" } })] {
        let server = TestServer::start(limit).await;
        let mut client = Wire::in_channel(&server, &offering(""), "news").await;
        // 30 MB in 30 KB; the maximum ratio would be a gigabyte in a megabyte.
        let bomb = deflated(&vec![b'0'; 30_000_000]);
        assert!(bomb.len() < 40_000);
        let mut sent = Vec::new();
        // In frames below the limit.
        for (index, part) in bomb.chunks(15_000).enumerate() {
            let is_last = (index + 1) * 15_000 >= bomb.len();
            let (opcode, fin) = (if index == 0 { 0x41 } else { 0 }, if is_last { 0x80 } else { 0 });
            sent.push((opcode | fin, part.to_vec()));
        }
        for (first, part) in sent {
            client.send(first, &part).await;
        }
        let close = loop {
            let (first, payload) = client.frame().await;
            if first == CLOSE {
                break payload;
            }
        };
        assert_eq!(close, 1009_u16.to_be_bytes());
        assert_eq!(client.try_frame().await, None);
        let metrics = metrics(server.address).await;
        assert!(metrics.contains("laravel_echo_refusals_total{cause=\"message_size\"} 1\n"), "{metrics}");
    }
}

#[tokio::test]
async fn invalid_compressed_data_ends_the_connection() {
    let server = TestServer::start(json!({})).await;
    for (headers, first, payload, code) in
        [(offering(""), DEFLATED_TEXT, &[7][..], 1007_u16), (String::new(), DEFLATED_TEXT, &[0], 1002), (offering(""), 0xa1, b"40", 1002)]
    {
        let mut client = Wire::open(server.address, "/socket.io/?EIO=4&transport=websocket", &headers).await;
        assert_eq!(client.frame().await.0, TEXT);
        client.send(first, payload).await;
        assert_eq!(client.frame().await, (CLOSE, code.to_be_bytes().to_vec()));
        assert_eq!(client.try_frame().await, None);
    }
}
