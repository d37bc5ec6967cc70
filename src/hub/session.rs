//! One connected socket: the channels that it is in or about to join.
//!
//! Input: subscribes as they begin, succeed, fail and end. Output: [`Ticket`]s that show whether a subscribe still counts, and what
//! each subscription is based on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::inspect::StayView;
use super::interest::Interest;
use super::recovery::Stay;
use super::watchlist::SignedIn;
use crate::auth::{SubscribeHeaders, bytes_of};
use crate::channel::ChannelName;

mod join;
mod terms;

pub(super) use join::Join;
pub(super) use terms::{Basis, Promise, Terms};

/// Maximum bytes of distinct headers that one socket's subscriptions may be based on: they are kept as long as those last.
const MAX_KEPT_HEADER_BYTES: usize = 128 * 1024;

/// A connected socket as the hub keeps it.
pub(super) struct Session<S> {
    pub(super) socket: S,
    /// When the session began.
    pub(super) began: Instant,
    /// The number of the newest event when the session began.
    pub(super) since: u64,
    /// The offset that the client had before this session: if it sends the same one again, it has received nothing since.
    pub(super) stale: Option<Box<str>>,
    state: Mutex<State>,
}

/// What a session is subscribed to.
#[derive(Debug, Default)]
pub(super) struct State {
    is_closed: bool,
    /// The client was disconnected for good, and cannot resume this session.
    is_over: bool,
    /// Channels that the server removed it from: a grant that the application signed before is no longer valid.
    taken_out: HashSet<ChannelName>,
    /// The application's answers for channels that it was asked about before the subscribe.
    promised: HashMap<ChannelName, Promise>,
    channels: HashMap<ChannelName, Subscription>,
    next_generation: u64,
    /// The user who is signed in, independent of channels.
    signed_in: Option<SignedIn>,
    /// Headers that subscriptions are based on, each distinct set once: a client sends the same ones with every subscribe.
    headers: Vec<Arc<SubscribeHeaders>>,
}

/// A channel that the socket is in, or has asked to join.
#[derive(Debug)]
struct Subscription {
    /// Distinguishes this subscription from an earlier one that an unsubscribe ended.
    generation: u64,
    is_joined: bool,
    /// The number of the newest event when the socket joined.
    since: u64,
    /// Requests to the Laravel application that are not answered yet.
    pending: u32,
    /// What the subscription of a guarded channel is based on. Boxed, so that public channels reserve no space for it.
    terms: Option<Box<Terms>>,
    /// Cancels this subscription's requests to the application when it ends.
    end: Option<DropGuard>,
    /// Cancels the watch over the grant's expiry when there is another grant or the subscription ends.
    watch: Option<DropGuard>,
    /// Keeps this node subscribed to the channel in Redis, where it subscribes to single channels.
    interest: Option<Arc<Interest>>,
}

/// Proof that a subscribe was started; void once the socket unsubscribes or closes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// The socket is in, or about to join, as many channels as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl<S> Session<S> {
    pub(super) fn new(socket: S, since: u64, stale: Option<Box<str>>) -> Self {
        Self { socket, began: Instant::now(), since, stale, state: Mutex::default() }
    }

    /// Never held across an await. Locked before the locks of rooms, never after.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn is_in(&self, channel: &str) -> bool {
        self.state().channels.get(channel).is_some_and(|subscription| subscription.is_joined)
    }
}

impl State {
    /// Starts a subscribe; `limit` is the maximum number of channels.
    pub(super) fn begin(&mut self, channel: &ChannelName, limit: u64) -> Result<Ticket, TooMany> {
        if !self.channels.contains_key(channel) && self.channels.len() as u64 >= limit {
            return Err(TooMany);
        }
        let generation = self.next_generation;
        let subscription = self.channels.entry(channel.clone()).or_insert_with(|| {
            self.next_generation += 1;
            Subscription { generation, is_joined: false, since: 0, pending: 0, terms: None, end: None, watch: None, interest: None }
        });
        subscription.pending += 1;
        Ok(Ticket(subscription.generation))
    }

    /// Keeps the interest in the channel for as long as the subscription lasts.
    pub(super) fn keep(&mut self, channel: &ChannelName, ticket: Ticket, interest: Arc<Interest>) {
        if self.is_current(channel, ticket)
            && let Some(subscription) = self.channels.get_mut(channel)
        {
            subscription.interest = Some(interest);
        }
    }

