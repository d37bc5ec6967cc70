//! [`Session`]: one client of Pusher's protocol, from its handshake to its end.
//!
//! Input: the client's messages. Output: calls to the hub, and frames in the client's outbox.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::dialect::{self, Protocol7};
use super::message::{Said, SignIn, Subscribe, User};
use super::signature::{Auth, signable};
use super::{App, Registered, Shared, code};
use crate::admission::Slot;
use crate::auth::Grant;
use crate::channel::{ChannelKind, kind_of, user_of};
use crate::client::{Client, Origin};
use crate::event::{CloseReason, SocketId};
use crate::hub::{Message, Push, Right, Socket as _, Whisper};
use crate::metrics::Refusal;
use crate::net::websocket::{End, FAREWELL, Outbox, Protocol};
use crate::warn_throttled;

/// How long a client may take to answer `pusher:ping`, as in pusher-js.
const PONG_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of users in a watchlist, as at Pusher.
const MAX_WATCHED: usize = 100;

/// One client.
pub(super) struct Session {
    client: Client,
    shared: Arc<Shared>,
    app: Arc<App>,
    _registered: Registered,
    _slot: Slot,
    is_known: bool,
    /// The user who has signed in.
    user: Option<User>,
    heard: Instant,
    /// The server has sent `pusher:ping` and waits for an answer.
    is_asked: bool,
    deadline: Option<Instant>,
    /// The code of the CLOSE frame.
    code: u16,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, app: Arc<App>, origin: Origin, slot: Slot) -> Self {
        let client = Client::new(&Protocol7, origin, shared.hub.allowance(), shared.connections.outbox);
        let heard = Instant::now();
        let registered = Registered::new(&shared, client.id(), &app);
        Self {
            client,
            shared,
            app,
            _registered: registered,
            _slot: slot,
            is_known: false,
            user: None,
            heard,
            is_asked: false,
            deadline: None,
            code: code::TRY_LATER,
        }
    }

    fn id(&self) -> SocketId {
        self.client.id()
    }

    fn send(&self, frame: Bytes) -> Result<(), CloseReason> {
        Ok(self.client.outbox().send(frame)?)
    }

    fn say(&self, event: &str, data: &str) -> Result<(), CloseReason> {
        self.send(dialect::event(event, None, data, None))
    }

    fn wrong(&self, code: u16, message: &str) -> Result<(), CloseReason> {
        self.send(dialect::error(Some(code), message))
    }

    fn take(&mut self, said: &Said<'_>) -> Result<(), CloseReason> {
        match &*said.event {
            "pusher:ping" => self.say("pusher:pong", "{}"),
            "pusher:pong" => Ok(()),
            "pusher:subscribe" => match said.data::<Subscribe>() {
                Some(subscribe) if !subscribe.channel.is_empty() => {
                    self.subscribe(&subscribe);
                    Ok(())
                }
                _ => self.malformed(),
            },
            "pusher:unsubscribe" => match said.data::<Subscribe>() {
                Some(unsubscribe) => {
                    self.shared.hub.unsubscribe(self.id(), &unsubscribe.channel);
                    Ok(())
                }
                None => self.malformed(),
            },
            "pusher:signin" => self.sign_in(said),
            event if event.starts_with("client-") => self.whisper(said),
            _ => self.malformed(),
        }
    }

    fn malformed(&self) -> Result<(), CloseReason> {
        self.shared.hub.metrics().refusal(Refusal::Malformed);
        debug!(socket_id = %self.id(), "ignored a malformed message");
        self.wrong(code::NOT_UNDERSTOOD, "Invalid message format")
    }

    fn subscribe(&self, subscribe: &Subscribe) {
        let channel = subscribe.channel.as_str();
        let right = if self.shared.hub.is_guarded(channel) { self.right(subscribe) } else { Some(Right::Ask(Vec::new())) };
        let Some(right) = right else {
            self.shared.hub.metrics().refusal(Refusal::Unauthorized);
            let hint = "if all are refused, `clients[].secret` is not the secret with which the application signs (PUSHER_APP_SECRET or REVERB_APP_SECRET)";
            warn_throttled!(class = 401, key = channel, socket_id = %self.id(), channel, hint, "refused a subscribe: its signature is wrong");
            // If the outbox cannot take the frame, the next frame closes the client.
            let _ = self.client.push(&Push::new(Message::Refused { channel, status: 401 }));
            return;
        };
        self.shared.hub.subscribe(self.id(), channel, right);
    }

    /// The right by which the client may subscribe; `None`: it has none.
    fn right(&self, subscribe: &Subscribe) -> Option<Right> {
        let (channel, is_presence) = (subscribe.channel.as_str(), kind_of(&subscribe.channel) == ChannelKind::Presence);
        if let Some(user) = user_of(channel) {
            let own = self.user.as_ref().filter(|own| own.id == user)?;
            return Some(Right::Brought(Grant { user: Some(own.id.as_str().into()), ..Grant::default() }));
        }
        match Auth::parse(subscribe.auth.as_deref().unwrap_or_default()) {
            Auth::Signed { key, signature } => {
                let (id, data) = (self.id().to_string(), subscribe.channel_data().filter(|_| is_presence));
                let parts: Vec<&str> = [&*id, channel].into_iter().chain(data).collect();
                if !self.app.has_signed(key, signature, &signable(&parts)) {
                    return None;
                }
                let data = data.map(|data| RawValue::from_string(data.to_owned()));
                match data.transpose() {
                    Ok(None) if is_presence => self.as_signed_in(),
                    Ok(data) => Some(Right::Brought(Grant { channel_data: data.map(Arc::from), ..Grant::default() })),
                    Err(_) => None,
                }
            }
            Auth::None if is_presence && self.user.is_some() => None,
            Auth::None => Some(Right::Ask(Vec::new())),
            Auth::Token(token) => Some(Right::Ask(vec![("Authorization".to_owned(), token.to_owned())])),
        }
    }

    /// In a presence channel, a signed-in client that sends no data of its own joins as its user.
    fn as_signed_in(&self) -> Option<Right> {
        let User { id, user_info, .. } = self.user.as_ref()?;
        let member = json!({ "user_id": id, "user_info": user_info });
        let data = serde_json::value::to_raw_value(&member).expect("texts and JSON serialize");
        Some(Right::Brought(Grant { channel_data: Some(data.into()), ..Grant::default() }))
    }

    fn sign_in(&mut self, said: &Said<'_>) -> Result<(), CloseReason> {
        let Some(sign_in) = said.data::<SignIn>() else { return self.malformed() };
        let text = signable(&[&self.id().to_string(), "", "user", "", &sign_in.user_data]);
        let is_signed = matches!(Auth::parse(&sign_in.auth), Auth::Signed { key, signature } if self.app.has_signed(key, signature, &text));
        let user: Option<User> = serde_json::from_str(&sign_in.user_data).ok().filter(|user: &User| is_signed && !user.id.is_empty());
        let Some(user) = user else { return self.wrong(code::UNAUTHORIZED, "the sign-in is not authorized") };
        if self.user.as_ref().is_some_and(|known| known.id != user.id) {
            return self.wrong(code::UNAUTHORIZED, "another user has signed in on this connection");
        }
        self.say("pusher:signin_success", &json!({ "user_data": sign_in.user_data }).to_string())?;
        let watches = user.watchlist.get(..MAX_WATCHED).unwrap_or(&user.watchlist);
        if watches.len() < user.watchlist.len() {
            self.wrong(code::WATCHLIST_LIMIT, &format!("the watchlist is longer than {MAX_WATCHED}, the first are watched"))?;
        }
        self.shared.hub.sign_in(self.id(), &user.id, watches);
        self.user = Some(user);
        Ok(())
    }

    fn whisper(&self, said: &Said<'_>) -> Result<(), CloseReason> {
        let Some(channel) = said.channel.as_deref() else { return self.malformed() };
        let data = said.whisper();
        let whisper = Whisper { channel, event: &said.event, data: &data, is_binary: false };
        match self.shared.hub.whisper(self.id(), whisper) {
            Ok(()) => Ok(()),
            Err(Refusal::WhisperRate) => self.wrong(code::CLIENT_EVENT_REJECTED, "client event rejected: too many in a second"),
            Err(Refusal::WhisperSize) => self.wrong(code::CLIENT_EVENT_REJECTED, "client event rejected: its data is too large"),
            Err(_) => self
                .wrong(code::CLIENT_EVENT_REJECTED, "client event rejected: it needs a private or presence channel that the client is in"),
        }
    }

    /// When the client has to have sent something.
    fn lifetime(&self) -> Instant {
        // Clients send a ping of their own after `activity_timeout`; the server pings those that do not.
        let quiet = self.shared.activity_timeout * 2;
        self.heard + if self.is_asked { quiet + PONG_TIMEOUT } else { quiet }
    }
}

