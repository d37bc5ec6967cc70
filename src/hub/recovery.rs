//! Clients that resume their session: the same socket id, the same channels, and everything they missed, before anything new.
//!
//! Input: connections that broke, and clients that prove which session was theirs. Output: sessions restored completely, or not
//! at all.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::history::History;
use super::interest::Interest;
use super::last::LastEvents;
use super::session::{Basis, Session, Terms};
use super::{Hub, Message, Observation, Push, PushError, Socket};
use crate::channel::{ChannelKind, ChannelName};
use crate::config::RecoveryConfig;
use crate::event::{CloseReason, SocketId};
use crate::metrics::Recovered;
use crate::warn_throttled;

/// Estimated bytes of a session, without the names, members and headers in it.
const SESSION_BYTES: u64 = 256;
/// Estimated bytes of a channel of a session, without its name and member.
const STAY_BYTES: u64 = 256;

/// Sessions that are gone which the order of expiry may still hold before it is cleaned up: one client may reconnect
/// a thousand times a second.
const MAX_GONE: usize = 1024;

/// How often expired sessions are dropped.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// A channel that a session was in.
#[derive(Debug, Clone)]
pub(super) struct Stay {
    pub(super) channel: ChannelName,
    /// The number of the newest event when the socket joined.
    pub(super) since: u64,
    /// What the subscription is based on, in guarded channels.
    pub(super) terms: Option<Terms>,
    /// Keeps this node subscribed to the channel in Redis meanwhile, where it subscribes to single channels.
    pub(super) interest: Option<Arc<Interest>>,
}

/// A session whose connection broke.
#[derive(Debug)]
pub(super) struct Saved {
    until: Instant,
    /// The number of the newest event when the session began.
    since: u64,
    /// As in [`Session`].
    stale: Option<Box<str>>,
    stays: Vec<Stay>,
    bytes: u64,
    /// Cancels a token when the session is dropped: until then the socket is still a member of its presence channels.
    _kept: Option<DropGuard>,
}

impl Saved {
    /// A session of another node.
    pub(super) fn adopted(since: u64, stale: Option<Box<str>>, stays: Vec<Stay>) -> Self {
        Self { until: Instant::now(), since, stale, stays, bytes: 0, _kept: None }
    }
}

/// What is known about a session, connected or not.
#[derive(Debug)]
pub(super) struct Known {
    /// The number of the newest event when the session began.
    pub(super) since: u64,
    /// As in [`Session`].
    pub(super) stale: Option<Box<str>>,
    pub(super) stays: Vec<Stay>,
    /// How long other nodes may rely on this.
    pub(super) lasts: Duration,
}

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

/// What is kept for clients that may resume their session.
#[derive(Debug)]
pub(super) struct Recovery {
    window: Duration,
    /// Keep every event, for clients of other nodes.
    keeps_all: bool,
    history: Mutex<History>,
    saved: Mutex<Sessions>,
}

#[derive(Debug)]
struct Sessions {
    by_id: HashMap<SocketId, Saved>,
    /// In the order of expiry; some are gone already.
    order: VecDeque<(Instant, SocketId)>,
    bytes: u64,
    max_bytes: u64,
    /// Number of removals so far.
    removals: u64,
    /// Number of removals in progress.
    removing: usize,
}

impl Sessions {
    fn remove(&mut self, id: SocketId) -> Option<Saved> {
        let saved = self.by_id.remove(&id)?;
        self.bytes -= saved.bytes;
        Some(saved)
    }

    fn insert(&mut self, id: SocketId, saved: Saved) {
        drop(self.remove(id));
        self.order.push_back((saved.until, id));
        self.bytes += saved.bytes;
        self.by_id.insert(id, saved);
        if self.order.len() > 2 * self.by_id.len() + MAX_GONE {
            let Self { order, by_id, .. } = self;
            order.retain(|(until, id)| by_id.get(id).is_some_and(|saved| saved.until == *until));
        }
    }

