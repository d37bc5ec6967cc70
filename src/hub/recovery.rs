//! Clients that resume their session: the same socket id, the same channels, and everything they missed, before anything new.
//!
//! Input: connections that broke, and clients that prove which session was theirs. Output: sessions restored completely, or not
//! at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::MutexGuard;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::history::History;
use super::last::LastEvents;
use super::session::{Basis, Join, Session};
use super::{Hub, Message, Observation, Push, PushError, Socket};
use crate::channel::ChannelKind;
use crate::event::{CloseReason, SocketId};
use crate::metrics::Recovered;
use crate::warn_throttled;

mod saved;

pub(super) use saved::{Known, Recovery, Removal, Saved, Stay};

/// How often expired sessions are dropped.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// The outcome of a client's attempt to resume a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// It resumes its session.
    Back,
    /// It has to start a new session.
    Afresh,
    /// Its session may be on another node: see [`Hub::find`].
    Elsewhere,
}

/// The offset to resume from: `Some(None)` for a client that has received nothing since the `stale` offset, which it had before
/// its session. `None`: an event of the session may have had the stale offset too, so it is unknown what the client received.
pub(super) fn fresh<'a>(
    stale: &mut Option<Box<str>>,
    offset: Option<&'a str>,
    is_before: impl FnOnce(&str) -> bool,
) -> Option<Option<&'a str>> {
    if offset.is_some() && stale.as_deref() == offset {
        return offset.is_some_and(is_before).then_some(None);
    }
    if offset.is_some() {
        *stale = None;
    }
    Some(offset)
}

