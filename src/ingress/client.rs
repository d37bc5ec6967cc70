//! What Socket.IO clients send: `subscribe`, `unsubscribe`, `client event`, and going away.
//!
//! Input: packets of socketioxide. Output: calls of the [`Hub`], in the order a client sent them. socketioxide spawns
//! what ordinary handlers return, so that the messages of one client would overtake each other; the handlers here
//! implement its traits themselves and are done when they return.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use socketioxide::SocketIo;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::SocketRef;
use socketioxide::handler::{ConnectHandler, DisconnectHandler, MessageHandler, Value};
use socketioxide::socket::DisconnectReason;
use tracing::debug;

use crate::auth::SubscribeHeaders;
use crate::egress::socket_io::{ClosedSessions, SocketIoSocket};
use crate::event::SocketId;
use crate::hub::{Hub, Whisper};
use crate::metrics::Refusal;

type SocketIoHub = Hub<SocketIoSocket>;
type SioSocket = socketioxide::socket::Socket<LocalAdapter>;

/// Registers what happens on connections of the default namespace.
/// At most `queue_bytes` may wait for a client (`limits.clientQueueBytes`).
pub fn attach(io: &SocketIo, hub: &Arc<SocketIoHub>, closed: &Arc<ClosedSessions>, queue_bytes: u64) {
    let (hub, closed) = (Arc::clone(hub), Arc::clone(closed));
    // In a middleware, since the CONNECT packet goes out before a connect handler runs: a `subscribe` that answers
    // it at once would find no handler.
    let connect = move |socket: SocketRef| {
        socket.on("subscribe", Handler::new(&hub, subscribe));
        socket.on("unsubscribe", Handler::new(&hub, unsubscribe));
        socket.on("client event", Handler::new(&hub, client_event));
        socket.on_disconnect(Goodbye { hub: Arc::clone(&hub), closed: Arc::clone(&closed) });
        hub.connect(SocketIoSocket::new(socket, Arc::clone(&closed), queue_bytes));
        std::future::ready(Ok::<(), Infallible>(()))
    };
    io.ns("/", (async |_: SocketRef| {}).with(connect));
}

/// Marks our implementations of socketioxide's handler traits.
enum InOrder {}

/// Runs a function on each message of a client, in order.
struct Handler {
    hub: Arc<SocketIoHub>,
    run: fn(&Arc<SocketIoHub>, SocketId, &RawValue) -> Option<()>,
}

impl Handler {
    fn new(hub: &Arc<SocketIoHub>, run: fn(&Arc<SocketIoHub>, SocketId, &RawValue) -> Option<()>) -> Self {
        Self { hub: Arc::clone(hub), run }
    }
}

impl MessageHandler<LocalAdapter, InOrder> for Handler {
    fn call(&self, socket: Arc<SioSocket>, value: Value, _ack: Option<i64>) {
        wait_until_connected(&socket);
        let id = socket_id(&socket);
        let done = value.as_str().and_then(|text| first_argument(text)).and_then(|argument| (self.run)(&self.hub, id, argument));
        if done.is_none() {
            self.hub.metrics().refusal(Refusal::Malformed);
            debug!(socket_id = %id, "ignored a message that makes no sense");
        }
    }
}

/// The CONNECT packet goes out a moment before socketioxide lets emits through. A client can be quick enough to ask
/// for something in between, and the answer would be lost.
fn wait_until_connected(socket: &SioSocket) {
    /// Far more than a thread is ever kept off its core.
    const PATIENCE: Duration = Duration::from_millis(100);
    if socket.connected() {
        return;
    }
    let started = Instant::now();
    while !socket.connected() && started.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

fn socket_id(socket: &SioSocket) -> SocketId {
    SocketId::parse(socket.id.as_str()).expect("socketioxide's ids have our form")
}

/// The first argument of `["event", argument, …]`.
fn first_argument(packet: &str) -> Option<&RawValue> {
    let parts: Vec<&RawValue> = serde_json::from_str(packet).ok()?;
    parts.get(1).copied()
}

/// `{"channel": "…", "auth": {"headers": {…}}}`; a wrong `auth` is no auth.
#[derive(Deserialize)]
struct SubscribeMessage<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    auth: Option<&'a RawValue>,
}

