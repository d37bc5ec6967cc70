//! [`look`]: evaluates marks. Input: marks, due checks, and the current state. Output: the events to send, in order.

use tokio::time::Instant;

use super::feed::{Feed, Marks};
use super::happening::Happening;
use super::tracker::{Due, Tracker};
use super::truth::Truth;
use crate::channel::{ChannelKind, ChannelName};
use crate::config::WebhookEvent as Name;
use crate::store::{StoreError, users_of};

/// Adds the checks that are due to the marks.
pub(super) fn gather(tracker: &mut Tracker, mut marks: Marks, now: Instant) -> Marks {
    for due in tracker.take_due(now) {
        match due {
            Due::Channel(channel) => marks.channel(channel.as_str()),
            Due::User(channel, user) => marks.user(channel.as_str(), &user),
            Due::Whole(channel) => drop(marks.whole.insert(channel)),
        }
    }
    marks
}

/// Checks everything that is marked. `count` returns the sockets in a channel. Returns the events to send, and whether members could
/// be read; if not, the events are valid all the same, and the failed checks are scheduled again.
pub(super) async fn look(
    tracker: &mut Tracker,
    truth: &impl Truth,
    count: impl Fn(&str) -> usize,
    marks: Marks,
    feed: &Feed,
    now: Instant,
) -> (Vec<Happening>, Result<(), StoreError>) {
    let Marks { mut channels, mut whole, mut users, everything, .. } = marks;
    if everything {
        channels.extend(tracker.channels().cloned());
        channels.extend(truth.counts().into_iter().map(|(channel, _)| channel).filter(|channel| feed.follows(channel.as_str())));
        whole.extend(channels.iter().filter(|channel| channel.kind() == ChannelKind::Presence).cloned());
    }
    let mut check = Check { tracker, truth, now, out: Vec::new(), outcome: Ok(()) };
    for channel in &channels {
        if check.channel(channel, count(channel.as_str())).await {
            whole.insert(channel.clone());
        }
    }
    let wants_members =
        |channel: &ChannelName| feed.wants(Name::MemberAdded, channel.as_str()) || feed.wants(Name::MemberRemoved, channel.as_str());
    whole.retain(|channel| check.tracker.is_occupied(channel.as_str()) && wants_members(channel));
    users.retain(|channel, _| check.tracker.is_occupied(channel.as_str()) && !whole.contains(channel));
    for channel in whole {
        check.members(channel).await;
    }
    for (channel, users) in users {
        let users: Vec<&str> = users.iter().map(|user| &**user).collect();
        check.users(channel, &users).await;
    }
    (check.out, check.outcome)
}

/// Compares the current state with the state sent last.
struct Check<'a, T> {
    tracker: &'a mut Tracker,
    truth: &'a T,
    now: Instant,
    out: Vec<Happening>,
    outcome: Result<(), StoreError>,
}

impl<T: Truth> Check<'_, T> {
    /// A channel with so many sockets. Returns whether all of its members are to be checked.
    async fn channel(&mut self, channel: &ChannelName, sockets: usize) -> bool {
        let mut here = sockets;
        if here == 0 && channel.kind() == ChannelKind::Presence && self.tracker.is_occupied(channel.as_str()) {
            // A user who may still reconnect remains a member, so the channel is not vacant.
            match self.truth.members(channel).await {
                Ok(members) => here = members.len(),
                Err(error) => {
                    self.again(Due::Channel(channel.clone()), error);
                    return false;
                }
            }
        }
        self.tracker.channel(channel, here, self.now, &mut self.out)
    }

    /// All members of a channel.
    async fn members(&mut self, channel: ChannelName) {
        match self.truth.members(&channel).await {
            Ok(members) => self.tracker.members(&channel, &users_of(&members), self.now, &mut self.out),
            Err(error) => self.again(Due::Whole(channel), error),
        }
    }

    /// Some users of a channel.
    async fn users(&mut self, channel: ChannelName, users: &[&str]) {
        match self.truth.have_joined(&channel, users).await {
            Ok(are_in) => {
                for (user, is_in) in users.iter().zip(are_in) {
                    self.tracker.user(&channel, user, is_in, self.now, &mut self.out);
                }
            }
            Err(error) => self.again(Due::Whole(channel), error),
        }
    }

    /// A check has failed.
    fn again(&mut self, due: Due, error: StoreError) {
        self.tracker.again(self.now, due);
        self.outcome = Err(error);
    }
}
