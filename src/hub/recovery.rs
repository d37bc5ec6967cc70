//! Clients that come back: the same socket id, the same channels, and everything they missed, before anything new.
//!
//! Input: connections that broke, and clients that prove whose session was theirs. Output: sessions as they were, or
//! none: never a part.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::history::History;
use super::session::{Basis, Session, Terms};
use super::wanted::Want;
use super::{Hub, PushError, Socket};
use crate::channel::{ChannelKind, ChannelName};
use crate::config::RecoveryConfig;
use crate::event::{CloseReason, SocketId};
use crate::metrics::Recovered;

/// Sessions that are kept; beyond, the oldest are forgotten.
const MAX_SESSIONS: usize = 50_000;

/// How often sessions are looked through whose time is over.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// A channel that a session was in.
#[derive(Debug)]
pub(super) struct Stay {
    pub(super) channel: ChannelName,
    /// The newest event when it came in.
    pub(super) since: u64,
    /// What it rests on, in guarded channels.
    pub(super) terms: Option<Terms>,
    /// Keeps the channel heard meanwhile, where Redis is asked for single channels.
    pub(super) want: Option<Arc<Want>>,
}

/// A session whose connection broke.
#[derive(Debug)]
pub(super) struct Saved {
    until: Instant,
    /// The newest event when it began.
    since: u64,
    stays: Vec<Stay>,
}

/// What is kept for those who come back.
#[derive(Debug)]
pub(super) struct Recovery {
    window: Duration,
    history: Mutex<History>,
    saved: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<SocketId, Saved>,
    /// In the order of their end; some are gone already.
    order: VecDeque<(Instant, SocketId)>,
}

impl Sessions {
    fn forget(&mut self, now: Instant) {
        while let Some((until, id)) = self.order.front().copied() {
            if until > now && self.by_id.len() <= MAX_SESSIONS {
                break;
            }
            self.order.pop_front();
            if self.by_id.get(&id).is_some_and(|saved| saved.until <= until) {
                self.by_id.remove(&id);
            }
        }
    }
}

impl Recovery {
    pub(super) fn new(config: &RecoveryConfig) -> Self {
        Self { window: config.window.0, history: Mutex::new(History::new(config)), saved: Mutex::default() }
    }

    /// Held while an event is sent, so that the order of events is that of their numbers for everybody.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saved(&self) -> MutexGuard<'_, Sessions> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody may come back who wants events of a channel that nobody is in now.
    pub(super) fn is_waited_for(&self) -> bool {
        // Not in the middle of a return, when the session is taken out and the client not in its channels yet.
        let _whole = self.history();
        let mut saved = self.saved();
        saved.forget(Instant::now());
        !saved.by_id.is_empty()
    }

    fn save(&self, id: SocketId, since: u64, stays: Vec<Stay>) {
        let now = Instant::now();
        let until = now + self.window;
        let mut saved = self.saved();
        saved.forget(now);
        saved.order.push_back((until, id));
        saved.by_id.insert(id, Saved { until, since, stays });
    }

    fn take(&self, id: SocketId) -> Option<Saved> {
        let saved = self.saved().by_id.remove(&id)?;
        (saved.until > Instant::now()).then_some(saved)
    }

    /// Nobody of this user, or of this channel, comes back.
    pub(super) fn forget(&self, user: Option<&str>, channel: Option<&ChannelName>) {
        self.saved().by_id.retain(|_, saved| {
            let is_user =
                |stay: &Stay| user.is_some_and(|user| stay.terms.as_ref().is_some_and(|terms| terms.user.as_deref() == Some(user)));
            let is_meant = match channel {
                Some(channel) => saved.stays.iter().any(|stay| stay.channel == *channel),
                None => saved.stays.iter().any(is_user),
            };
            !is_meant
        });
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

    /// Keeps a session whose connection broke, if its client can come back.
    pub(super) fn save(&self, session: &Session<S>, reason: CloseReason) {
        if let Some(recovery) = self.recovery.as_ref().filter(|_| reason.is_recoverable() && session.socket.can_recover()) {
            let stays = session.state().stays();
            recovery.save(session.socket.id(), session.since, stays);
        }
    }

    /// A client comes back to the session of `id`, with the offset of the last event it received. `connect` makes it known
    /// to the client, before anything is sent; its socket has the id from then on. `false`: it has to start afresh.
    pub fn recover(self: &Arc<Self>, id: SocketId, offset: Option<&str>, connect: impl FnOnce() -> S) -> bool {
        let Some(recovery) = &self.recovery else { return false };
        // The old connection may be broken, and not be known to be.
        if let Some(live) = self.session(id) {
            self.disconnect(id, CloseReason::TransportClose);
            live.socket.close();
        }
        let mut history = recovery.history();
        let Some(saved) = recovery.take(id) else {
            self.metrics.recovered(Recovered::Unknown);
            return false;
        };
        let position = match offset {
            Some(offset) => history.position(offset),
            None => Some(saved.since),
        };
        let since: HashMap<&ChannelName, u64> = saved.stays.iter().map(|stay| (&stay.channel, stay.since)).collect();
        let missed = position.and_then(|position| history.missed(position, id, |channel| since.get(channel).copied()));
        let Some(missed) = missed else {
            self.metrics.recovered(Recovered::Gap);
            debug!(socket_id = %id, "what a client missed is not kept any more; it starts afresh");
            return false;
        };
        let socket = connect();
        // Under the lock of the history: what is sent from now on comes after what was missed.
        let session = self.register(socket, saved.since);
        let mut joined = Vec::with_capacity(saved.stays.len());
        for stay in saved.stays {
            let ticket = session.state().restore(&stay);
            self.rooms.join(&stay.channel, session.socket.clone());
            self.metrics.subscribed(stay.channel.kind());
            joined.push((stay, ticket));
        }
        self.metrics.replayed.inc_by(missed.len() as u64);
        let is_full = missed.into_iter().any(|frame| session.socket.push_frame(frame) == Err(PushError::Full));
        drop(history);
        self.metrics.recovered(Recovered::Recovered);
        if is_full {
            self.evict(id, &session.socket);
            return true;
        }
        for (Stay { channel, terms, .. }, ticket) in joined {
            let Some(terms) = terms else { continue };
            let member = terms.member.clone();
            let (ends, basis) = (terms.ends, Basis::of(&terms));
            self.accept(&session, &channel, ticket, basis, ends);
            if let (ChannelKind::Presence, Some(member)) = (channel.kind(), member) {
                let (hub, session) = (Arc::clone(self), Arc::clone(&session));
                self.tasks.spawn(async move {
                    let again = session.state().begin_again(&channel);
                    if let Some(ticket) = again {
                        hub.enter_presence(&session, &channel, ticket, member).await;
                    }
                });
            }
        }
        true
    }
}
