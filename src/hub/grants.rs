//! Grants after they have been given: their expiry, renewal and revocation.
//!
//! Input: grants of the authorizer, and the HTTP API ([`crate::api::moderation`]). Output: sockets stay, or leave with
//! `subscription_error(channel, status)`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info};

use super::presence::member_of;
use super::recovery::Removal;
use super::removals::Scope;
use super::session::{Basis, Join, Promise, Terms};
use super::{Hub, Socket};
use crate::auth::{Denied, Grant};
use crate::channel::{ChannelKind, ChannelName};
use crate::cluster::control::Message;
use crate::event::SocketId;
use crate::metrics::Refusal;
use crate::metrics::auth::Renewal;

/// Status for a client whose grant has expired.
const ENDED: u16 = 401;
/// No answer came before the expiry.
const NO_ANSWER: Denied = Denied::new(0);
/// Status for a client that was removed from a channel.
const TAKEN_OUT: u16 = 403;

/// The application is asked again a tenth of a grant's time before its expiry, at most this long before.
const MAX_LEAD: Duration = Duration::from_secs(30);
/// At least this long before, or half of the time if that is less: the answer has to arrive before the expiry.
const SHORTEST_LEAD: Duration = Duration::from_secs(5);
/// Delay between two requests about one grant while the application does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// Minimum time between an answer and the next request, for grants that expire at once.
const MIN_RENEW_INTERVAL: Duration = Duration::from_millis(250);
/// Concurrent requests of one recheck; the shield lets fewer through.
const RECHECKS: usize = 1000;

/// The result of a recheck.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recheck {
    /// Sockets that the application was asked about again.
    pub checked: usize,
    /// Those of them that had to leave.
    pub removed: usize,
    /// Those of them that stay because the application did not answer.
    pub undecided: usize,
}

enum Verdict {
    Stays,
    Removed,
    Undecided,
}

impl<S: Socket> Hub<S> {
    /// Stores what a subscription is based on, and watches over the expiry of its grant.
    pub(super) fn accept(self: &Arc<Self>, join: &Join<S>, basis: Basis<'_>, ends: Option<Instant>) {
        let Some((terms, watch)) = join.state().accept(&join.channel, join.ticket, basis, ends) else {
            return;
        };
        self.touch(join.session.socket.id());
        let Some(ends) = ends else {
            return;
        };
        let (hub, join) = (Arc::clone(self), join.clone());
        self.tasks.spawn(async move { watch.run_until_cancelled(hub.watch(&join, &terms, ends)).await });
    }

    /// Asks again shortly before a grant expires, for as long as it is granted again. A refusal ends it at once; an application
    /// that does not answer is asked again until the expiry, and no answer is awaited any longer.
    async fn watch(self: &Arc<Self>, join: &Join<S>, terms: &Terms, mut ends: Instant) {
        let Join { session, channel, .. } = join;
        let mut ask_at = ends - lead(ends);
        loop {
            sleep_until(ask_at.min(ends)).await;
            if ask_at >= ends {
                break;
            }
            let question = self.ask(session, channel, &terms.headers, true);
            match timeout_at(ends, question).await.unwrap_or(Err(NO_ANSWER)) {
                Ok(grant) if still_fits(channel, terms, &grant) => {
                    self.metrics.auth.renewal(Renewal::Renewed);
                    let Some(later) = grant.ends else {
                        return;
                    };
                    ends = later;
                    ask_at = (ends - lead(ends)).max(Instant::now() + MIN_RENEW_INTERVAL);
                }
                Err(denied) if !denied.is_decision() && Instant::now() < ends => {
                    ask_at = Instant::now() + PAUSE;
                }
                Ok(_) | Err(_) => break,
            }
        }
        debug!(socket_id = %session.socket.id(), %channel, "a grant has ended");
        if self.revoke(join, ENDED) {
            self.metrics.auth.renewal(Renewal::Ended);
        }
    }

    /// Asks the application about every socket in a guarded channel, and removes those that it refuses now.
    pub async fn recheck(self: &Arc<Self>, channel: &ChannelName) -> Recheck {
        // Clients that are away have to start a new session, and are authorised then.
        let removal = Removal::begin(self.recovery.as_ref(), None, Some(channel));
        let ids = self.sockets_in(channel.as_str(), usize::MAX);
        drop(removal);
        let verdicts = stream::iter(ids).map(|id| self.recheck_one(id, channel)).buffer_unordered(RECHECKS);
        let sum = verdicts.fold(Recheck::default(), async |sum, verdict| match verdict {
            None => sum,
            Some(Verdict::Stays) => Recheck { checked: sum.checked + 1, ..sum },
            Some(Verdict::Removed) => Recheck { checked: sum.checked + 1, removed: sum.removed + 1, ..sum },
            Some(Verdict::Undecided) => Recheck { checked: sum.checked + 1, undecided: sum.undecided + 1, ..sum },
        });
        let sum = sum.await;
        info!(%channel, checked = sum.checked, removed = sum.removed, undecided = sum.undecided, "rechecked a channel");
        sum
    }

