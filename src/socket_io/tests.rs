//! A client at one end of a pipe, the connection under test at the other; the clock stands still until all wait.

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
use crate::config::value::ByteSize;
use crate::event::Event;
use crate::hub::Socket as _;
use crate::metrics::{Metrics, Source};
use crate::net::websocket::Connection;

/// Lets everybody in.
struct Everybody;

#[async_trait::async_trait]
impl Authorizer for Everybody {
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
    /// A client whose connection holds `buffer` bytes in each direction.
    async fn with(protocol: EngineVersion, buffer: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::over(protocol, "a browser", buffer, change, |stream| stream).await
    }

    /// As [`Self::with`], with something between the connection and its end of the pipe.
    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        protocol: EngineVersion,
        agent: &'static str,
        buffer: usize,
        change: impl FnOnce(&mut Config),
        wrap: impl FnOnce(DuplexStream) -> S,
    ) -> Self {
        let mut config = Config::default();
        config.recovery.enabled.0 = false;
        change(&mut config);
        let store = crate::store::open(&config).await.unwrap();
        let hub = Hub::new(&config, Arc::new(Everybody), store, None, Arc::new(Metrics::new()));
        let websockets = SocketIo::new(&config, hub);
        let (ours, theirs) = tokio::io::duplex(buffer);
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let origin = Origin { peer: [127, 0, 0, 1].into(), handshake: headers, is_polling: false };
        let socket = Session::new(Arc::clone(&websockets.0), protocol, origin);
        let connection =
            Connection::new(wrap(ours), Carrier::session(socket.clone(), None), websockets.0.connections.max_message_bytes, false);
        let connection = websockets.0.connections.spawn(connection.run());
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        Self { websockets, socket, client, connection }
    }

    async fn new(protocol: EngineVersion) -> Self {
        Self::with(protocol, 64 * 1024, |_| {}).await
    }

    /// A client of Engine.IO 4 that is connected.
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
async fn newer_clients_say_connect_and_get_events() {
    let mut peer = Peer::new(EngineVersion::V4).await;
    let open: serde_json::Value = serde_json::from_str(&peer.hear().await[1..]).unwrap();
    assert_eq!((open["sid"].as_str(), open["upgrades"].as_array().map(Vec::len)), (Some(&*peer.socket.sid()), Some(0)));
    assert_ne!(peer.socket.sid(), peer.socket.id().to_string(), "the session's key is a secret");
    assert_eq!(peer.hub().connections(), 0);
    peer.say("40").await;
    assert_eq!(peer.hear().await, peer.connected_as());
    peer.say(r#"42["subscribe",{"channel":"news"}]"#).await;
    // A second CONNECT changes nothing, and says by the silence after it that the subscribe is done.
    peer.say("40").await;
    peer.say("40/other,").await;
    assert_eq!(peer.hear().await, r#"44/other,{"message":"Invalid namespace"}"#);
    assert_eq!(peer.publish("news", "sent"), 1);
    assert_eq!(peer.hear().await, r#"42["sent","news",null]"#);
    peer.client.close(None).await.unwrap();
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn older_clients_are_connected_at_once_and_ask_for_signs_of_life() {
    let mut peer = Peer::new(EngineVersion::V3).await;
    assert!(peer.hear().await.starts_with("0{"));
    assert_eq!(peer.hear().await, "40");
    assert_eq!(peer.hub().connections(), 1);
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(30)).await;
    peer.say("2").await;
    assert_eq!(peer.hear().await, "3");
    peer.end().await;
    // pingInterval and pingTimeout after the last sign.
    assert_eq!(started.elapsed().as_secs(), 30 + 25 + 20);
}

#[tokio::test(start_paused = true)]
async fn newer_clients_are_asked_for_signs_of_life() {
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
async fn a_client_that_never_says_connect_is_closed() {
    let mut peer = Peer::new(EngineVersion::V4).await;
    let started = Instant::now();
    assert!(peer.hear().await.starts_with("0{"));
    assert_eq!(peer.hear().await, "2");
    peer.say("3").await;
    peer.end().await;
    assert_eq!(started.elapsed().as_secs(), 45);
}

#[tokio::test(start_paused = true)]
async fn nobody_speaks_before_connect() {
    let mut peer = Peer::new(EngineVersion::V4).await;
    assert!(peer.hear().await.starts_with("0{"));
    peer.say(r#"42["subscribe",{"channel":"news"}]"#).await;
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_leave_and_come_back() {
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
async fn binary_parts_are_waited_for() {
    let mut peer = Peer::connected().await;
    peer.say(r#"451-["subscribe",{"channel":"news","auth":{"_placeholder":true,"num":0}}]"#).await;
    peer.client.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    peer.say("40/other,").await;
    peer.hear().await;
    assert_eq!(peer.publish("news", "sent"), 1);
    peer.say(r#"452-["subscribe",{"_placeholder":true,"num":0}]"#).await;
    peer.say(r#"42["subscribe",{"channel":"late"}]"#).await;
    assert_eq!(peer.hear().await, r#"42["sent","news",null]"#);
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_ignored() {
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
async fn limits_belong_to_the_connection() {
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
async fn older_clients_hear_of_a_wrong_namespace_in_text() {
    let mut peer = Peer::new(EngineVersion::V3).await;
    peer.hear().await;
    peer.hear().await;
    peer.say("40/other").await;
    assert_eq!(peer.hear().await, r#"44/other,"Invalid namespace""#);
}

#[tokio::test(start_paused = true)]
async fn old_cpp_clients_wait_in_silence_and_are_connected() {
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
async fn a_connection_ends_without_a_word_but_for_who_breaks_its_rules() {
    let mut peer = Peer::connected().await;
    peer.socket.client().close();
    assert!(peer.client.next().await.is_none_or(|message| message.is_err()), "clients that are to come back hear nothing");
    let mut peer = Peer::connected().await;
    // Masked with zeros, of an opcode that nobody knows.
    peer.client.get_mut().write_all(&[0x83, 0x80, 0, 0, 0, 0]).await.unwrap();
    match peer.client.next().await.unwrap().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1002),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_larger_message_than_allowed_ends_the_connection() {
    let mut peer = Peer::with(EngineVersion::V3, 4096, |config| config.socketio.max_http_buffer_size = ByteSize(100)).await;
    peer.hear().await;
    peer.hear().await;
    peer.say(&"4".repeat(101)).await;
    let websockets = peer.end().await;
    let metrics = websockets.0.hub.metrics().render(std::iter::empty());
    assert!(metrics.contains("laravel_echo_refusals_total{cause=\"message_size\"} 1\n"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn many_frames_arrive_whole_and_in_order_however_small_the_steps() {
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
async fn what_the_stream_keeps_is_asked_for() {
    // As TLS does when the kernel takes no more.
    let mut peer = Peer::over(EngineVersion::V3, "a browser", 7, |_| {}, BufStream::new).await;
    assert!(peer.hear().await.starts_with("0{"));
    assert_eq!(peer.hear().await, "40");
    peer.socket.client().terminate();
    assert_eq!(peer.hear().await, "41");
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_stuck_can_be_closed() {
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
async fn a_client_that_is_told_to_go_has_a_while_to_do_so() {
    let mut peer = Peer::connected().await;
    let started = Instant::now();
    peer.socket.client().terminate();
    assert_eq!(peer.hear().await, "41");
    assert_eq!(peer.hub().connections(), 0);
    peer.end().await;
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_server_closes_those_it_does_not_know_yet() {
    let mut peer = Peer::new(EngineVersion::V4).await;
    assert!(peer.hear().await.starts_with("0{"));
    let websockets = peer.websockets.clone();
    websockets.close().await;
    peer.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_server_closes_those_that_have_left() {
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
    assert_eq!(started.elapsed(), Duration::ZERO, "nobody is waited for");
}