    /// Whether the socket has neither unsubscribed nor disconnected since `ticket` was issued.
    pub(super) fn is_current(&self, channel: &ChannelName, ticket: Ticket) -> bool {
        !self.is_closed && self.channels.get(channel).is_some_and(|subscription| subscription.generation == ticket.0)
    }

    /// The request was granted. `None`: the ticket is void. `Some(true)`: the socket was not in before. `since` is the number
    /// of the newest event.
    pub(super) fn finish(&mut self, channel: &ChannelName, ticket: Ticket, since: u64) -> Option<bool> {
        if !self.is_current(channel, ticket) {
            return None;
        }
        let subscription = self.channels.get_mut(channel)?;
        subscription.pending -= 1;
        if !subscription.is_joined {
            subscription.since = since;
        }
        Some(!std::mem::replace(&mut subscription.is_joined, true))
    }

    /// The request was refused. `false`: the ticket is void. A socket that was in before stays in.
    pub(super) fn refuse(&mut self, channel: &ChannelName, ticket: Ticket) -> bool {
        if !self.is_current(channel, ticket) {
            return false;
        }
        if let Some(subscription) = self.channels.get_mut(channel) {
            subscription.pending -= 1;
            if subscription.pending == 0 && !subscription.is_joined {
                self.channels.remove(channel);
            }
        }
        true
    }

    /// A token that is cancelled when the subscription ends, and already cancelled if it has ended.
    pub(super) fn end_of(&mut self, channel: &ChannelName, ticket: Ticket) -> CancellationToken {
        let token = CancellationToken::new();
        if !self.is_current(channel, ticket) {
            token.cancel();
            return token;
        }
        let Some(subscription) = self.channels.get_mut(channel) else {
            return token;
        };
        match &subscription.end {
            Some(guard) => guard.token().clone(),
            None => {
                subscription.end = Some(token.clone().drop_guard());
                token
            }
        }
    }

    /// Stores what a subscription is based on from now on. The token is cancelled when that changes again or the subscription
    /// ends; `None` if it has ended.
    pub(super) fn accept(
        &mut self,
        channel: &ChannelName,
        ticket: Ticket,
        basis: Basis<'_>,
        ends: Option<Instant>,
    ) -> Option<(Terms, CancellationToken)> {
        let Basis { headers, user, by, member } = basis;
        if !self.is_current(channel, ticket) {
            return None;
        }
        let headers = self.share(headers);
        let terms = Terms { ticket, headers, user, by, member, ends };
        let watch = CancellationToken::new();
        let subscription = self.channels.get_mut(channel)?;
        subscription.terms = Some(Box::new(terms.clone()));
        subscription.watch = Some(watch.clone().drop_guard());
        Some((terms, watch))
    }

    /// What the subscription of a channel is based on, once the socket is in.
    pub(super) fn terms(&self, channel: &str) -> Option<Terms> {
        self.channels.get(channel).filter(|subscription| subscription.is_joined)?.terms.as_deref().cloned()
    }

    /// The client is disconnected for good.
    pub(super) fn end_for_good(&mut self) {
        self.is_over = true;
    }

    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Removes the socket from a channel on behalf of the server: see [`Self::may_bring`].
    pub(super) fn take_out(&mut self, channel: &ChannelName) -> bool {
        self.taken_out.insert(channel.clone());
        self.leave(channel.as_str())
    }

    /// Whether a grant that the application has signed lets the socket in. The signature is the same each time it is made, so
    /// after a removal it is not valid until the application is asked again, on this connection or on another one.
    pub(super) fn may_bring(&self, channel: &ChannelName) -> bool {
        !self.taken_out.contains(channel)
    }

    /// The application has granted a channel and given the client a signature for it.
    pub(super) fn promise(&mut self, channel: &ChannelName, promise: Promise, limit: u64) {
        self.taken_out.remove(channel);
        if self.promised.len() as u64 >= limit {
            self.promised.clear();
        }
        self.promised.insert(channel.clone(), promise);
    }

    pub(super) fn promised(&self, channel: &ChannelName) -> Option<Promise> {
        self.promised.get(channel).cloned()
    }

