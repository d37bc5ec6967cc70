//! Clients of the Socket.IO engine: those that begin by polling.
//!
//! Input: packets of socketioxide. Output: events for [`super::take`], in the order a client sent them, and its going
//! away. socketioxide spawns what ordinary handlers return, so that the messages of one client would overtake each
//! other; the handlers here implement its traits themselves and are done when they return.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socketioxide::SocketIo;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::SocketRef;
use socketioxide::handler::{ConnectHandler, DisconnectHandler, MessageHandler, Value};
use socketioxide::socket::DisconnectReason;

use super::EVENTS;
use crate::egress::socket_io::ClosedSessions;
use crate::egress::{ClientSocket, SocketIoSocket};
use crate::event::SocketId;
use crate::hub::Hub;

type ClientHub = Hub<ClientSocket>;
type SioSocket = socketioxide::socket::Socket<LocalAdapter>;

/// Far longer than it takes to answer CONNECT, which happens at once or never.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Registers what happens on connections of the default namespace.
/// At most `queue_bytes` may wait for a client (`limits.clientQueueBytes`).
pub fn attach(io: &SocketIo, hub: &Arc<ClientHub>, closed: &Arc<ClosedSessions>, queue_bytes: u64) {
    let (hub, closed) = (Arc::clone(hub), Arc::clone(closed));
    // In a middleware, since the CONNECT packet goes out before a connect handler runs: a `subscribe` that answers
    // it at once would find no handler.
    let connect = move |socket: SocketRef| {
        for event in EVENTS {
            socket.on(event, Handler { hub: Arc::clone(&hub), event });
        }
        let goodbye = Goodbye { hub: Arc::clone(&hub), closed: Arc::clone(&closed), is_said: Arc::default() };
        tokio::spawn(say_for(socket.clone(), goodbye.clone()));
        socket.on_disconnect(goodbye);
        hub.connect(ClientSocket::Engine(SocketIoSocket::new(socket, Arc::clone(&closed), queue_bytes)));
        std::future::ready(Ok::<(), Infallible>(()))
    };
    io.ns("/", (async |_: SocketRef| {}).with(connect));
}

/// Marks our implementations of socketioxide's handler traits.
enum InOrder {}

/// Takes each message of a client with this event's name, in order.
struct Handler {
    hub: Arc<ClientHub>,
    event: &'static str,
}

impl MessageHandler<LocalAdapter, InOrder> for Handler {
    fn call(&self, socket: Arc<SioSocket>, value: Value, _ack: Option<i64>) {
        wait_until_connected(&socket);
        let packet = value.as_str().map_or("", |text| text);
        super::take(&self.hub, socket_id(&socket), self.event, packet);
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

/// Tells the hub that a client is gone.
#[derive(Clone)]
struct Goodbye {
    hub: Arc<ClientHub>,
    closed: Arc<ClosedSessions>,
    is_said: Arc<AtomicBool>,
}

/// A client that is gone before its CONNECT is answered gets no goodbye from socketioxide, and would stay for ever.
async fn say_for(socket: SocketRef, goodbye: Goodbye) {
    tokio::time::sleep(ANSWER_TIME).await;
    if !socket.connected() && !goodbye.is_said.load(Ordering::Relaxed) {
        goodbye.say(&socket, DisconnectReason::TransportClose);
    }
}

impl Goodbye {
    fn say(&self, socket: &SioSocket, reason: DisconnectReason) {
        let id = socket_id(socket);
        self.is_said.store(true, Ordering::Relaxed);
        self.hub.disconnect(id, reason_text(reason));
        self.closed.forget(id);
    }
}

impl DisconnectHandler<LocalAdapter, InOrder> for Goodbye {
    fn call_with_defer(&self, socket: Arc<SioSocket>, reason: DisconnectReason, defer: fn(Arc<SioSocket>)) {
        self.say(&socket, reason);
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
