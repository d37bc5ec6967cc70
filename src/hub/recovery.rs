//! Clients that come back: the same socket id, the same channels, and everything they missed, before anything new.
//!
//! Input: connections that broke, and clients that prove whose session was theirs. Output: sessions as they were, or
//! none: never a part.

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

/// What a session costs beside the names, members and headers in it.
const SESSION_BYTES: u64 = 256;
/// What a channel of a session costs beside its name and member.
const STAY_BYTES: u64 = 256;

/// Sessions that may be in the order of their ends though they are not kept any more: a client may come back a thousand times a
/// second.
const MAX_GONE: usize = 1024;

/// How often sessions are looked through whose time is over.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// A channel that a session was in.
#[derive(Debug, Clone)]
pub(super) struct Stay {
    pub(super) channel: ChannelName,
    /// The newest event when it came in.
    pub(super) since: u64,
    /// What it rests on, in guarded channels.
    pub(super) terms: Option<Terms>,
    /// Keeps the channel heard meanwhile, where Redis is asked for single channels.
    pub(super) interest: Option<Arc<Interest>>,
}

/// A session whose connection broke.
#[derive(Debug)]
pub(super) struct Saved {
    until: Instant,
    /// The newest event when it began.
    since: u64,
    /// As in [`Session`].
    stale: Option<Box<str>>,
    stays: Vec<Stay>,
    bytes: u64,
    /// Tells when the session is not kept any more: until then it is still a member of its presence channels.
    _kept: Option<DropGuard>,
}

impl Saved {
    /// One of another node.
    pub(super) fn adopted(since: u64, stale: Option<Box<str>>, stays: Vec<Stay>) -> Self {
        Self { until: Instant::now(), since, stale, stays, bytes: 0, _kept: None }
    }
}

/// What is known of a session, connected or not.
#[derive(Debug)]
pub(super) struct Known {
    /// The newest event when it began.
    pub(super) since: u64,
    /// As in [`Session`].
    pub(super) stale: Option<Box<str>>,
    pub(super) stays: Vec<Stay>,
    /// For how long that is good for other nodes.
    pub(super) lasts: Duration,
}

/// What becomes of a client that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// It goes on with its session.
    Back,
    /// It has to start afresh.
    Afresh,
    /// Its session may be another node's: see [`Hub::find`].
    Elsewhere,
}

/// What is kept for those who come back.
#[derive(Debug)]
pub(super) struct Recovery {
    window: Duration,
    /// Every event is kept, for clients of other nodes.
    keeps_all: bool,
    history: Mutex<History>,
    saved: Mutex<Sessions>,
}

#[derive(Debug)]
struct Sessions {
    by_id: HashMap<SocketId, Saved>,
    /// In the order of their end; some are gone already.
    order: VecDeque<(Instant, SocketId)>,
    bytes: u64,
    max_bytes: u64,
    /// Removals so far.
    removals: u64,
    /// Removals under way.
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

    fn forget(&mut self, now: Instant) {
        while let Some((until, id)) = self.order.front().copied() {
            if until > now && self.bytes <= self.max_bytes {
                break;
            }
            self.order.pop_front();
            if self.by_id.get(&id).is_some_and(|saved| saved.until <= until) {
                drop(self.remove(id));
            }
        }
    }

    /// Nobody of this user, or of this channel, comes back.
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

/// Somebody is being taken out of channels. While this lives nobody comes back, and at its end nobody is kept who was
/// meant: a session is found among those that are connected or among those that are kept, but moves between the two.
pub(super) struct Removal<'a> {
    recovery: Option<&'a Recovery>,
    user: Option<&'a str>,
    channel: Option<&'a ChannelName>,
}

impl<'a> Removal<'a> {
    /// Of this user, or of everybody in this channel.
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
    /// `keeps_all`: events are kept also when nobody of this node may want them.
    pub(super) fn new(config: &RecoveryConfig, keeps_all: bool) -> Self {
        let sessions =
            Sessions { by_id: HashMap::new(), order: VecDeque::new(), bytes: 0, max_bytes: config.bytes.0, removals: 0, removing: 0 };
        Self { window: config.window.0, keeps_all, history: Mutex::new(History::new(config)), saved: Mutex::new(sessions) }
    }

    /// Held while an event is sent, so that the order of events is that of their numbers for everybody.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }

    fn saved(&self) -> MutexGuard<'_, Sessions> {
        self.saved.lock()
    }

    /// Whether somebody may come back who wants events of a channel that nobody is in now.
    pub(super) fn is_waited_for(&self) -> bool {
        if self.keeps_all {
            return true;
        }
        let mut saved = self.saved();
        saved.forget(Instant::now());
        !saved.by_id.is_empty()
    }

    /// Returns what is cancelled when the session is not kept any more.
    fn save(&self, id: SocketId, since: u64, stale: Option<Box<str>>, stays: Vec<Stay>, header_bytes: usize) -> CancellationToken {
        let now = Instant::now();
        let bytes = SESSION_BYTES + header_bytes as u64 + stays.iter().map(Stay::bytes).sum::<u64>();
        let kept = CancellationToken::new();
        let mut saved = self.saved();
        saved.insert(id, Saved { until: now + self.window, since, stale, stays, bytes, _kept: Some(kept.clone().drop_guard()) });
        saved.forget(now);
        kept
    }

    /// Whether the session of this id is kept.
    pub(super) fn keeps(&self, id: SocketId) -> bool {
        self.saved().by_id.contains_key(&id)
    }

    /// The session, and how many removals there have been; `None` while there is one, too.
    fn take(&self, id: SocketId) -> Option<(Saved, u64)> {
        let mut sessions = self.saved();
        if sessions.removing > 0 {
            return None;
        }
        let saved = sessions.remove(id).filter(|saved| saved.until > Instant::now())?;
        Some((saved, sessions.removals))
    }

    /// How many removals there have been; `None` while there is one.
    pub(super) fn removals(&self) -> Option<u64> {
        let sessions = self.saved();
        (sessions.removing == 0).then_some(sessions.removals)
    }

    pub(super) const fn window(&self) -> Duration {
        self.window
    }

    /// A session that is kept.
    pub(super) fn kept(&self, id: SocketId) -> Option<Known> {
        let sessions = self.saved();
        let saved = sessions.by_id.get(&id)?;
        let lasts = saved.until.saturating_duration_since(Instant::now());
        Some(Known { since: saved.since, stale: saved.stale.clone(), stays: saved.stays.clone(), lasts })
    }

    /// Another node goes on with the session.
    pub(super) fn let_go(&self, id: SocketId) {
        drop(self.saved().remove(id));
    }
}

