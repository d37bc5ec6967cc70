//! [`Session`]: what a client says on its websocket, in Engine.IO and Socket.IO.
//!
//! Input: messages of the client. Output: events for the hub, and answers in the client's own queue.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use engineioxide_core::{OpenPacket, Packet as EnginePacket, ProtocolVersion, Sid, Str};
use socketioxide_core::Value;
use socketioxide_core::packet::{Packet, PacketData};
use socketioxide_core::parser::{Parse as _, ParseError, ParserState};
use socketioxide_parser_common::CommonParser;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Shared;
use crate::egress::websocket::text_frame;
use crate::egress::{ClientSocket, EmitError, Socket as _, WebSocket};
use crate::ingress::client;
use crate::metrics::Refusal;

/// Why a connection ends, in the words of socket.io 2.
pub(super) type Reason = &'static str;

/// The client has closed the connection, or has never said what it should have.
pub(super) const TRANSPORT_CLOSE: Reason = "transport close";
/// The connection has broken.
pub(super) const TRANSPORT_ERROR: Reason = "transport error";
/// The client has sent what nobody can read.
const PARSE_ERROR: Reason = "parse error";
/// The client does not read its answers.
const TOO_SLOW: Reason = "too slow";
/// The client has shown no sign of life.
pub(super) const PING_TIMEOUT: Reason = "ping timeout";
/// The client was told to go.
pub(super) const SERVER_LEFT: Reason = "server namespace disconnect";
/// The client has left by itself and stays connected.
const CLIENT_LEFT: Reason = "client namespace disconnect";

/// The only namespace.
const NAMESPACE: &str = "/";

const PING: Bytes = Bytes::from_static(b"\x81\x012");
const PONG: Bytes = Bytes::from_static(b"\x81\x013");
const CONNECTED: Bytes = Bytes::from_static(b"\x81\x0240");

/// The client's side of a websocket.
pub(super) struct Session {
    client: WebSocket,
    protocol: ProtocolVersion,
    shared: Arc<Shared>,
    state: State,
    /// A message whose binary parts have not all come yet.
    partial: Option<Box<ParserState>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The client has not said CONNECT yet.
    New,
    /// The hub knows the client.
    Connected,
    /// The client has said DISCONNECT, or was sent one.
    Left,
}

impl Session {
    pub(super) const fn new(client: WebSocket, protocol: ProtocolVersion, shared: Arc<Shared>) -> Self {
        Self { client, protocol, shared, state: State::New, partial: None }
    }

    /// Whether the hub knows the client.
    pub(super) fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Cancelled at the end of the server.
    pub(super) fn closing(&self) -> CancellationToken {
        self.shared.closing.clone()
    }

    /// Sends OPEN. Clients of Engine.IO 3 are connected without asking for it.
    pub(super) fn open(&mut self) -> Result<(), Reason> {
        let sid: Sid = self.client.id().as_str().parse().expect("our ids have the engine's form");
        let Shared { interval, timeout, largest, .. } = *self.shared;
        let upgrades = std::iter::empty().collect();
        let open = OpenPacket { sid, upgrades, ping_interval: interval, ping_timeout: timeout, max_payload: largest };
        self.send_text(&String::from(EnginePacket::Open(open)))?;
        match self.protocol {
            ProtocolVersion::V3 => self.connect(),
            ProtocolVersion::V4 => Ok(()),
        }
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&self) -> Result<(), Reason> {
        self.send(PING)
    }

    /// The client has sent more than `socketio.maxHttpBufferSize` at once.
    pub(super) fn too_large(&self) -> Reason {
        self.shared.hub.metrics().refusal(Refusal::MessageSize);
        debug!(socket_id = %self.client.id(), limit = self.shared.largest, "closed a client that sent too large a message");
        TRANSPORT_ERROR
    }