    /// Drops expired sessions, and the oldest ones while there are too many. Returns those that had not expired.
    fn forget(&mut self, now: Instant) -> Vec<SocketId> {
        let mut pushed_out = Vec::new();
        while let Some((until, id)) = self.order.front().copied() {
            if until > now && self.bytes <= self.max_bytes {
                break;
            }
            self.order.pop_front();
            if self.by_id.get(&id).is_some_and(|saved| saved.until <= until) {
                drop(self.remove(id));
                pushed_out.extend((until > now).then_some(id));
            }
        }
        pushed_out
    }

    /// Drops the sessions of this user, or in this channel, so that no client resumes them.
    fn forget_removed(&mut self, user: Option<&str>, channel: Option<&ChannelName>) {
        let is_user = |stay: &Stay| user.is_some_and(|user| stay.terms.as_ref().is_some_and(|terms| terms.user.as_deref() == Some(user)));
        let is_meant = |saved: &Saved| match channel {
            Some(channel) => saved.stays.iter().any(|stay| stay.channel == *channel),
            None => saved.stays.iter().any(is_user),
        };
        let meant: Vec<_> = self.by_id.iter().filter(|(_, saved)| is_meant(saved)).map(|(id, _)| *id).collect();
        for id in meant {
            drop(self.remove(id));
        }
    }
}

/// A removal from channels in progress. While it lives no session is resumed, and when it is dropped it drops the saved sessions
/// that it concerns: a removal finds a session that is connected or saved, but could miss one that moves between the two.
pub(super) struct Removal<'a> {
    recovery: Option<&'a Recovery>,
    user: Option<&'a str>,
    channel: Option<&'a ChannelName>,
}

impl<'a> Removal<'a> {
    /// Of this user, or of every socket in this channel.
    pub(super) fn begin(recovery: Option<&'a Recovery>, user: Option<&'a str>, channel: Option<&'a ChannelName>) -> Self {
        if let Some(recovery) = recovery {
            let mut saved = recovery.saved();
            saved.removals += 1;
            saved.removing += 1;
        }
        Self { recovery, user, channel }
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if let Some(recovery) = self.recovery {
            let mut saved = recovery.saved();
            saved.forget_removed(self.user, self.channel);
            saved.removing -= 1;
        }
    }
}

impl Recovery {
    /// `keeps_all`: events are kept even when no client of this node may need them.
    pub(super) fn new(config: &RecoveryConfig, keeps_all: bool) -> Self {
        let sessions =
            Sessions { by_id: HashMap::new(), order: VecDeque::new(), bytes: 0, max_bytes: config.bytes, removals: 0, removing: 0 };
        Self { window: config.window, keeps_all, history: Mutex::new(History::new(config)), saved: Mutex::new(sessions) }
    }

    /// Held while an event is sent, so that all clients receive events in the order of their numbers.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }

    fn saved(&self) -> MutexGuard<'_, Sessions> {
        self.saved.lock()
    }

    /// Whether any session is saved, whose client may need events of a channel that no socket is in now.
    pub(super) fn is_waited_for(&self) -> bool {
        if self.keeps_all {
            return true;
        }
        let mut saved = self.saved();
        saved.forget(Instant::now());
        !saved.by_id.is_empty()
    }

    /// Returns a token that is cancelled when the session is no longer kept, and the sessions that had to make room for it.
    fn save(
        &self,
        id: SocketId,
        since: u64,
        stale: Option<Box<str>>,
        stays: Vec<Stay>,
        header_bytes: usize,
    ) -> (CancellationToken, Vec<SocketId>) {
        let now = Instant::now();
        let bytes = SESSION_BYTES + header_bytes as u64 + stays.iter().map(Stay::bytes).sum::<u64>();
        let kept = CancellationToken::new();
        let mut saved = self.saved();
        saved.insert(id, Saved { until: now + self.window, since, stale, stays, bytes, _kept: Some(kept.clone().drop_guard()) });
        let pushed_out = saved.forget(now);
        (kept, pushed_out)
    }

    /// Whether the session of this id is kept.
    pub(super) fn keeps(&self, id: SocketId) -> bool {
        self.saved().by_id.contains_key(&id)
    }

    /// Takes the session, and returns the number of removals so far; `None` also while a removal is in progress.
    fn take(&self, id: SocketId) -> Option<(Saved, u64)> {
        let mut sessions = self.saved();
        if sessions.removing > 0 {
            return None;
        }
        let saved = sessions.remove(id).filter(|saved| saved.until > Instant::now())?;
        Some((saved, sessions.removals))
    }

    /// The number of removals so far; `None` while one is in progress.
    pub(super) fn removals(&self) -> Option<u64> {
        let sessions = self.saved();
        (sessions.removing == 0).then_some(sessions.removals)
    }

    pub(super) const fn window(&self) -> Duration {
        self.window
    }

    /// A saved session.
    pub(super) fn kept(&self, id: SocketId) -> Option<Known> {
        let sessions = self.saved();
        let saved = sessions.by_id.get(&id)?;
        let lasts = saved.until.saturating_duration_since(Instant::now());
        Some(Known { since: saved.since, stale: saved.stale.clone(), stays: saved.stays.clone(), lasts })
    }

    /// Another node has resumed the session.
    pub(super) fn let_go(&self, id: SocketId) {
        drop(self.saved().remove(id));
    }
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

