//! Clients that poll, and those that upgrade, against an in-memory gate, on paused time.

use std::time::Duration;

use axum::http::Method;
use axum::http::Request;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::admission::Admission;
use crate::auth::{AuthRequest, Authorizer, Denied, Grant};
use crate::config::Config;
use crate::event::Event;
use crate::hub::{Hub, Socket as _};
use crate::metrics::{Metrics, Source};
use crate::net::answer::Answer;
use crate::net::connection::ConnectionHandle;
use crate::net::websocket::Connection;
use crate::proxies::TrustedProxies;
use crate::socket_io::SocketIo;
use crate::socket_io::gate::Gate;
use crate::socket_io::upgrade::Carrier;

struct AllowAll;

#[async_trait::async_trait]
impl Authorizer for AllowAll {
    async fn authorize(&self, _: AuthRequest<'_>) -> Result<Grant, Denied> {
        Ok(Grant::default())
    }
}

/// A server, and one client of it.
struct Client {
    hub: Arc<Hub<crate::client::Client>>,
    socket_io: SocketIo,
    gate: Gate,
    version: u8,
    sid: String,
}

type Body = axum::body::Body;

impl Client {
    async fn with(version: u8, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.recovery.enabled = false;
        change(&mut config);
        let store = crate::store::open(&config).await.unwrap();
        let hub = Hub::new(&config, Arc::new(AllowAll), store, None, Arc::new(Metrics::new()));
        let socket_io = SocketIo::new(&config, Arc::clone(&hub));
        let gate = Gate::new(&config, socket_io.clone(), Admission::new(&config.limits), TrustedProxies::new(&[]));
        let mut client = Self { hub, socket_io, gate, version, sid: String::new() };
        let open = client.poll().await.unwrap();
        let json: serde_json::Value = serde_json::from_str(open[0].strip_prefix('0').unwrap()).unwrap();
        assert_eq!(json["upgrades"], serde_json::json!(["websocket"]));
        client.sid = format!("&sid={}", json["sid"].as_str().unwrap());
        if version == 4 {
            assert!(json["maxPayload"].is_u64() && open.len() == 1);
            assert_eq!(client.post("40").await, StatusCode::OK);
            assert!(client.poll().await.unwrap()[0].starts_with("40{"));
        } else {
            assert!(json["maxPayload"].is_null());
            assert_eq!(open[1], "40");
        }
        client
    }

    async fn new(version: u8) -> Self {
        Self::with(version, |_| {}).await
    }

    async fn request(&self, method: Method, body: String) -> Result<Response<Body>, Dropped> {
        let uri = format!("/socket.io/?EIO={}&transport=polling{}", self.version, self.sid);
        let request = Request::builder().method(method).uri(uri).body(Body::from(body)).unwrap();
        let connection = ConnectionHandle::new(([127, 0, 0, 1], 1).into());
        match self.gate.answer(request, &connection) {
            Ok(Answer::Ready(response)) => Ok(response),
            Ok(Answer::Later(response)) => response.await,
            Err(_) => panic!("the gate handles this path"),
        }
    }

    /// The queued packets; or the status of an error, 0 if the connection was dropped.
    async fn poll(&self) -> Result<Vec<String>, u16> {
        let response = self.request(Method::GET, String::new()).await.map_err(|Dropped| 0_u16)?;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        if status != StatusCode::OK {
            return Err(status.as_u16());
        }
        let version = if self.version == 4 { super::super::version::EngineVersion::V4 } else { super::super::version::EngineVersion::V3 };
        let packets = payload::decode(version, &body, false).unwrap();
        let text = |packet| match packet {
            Packet::Text(text) => text.to_owned(),
            Packet::Binary(_) => panic!("the server sends no binary packets"),
        };
        Ok(packets.into_iter().map(text).collect())
    }

    async fn post(&self, packet: &str) -> StatusCode {
        let body = if self.version == 4 { packet.to_owned() } else { format!("{}:{packet}", packet.encode_utf16().count()) };
        self.request(Method::POST, body).await.map_or(StatusCode::IM_A_TEAPOT, |response| response.status())
    }

    /// A websocket that probes the session, as it is after its handshake.
    async fn probe(&self) -> Option<(WebSocketStream<DuplexStream>, JoinHandle<()>)> {
        let polling = self.socket_io.0.sessions.get(crate::socket_io::session::SessionId::parse(&self.sid[5..])?)?;
        let carrier = Carrier::probe(polling)?;
        let (ours, theirs) = tokio::io::duplex(4096);
        let connection = tokio::spawn(Connection::new(ours, None, carrier, self.socket_io.0.connections.max_message_bytes, false).run());
        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
        Some((WebSocketStream::from_raw_socket(theirs, role, None).await, connection))
    }

