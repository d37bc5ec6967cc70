//! Websockets of Socket.IO clients: those that start a session, and those that take one over from polling.
//!
//! Input: the client's websocket messages. Output: messages for the [`Session`]; for a session that polls, the answer to
//! the probe, NOOPs for polls that would delay the upgrade, and the upgrade itself.
//!
//! Polling continues undisturbed during a probe. If a proxy passes the handshake but swallows the frames, the client loses
//! only the probe.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::polling::Polling;
use super::session::Session;
use crate::admission::Slot;
use crate::event::CloseReason;
use crate::net::websocket::{Limits, Outbox, Protocol};

/// How long a client may take to upgrade.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long polls wait for the probe of a websocket that was accepted. A client that receives the answer to CONNECT before the
/// answer to its probe sends its first events by POST and polls again: two requests more.
const PATIENCE: Duration = Duration::from_millis(50);

/// A client upgrades only after its pending poll was answered, and may start another poll before it has seen the probe's
/// answer. After the first NOOP, further polls are therefore answered at these intervals.
const FIRST_NUDGE: Duration = Duration::from_millis(100);
const NEXT_NUDGES: Duration = Duration::from_millis(500);

/// Everything queued for a probe: the probe's answer and the answers to control frames.
const PROBE_OUTBOX: Limits = Limits { frames: 4, bytes: 1024 };

const PROBE_ANSWER: Bytes = Bytes::from_static(b"\x81\x063probe");

/// What runs on a websocket.
pub(super) enum Carrier {
    /// A connected client.
    Session {
        /// Its session.
        session: Session,
        /// Its slot, held for as long as the connection lasts.
        _slot: Option<Slot>,
    },
    /// The probe of a polling client that may upgrade.
    Probe(Box<Probe>),
}

/// A websocket that probes a polling session.
pub(super) struct Probe {
    polling: Arc<Polling>,
    outbox: Outbox,
    deadline: Instant,
    /// Whether the client has sent its probe.
    has_asked: bool,
    /// When to look after the polls next, and the interval after that.
    next: Instant,
    pause: Duration,
    /// The compression threshold, to be applied after the upgrade.
    deflate_from: Option<u32>,
}

impl Carrier {
    pub(super) const fn session(session: Session, slot: Option<Slot>) -> Self {
        Self::Session { session, _slot: slot }
    }

    /// `None` if another probe of the session is in progress.
    pub(super) fn probe(polling: Arc<Polling>) -> Option<Self> {
        polling.begin_probe().then(|| {
            let (outbox, now) = (Outbox::new(PROBE_OUTBOX), Instant::now());
            let (deadline, next) = (now + UPGRADE_TIMEOUT, now + PATIENCE);
            Self::Probe(Box::new(Probe { polling, outbox, deadline, has_asked: false, next, pause: FIRST_NUDGE, deflate_from: None }))
        })
    }
}

impl Probe {
    fn text(&mut self, text: &str) -> Result<Option<Carrier>, CloseReason> {
        match text {
            "2probe" if self.polling.has_ended() => Err(CloseReason::TransportClose),
            "2probe" => {
                self.outbox.send(PROBE_ANSWER).map_err(|_| CloseReason::TransportClose)?;
                if !std::mem::replace(&mut self.has_asked, true) {
                    // After this answer is written.
                    self.next = Instant::now();
                }
                Ok(None)
            }
            "5" if self.has_asked => match self.polling.change_over() {
                Some(slot) => {
                    let session = self.polling.session().clone();
                    if let Some(least) = self.deflate_from {
                        session.client().deflates(least);
                    }
                    Ok(Some(Carrier::session(session, slot)))
                }
                None => Err(CloseReason::TransportClose),
            },
            _ => Err(CloseReason::ParseError),
        }
    }

    fn beat(&mut self, now: Instant) -> Result<(), CloseReason> {
        if now >= self.deadline {
            return Err(CloseReason::TransportClose);
        }
        if now >= self.next {
            self.next = if self.has_asked { now + std::mem::replace(&mut self.pause, NEXT_NUDGES) } else { self.deadline };
            self.polling.go_on(self.has_asked);
        }
        Ok(())
    }
}

impl Protocol for Carrier {
    fn outbox(&self) -> &Outbox {
        match self {
            Self::Session { session, .. } => session.outbox(),
            Self::Probe(probe) => &probe.outbox,
        }
    }

    fn deflates(&mut self, least: u32) {
        match self {
            Self::Session { session, .. } => session.client().deflates(least),
            // Polls share the outbox and need uncompressed frames.
            Self::Probe(probe) => probe.deflate_from = Some(least),
        }
    }

    fn open(&mut self) -> Result<(), CloseReason> {
        match self {
            Self::Session { session, .. } => session.open(),
            Self::Probe(_) => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), CloseReason> {
        match self {
            Self::Session { session, .. } => session.text(text),
            Self::Probe(probe) => {
                if let Some(session) = probe.text(text)? {
                    *self = session;
                }
                Ok(())
            }
        }
    }

    fn binary(&mut self, data: Bytes) -> Result<(), CloseReason> {
        match self {
            Self::Session { session, .. } => session.frame(data),
            Self::Probe(_) => Err(CloseReason::ParseError),
        }
    }

    fn heard(&mut self, now: Instant) {
        if let Self::Session { session, .. } = self {
            session.heard(now);
        }
    }

    fn too_large(&mut self) {
        match self {
            Self::Session { session, .. } => session.too_large(),
            Self::Probe(probe) => probe.polling.session().too_large(),
        }
    }

    fn due(&self) -> Instant {
        match self {
            Self::Session { session, .. } => session.due(),
            Self::Probe(probe) => probe.next.min(probe.deadline),
        }
    }

    fn beat(&mut self, now: Instant) -> Result<(), CloseReason> {
        match self {
            Self::Session { session, .. } => session.beat(now),
            Self::Probe(probe) => probe.beat(now),
        }
    }

    fn flushed(&mut self, now: Instant) {
        if let Self::Session { session, .. } = self {
            session.flushed(now);
        }
    }

    fn closing(&self) -> Option<CancellationToken> {
        match self {
            Self::Session { session, .. } => session.closing(),
            Self::Probe(probe) => Some(probe.polling.session().shared().connections.closing.clone()),
        }
    }

    fn ended(&mut self, reason: CloseReason) {
        match self {
            Self::Session { session, .. } => session.ended(reason),
            Self::Probe(probe) => probe.polling.end_probe(),
        }
    }
}