    /// Total bytes of the headers that subscriptions are based on.
    pub(super) fn header_bytes(&self) -> usize {
        self.headers.iter().map(|known| bytes_of(known)).sum()
    }

    /// Signs a user in, which `add` records. Returns its answer, or `None` if the connection has ended or a user is signed in already.
    pub(super) fn sign_in(&mut self, signed_in: SignedIn, add: impl FnOnce(&SignedIn) -> bool) -> Option<bool> {
        if self.is_closed || self.signed_in.is_some() {
            return None;
        }
        let is_first = add(&signed_in);
        self.signed_in = Some(signed_in);
        Some(is_first)
    }

    /// Removes and returns the signed-in user, once the connection has ended.
    pub(super) fn sign_out(&mut self) -> Option<SignedIn> {
        self.signed_in.take()
    }

    /// The user in a channel: the one that its grant names, or else the signed-in one, if any. `None`: there is no grant yet.
    pub(super) fn user_in(&self, channel: &str) -> Option<Option<Arc<str>>> {
        let terms = self.channels.get(channel)?.terms.as_ref()?;
        Some(terms.user.clone().or_else(|| self.signed_in.as_ref().map(|signed_in| Arc::clone(&signed_in.user))))
    }

    /// Whether the socket is signed in as this user, or is in a channel whose grant names the user.
    pub(super) fn is_user(&self, user: &str) -> bool {
        if self.signed_in.as_ref().is_some_and(|signed_in| &*signed_in.user == user) {
            return true;
        }
        self.channels.values().any(|subscription| {
            let terms = subscription.terms.as_ref().filter(|_| subscription.is_joined);
            terms.is_some_and(|terms| terms.user.as_deref() == Some(user))
        })
    }

    /// The user who is signed in, or whom the grant of a channel names.
    pub(super) fn known_user(&self) -> Option<Arc<str>> {
        let granted = || self.channels.values().find_map(|subscription| subscription.terms.as_ref()?.user.clone());
        self.signed_in.as_ref().map(|signed_in| Arc::clone(&signed_in.user)).or_else(granted)
    }

    /// The channels that the socket is in or has asked to join, for display.
    pub(super) fn views(&self) -> Vec<StayView> {
        let now = Instant::now();
        let view = |(channel, subscription): (&ChannelName, &Subscription)| {
            let terms = subscription.terms.as_ref();
            StayView {
                channel: channel.clone(),
                is_joined: subscription.is_joined,
                user: terms.and_then(|terms| terms.user.clone()),
                by: terms.map(|terms| terms.by),
                ends_in: terms.and_then(|terms| terms.ends).map(|ends| ends.saturating_duration_since(now)),
            }
        };
        let mut views: Vec<_> = self.channels.iter().map(view).collect();
        views.sort_unstable_by(|a, b| a.channel.cmp(&b.channel));
        views
    }

    /// Whether these headers fit in addition to those that the socket's subscriptions are based on.
    pub(super) fn has_room_for(&mut self, headers: &SubscribeHeaders) -> bool {
        self.headers.retain(|known| Arc::strong_count(known) > 1);
        self.headers.iter().any(|known| **known == *headers) || self.header_bytes() + bytes_of(headers) <= MAX_KEPT_HEADER_BYTES
    }

    /// The stored set that equals these headers; each set is stored once.
    fn share(&mut self, headers: &Arc<SubscribeHeaders>) -> Arc<SubscribeHeaders> {
        if let Some(known) = self.headers.iter().find(|known| ***known == **headers) {
            return Arc::clone(known);
        }
        self.headers.push(Arc::clone(headers));
        Arc::clone(headers)
    }

    /// The channels that the socket is in, to restore them when its session is resumed.
    pub(super) fn stays(&self) -> Vec<Stay> {
        let joined = self.channels.iter().filter(|(_, subscription)| subscription.is_joined);
        let stay = |(channel, subscription): (&ChannelName, &Subscription)| Stay {
            channel: channel.clone(),
            since: subscription.since,
            terms: subscription.terms.as_deref().cloned(),
            interest: subscription.interest.clone(),
        };
        joined.map(stay).collect()
    }