fn subscribe(hub: &Arc<SocketIoHub>, id: SocketId, argument: &RawValue) -> Option<()> {
    let message: SubscribeMessage<'_> = serde_json::from_str(argument.get()).ok()?;
    if message.channel.is_empty() {
        return None;
    }
    hub.subscribe(id, &message.channel, message.auth.map(auth_headers).unwrap_or_default());
    Some(())
}

/// Headers of `{"headers": {"Authorization": "Bearer …"}}`: texts and numbers; anything else is left out.
fn auth_headers(auth: &RawValue) -> SubscribeHeaders {
    let Ok(serde_json::Value::Object(mut auth)) = serde_json::from_str(auth.get()) else {
        return Vec::new();
    };
    let Some(serde_json::Value::Object(headers)) = auth.remove("headers") else {
        return Vec::new();
    };
    let text = |value| match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    headers.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

#[derive(Deserialize)]
struct UnsubscribeMessage<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

fn unsubscribe(hub: &Arc<SocketIoHub>, id: SocketId, argument: &RawValue) -> Option<()> {
    let message: UnsubscribeMessage<'_> = serde_json::from_str(argument.get()).ok()?;
    hub.unsubscribe(id, &message.channel);
    Some(())
}

#[derive(Deserialize)]
struct ClientEventMessage<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The event comes as an object, or as its JSON text from native clients (`src/channels/channel.ts:56`).
fn client_event(hub: &Arc<SocketIoHub>, id: SocketId, argument: &RawValue) -> Option<()> {
    let inner: String;
    let mut json = argument.get();
    if json.starts_with('"') {
        inner = serde_json::from_str(json).ok()?;
        json = &inner;
    }
    let message: ClientEventMessage<'_> = serde_json::from_str(json).ok()?;
    let whisper = Whisper { channel: &message.channel, event: &message.event, data: message.data.unwrap_or(RawValue::NULL) };
    hub.whisper(id, whisper);
    Some(())
}

/// Tells the hub that a client is gone.
struct Goodbye {
    hub: Arc<SocketIoHub>,
    closed: Arc<ClosedSessions>,
}

impl DisconnectHandler<LocalAdapter, InOrder> for Goodbye {
    fn call_with_defer(&self, socket: Arc<SioSocket>, reason: DisconnectReason, defer: fn(Arc<SioSocket>)) {
        let id = socket_id(&socket);
        self.hub.disconnect(id, reason_text(reason));
        self.closed.forget(id);
        defer(socket);
    }
}

/// The words of socket.io 2.
const fn reason_text(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport close",
        DisconnectReason::TransportError => "transport error",
        DisconnectReason::MultipleHttpPollingError | DisconnectReason::PacketParsingError => "parse error",
        DisconnectReason::HeartbeatTimeout => "ping timeout",
        DisconnectReason::ClientNSDisconnect => "client namespace disconnect",
        DisconnectReason::ServerNSDisconnect => "server namespace disconnect",
        DisconnectReason::ClosingServer => "server shutting down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_follow_the_event_name() {
        assert_eq!(first_argument(r#"["subscribe",{"a":1},2]"#).unwrap().get(), r#"{"a":1}"#);
        for packet in [r#"["subscribe"]"#, "[]", "{}", "null", "", "["] {
            assert!(first_argument(packet).is_none(), "{packet}");
        }
    }

    #[test]
    fn odd_auth_is_no_auth() {
        let headers = |json: &str| auth_headers(serde_json::from_str(json).unwrap());
        assert_eq!(
            headers(r#"{"headers":{"A":"x","B":5,"C":null,"D":{}}}"#),
            [("A".to_owned(), "x".to_owned()), ("B".to_owned(), "5".to_owned())]
        );
        for auth in ["null", "5", "{}", r#"{"headers":"text"}"#, r#"{"headers":[]}"#] {
            assert_eq!(headers(auth), [], "{auth}");
        }
    }
}