/// The offset of a client that has received something in its session, which had the `stale` one before: it names that no more.
/// `None`: it is the stale one, and something of this session may have had it, too, so that nobody knows what was received.
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
    /// Lets go of sessions when their time is over, also while nothing happens: they keep channels heard.
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

    /// Keeps a session whose connection broke, if its client can come back. Returns what is cancelled when it is not kept any
    /// more.
    pub(super) fn save(&self, session: &Session<S>, reason: CloseReason) -> Option<CancellationToken> {
        let recovery = self.recovery.as_ref().filter(|_| reason.is_recoverable() && session.socket.can_recover())?;
        let state = session.state();
        (!state.is_over())
            .then(|| recovery.save(session.socket.id(), session.since, session.stale.clone(), state.stays(), state.header_bytes()))
    }

    /// How many events are kept for clients that come back, their bytes, and the age of the oldest; `None` when none are.
    #[must_use]
    pub fn recovery_log(&self) -> Option<(usize, u64, Duration)> {
        self.recovery.as_ref().map(|recovery| recovery.history().size())
    }

    /// Sets the gauges of what is kept.
    pub fn measure_recovery(&self) {
        let (Some(recovery), Some((events, bytes, age))) = (&self.recovery, self.recovery_log()) else { return };
        let log = &self.metrics.recovery_log;
        log.events.set(i64::try_from(events).unwrap_or(i64::MAX));
        log.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        log.age.set(age.as_secs_f64());
        log.sessions.set(i64::try_from(recovery.saved().by_id.len()).unwrap_or(i64::MAX));
    }

    /// What Redis sends is heard from now on, and some of what it sent before may not have been.
    pub fn listens_again(self: &Arc<Self>) {
        if let Some(recovery) = &self.recovery {
            recovery.history().gap();
            self.observers.tell(|| Observation::Gap);
        }
        self.touch_all();
        self.catch_up();
    }

    /// Tells a client that can come back how far the events are, for one that has received none for long: what it would
    /// name otherwise may not be known any more. `told` is the number it was told last, and becomes the one it is told now.
    pub fn tell_position(self: &Arc<Self>, socket: &S, told: &mut u64) {
        let Some(recovery) = self.recovery.as_ref().filter(|_| socket.can_recover()) else { return };
        // Under the lock: all events up to there are in its queue already.
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

    /// A client comes back to the session of `id`, with the offset of the last event it received. `connect` makes it known
    /// to the client, before anything is sent; its socket has the id from then on.
    pub fn recover(self: &Arc<Self>, id: SocketId, offset: Option<&str>, connect: impl FnOnce() -> S) -> Return {
        let Some(recovery) = &self.recovery else { return Return::Afresh };
        // The old connection may be broken, and not be known to be.
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
        // An offset from before this session, or of another server, is that of a client that has received nothing since.
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

    /// What a client missed cannot be had.
    pub(super) fn tell_gap(&self, id: SocketId) {
        self.metrics.recovered(Recovered::Gap);
        self.observers.tell(|| Observation::Afresh { socket: id });
        let hint = "see recovery.window, recovery.events and recovery.bytes; a Redis that was away leaves a gap, too";
        warn_throttled!(class = 0, key = "", socket_id = %id, hint, "a client starts afresh: what it missed is not kept any more, or is more than limits.clientQueue");
    }

    /// Goes on with a session, from `position` on. Returns what makes the client a member again; `None`: it has to start
    /// afresh.
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
            // By its rule it is open, and may not be any more.
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
        // Whole before it is known: who takes a user out of a channel finds what it rests on.
        let session = Session::new(connect(), saved.since, saved.stale.clone());
        let joined: Vec<_> = saved.stays.iter().map(|stay| session.state().restore(stay)).collect();
        // Under the lock of the history: what is sent from now on comes after what was missed.
        let session = self.register(session);
        for stay in &saved.stays {
            let count = self.rooms.join(&stay.channel, session.socket.clone());
            self.came_in(&stay.channel, id, count);
        }
        self.touch(id);
        if recovery.removals() != Some(removals) {
            // Somebody was taken out of something meanwhile, and might not have been found.
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

    /// Whether so many frames may wait for a client: it would be closed for them each time it comes back.
    fn fits_a_queue(&self, frames: &[Bytes]) -> bool {
        let limits = self.limits.load();
        let bytes: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        // One for what tells the client that it is connected.
        (frames.len() as u64) < limits.client_queue && bytes < limits.client_queue_bytes.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