    /// `None` for a socket without a grant of the application, and for one that has left meanwhile.
    async fn recheck_one(self: &Arc<Self>, id: SocketId, channel: &ChannelName) -> Option<Verdict> {
        let session = self.session(id)?;
        let terms = session.state().terms(channel.as_str()).filter(|terms| !terms.is_brought())?;
        let join = Join { session, channel: channel.clone(), ticket: terms.ticket };
        match self.ask(&join.session, channel, &terms.headers, true).await {
            Ok(grant) if still_fits(channel, &terms, &grant) => {
                if grant.ends.is_some() {
                    self.accept(&join, Basis::of(&terms), grant.ends);
                }
                Some(Verdict::Stays)
            }
            Err(denied) if !denied.is_decision() => Some(Verdict::Undecided),
            refused => {
                let status = refused.err().map_or(TAKEN_OUT, |denied| denied.status);
                let _removal = self.begin_removal(terms.user.as_deref(), Some(channel));
                self.void(&terms, channel, terms.user.as_deref());
                self.revoke(&join, status).then_some(Verdict::Removed)
            }
        }
    }

    /// Removes a user's sockets from a channel. A user is known by a presence channel the socket is in, or by the `sub` of its
    /// token. Returns how many sockets that were.
    pub fn unsubscribe_user(self: &Arc<Self>, user: &str, channel: &ChannelName) -> usize {
        // Before the sockets leave, or an earlier answer might let them back in.
        let _removal = self.begin_removal(Some(user), Some(channel));
        let Some(room) = self.rooms.snapshot(channel.as_str()) else {
            return 0;
        };
        let mut removed = 0;
        for (id, _) in room.iter() {
            let Some(session) = self.session(id).filter(|session| session.state().is_user(user)) else {
                continue;
            };
            let terms = session.state().terms(channel.as_str());
            if let Some(terms) = terms {
                // Without the user: every node is told to remove that one anyway.
                self.void(&terms, channel, None);
            }
            let was_in = session.state().take_out(channel);
            if was_in {
                self.left(channel, id, "removed by the HTTP API");
                self.refuse(&session, channel.as_str(), TAKEN_OUT, Refusal::Unauthorized);
                removed += 1;
            }
        }
        removed
    }

    /// Invalidates what was granted before, and keeps clients from resuming their sessions meanwhile.
    pub(super) fn begin_removal<'a>(&'a self, user: Option<&'a str>, channel: Option<&'a ChannelName>) -> Removal<'a> {
        self.authorizer.removed(user, channel);
        if let Some(user) = user {
            self.removals.note(user, channel);
        }
        Removal::begin(self.recovery.as_ref(), user, channel)
    }

    /// Makes what a subscription was based on invalid for the channel, here and on other nodes. `user`: one whose removal the
    /// other nodes do not know of.
    pub(super) fn void(&self, terms: &Terms, channel: &ChannelName, user: Option<&str>) {
        let pass = self.authorizer.pass(&terms.headers);
        if let Some(pass) = &pass {
            self.authorizer.void(pass, channel);
        }
        if pass.is_some() || user.is_some() {
            let (user, channel) = (user.map(str::to_owned), channel.as_str().to_owned());
            self.tell_others(|from| Message::Removed { from, user, pass, channel });
        }
    }

    /// The application has granted a channel to a socket, which will subscribe with a signature for it.
    pub fn promise(&self, socket: SocketId, channel: &ChannelName, grant: &Grant) {
        if let Some(session) = self.session(socket) {
            let promise = Promise { user: grant.user.clone(), ends: grant.ends };
            session.state().promise(channel, promise, self.limits.load().subscriptions);
        }
    }

    /// Removes a socket from a channel that it is in without a grant.
    pub(super) fn turn_out(self: &Arc<Self>, id: SocketId, channel: &ChannelName) {
        let Some(session) = self.session(id) else { return };
        let was_in = {
            let mut state = session.state();
            state.terms(channel.as_str()).is_none() && state.leave(channel.as_str())
        };
        if was_in {
            self.left(channel, id, "no longer open");
            self.refuse(&session, channel.as_str(), ENDED, Refusal::Unauthorized);
        }
    }

    /// Keeps out, or removes, a user who was removed after the subscribe, when there had been `removals`. Returns whether that was so.
    pub(super) fn is_removed(self: &Arc<Self>, join: &Join<S>, removals: u64, user: Option<&str>) -> bool {
        match user.and_then(|user| self.removals.since(removals, user, &join.channel)) {
            None => false,
            Some(Scope::All) => {
                join.state().end_for_good();
                join.session.socket.terminate();
                true
            }
            Some(Scope::Channel) => {
                self.revoke(join, TAKEN_OUT);
                true
            }
        }
    }

    /// Ends a subscription on behalf of the server, also one in progress. Returns whether it was that of the ticket.
    fn revoke(self: &Arc<Self>, join: &Join<S>, status: u16) -> bool {
        let Join { session, channel, ticket } = join;
        let was_in = {
            let mut state = session.state();
            if !state.is_current(channel, *ticket) {
                return false;
            }
            state.take_out(channel)
        };
        if was_in {
            self.left(channel, session.socket.id(), "no longer allowed");
        }
        self.refuse(session, channel.as_str(), status, Refusal::Unauthorized);
        true
    }
}

/// How long before its expiry a grant is asked for again.
fn lead(ends: Instant) -> Duration {
    let left = ends.saturating_duration_since(Instant::now());
    (left / 10).clamp(SHORTEST_LEAD.min(left / 2), MAX_LEAD)
}

/// Whether a new grant is for the same user as before; another user may have logged in with the same cookie.
fn still_fits(channel: &ChannelName, terms: &Terms, grant: &Grant) -> bool {
    channel.kind() != ChannelKind::Presence || member_of(grant).is_ok_and(|member| Some(member.user()) == terms.user.as_deref())
}
