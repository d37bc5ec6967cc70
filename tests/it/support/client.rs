//! A client that behaves like laravel-echo with socket.io-client 4 over a websocket.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::DEADLINE;

/// A connected Socket.IO client.
pub(crate) struct Client {
    pub(crate) id: String,
    /// The private id with which it can resume its session.
    pub(crate) pid: String,
    /// The offset of the last event.
    pub(crate) offset: Option<String>,
    stream: WebSocketStream<TcpStream>,
    /// On drop, the connection is lost without a CLOSE, unlike when a page is closed.
    vanishes: bool,
    /// Events received while waiting for another one: `[name, argument, …]`.
    inbox: VecDeque<Vec<Value>>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, headers: &[(&str, &str)]) -> Self {
        Self::connect_from(IpAddr::V4(Ipv4Addr::LOCALHOST), address, headers).await
    }

    /// Connects from this local address.
    pub(crate) async fn connect_from(from: IpAddr, address: SocketAddr, headers: &[(&str, &str)]) -> Self {
        Self::try_connect(from, address, headers).await.expect("the server takes websockets")
    }

    /// As [`Self::connect_from`]; `None` when the client is rejected.
    pub(crate) async fn try_connect(from: IpAddr, address: SocketAddr, headers: &[(&str, &str)]) -> Option<Self> {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let mut client = Self::open(from, address, &url, headers).await?;
        let open = client.packet().await?;
        assert!(open.starts_with("0{"), "{open}");
        client.try_send("40").await.ok()?;
        let connected = client.packet().await?;
        let payload: Value = serde_json::from_str(connected.strip_prefix("40").expect("a connect packet")).expect("JSON");
        client.id = payload["sid"].as_str().expect("an id").to_owned();
        client.pid = payload["pid"].as_str().unwrap_or_default().to_owned();
        Some(client)
    }

    /// A websocket on which nothing has been sent yet.
    pub(crate) async fn open(from: IpAddr, address: SocketAddr, url: &str, headers: &[(&str, &str)]) -> Option<Self> {
        let mut request = url.into_client_request().expect("a valid request");
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a valid header name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a valid header value"));
        }
        let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
        socket.bind(SocketAddr::new(from, 0)).expect("an address of this machine");
        let stream = socket.connect(address).await.ok()?;
        let (stream, _) = client_async(request, stream).await.ok()?;
        Some(Self { id: String::new(), pid: String::new(), offset: None, stream, vanishes: false, inbox: VecDeque::new() })
    }

    /// Sends a packet unchanged.
    pub(crate) async fn send_text(&mut self, packet: &str) {
        self.stream.send(Message::text(packet)).await.expect("the connection is open");
    }

    /// Sends a packet unchanged; fails when the server has ended the connection.
    pub(crate) async fn try_send(&mut self, packet: &str) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        self.stream.send(Message::text(packet)).await
    }

    /// Sends a Socket.IO event.
    pub(crate) async fn emit(&mut self, event: &str, argument: Value) {
        self.send_text(&format!("42{}", json!([event, argument]))).await;
    }

    pub(crate) async fn subscribe(&mut self, channel: &str) {
        self.emit("subscribe", json!({ "channel": channel, "auth": { "headers": {} } })).await;
    }

    pub(crate) async fn unsubscribe(&mut self, channel: &str) {
        self.emit("unsubscribe", json!({ "channel": channel })).await;
    }

    pub(crate) async fn whisper(&mut self, channel: &str, event: &str, data: Value) {
        self.emit("client event", json!({ "channel": channel, "event": event, "data": data })).await;
    }

    /// The arguments of the next event with this name. Other events stay in the inbox.
    pub(crate) async fn event(&mut self, name: &str) -> Vec<Value> {
        let is_it = |event: &Vec<Value>| event[0] == name;
        if let Some(at) = self.inbox.iter().position(is_it) {
            return self.inbox.remove(at).expect("it was found").split_off(1);
        }
        loop {
            let mut event = self.next().await.unwrap_or_else(|| panic!("the connection ended before `{name}`"));
            if is_it(&event) {
                return event.split_off(1);
            }
            self.inbox.push_back(event);
        }
    }

    /// Names of the events in the inbox.
    pub(crate) fn left_over(&self) -> Vec<&str> {
        self.inbox.iter().map(|event| event[0].as_str().expect("an event has a name")).collect()
    }

    /// The next event of any name; `None` when the server has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Vec<Value>> {
        loop {
            let packet = self.packet().await?;
            if let Some(event) = packet.strip_prefix("42") {
                let mut event: Vec<Value> = serde_json::from_str(event).expect("an event is a list");
                // The offset, which only tests of recovery use.
                self.offset = event
                    .pop_if(|last| last.as_str().is_some_and(is_offset))
                    .and_then(|last| last.as_str().map(str::to_owned))
                    .or(self.offset.take());
                if event[0] != "echo:position" {
                    return Some(event);
                }
            }
        }
    }

    /// Waits until the offset differs from this one; other events stay in the inbox.
    pub(crate) async fn position_after(&mut self, offset: Option<&str>) {
        while self.offset.as_deref() == offset {
            let packet = self.packet().await.expect("the connection stays");
            if let Some(event) = packet.strip_prefix("42") {
                let event: Vec<Value> = serde_json::from_str(event).expect("an event is a list");
                assert_eq!(event[0], "echo:position");
                self.offset = event[1].as_str().map(str::to_owned);
            }
        }
    }

    /// Resumes the session of `pid` on a new connection; `offset` is that of the last event it received.
    pub(crate) async fn come_back(address: SocketAddr, pid: &str, offset: Option<&str>) -> Self {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let mut client = Self::open(IpAddr::V4(Ipv4Addr::LOCALHOST), address, &url, &[]).await.expect("the server takes websockets");
        client.packet().await.expect("an open packet");
        let again = match offset {
            Some(offset) => json!({ "pid": pid, "offset": offset }),
            None => json!({ "pid": pid }),
        };
        client.send_text(&format!("40{again}")).await;
        let connected = client.packet().await.expect("a connect packet");
        let payload: Value = serde_json::from_str(connected.strip_prefix("40").expect("a connect packet")).expect("JSON");
        client.id = payload["sid"].as_str().expect("an id").to_owned();
        client.pid = payload["pid"].as_str().expect("a private id").to_owned();
        client
    }

    /// Drops the connection without a CLOSE.
    pub(crate) fn vanish(mut self) {
        self.vanishes = true;
    }

    /// Waits until the server has closed the connection; returns the packets received until then.
    pub(crate) async fn closed(&mut self) -> Vec<String> {
        let mut packets = Vec::new();
        while let Some(packet) = self.packet().await {
            packets.push(packet);
        }
        packets
    }

    /// The next packet; heartbeats are answered and skipped.
    pub(crate) async fn packet(&mut self) -> Option<String> {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.stream.next()).await.expect("a packet within the deadline");
            match message {
                Some(Ok(Message::Text(text))) if text == "2" => self.try_send("3").await.ok()?,
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }
}

/// Acts like a closed page: a browser sends CLOSE 1001 and does not wait for the answer.
impl Drop for Client {
    fn drop(&mut self) {
        if !self.vanishes {
            // Fails if the connection has already ended.
            let _ = self.stream.get_ref().try_write(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
        }
    }
}

/// Whether a text has the form `<hex>-<number>` of an offset.
pub(super) fn is_offset(text: &str) -> bool {
    text.split_once('-').is_some_and(|(epoch, number)| u64::from_str_radix(epoch, 16).is_ok() && number.parse::<u64>().is_ok())
}
