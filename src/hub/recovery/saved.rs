//! [`Recovery`]: sessions whose connection broke, and the [`History`], for clients that may resume them.
//!
//! Input: sessions as they break, and removals of users from channels. Output: sessions that are still valid, each at most once.
//! They are dropped when they expire, when there are too many, and when what they are based on is taken away.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::channel::ChannelName;
use crate::config::RecoveryConfig;
use crate::event::SocketId;
use crate::hub::history::History;
use crate::hub::interest::Interest;
use crate::hub::session::Terms;

/// Estimated bytes of a session, without the names, members and headers in it.
const SESSION_BYTES: u64 = 256;
/// Estimated bytes of a channel of a session, without its name and member.
const STAY_BYTES: u64 = 256;

/// Sessions that are gone which the order of expiry may still hold before it is cleaned up: one client may reconnect
/// a thousand times a second.
const MAX_GONE: usize = 1024;

/// A channel that a session was in.
#[derive(Debug, Clone)]
pub(in crate::hub) struct Stay {
    pub(in crate::hub) channel: ChannelName,
    /// The number of the newest event when the socket joined.
    pub(in crate::hub) since: u64,
    /// What the subscription is based on, in guarded channels.
    pub(in crate::hub) terms: Option<Terms>,
    /// Keeps this node subscribed to the channel in Redis meanwhile, where it subscribes to single channels.
    pub(in crate::hub) interest: Option<Arc<Interest>>,
}

/// A session whose connection broke.
#[derive(Debug)]
pub(in crate::hub) struct Saved {
    until: Instant,
    /// The number of the newest event when the session began.
    pub(super) since: u64,
    /// As in [`Session`](crate::hub::session::Session).
    pub(super) stale: Option<Box<str>>,
    pub(super) stays: Vec<Stay>,
    bytes: u64,
    /// Cancels a token when the session is dropped: until then the socket is still a member of its presence channels.
    _kept: Option<DropGuard>,
}

impl Saved {
    /// A session of another node.
    pub(in crate::hub) fn adopted(since: u64, stale: Option<Box<str>>, stays: Vec<Stay>) -> Self {
        Self { until: Instant::now(), since, stale, stays, bytes: 0, _kept: None }
    }
}

/// What is known about a session, connected or not.
#[derive(Debug)]
pub(in crate::hub) struct Known {
    /// The number of the newest event when the session began.
    pub(in crate::hub) since: u64,
    /// As in [`Session`](crate::hub::session::Session).
    pub(in crate::hub) stale: Option<Box<str>>,
    pub(in crate::hub) stays: Vec<Stay>,
    /// How long other nodes may rely on this.
    pub(in crate::hub) lasts: Duration,
}

/// What is kept for clients that may resume their session.
#[derive(Debug)]
pub(in crate::hub) struct Recovery {
    window: Duration,
    /// Keep every event, for clients of other nodes.
    keeps_all: bool,
    history: Mutex<History>,
    saved: Mutex<Sessions>,
}

#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) by_id: HashMap<SocketId, Saved>,
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
    pub(super) fn forget(&mut self, now: Instant) -> Vec<SocketId> {
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
pub(in crate::hub) struct Removal<'a> {
    recovery: Option<&'a Recovery>,
    user: Option<&'a str>,
    channel: Option<&'a ChannelName>,
}

impl<'a> Removal<'a> {
    /// Of this user, or of every socket in this channel.
    pub(in crate::hub) fn begin(recovery: Option<&'a Recovery>, user: Option<&'a str>, channel: Option<&'a ChannelName>) -> Self {
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
    pub(in crate::hub) fn new(config: &RecoveryConfig, keeps_all: bool) -> Self {
        let sessions =
            Sessions { by_id: HashMap::new(), order: VecDeque::new(), bytes: 0, max_bytes: config.bytes, removals: 0, removing: 0 };
        Self { window: config.window, keeps_all, history: Mutex::new(History::new(config)), saved: Mutex::new(sessions) }
    }

    /// Held while an event is sent, so that all clients receive events in the order of their numbers.
    pub(in crate::hub) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }

    pub(super) fn saved(&self) -> MutexGuard<'_, Sessions> {
        self.saved.lock()
    }

    /// Whether any session is saved, whose client may need events of a channel that no socket is in now.
    pub(in crate::hub) fn is_waited_for(&self) -> bool {
        if self.keeps_all {
            return true;
        }
        let mut saved = self.saved();
        saved.forget(Instant::now());
        !saved.by_id.is_empty()
    }

    /// Returns a token that is cancelled when the session is no longer kept, and the sessions that had to make room for it.
    pub(super) fn save(
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
    pub(in crate::hub) fn keeps(&self, id: SocketId) -> bool {
        self.saved().by_id.contains_key(&id)
    }

    /// Takes the session, and returns the number of removals so far; `None` also while a removal is in progress.
    pub(super) fn take(&self, id: SocketId) -> Option<(Saved, u64)> {
        let mut sessions = self.saved();
        if sessions.removing > 0 {
            return None;
        }
        let saved = sessions.remove(id).filter(|saved| saved.until > Instant::now())?;
        Some((saved, sessions.removals))
    }

    /// The number of removals so far; `None` while one is in progress.
    pub(in crate::hub) fn removals(&self) -> Option<u64> {
        let sessions = self.saved();
        (sessions.removing == 0).then_some(sessions.removals)
    }

    pub(in crate::hub) const fn window(&self) -> Duration {
        self.window
    }

    /// A saved session.
    pub(in crate::hub) fn kept(&self, id: SocketId) -> Option<Known> {
        let sessions = self.saved();
        let saved = sessions.by_id.get(&id)?;
        let lasts = saved.until.saturating_duration_since(Instant::now());
        Some(Known { since: saved.since, stale: saved.stale.clone(), stays: saved.stays.clone(), lasts })
    }

    /// Another node has resumed the session.
    pub(in crate::hub) fn let_go(&self, id: SocketId) {
        drop(self.saved().remove(id));
    }
}

impl Stay {
    fn bytes(&self) -> u64 {
        let member = self.terms.as_ref().and_then(|terms| terms.member.as_ref()).map_or(0, |member| member.json().len());
        STAY_BYTES + (self.channel.as_str().len() + member) as u64
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