impl Stay {
    fn bytes(&self) -> u64 {
        let member = self.terms.as_ref().and_then(|terms| terms.member.as_ref()).map_or(0, |member| member.json().len());
        STAY_BYTES + (self.channel.as_str().len() + member) as u64
    }
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
        self.catch_up();
    }

    /// Tells a client that can resume the newest offset, for one that has received no event for long: the last offset that it knows
    /// may be forgotten by the time it reconnects. `told` is the number it was told last, and becomes the one it is told now.
    pub fn tell_position(self: &Arc<Self>, socket: &S, told: &mut u64) {
        let Some(recovery) = self.recovery.as_ref().filter(|_| socket.can_recover()) else { return };
        // Under the lock: all events up to this number are in its queue already.
        let history = recovery.history();
        if std::mem::replace(told, history.number()) == history.number() {
            return;
        }
        let mut push = Push::new(Message::Position);
        push.offset = Some(history.newest());
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
        let Some(fresh) = fresh(&mut saved.stale, offset, |stale| history.is_before(stale, saved.since)) else {
            drop((history, last));
            self.tell_gap(id);
            return Return::Afresh;
        };
        // A client whose offset is from before this session, or from another server, has received nothing since.
        let position = match fresh.and_then(|offset| history.position(offset)) {
            Some(position) => position.max(saved.since),
            None if history.knows_since(saved.since) => saved.since,
            None => 0,
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
            self.accept(&session, &channel, ticket, Basis::of(&terms), terms.ends);
            if let (ChannelKind::Presence, Some(member)) = (channel.kind(), terms.member) {
                let (hub, session) = (Arc::clone(self), Arc::clone(&session));
                entering.push(self.tasks.spawn(async move {
                    let again = session.state().begin_again(&channel);
                    if let Some(ticket) = again {
                        hub.enter_presence(&session, &channel, ticket, member).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_sessions_make_room() {
        let recovery = Recovery::new(&RecoveryConfig { bytes: 2 * SESSION_BYTES, ..RecoveryConfig::default() }, false);
        let pushed_out: Vec<_> = (0..4).map(|n| recovery.save(SocketId::new(1, n), 0, None, Vec::new(), 0).1).collect();
        assert_eq!(pushed_out, [vec![], vec![], vec![SocketId::new(1, 0)], vec![SocketId::new(1, 1)]]);
    }

    #[test]
    fn who_comes_back_again_and_again_is_remembered_once() {
        let recovery = Recovery::new(&RecoveryConfig::default(), false);
        for n in 0..10_000 {
            let id = SocketId::new(1, n % 3);
            drop(recovery.take(id));
            recovery.save(id, 0, None, Vec::new(), 0);
        }
        let sessions = recovery.saved();
        assert!(sessions.order.len() < 2000, "{}", sessions.order.len());
        assert_eq!((sessions.by_id.len(), sessions.bytes), (3, 3 * SESSION_BYTES));
    }
}