impl Protocol for Session {
    fn outbox(&self) -> &Outbox {
        self.client.outbox()
    }

    fn deflates(&mut self, least: u32) {
        self.client.deflates(least);
    }

    fn open(&mut self) -> Result<(), CloseReason> {
        let data = json!({ "socket_id": self.id(), "activity_timeout": self.shared.activity_timeout.as_secs().max(1) });
        self.say("pusher:connection_established", &data.to_string())?;
        self.is_known = true;
        self.shared.hub.connect(self.client.clone());
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), CloseReason> {
        match serde_json::from_str::<Said<'_>>(text) {
            Ok(said) => self.take(&said),
            Err(_) => self.malformed(),
        }
    }

    fn binary(&mut self, _: Bytes) -> Result<(), CloseReason> {
        self.malformed()
    }

    fn heard(&mut self, now: Instant) {
        (self.heard, self.is_asked) = (now, false);
    }

    fn too_large(&mut self) {
        self.shared.hub.metrics().refusal(Refusal::MessageSize);
    }

    fn due(&self) -> Instant {
        self.deadline.map_or(self.lifetime(), |deadline| deadline.min(self.lifetime()))
    }

    fn beat(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(CloseReason::TransportClose);
        }
        if now < self.lifetime() {
            return Ok(());
        }
        if !self.is_asked {
            self.is_asked = true;
            return self.say("pusher:ping", "{}");
        }
        // This code makes clients reconnect at once.
        self.code = code::NO_PONG;
        self.shared.hub.end(&self.client, CloseReason::PingTimeout);
        self.client.outbox().end(End::Now);
        self.deadline = Some(now + FAREWELL);
        self.heard = now;
        Ok(())
    }

    fn flushed(&mut self, now: Instant) {
        self.shared.hub.end(&self.client, CloseReason::ServerLeft);
        self.deadline.get_or_insert(now + FAREWELL);
    }

    fn closing(&self) -> Option<CancellationToken> {
        (!self.is_known).then(|| self.shared.connections.closing.clone())
    }

    fn farewell(&self) -> Option<Bytes> {
        Some(dialect::close(self.code))
    }

    fn ended(&mut self, reason: CloseReason) {
        self.client.outbox().end(End::Now);
        self.shared.hub.end(&self.client, reason);
    }
}

/// A rejected websocket: it gets the reason, with a code that tells the client whether to reconnect.
pub(super) struct Refused {
    outbox: Outbox,
    code: u16,
    message: String,
    deadline: Instant,
    closing: CancellationToken,
}

impl Refused {
    pub(super) fn new(code: u16, message: impl Into<String>, shared: &Shared) -> Self {
        let (outbox, closing) = (Outbox::new(shared.connections.outbox), shared.connections.closing.clone());
        Self { outbox, code, message: message.into(), deadline: Instant::now() + FAREWELL, closing }
    }
}

impl Protocol for Refused {
    fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn open(&mut self) -> Result<(), CloseReason> {
        let frames = [dialect::error(Some(self.code), &self.message), dialect::close(self.code)];
        for frame in frames {
            self.outbox.send(frame)?;
        }
        self.outbox.end(End::Flushed);
        Ok(())
    }

    fn due(&self) -> Instant {
        self.deadline
    }

    fn beat(&mut self, now: Instant) -> Result<(), CloseReason> {
        if now >= self.deadline { Err(CloseReason::TransportClose) } else { Ok(()) }
    }

    fn closing(&self) -> Option<CancellationToken> {
        Some(self.closing.clone())
    }
}