    /// Restores the subscription of a channel as it was before the connection broke.
    pub(super) fn restore(&mut self, stay: &Stay) -> Ticket {
        let generation = self.next_generation;
        self.next_generation += 1;
        let ticket = Ticket(generation);
        let terms = stay.terms.clone().map(|terms| Terms { ticket, headers: self.share(&terms.headers), ..terms });
        let subscription = Subscription {
            generation,
            is_joined: true,
            since: stay.since,
            pending: 0,
            terms: terms.map(Box::new),
            end: None,
            watch: None,
            interest: stay.interest.clone(),
        };
        self.channels.insert(stay.channel.clone(), subscription);
        ticket
    }

    /// Starts another subscribe of a channel that the socket is in; `None` when it has left.
    pub(super) fn begin_again(&mut self, channel: &ChannelName) -> Option<Ticket> {
        let subscription = self.channels.get_mut(channel).filter(|_| !self.is_closed)?;
        subscription.pending += 1;
        Some(Ticket(subscription.generation))
    }

    /// Ends the subscription, also one that is in progress. Returns whether the socket was in.
    pub(super) fn leave(&mut self, channel: &str) -> bool {
        self.channels.remove(channel).is_some_and(|subscription| subscription.is_joined)
    }

    /// Ends all subscriptions for good. Returns the channels that the socket was in.
    pub(super) fn close(&mut self) -> Vec<ChannelName> {
        self.is_closed = true;
        let joined = self.channels.drain().filter(|(_, subscription)| subscription.is_joined);
        joined.map(|(channel, _)| channel).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> ChannelName {
        "private-a".into()
    }

    #[test]
    fn a_channel_is_wanted_until_nobody_can_come_back_to_it() {
        let interests = crate::hub::InterestSet::new(Vec::new());
        let interest = interests.declare(&channel()).unwrap();
        let alive = Arc::downgrade(&interest);
        let mut state = State::default();
        let ticket = state.begin(&channel(), 1).unwrap();
        state.keep(&channel(), ticket, interest);
        state.finish(&channel(), ticket, 0);
        let stays = state.stays();
        state.close();
        assert!(alive.upgrade().is_some(), "the connection broke");
        let mut again = State::default();
        again.restore(&stays[0]);
        drop(stays);
        assert!(alive.upgrade().is_some(), "the client is back");
        again.leave(channel().as_str());
        assert!(alive.upgrade().is_none());
    }

    #[test]
    fn an_unsubscribe_voids_questions_under_way() {
        let mut state = State::default();
        let early = state.begin(&channel(), 10).unwrap();
        assert!(!state.leave("private-a"));
        let late = state.begin(&channel(), 10).unwrap();
        assert_eq!(state.finish(&channel(), early, 0), None);
        assert_eq!(state.finish(&channel(), late, 0), Some(true));
    }

    #[test]
    fn a_repeated_subscribe_joins_once() {
        let mut state = State::default();
        let first = state.begin(&channel(), 10).unwrap();
        let second = state.begin(&channel(), 10).unwrap();
        assert_eq!(state.finish(&channel(), first, 0), Some(true));
        assert_eq!(state.finish(&channel(), second, 0), Some(false));
        assert!(state.leave("private-a"));
    }

    #[test]
    fn a_refusal_takes_nobody_out() {
        let mut state = State::default();
        let first = state.begin(&channel(), 10).unwrap();
        state.finish(&channel(), first, 0);
        let again = state.begin(&channel(), 10).unwrap();
        assert!(state.refuse(&channel(), again));
        assert!(state.leave("private-a"));
    }

    #[test]
    fn refused_channels_do_not_count_against_the_limit() {
        let mut state = State::default();
        let ticket = state.begin(&channel(), 1).unwrap();
        assert_eq!(state.begin(&"other".into(), 1), Err(TooMany));
        assert!(state.begin(&channel(), 1).is_ok());
        state.refuse(&channel(), ticket);
        state.refuse(&channel(), ticket);
        assert!(state.begin(&"other".into(), 1).is_ok());
    }

    #[test]
    fn nothing_joins_after_the_close() {
        let mut state = State::default();
        let ticket = state.begin(&channel(), 10).unwrap();
        assert!(state.close().is_empty());
        assert_eq!(state.finish(&channel(), ticket, 0), None);
    }
}