impl<S: Socket> Hub<S> {
    /// Drops sessions when they expire, even when nothing happens: they keep this node subscribed to their channels.
    pub(super) fn forget_in_time(self: &Arc<Self>) {
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            let Some(recovery) = &hub.recovery else { return };
            let forget = async {
                loop {
                    tokio::time::sleep(FORGET_EVERY).await;
                    recovery.saved().forget(Instant::now());
                }
            };
            hub.closing.run_until_cancelled(forget).await;
        });
    }

    /// Saves a session whose connection broke, if its client can resume it. Returns a token that is cancelled when the session
    /// is no longer kept.
    pub(super) fn save(&self, session: &Session<S>, reason: CloseReason) -> Option<CancellationToken> {
        let recovery = self.recovery.as_ref().filter(|_| reason.is_recoverable() && session.socket.can_recover())?;
        let state = session.state();
        let save = || recovery.save(session.socket.id(), session.since, session.stale.clone(), state.stays(), state.header_bytes());
        let (kept, pushed_out) = (!state.is_over()).then(save)?;
        // Otherwise they would stay where other nodes find them, however many there are.
        pushed_out.into_iter().for_each(|id| self.touch(id));
        Some(kept)
    }

    /// How many events are kept for clients that resume, their bytes, and the age of the oldest; `None` without recovery.
    #[must_use]
    pub fn recovery_log(&self) -> Option<(usize, u64, Duration)> {
        self.recovery.as_ref().map(|recovery| recovery.history().size())
    }

    /// How many sessions are kept for clients that may resume them.
    #[must_use]
    pub fn saved_sessions(&self) -> usize {
        self.recovery.as_ref().map_or(0, |recovery| recovery.saved().by_id.len())
    }

    /// Updates the gauges of what is kept.
    pub fn measure_recovery(&self) {
        let Some((events, bytes, age)) = self.recovery_log() else { return };
        let log = &self.metrics.recovery_log;
        log.events.set(i64::try_from(events).unwrap_or(i64::MAX));
        log.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        log.age.set(age.as_secs_f64());
        log.sessions.set(i64::try_from(self.saved_sessions()).unwrap_or(i64::MAX));
    }

    /// Messages from Redis arrive from now on, and earlier ones may have been missed.
    pub fn listens_again(self: &Arc<Self>) {
        if let Some(recovery) = &self.recovery {
            recovery.history().gap();
            self.observers.tell(|| Observation::Gap);
        }
        self.touch_all();
        if self.nodes.is_some() {
            self.catch_up();
        }
    }

    /// Tells a client that can resume the newest offset, for one that has received no event for long: the last offset that it knows
    /// may be forgotten by the time it reconnects. `told` is the number it was told last, and becomes the one it is told now.
    pub fn tell_position(self: &Arc<Self>, socket: &S, told: &mut u64) {
        let Some(recovery) = self.recovery.as_ref().filter(|_| socket.can_recover()) else { return };
        // Under the lock: all events up to this number are in its queue already.
        let history = recovery.history();
        if std::mem::replace(told, history.epochs.number()) == history.epochs.number() {
            return;
        }
        let mut push = Push::new(Message::Position);
        push.offset = Some(history.epochs.newest());
        let is_full = socket.push(&push) == Err(PushError::Full);
        drop(history);
        if is_full {
            self.evict(socket.id(), socket);
        }
    }

    /// A client resumes the session of `id`, with the offset of the last event it received. `connect` confirms the connection
    /// to the client before anything is sent, and returns its socket, which has the id from then on.
    pub fn recover(self: &Arc<Self>, id: SocketId, offset: Option<&str>, connect: impl FnOnce() -> S) -> Return {
        let Some(recovery) = &self.recovery else { return Return::Afresh };
        // The old connection may be broken without this server having noticed.
        if let Some(live) = self.session(id) {
            self.end(&live.socket, CloseReason::TransportClose);
            live.socket.close();
        }
        let last = self.last();
        let history = recovery.history();
        let Some((mut saved, removals)) = recovery.take(id) else {
            if self.shares_sessions() {
                return Return::Elsewhere;
            }
            self.metrics.recovered(Recovered::Unknown);
            return Return::Afresh;
        };
        self.touch(id);
        let fresh = fresh(&mut saved.stale, offset, |stale| history.epochs.is_before(stale, saved.since));
        let position = fresh.and_then(|fresh| match fresh {
            // One that cannot be placed says nothing about what the client has received.
            Some(offset) => Some(history.epochs.position(offset)?.max(saved.since)),
            None if history.epochs.knows_since(saved.since) => Some(saved.since),
            None => Some(0),
        });
        let Some(position) = position else {
            drop((history, last));
            self.tell_gap(id);
            return Return::Afresh;
        };
        if self.restore(recovery, (last, history), id, (saved, removals), position, connect).is_some() {
            Return::Back
        } else {
            Return::Afresh
        }
    }

    /// Events that a client missed are no longer available.
    pub(super) fn tell_gap(&self, id: SocketId) {
        self.metrics.recovered(Recovered::Gap);
        self.observers.tell(|| Observation::Afresh { socket: id });
        let hint = "see recovery.window, recovery.events and recovery.bytes; an outage of Redis leaves a gap, too";
        warn_throttled!(class = 0, key = "", socket_id = %id, hint, "a client starts afresh: the events it missed are no longer kept, or exceed limits.clientQueue");
    }

    /// Restores a session, and sends the events after `position`. Returns the tasks that make the client a member again;
    /// `None`: it has to start a new session.
    pub(super) fn restore(
        self: &Arc<Self>,
        recovery: &Recovery,
        (last, mut history): (MutexGuard<'_, LastEvents>, MutexGuard<'_, History>),
        id: SocketId,
        (saved, removals): (Saved, u64),
        position: u64,
        connect: impl FnOnce() -> S,
    ) -> Option<Vec<JoinHandle<()>>> {
        let now = Instant::now();
        let is_allowed = |stay: &Stay| match &stay.terms {
            Some(terms) => terms.holds(now),
            // A rule opened the channel, and rules may have changed.
            None => !self.is_guarded(stay.channel.as_str()),
        };
        if !saved.stays.iter().all(is_allowed) {
            self.metrics.recovered(Recovered::Unknown);
            return None;
        }
        let since: HashMap<&[u8], u64> = saved.stays.iter().map(|stay| (stay.channel.as_str().as_bytes(), stay.since)).collect();
        let missed = history.missed(position, id, |channel| since.get(channel).copied()).map(|mut missed| {
            for stay in &saved.stays {
                missed.extend(self.latest_since(&last, &history, stay.channel.as_str(), position.max(stay.since), id));
            }
            missed
        });
        let Some(missed) = missed.filter(|missed| self.fits_a_queue(missed)) else {
            drop((history, last));
            self.tell_gap(id);
            return None;
        };
        // Complete before it is registered: a removal has to find what each subscription is based on.
        let session = Session::new(connect(), saved.since, saved.stale.clone());
        let joined: Vec<_> = saved.stays.iter().map(|stay| session.state().restore(stay)).collect();
        // Under the lock of the history: what is sent from now on follows what was missed.
        let session = self.register(session);
        for stay in &saved.stays {
            let count = self.rooms.join(&stay.channel, session.socket.clone());
            self.came_in(&stay.channel, id, count);
        }
        self.touch(id);
        if recovery.removals() != Some(removals) {
            // A user was removed from something meanwhile, and the removal may not have found this session.
            drop((history, last));
            self.metrics.recovered(Recovered::Unknown);
            self.end(&session.socket, CloseReason::ServerLeft);
            session.socket.close();
            return Some(Vec::new());
        }
        let replayed = missed.len();
        self.metrics.replayed.inc_by(replayed as u64);
        let is_full = missed.into_iter().any(|frame| session.socket.push_frame(frame) == Err(PushError::Full));
        drop((history, last));
        self.metrics.recovered(Recovered::Recovered);
        self.observers.tell(|| Observation::Returned { socket: id, replayed });
        if is_full {
            self.evict(id, &session.socket);
            return Some(Vec::new());
        }
        let mut entering = Vec::new();
        for (Stay { channel, terms, .. }, ticket) in saved.stays.into_iter().zip(joined) {
            let Some(terms) = terms else { continue };
            let join = Join { session: Arc::clone(&session), channel, ticket };
            self.accept(&join, Basis::of(&terms), terms.ends);
            if let (ChannelKind::Presence, Some(member)) = (join.channel.kind(), terms.member) {
                let hub = Arc::clone(self);
                entering.push(self.tasks.spawn(async move {
                    let again = join.state().begin_again(&join.channel);
                    if let Some(ticket) = again {
                        hub.enter_presence(&Join { ticket, ..join }, member).await;
                    }
                }));
            }
        }
        Some(entering)
    }

    /// Whether these frames fit in a client's queue; if not, the client would be closed each time it resumes.
    fn fits_a_queue(&self, frames: &[Bytes]) -> bool {
        let limits = self.limits.load();
        let bytes: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        // One place for the message that tells the client that it is connected.
        (frames.len() as u64) < limits.client_queue && bytes < limits.client_queue_bytes
    }
}