    /// Takes a text message.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Reason> {
        match EnginePacket::parse(self.protocol, Str::copy_from_slice(text)) {
            Ok(EnginePacket::Message(message)) => {
                let packet = self.decode(|parser, state| CommonParser.decode_str(&parser.parser, state, message))?;
                packet.map_or(Ok(()), |packet| self.packet(packet))
            }
            Ok(EnginePacket::Ping) if self.protocol == ProtocolVersion::V3 => self.send(PONG),
            Ok(EnginePacket::Ping | EnginePacket::Pong) => Ok(()),
            Ok(EnginePacket::Close) => Err(TRANSPORT_CLOSE),
            Ok(_) | Err(_) => Err(PARSE_ERROR),
        }
    }

    /// Takes a binary message. Those of Engine.IO 3 begin with the packet's type.
    pub(super) fn binary(&mut self, mut data: Bytes) -> Result<(), Reason> {
        if self.protocol == ProtocolVersion::V3 && !data.is_empty() {
            data.advance(1);
        }
        let packet = self.decode(|parser, state| CommonParser.decode_bin(&parser.parser, state, data))?;
        packet.map_or(Ok(()), |packet| self.packet(packet))
    }

    /// Runs the parser. `None`: binary parts are missing.
    fn decode(&mut self, decode: impl FnOnce(&Shared, &ParserState) -> Result<Packet, ParseError>) -> Result<Option<Packet>, Reason> {
        let mut fresh = None;
        let state = match &self.partial {
            Some(partial) => &**partial,
            None => &*fresh.insert(ParserState::default()),
        };
        match decode(&self.shared, state) {
            Ok(packet) => {
                self.partial = None;
                Ok(Some(packet))
            }
            Err(ParseError::NeedsMoreBinaryData) => {
                if let Some(state) = fresh {
                    self.partial = Some(Box::new(state));
                }
                Ok(None)
            }
            Err(error) => {
                debug!(socket_id = %self.client.id(), %error, "closed a client that sent no Socket.IO packet");
                Err(PARSE_ERROR)
            }
        }
    }

    fn packet(&mut self, packet: Packet) -> Result<(), Reason> {
        if *packet.ns != *NAMESPACE {
            return match packet.inner {
                PacketData::Connect(_) => self.send_packet(Packet::connect_error(packet.ns, "Invalid namespace")),
                // Nobody is in any other namespace.
                _ => Ok(()),
            };
        }
        match packet.inner {
            PacketData::Connect(_) if self.state == State::Connected => Ok(()),
            PacketData::Connect(_) => self.connect(),
            _ if self.state != State::Connected => Err(TRANSPORT_CLOSE),
            PacketData::Disconnect => {
                self.leave(CLIENT_LEFT);
                Ok(())
            }
            PacketData::Event(value, _) | PacketData::BinaryEvent(value, _) => {
                let event = CommonParser.read_event(&value).map_err(|_| PARSE_ERROR)?;
                let packet = value.as_str().map_or("", |text| text);
                client::take(&self.shared.hub, self.client.id(), event, packet);
                Ok(())
            }
            // Nothing here asks for an acknowledgement.
            PacketData::EventAck(..) | PacketData::BinaryAck(..) => Ok(()),
            PacketData::ConnectError(_) => Err(PARSE_ERROR),
        }
    }

    /// The client is in. CONNECT comes before anything that the hub may send it.
    fn connect(&mut self) -> Result<(), Reason> {
        match self.protocol {
            ProtocolVersion::V3 => self.send(CONNECTED)?,
            ProtocolVersion::V4 => self.send_text(&format!(r#"40{{"sid":"{}"}}"#, self.client.id()))?,
        }
        self.state = State::Connected;
        self.shared.hub.connect(ClientSocket::WebSocket(self.client.clone()));
        Ok(())
    }

    /// The client is out, if it was in.
    pub(super) fn leave(&mut self, reason: Reason) {
        if std::mem::replace(&mut self.state, State::Left) == State::Connected {
            self.shared.hub.disconnect(self.client.id(), reason);
        }
    }

    fn send_packet(&self, packet: Packet) -> Result<(), Reason> {
        match CommonParser.encode(packet) {
            Value::Str(text, _) => self.send_text(&format!("4{text}")),
            Value::Bytes(_) => unreachable!("the common parser writes text"),
        }
    }

    fn send_text(&self, text: &str) -> Result<(), Reason> {
        self.send(text_frame(text.len(), |frame| frame.extend_from_slice(text.as_bytes())))
    }

    fn send(&self, frame: Bytes) -> Result<(), Reason> {
        self.client.send(frame).map_err(|error| match error {
            EmitError::Full => TOO_SLOW,
            EmitError::Closed => TRANSPORT_CLOSE,
        })
    }
}
