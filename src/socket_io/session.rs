//! [`Session`]: one client, from its handshake to its end, over polling or a websocket.
//!
//! Input: the client's messages, and pushes of the hub. Output: calls to the hub, and frames in the client's outbox.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use socketioxide_core::packet::{Packet, PacketData};
use socketioxide_core::parser::{Parse as _, ParseError, ParserState};
use socketioxide_core::{Str, Value};
use socketioxide_parser_common::CommonParser;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::heartbeat::{Beat, Heartbeat};
use super::payload::{self, text_packet};
use super::version::EngineVersion;
use super::{Shared, requests};
use crate::client::{Client, Origin};
use crate::event::{CloseReason, SocketId};
use crate::hub::Socket as _;
use crate::metrics::Refusal;
use crate::net::websocket::{End, FAREWELL, Outbox, text_frame};

mod connect;

/// How long an Engine.IO 4 client may take to send CONNECT, as in socket.io.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

/// How long a polling client may take to send its second request. A client that only opens sessions must not hold slots.
const FIRST_POLL_TIMEOUT: Duration = Duration::from_secs(15);

/// socket.io-client-cpp 1.2 to 1.6 requests Engine.IO 4 but speaks 3: it silently waits for the unsolicited `40` of version
/// 3. Version 3 of that library has the same user agent, but sends CONNECT within this time.
const SILENCE_OF_OLD_CPP: Duration = Duration::from_secs(3);
const CPP_USER_AGENT: &[u8] = b"WebSocket++/";

/// Limits on packets held while other nodes are asked for the session. Clients send nothing before the answer to CONNECT.
const MAX_HELD: usize = 16;
const MAX_HELD_BYTES: usize = 128 * 1024;

/// The only namespace.
const NAMESPACE: &str = "/";

const PING: Bytes = Bytes::from_static(b"\x81\x012");
const PONG: Bytes = Bytes::from_static(b"\x81\x013");
const CONNECTED: Bytes = Bytes::from_static(b"\x81\x0240");

/// The secret key that identifies a session in polling requests. Engine.IO 3 clients know only one id, so there it is also
/// the public id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionId(u128);

impl SessionId {
    /// Parses the `sid` of a request.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let hex = || (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
        SocketId::parse(text).map(SocketId::number).or_else(hex).map(Self)
    }
}

/// One client. Clones refer to the same client.
#[derive(Clone)]
pub(super) struct Session(Arc<Inner>);

struct Inner {
    client: Client,
    key: SessionId,
    version: EngineVersion,
    inbound: Mutex<Inbound>,
    shared: Arc<Shared>,
}

/// State that depends on the client's messages. Locked while one is handled, so that they are handled one at a time.
struct Inbound {
    state: State,
    heartbeat: Heartbeat,
    /// When the client is disconnected unless it has sent what it still owes (CONNECT, or a second request).
    deadline: Option<Instant>,
    /// A polling client has sent nothing since its handshake.
    is_fresh: bool,
    /// If the client has sent nothing by then, it is an old socket.io-client-cpp that speaks Engine.IO 3.
    silent_until: Option<Instant>,
    /// A message whose binary attachments have not all arrived.
    partial: Option<Box<ParserState>>,
    /// The last position that the client was told.
    told: u64,
    /// Packets received while other nodes are asked for the session.
    held: Vec<Packet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The client has not sent CONNECT yet.
    New,
    /// The client has sent CONNECT, and other nodes are asked for its session.
    Waiting,
    /// The client is registered with the hub.
    Connected,
    /// The client has sent or received DISCONNECT.
    Left,
}

/// `{"sid":…,"upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}`; Engine.IO 3 has no
/// `maxPayload`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Open<'a> {
    sid: &'a str,
    upgrades: &'a [&'a str],
    ping_interval: u128,
    ping_timeout: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_payload: Option<u64>,
}

