//! A polling client of Engine.IO 3 or 4, with a browser's cookies, that can upgrade to a websocket.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use reqwest::header::{COOKIE, SET_COOKIE};
use serde_json::{Value, json};

use super::client::is_offset;
use super::{Client, DEADLINE};

/// A connected client that polls.
pub(crate) struct Polling {
    http: reqwest::Client,
    from: IpAddr,
    address: SocketAddr,
    version: u8,
    sid: String,
    pub(crate) cookies: Vec<(String, String)>,
    inbox: VecDeque<String>,
}

impl Polling {
    /// Connects from this local address, with these cookies.
    pub(crate) async fn connect(address: SocketAddr, version: u8, from: IpAddr, cookies: &[(&str, &str)]) -> Self {
        let cookies = cookies.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::try_connect(address, version, from, cookies).await.expect("the server takes clients that poll")
    }

    /// As [`Self::connect`]; `None` when the client is rejected.
    pub(crate) async fn try_connect(address: SocketAddr, version: u8, from: IpAddr, cookies: Vec<(String, String)>) -> Option<Self> {
        let http = reqwest::Client::builder().local_address(from).timeout(DEADLINE).build().expect("an HTTP client");
        let mut client = Self { http, from, address, version, sid: String::new(), cookies, inbox: VecDeque::new() };
        let open = client.packet().await?;
        let open: Value = serde_json::from_str(open.strip_prefix('0').expect("an open packet")).expect("JSON");
        client.sid = open["sid"].as_str().expect("an id").to_owned();
        if version == 4 {
            client.try_send("40").await?;
        }
        let connected = client.packet().await?;
        assert!(connected.starts_with("40"), "{connected}");
        Some(client)
    }

    /// The key of the session.
    pub(crate) fn sid(&self) -> &str {
        &self.sid
    }

    fn query(&self, transport: &str) -> String {
        let sid = if self.sid.is_empty() { String::new() } else { format!("&sid={}", self.sid) };
        format!("{}/socket.io/?EIO={}&transport={transport}{sid}", self.address, self.version)
    }

    fn cookie(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// `None` when the server has ended the session or cannot be reached.
    async fn request(&mut self, body: Option<String>) -> Option<String> {
        let url = format!("http://{}", self.query("polling"));
        let request = match body {
            Some(body) => self.http.post(url).header("content-type", "text/plain;charset=UTF-8").body(body),
            None => self.http.get(url),
        };
        // A forged address that the server must not trust.
        let answer = request.header(COOKIE, self.cookie()).header("x-forwarded-for", "6.6.6.6").send().await.ok()?;
        let status = answer.status();
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str().expect("text").split(';').next().expect("a pair");
            let (name, value) = pair.split_once('=').expect("a name and a value");
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        let text = answer.text().await.ok()?;
        (status == 200).then_some(text)
    }

    /// Sends a packet unchanged; `None` when the server has ended the session.
    pub(crate) async fn try_send(&mut self, packet: &str) -> Option<()> {
        let body = if self.version == 4 { packet.to_owned() } else { format!("{}:{packet}", packet.chars().count()) };
        let answer = self.request(Some(body)).await?;
        assert_eq!(answer, "ok");
        Some(())
    }

    /// The next packet; heartbeats are answered and skipped. `None` when the server has ended the session.
    async fn packet(&mut self) -> Option<String> {
        loop {
            while let Some(packet) = self.inbox.pop_front() {
                match packet.as_str() {
                    "1" => return None,
                    "2" => self.try_send("3").await?,
                    "3" | "6" => {}
                    _ => return Some(packet),
                }
            }
            let payload = self.request(None).await?;
            self.inbox = if self.version == 4 { payload.split('\x1e').map(str::to_owned).collect() } else { packets(&payload) };
        }
    }

    /// The next event; `None` when the server has ended the session.
    pub(crate) async fn next(&mut self) -> Option<Vec<Value>> {
        loop {
            if let Some(event) = self.packet().await?.strip_prefix("42") {
                let mut event: Vec<Value> = serde_json::from_str(event).expect("a list");
                event.pop_if(|last| last.as_str().is_some_and(is_offset));
                return Some(event);
            }
        }
    }

    /// The arguments of the next event with this name; other events are dropped.
    pub(crate) async fn event(&mut self, name: &str) -> Vec<Value> {
        loop {
            let mut event = self.next().await.unwrap_or_else(|| panic!("the session ended before `{name}`"));
            if event[0] == name {
                return event.split_off(1);
            }
        }
    }

    pub(crate) async fn subscribe(&mut self, channel: &str) {
        let event = json!(["subscribe", { "channel": channel, "auth": { "headers": {} } }]);
        self.try_send(&format!("42{event}")).await.expect("the session is open");
    }

    /// Upgrades to a websocket, as socket.io-client does once it is connected.
    pub(crate) async fn upgrade(self) -> Client {
        let url = format!("ws://{}", self.query("websocket"));
        let mut client =
            Client::open(self.from, self.address, &url, &[("cookie", &self.cookie())]).await.expect("the server takes upgrades");
        client.send_text("2probe").await;
        assert_eq!(client.packet().await.as_deref(), Some("3probe"));
        client.send_text("5").await;
        client
    }
}

/// Packets of Engine.IO 3, each preceded by its length in characters.
fn packets(payload: &str) -> VecDeque<String> {
    let mut packets = VecDeque::new();
    let mut rest = payload;
    while let Some((length, after)) = rest.split_once(':') {
        let length = length.parse().expect("a length");
        let end = after.char_indices().nth(length).map_or(after.len(), |(at, _)| at);
        packets.push_back(after[..end].to_owned());
        rest = &after[end..];
    }
    packets
}
