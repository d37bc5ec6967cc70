//! A client at one end of a pipe, and the connection under test at the other, on paused time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use axum::http::header::{self, HeaderMap, HeaderValue};

use super::session::Session;
use super::upgrade::Carrier;
use super::version::EngineVersion;
use super::*;
use crate::auth::{AuthRequest, Authorizer, Denied, Grant};
use crate::client::Origin;
use crate::event::Event;
use crate::hub::Socket as _;
use crate::metrics::{Metrics, Source};
use crate::net::websocket::Connection;

/// Authorizes every subscribe.
struct AllowAll;

#[async_trait::async_trait]
impl Authorizer for AllowAll {
    async fn authorize(&self, _: AuthRequest<'_>) -> Result<Grant, Denied> {
        Ok(Grant::default())
    }
}

struct Peer {
    websockets: SocketIo,
    socket: Session,
    client: WebSocketStream<DuplexStream>,
    connection: JoinHandle<()>,
}

impl Peer {
    /// A client whose pipe holds `buffer` bytes in each direction.
    async fn with(protocol: EngineVersion, buffer: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::over(protocol, "a browser", buffer, change, |stream| stream).await
    }

    /// Like [`Self::with`], with a wrapper around the connection's end of the pipe.
    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        protocol: EngineVersion,
        agent: &'static str,
        buffer: usize,
        change: impl FnOnce(&mut Config),
        wrap: impl FnOnce(DuplexStream) -> S,
    ) -> Self {
        let mut config = Config::default();
        config.recovery.enabled = false;
        change(&mut config);
        let store = crate::store::open(&config).await.unwrap();
        let hub = Hub::new(&config, Arc::new(AllowAll), store, None, Arc::new(Metrics::new()));
        let websockets = SocketIo::new(&config, hub);
        let (ours, theirs) = tokio::io::duplex(buffer);
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let origin = Origin { peer: [127, 0, 0, 1].into(), handshake: headers, is_polling: false };
        let socket = Session::new(Arc::clone(&websockets.0), protocol, origin);
        let connection =
            Connection::new(wrap(ours), None, Carrier::session(socket.clone(), None), websockets.0.connections.max_message_bytes, false);
        let connection = websockets.0.connections.spawn(connection.run());
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        Self { websockets, socket, client, connection }
    }

    async fn new(protocol: EngineVersion) -> Self {
        Self::with(protocol, 64 * 1024, |_| {}).await
    }

    /// A connected Engine.IO 4 client.
    async fn connected() -> Self {
        let mut peer = Self::new(EngineVersion::V4).await;
        peer.say("40").await;
        assert!(peer.hear().await.starts_with("0{"));
        assert_eq!(peer.hear().await, peer.connected_as());
        peer
    }

    fn connected_as(&self) -> String {
        format!(r#"40{{"sid":"{}"}}"#, self.socket.id())
    }

    fn hub(&self) -> &Arc<Hub<Client>> {
        &self.websockets.0.hub
    }

    async fn say(&mut self, text: &str) {
        self.client.send(Message::text(text)).await.unwrap();
    }

    async fn hear(&mut self) -> String {
        loop {
            match self.client.next().await.unwrap().unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Pong(_) | Message::Close(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits for the end of the connection.
    async fn end(mut self) -> SocketIo {
        while let Some(Ok(message)) = self.client.next().await {
            assert!(matches!(&message, Message::Close(_)) || message == Message::text("2"), "{message:?}");
        }
        self.connection.await.unwrap();
        assert_eq!(self.websockets.0.hub.connections(), 0);
        self.websockets
    }

    fn publish(&self, channel: &str, name: &str) -> usize {
        let event = Event { channel, name: name.into(), data: RawValue::NULL, except: None, user: None };
        self.hub().publish(&event, Source::Http)
    }
}

#[tokio::test(start_paused = true)]
async fn engine_io_4_clients_send_connect_and_get_events() {
    let mut peer = Peer::new(EngineVersion::V4).await;
    let open: serde_json::Value = serde_json::from_str(&peer.hear().await[1..]).unwrap();
    assert_eq!((open["sid"].as_str(), open["upgrades"].as_array().map(Vec::len)), (Some(&*peer.socket.sid()), Some(0)));
    assert_ne!(peer.socket.sid(), peer.socket.id().to_string(), "the session's key is a secret");
    assert_eq!(peer.hub().connections(), 0);
    peer.say("40").await;
    assert_eq!(peer.hear().await, peer.connected_as());
    peer.say(r#"42["subscribe",{"channel":"news"}]"#).await;
    // A second CONNECT changes nothing. The answer to `40/other,` shows that the subscribe before it was handled.
    peer.say("40").await;
    peer.say("40/other,").await;
    assert_eq!(peer.hear().await, r#"44/other,{"message":"Invalid namespace"}"#);
    assert_eq!(peer.publish("news", "sent"), 1);
    assert_eq!(peer.hear().await, r#"42["sent","news",null]"#);
    peer.client.close(None).await.unwrap();
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn engine_io_3_clients_are_connected_at_once_and_send_the_pings() {
    let mut peer = Peer::new(EngineVersion::V3).await;
    assert!(peer.hear().await.starts_with("0{"));
    assert_eq!(peer.hear().await, "40");
    assert_eq!(peer.hub().connections(), 1);
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(30)).await;
    peer.say("2").await;
    assert_eq!(peer.hear().await, "3");
    peer.end().await;
    // pingInterval and pingTimeout after the last ping.
    assert_eq!(started.elapsed().as_secs(), 30 + 25 + 20);
}

#[tokio::test(start_paused = true)]
async fn engine_io_4_clients_are_pinged() {
    let mut peer = Peer::connected().await;
    let started = Instant::now();
    assert_eq!(peer.hear().await, "2");
    assert_eq!(started.elapsed().as_secs(), 25);
    peer.say("3").await;
    assert_eq!(peer.hear().await, "2");
    assert_eq!(started.elapsed().as_secs(), 50);
    peer.end().await;
    assert_eq!(started.elapsed().as_secs(), 50 + 20);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_sends_connect_is_closed() {
    let mut peer = Peer::new(EngineVersion::V4).await;
    let started = Instant::now();
    assert!(peer.hear().await.starts_with("0{"));
    assert_eq!(peer.hear().await, "2");
    peer.say("3").await;
    peer.end().await;
    assert_eq!(started.elapsed().as_secs(), 45);
}

#[tokio::test(start_paused = true)]
async fn a_message_before_connect_closes_the_connection() {
    let mut peer = Peer::new(EngineVersion::V4).await;
    assert!(peer.hear().await.starts_with("0{"));
    peer.say(r#"42["subscribe",{"channel":"news"}]"#).await;
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_disconnect_and_connect_again() {
    let mut peer = Peer::connected().await;
    peer.say("41").await;
    peer.say("40/other,").await;
    peer.hear().await;
    assert_eq!(peer.hub().connections(), 0);
    peer.say("40").await;
    assert!(peer.hear().await.starts_with("40{"));
    assert_eq!(peer.hub().connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_waits_for_its_binary_attachments() {
    let mut peer = Peer::connected().await;
    peer.say(r#"451-["subscribe",{"channel":"news","auth":{"_placeholder":true,"num":0}}]"#).await;
    peer.client.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    peer.say("40/other,").await;
    peer.hear().await;
    assert_eq!(peer.publish("news", "sent"), 1);
    assert_eq!(peer.hear().await, r#"42["sent","news",null]"#);
    // A text in place of an attachment ends the event, and counts by itself.
    peer.say(r#"452-["subscribe",{"channel":"lost","auth":{"_placeholder":true,"num":0}}]"#).await;
    peer.say(r#"42["subscribe",{"channel":"late"}]"#).await;
    peer.client.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    peer.say("40/other,").await;
    peer.hear().await;
    assert_eq!((peer.publish("lost", "sent"), peer.publish("late", "sent")), (0, 1));
    assert_eq!(peer.hear().await, r#"42["sent","late",null]"#);
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_with_too_many_attachments_is_ignored() {
    for (count, is_taken) in [(MAX_ATTACHMENTS, true), (MAX_ATTACHMENTS + 1, false)] {
        let mut peer = Peer::connected().await;
        peer.say(&format!(r#"45{count}-["subscribe",{{"channel":"news"}}]"#)).await;
        for _ in 0..count {
            peer.client.send(Message::binary(Vec::new())).await.unwrap();
        }
        peer.say("40/other,").await;
        peer.hear().await;
        assert_eq!(peer.publish("news", "sent"), usize::from(is_taken), "{count}");
    }
}

#[tokio::test(start_paused = true)]
async fn whispers_with_binary_attachments_are_refused() {
    let mut peer = Peer::connected().await;
    peer.say(r#"42["subscribe",{"channel":"private-a"}]"#).await;
    peer.say("40/other,").await;
    peer.hear().await;
    let whisper = |attachments: &str| format!(r#"4{attachments}["client event",{{"channel":"private-a","event":"client-x","data":1}}]"#);
    for (text, refused) in [(whisper("2"), r#"{cause="whisper"} 0"#), (whisper("51-"), r#"{cause="whisper"} 1"#)] {
        peer.say(&text).await;
        peer.client.send(Message::binary(vec![1])).await.unwrap();
        peer.say("40/other,").await;
        peer.hear().await;
        let metrics = peer.hub().metrics().render(std::iter::empty());
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("laravel_echo_refusals_total").filter(|line| line.contains("\"whisper\"")));
        assert_eq!(line, Some(refused));
    }
}

#[tokio::test(start_paused = true)]
async fn malformed_packets_are_ignored() {
    let mut peer = Peer::connected().await;
    for nonsense in ["", "9", "4", "49", "42", "42{}", "42[]", "42[5]", "45-", "4é", "2probe", "5", "b4AAAA", "hello"] {
        peer.say(nonsense).await;
    }
    peer.client.send(Message::binary(vec![1])).await.unwrap();
    peer.say(r#"42["subscribe",{"channel":"news"}]"#).await;
    peer.say("40/other,").await;
    assert_eq!(peer.hear().await, r#"44/other,{"message":"Invalid namespace"}"#);
    assert_eq!(peer.publish("news", "sent"), 1);
    assert_eq!(peer.hear().await, r#"42["sent","news",null]"#);
}

#[tokio::test(start_paused = true)]
async fn limits_are_per_connection_and_survive_a_second_connect() {
    let mut peer = Peer::with(EngineVersion::V4, 64 * 1024, |config| config.limits.subscribes_per_second = 1).await;
    peer.hear().await;
    let mut refused = 0;
    for _ in 0..4 {
        peer.say("40").await;
        peer.hear().await;
        peer.say(r#"42["subscribe",{"channel":"news"}]"#).await;
        peer.say("40/other,").await;
        if peer.hear().await.contains("subscription_error") {
            refused += 1;
            peer.hear().await;
        }
        peer.say("41").await;
    }
    assert_eq!(refused, 2, "the burst of two is used up");
}

#[tokio::test(start_paused = true)]
async fn engine_io_3_clients_get_a_namespace_error_as_text() {
    let mut peer = Peer::new(EngineVersion::V3).await;
    peer.hear().await;
    peer.hear().await;
    peer.say("40/?token=x").await;
    peer.say("40/other").await;
    assert_eq!(peer.hear().await, r#"44/other,"Invalid namespace""#, "and none for the query");
}

#[tokio::test(start_paused = true)]
async fn old_cpp_clients_that_wait_in_silence_are_connected() {
    let mut peer = Peer::over(EngineVersion::V4, "WebSocket++/0.8.2", 4096, |_| {}, |stream| stream).await;
    peer.hear().await;
    let started = Instant::now();
    assert_eq!(peer.hear().await, "40");
    assert_eq!((started.elapsed().as_secs(), peer.hub().connections()), (3, 1));
    peer.say("2").await;
    assert_eq!(peer.hear().await, "3");
    let mut newer = Peer::over(EngineVersion::V4, "WebSocket++/0.8.2", 4096, |_| {}, |stream| stream).await;
    newer.hear().await;
    newer.say("40").await;
    assert_eq!(newer.hear().await, newer.connected_as());
    assert_eq!(newer.hear().await, "2");
}

#[tokio::test(start_paused = true)]
async fn only_a_protocol_violation_is_answered_with_a_close_frame() {
    let mut peer = Peer::connected().await;
    peer.socket.client().close();
    assert!(peer.client.next().await.is_none_or(|message| message.is_err()), "no frame tells the client not to reconnect");
    let mut peer = Peer::connected().await;
    // Masked with zeros, with an unknown opcode.
    peer.client.get_mut().write_all(&[0x83, 0x80, 0, 0, 0, 0]).await.unwrap();
    match peer.client.next().await.unwrap().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1002),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_ends_the_connection() {
    let mut peer = Peer::with(EngineVersion::V3, 4096, |config| config.socketio.max_http_buffer_size = 100).await;
    peer.hear().await;
    peer.hear().await;
    peer.say(&"4".repeat(101)).await;
    let websockets = peer.end().await;
    let metrics = websockets.0.hub.metrics().render(std::iter::empty());
    assert!(metrics.contains("laravel_echo_refusals_total{cause=\"message_size\"} 1\n"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn many_frames_arrive_whole_and_in_order_through_a_tiny_buffer() {
    let mut peer = Peer::with(EngineVersion::V3, 7, |_| {}).await;
    let frames = 500;
    for n in 0..frames {
        let text = format!("{n}:{}", "x".repeat(n));
        peer.socket.outbox().send(crate::net::websocket::text_frame(0, |frame| frame.extend_from_slice(text.as_bytes()))).unwrap();
    }
    peer.client.send(Message::Ping("are you there".into())).await.unwrap();
    let mut heard = Vec::new();
    let mut is_answered = false;
    while heard.len() < frames || !is_answered {
        match peer.client.next().await.unwrap().unwrap() {
            Message::Text(text) if text.contains(':') && text.contains(|c: char| c.is_ascii_digit()) && !text.starts_with("0{") => {
                heard.push(text.to_string())
            }
            Message::Text(_) => {}
            Message::Pong(data) => is_answered = data == "are you there",
            other => panic!("{other:?}"),
        }
    }
    for (n, text) in heard.iter().enumerate() {
        assert_eq!(*text, format!("{n}:{}", "x".repeat(n)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_buffering_stream_is_flushed() {
    // TLS buffers like this when the kernel takes no more.
    let mut peer = Peer::over(EngineVersion::V3, "a browser", 7, |_| {}, BufStream::new).await;
    assert!(peer.hear().await.starts_with("0{"));
    assert_eq!(peer.hear().await, "40");
    peer.socket.client().terminate();
    assert_eq!(peer.hear().await, "41");
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_blocked_connection_can_be_closed() {
    let peer = Peer::with(EngineVersion::V3, 16, |config| config.limits.client_queue = 10).await;
    let frame = || crate::net::websocket::text_frame(0, |frame| frame.resize(frame.len() + 100, b'x'));
    while peer.socket.outbox().send(frame()).is_ok() {
        tokio::task::yield_now().await;
    }
    peer.socket.client().close();
    peer.connection.await.unwrap();
    assert_eq!(peer.websockets.0.hub.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_told_to_disconnect_has_ten_seconds() {
    let mut peer = Peer::connected().await;
    let started = Instant::now();
    peer.socket.client().terminate();
    assert_eq!(peer.hear().await, "41");
    assert_eq!(peer.hub().connections(), 0);
    peer.end().await;
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_clients_that_have_not_connected_yet() {
    let mut peer = Peer::new(EngineVersion::V4).await;
    assert!(peer.hear().await.starts_with("0{"));
    let websockets = peer.websockets.clone();
    websockets.close().await;
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_clients_that_have_disconnected() {
    let mut left = Peer::connected().await;
    left.say("41").await;
    left.say("40/other,").await;
    left.hear().await;
    let mut told_to_go = Peer::connected().await;
    told_to_go.socket.client().terminate();
    assert_eq!(told_to_go.hear().await, "41");
    let started = Instant::now();
    for peer in [left, told_to_go] {
        let websockets = peer.websockets.clone();
        websockets.close().await;
        peer.end().await;
    }
    assert_eq!(started.elapsed(), Duration::ZERO, "shutdown waits for no client");
}