impl Session {
    /// Creates the session of a new client.
    pub(super) fn new(shared: Arc<Shared>, version: EngineVersion, origin: Origin) -> Self {
        let is_polling = origin.is_polling;
        let now = Instant::now();
        let is_maybe_old = version == EngineVersion::V4
            && !is_polling
            && origin.handshake.get(http::header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(CPP_USER_AGENT));
        let inbound = Inbound {
            state: State::New,
            heartbeat: Heartbeat::new(version, shared.ping_interval, shared.ping_timeout, now),
            deadline: Some(now + if is_polling { FIRST_POLL_TIMEOUT } else { CONNECT_TIMEOUT }),
            is_fresh: is_polling,
            silent_until: is_maybe_old.then(|| now + SILENCE_OF_OLD_CPP),
            partial: None,
            told: 0,
            held: Vec::new(),
        };
        let client = Client::new(version.speech(shared.pids.is_some()), origin, shared.hub.allowance(), shared.connections.outbox);
        Self(Arc::new(Inner {
            key: SessionId(match version {
                EngineVersion::V3 => client.id().number(),
                EngineVersion::V4 => rand::random(),
            }),
            client,
            version,
            inbound: Mutex::new(inbound),
            shared,
        }))
    }

    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.0.inbound.lock()
    }

    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(super) fn outbox(&self) -> &Outbox {
        self.0.client.outbox()
    }

    /// The public id.
    pub(super) fn id(&self) -> SocketId {
        self.0.client.id()
    }

    pub(super) fn key(&self) -> SessionId {
        self.0.key
    }

    pub(super) fn version(&self) -> EngineVersion {
        self.0.version
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// The text form of [`Self::key`].
    pub(super) fn sid(&self) -> String {
        match self.0.version {
            EngineVersion::V3 => self.id().to_string(),
            EngineVersion::V4 => format!("{:032x}", self.0.key.0),
        }
    }

    /// Cancelled when the server stops, for a client that the hub does not know and so cannot end.
    pub(super) fn closing(&self) -> Option<CancellationToken> {
        (self.inbound().state != State::Connected).then(|| self.0.shared.connections.closing.clone())
    }

    /// Sends OPEN. Engine.IO 3 clients are connected at once, without a CONNECT of theirs.
    pub(super) fn open(&self) -> Result<(), CloseReason> {
        let shared = &self.0.shared;
        let upgrades: &[&str] = if self.0.client.is_polling() && shared.has_websocket { &["websocket"] } else { &[] };
        let is_v4 = self.0.version == EngineVersion::V4;
        let open = Open {
            sid: &self.sid(),
            upgrades,
            ping_interval: shared.ping_interval.as_millis(),
            ping_timeout: shared.ping_timeout.as_millis(),
            max_payload: is_v4.then_some(shared.max_message_bytes),
        };
        let open = serde_json::to_string(&open).expect("text and numbers are JSON");
        self.send_text(&format!("0{open}"))?;
        if is_v4 { Ok(()) } else { self.connect(&mut self.inbound(), None) }
    }

    /// The client has sent something.
    pub(super) fn heard(&self, now: Instant) {
        self.inbound().heartbeat.heard(now);
    }

    /// A polling client has sent its second request.
    pub(super) fn has_come_back(&self) {
        let mut inbound = self.inbound();
        if std::mem::take(&mut inbound.is_fresh) {
            inbound.deadline = (inbound.state != State::Connected).then(|| Instant::now() + CONNECT_TIMEOUT);
        }
    }

    /// When to call [`Self::beat`] next.
    pub(super) fn due(&self) -> Instant {
        let inbound = self.inbound();
        [inbound.deadline, inbound.silent_until].into_iter().flatten().fold(inbound.heartbeat.due(), Instant::min)
    }

    /// Pings the client or gives it up, whichever is due at `now`.
    pub(super) fn beat(&self, now: Instant) -> Result<(), CloseReason> {
        let mut inbound = self.inbound();
        if inbound.silent_until.take_if(|until| now >= *until).is_some() && inbound.state == State::New {
            debug!(socket_id = %self.id(), "the client speaks Engine.IO 3 although it requested 4");
            inbound.heartbeat = Heartbeat::new(EngineVersion::V3, self.0.shared.ping_interval, self.0.shared.ping_timeout, now);
            self.send(CONNECTED)?;
            self.joins_hub(&mut inbound);
        }
        if inbound.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(CloseReason::TransportClose);
        }
        match inbound.heartbeat.beat(now) {
            Beat::Wait => Ok(()),
            Beat::Ask => {
                if inbound.state == State::Connected {
                    self.0.shared.hub.tell_position(&self.0.client, &mut inbound.told);
                }
                self.send(PING)
            }
            Beat::Dead => Err(CloseReason::PingTimeout),
        }
    }

    /// The client has sent a message larger than `socketio.maxHttpBufferSize`.
    pub(super) fn too_large(&self) {
        self.0.shared.hub.metrics().refusal(Refusal::MessageSize);
        debug!(socket_id = %self.id(), limit = self.0.shared.max_message_bytes, "refused a message that is too large");
    }

    /// Handles an Engine.IO packet. Invalid ones are ignored, as in the original.
    pub(super) fn text(&self, text: &str) -> Result<(), CloseReason> {
        if let payload::Packet::Binary(data) = text_packet(self.0.version, text) {
            return self.binary(data);
        }
        match text.as_bytes() {
            [b'4', ..] => {
                let message = Str::copy_from_slice(&text[1..]);
                self.message(true, |parser, state| CommonParser.decode_str(&parser.parser, state, message))
            }
            [b'2', ..] if !self.inbound().heartbeat.asks() => self.send(PONG),
            [b'1', ..] => Err(CloseReason::TransportClose),
            [b'0' | b'2' | b'3' | b'5' | b'6', ..] => Ok(()),
            _ => {
                self.malformed(&"unknown packet type");
                Ok(())
            }
        }
    }

    /// Handles a binary websocket message. In Engine.IO 3 it begins with the packet type.
    pub(super) fn frame(&self, mut data: Bytes) -> Result<(), CloseReason> {
        if self.0.version == EngineVersion::V3 && !data.is_empty() {
            data.advance(1);
        }
        self.binary(data)
    }

    /// Handles a binary message.
    pub(super) fn binary(&self, data: Bytes) -> Result<(), CloseReason> {
        self.message(false, |parser, state| CommonParser.decode_bin(&parser.parser, state, data))
    }

    /// Runs the parser, and handles the packet once it is complete.
    fn message(&self, is_text: bool, decode: impl FnOnce(&Shared, &ParserState) -> Result<Packet, ParseError>) -> Result<(), CloseReason> {
        let mut inbound = self.inbound();
        inbound.silent_until = None;
        if is_text && inbound.partial.take().is_some() {
            self.malformed(&ParseError::UnexpectedStringPacket);
        }
        let mut fresh = None;
        let state = match &inbound.partial {
            Some(partial) => &**partial,
            None => &*fresh.insert(ParserState::default()),
        };
        match decode(&self.0.shared, state) {
            Ok(packet) => {
                inbound.partial = None;
                self.packet(&mut inbound, packet)
            }
            Err(ParseError::NeedsMoreBinaryData) => {
                if let Some(state) = fresh {
                    inbound.partial = Some(Box::new(state));
                }
                Ok(())
            }
            Err(error) => {
                inbound.partial = None;
                self.malformed(&error);
                Ok(())
            }
        }
    }

    fn malformed(&self, error: &dyn std::fmt::Display) {
        self.0.shared.hub.metrics().refusal(Refusal::Malformed);
        debug!(socket_id = %self.id(), %error, "ignored a message that is not a Socket.IO packet");
    }

    fn packet(&self, inbound: &mut Inbound, packet: Packet) -> Result<(), CloseReason> {
        let namespace = match self.0.version {
            // socket.io 2 ignores a query after it.
            EngineVersion::V3 => packet.ns.split('?').next().unwrap_or_default(),
            EngineVersion::V4 => &*packet.ns,
        };
        if namespace != NAMESPACE {
            return match packet.inner {
                PacketData::Connect(_) => self.refuse_namespace(packet.ns),
                // No client is in any other namespace.
                _ => Ok(()),
            };
        }
        if inbound.state == State::Waiting {
            let bytes = inbound.held.iter().chain([&packet]).map(bytes_of).sum::<usize>();
            if inbound.held.len() >= MAX_HELD || bytes > MAX_HELD_BYTES {
                return Err(CloseReason::TransportClose);
            }
            inbound.held.push(packet);
            return Ok(());
        }
        match packet.inner {
            PacketData::Connect(_) if inbound.state == State::Connected => Ok(()),
            PacketData::Connect(data) => self.connect(inbound, data.as_ref()),
            // socket.io 2 ignores packets before CONNECT; later versions close the connection.
            _ if inbound.state != State::Connected => match self.0.version {
                EngineVersion::V3 => Ok(()),
                EngineVersion::V4 => Err(CloseReason::TransportClose),
            },
            PacketData::Disconnect => {
                self.leave(inbound, CloseReason::ClientLeft);
                Ok(())
            }
            PacketData::Event(value, _) | PacketData::BinaryEvent(value, _) => {
                match CommonParser.read_event(&value) {
                    Ok(event) => {
                        let packet = value.as_str().map_or("", |text| text);
                        requests::take(&self.0.shared.hub, self.id(), event, packet, has_attachments(&value));
                    }
                    Err(error) => self.malformed(&error),
                }
                Ok(())
            }
            // The server never requests acknowledgements.
            PacketData::EventAck(..) | PacketData::BinaryAck(..) => Ok(()),
            PacketData::ConnectError(_) => Ok(()),
        }
    }

    /// socket.io 2 sends the reason as a string, later versions as an object.
    fn refuse_namespace(&self, namespace: Str) -> Result<(), CloseReason> {
        const WHY: &str = "Invalid namespace";
        if self.0.version == EngineVersion::V3 {
            return self.send_text(&format!("44{namespace},{WHY:?}"));
        }
        match CommonParser.encode(Packet::connect_error(namespace, WHY)) {
            Value::Str(text, _) => self.send_text(&format!("4{text}")),
            Value::Bytes(_) => unreachable!("the common parser writes text"),
        }
    }

    fn leave(&self, inbound: &mut Inbound, reason: CloseReason) {
        if std::mem::replace(&mut inbound.state, State::Left) == State::Connected {
            self.0.shared.hub.end(&self.0.client, reason);
        }
    }

    /// The client was told to disconnect, and has [`FAREWELL`] to do so.
    pub(super) fn flushed(&self, now: Instant) {
        let mut inbound = self.inbound();
        self.leave(&mut inbound, CloseReason::ServerLeft);
        inbound.deadline.get_or_insert(now + FAREWELL);
    }

    /// The connection is gone.
    pub(super) fn ended(&self, reason: CloseReason) {
        self.outbox().end(End::Now);
        self.leave(&mut self.inbound(), reason);
    }

    fn send_text(&self, text: &str) -> Result<(), CloseReason> {
        self.send(text_frame(text.len(), |frame| frame.extend_from_slice(text.as_bytes())))
    }

    fn send(&self, frame: Bytes) -> Result<(), CloseReason> {
        Ok(self.outbox().send(frame)?)
    }
}

fn has_attachments(value: &Value) -> bool {
    matches!(value, Value::Str(_, Some(parts)) if !parts.is_empty())
}

/// Size of a held packet.
fn bytes_of(packet: &Packet) -> usize {
    match &packet.inner {
        PacketData::Connect(Some(value))
        | PacketData::Event(value, _)
        | PacketData::BinaryEvent(value, _)
        | PacketData::EventAck(value, _)
        | PacketData::BinaryAck(value, _) => match value {
            Value::Str(text, parts) => text.len() + parts.iter().flatten().map(Bytes::len).sum::<usize>(),
            Value::Bytes(bytes) => bytes.len(),
        },
        PacketData::ConnectError(text) => text.len(),
        PacketData::Connect(None) | PacketData::Disconnect => 0,
    }
}