    fn publish(&self, n: u32) {
        let data = RawValue::from_string(n.to_string()).unwrap();
        self.hub.publish(&Event { channel: "news", name: "sent".into(), data: &data, except: None, user: None }, Source::Http);
    }
}

async fn hear(socket: &mut WebSocketStream<DuplexStream>) -> String {
    match socket.next().await.unwrap().unwrap() {
        Message::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

fn event(n: u32) -> String {
    format!(r#"42["sent","news",{n}]"#)
}

#[tokio::test(start_paused = true)]
async fn clients_of_both_versions_poll() {
    for version in [3, 4] {
        let client = Client::new(version).await;
        assert_eq!(client.post(r#"42["subscribe",{"channel":"news"}]"#).await, StatusCode::OK);
        for n in 1..=3 {
            client.publish(n);
        }
        assert_eq!(client.poll().await.unwrap(), [event(1), event(2), event(3)]);
        let (polled, ()) = tokio::join!(client.poll(), async { client.publish(4) });
        assert_eq!(polled.unwrap(), [event(4)]);
        let (polled, posted) = tokio::join!(client.poll(), client.post("1"));
        assert_eq!((polled.unwrap(), posted), (vec!["6".to_owned()], StatusCode::OK));
        assert_eq!(client.poll().await, Err(400));
        assert_eq!(client.hub.connections(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn two_concurrent_polls_end_the_session() {
    let client = Client::new(4).await;
    let (first, second) = tokio::join!(client.poll(), client.poll());
    assert_eq!((first, second), (Err(0), Err(400)));
    assert_eq!(client.hub.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_pending_poll_ends_the_session() {
    let client = Client::new(4).await;
    assert!(tokio::time::timeout(Duration::from_secs(1), client.poll()).await.is_err());
    assert_eq!(client.hub.connections(), 0);
    assert_eq!(client.poll().await, Err(400));
}

#[tokio::test(start_paused = true)]
async fn closing_a_client_drops_its_poll_without_an_answer() {
    let client = Client::new(4).await;
    let closing = async {
        let mut sockets = Vec::new();
        client.hub.each_socket(|socket| sockets.push(socket.clone()));
        sockets[0].close();
    };
    assert_eq!(tokio::join!(client.poll(), closing).0, Err(0));
    assert_eq!(client.poll().await, Err(400));
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_second_request_soon_frees_its_slot() {
    for version in [3, 4] {
        let config = |config: &mut Config| config.limits.connections = 1;
        let client = Client::with(version, config).await;
        client.post("1").await;
        let other = Client { sid: String::new(), ..client };
        other.poll().await.unwrap();
        assert_eq!(other.poll().await, Err(503), "there is one slot");
        tokio::time::sleep(Duration::from_secs(16)).await;
        assert_eq!(other.hub.connections(), 0);
        other.poll().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_work_over_polling() {
    let client = Client::new(4).await;
    assert_eq!(client.poll().await.unwrap(), ["2"]);
    client.post("3").await;
    assert_eq!(client.poll().await.unwrap(), ["2"]);
    assert_eq!(client.poll().await, Err(0), "a client that does not answer the ping is dropped");
    assert_eq!(client.hub.connections(), 0);
    let older = Client::new(3).await;
    let (polled, _) = tokio::join!(older.poll(), older.post("2"));
    assert_eq!(polled.unwrap(), ["3"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_refused_and_the_session_continues() {
    let client = Client::with(4, |config| config.socketio.max_http_buffer_size = 100).await;
    assert_eq!(client.post(&"4".repeat(101)).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(client.post(r#"42["subscribe",{"channel":"news"}]"#).await, StatusCode::OK);
    client.publish(1);
    assert_eq!(client.poll().await.unwrap(), [event(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_payload_ends_the_session() {
    let client = Client::new(3).await;
    assert_eq!(client.request(Method::POST, "5:42".to_owned()).await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(client.hub.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_poll_returns_at_most_max_poll_packets() {
    let client = Client::with(4, |config| config.socketio.max_poll_packets = 2).await;
    client.post(r#"42["subscribe",{"channel":"news"}]"#).await;
    for n in 1..=3 {
        client.publish(n);
    }
    assert_eq!(client.poll().await.unwrap(), [event(1), event(2)]);
    assert_eq!(client.poll().await.unwrap(), [event(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_websocket_takes_over_with_the_queued_packets() {
    for version in [3, 4] {
        let client = Client::new(version).await;
        client.post(r#"42["subscribe",{"channel":"news"}]"#).await;
        let (mut socket, connection) = client.probe().await.unwrap();
        assert!(client.probe().await.is_none(), "one probe at a time");
        let probing = async {
            socket.send(Message::text("2probe")).await.unwrap();
            assert_eq!(hear(&mut socket).await, "3probe");
        };
        let (polled, ()) = tokio::join!(client.poll(), probing);
        assert_eq!(polled.unwrap(), ["6"], "a NOOP lets the client upgrade");
        client.publish(1);
        client.publish(2);
        socket.send(Message::text("5")).await.unwrap();
        assert_eq!([hear(&mut socket).await, hear(&mut socket).await], [event(1), event(2)]);
        client.publish(3);
        assert_eq!(hear(&mut socket).await, event(3));
        assert_eq!(client.poll().await, Err(400));
        socket.send(Message::text(r#"42["unsubscribe",{"channel":"news"}]"#)).await.unwrap();
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
        connection.await.unwrap();
        assert_eq!(client.hub.connections(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_answered_together_with_the_probe() {
    let client = Client::new(4).await;
    client.post(r#"42["subscribe",{"channel":"news"}]"#).await;
    client.publish(1);
    let (mut socket, _connection) = client.probe().await.unwrap();
    let probing = async {
        socket.send(Message::text("2probe")).await.unwrap();
        assert_eq!(hear(&mut socket).await, "3probe");
        tokio::time::Instant::now()
    };
    let polling = async { (client.poll().await.unwrap(), tokio::time::Instant::now()) };
    let ((packets, polled), answered) = tokio::join!(polling, probing);
    assert_eq!(packets, [event(1)]);
    assert!(polled >= answered && polled - answered < Duration::from_millis(5));
    // A websocket that stays silent delays a poll by 50 ms.
    drop(socket);
    let (_socket, _connection) = loop {
        match client.probe().await {
            Some(probe) => break probe,
            None => tokio::task::yield_now().await,
        }
    };
    client.publish(2);
    let started = tokio::time::Instant::now();
    assert_eq!(client.poll().await.unwrap(), [event(2)]);
    assert!(started.elapsed() <= Duration::from_millis(51), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_leaves_polling_undisturbed() {
    let client = Client::new(4).await;
    client.post(r#"42["subscribe",{"channel":"news"}]"#).await;
    for said in [&[][..], &["2probe"], &["hello"], &["5"], &["2probe", "2probe"]] {
        let started = tokio::time::Instant::now();
        let (mut socket, connection) = client.probe().await.unwrap();
        for text in said {
            socket.send(Message::text(*text)).await.unwrap();
        }
        let (mut polls, mut nothing) = (0, 0);
        while !connection.is_finished() {
            client.publish(polls);
            // Acts as a client that waits for events, and more often.
            let packets = client.poll().await.unwrap();
            nothing += usize::from(packets == ["6"]);
            polls += 1;
            if packets == ["2"] {
                client.post("3").await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(nothing <= 25, "{said:?}: {nothing} empty responses in {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(11), "{said:?}");
        client.publish(7);
        assert!(client.poll().await.unwrap().contains(&event(7)), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_in_progress_during_the_upgrade_is_handled() {
    let client = Client::new(4).await;
    let (mut socket, _connection) = client.probe().await.unwrap();
    let (mut body_writer, body_reader) = tokio::io::duplex(100);
    let uri = format!("/socket.io/?EIO=4&transport=polling{}", client.sid);
    let stream = futures_util::stream::unfold(body_reader, |mut reader| async move {
        let mut chunk = [0; 100];
        let read = reader.read(&mut chunk).await.unwrap();
        (read > 0).then(|| (Ok::<_, std::io::Error>(Bytes::copy_from_slice(&chunk[..read])), reader))
    });
    let request = Request::post(uri).body(Body::from_stream(stream)).unwrap();
    let Ok(Answer::Later(posting)) = client.gate.answer(request, &ConnectionHandle::new(([127, 0, 0, 1], 1).into())) else {
        panic!("the gate waits for the body");
    };
    let posting = tokio::spawn(posting);
    body_writer.write_all(br#"42["subscribe","#).await.unwrap();
    socket.send(Message::text("2probe")).await.unwrap();
    assert_eq!(hear(&mut socket).await, "3probe");
    socket.send(Message::text("5")).await.unwrap();
    socket.send(Message::text("40/other,")).await.unwrap();
    hear(&mut socket).await;
    body_writer.write_all(br#"{"channel":"news"}]"#).await.unwrap();
    drop(body_writer);
    assert_eq!(posting.await.unwrap().unwrap().status(), StatusCode::OK);
    client.publish(1);
    assert_eq!(hear(&mut socket).await, event(1));
}
