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

/// Checks everything that is marked, and appends the events to send to `out`. `count` returns the sockets in a channel.
///
/// # Errors
/// [`StoreError`] when members cannot be read. The events in `out` are valid even then; failed checks are scheduled again.
pub(super) async fn look(
    tracker: &mut Tracker,
    truth: &impl Truth,
    count: impl Fn(&str) -> usize,
    marks: Marks,
    feed: &Feed,
    now: Instant,
    out: &mut Vec<Happening>,
) -> Result<(), StoreError> {
    let Marks { mut channels, mut whole, mut users, everything, .. } = marks;
    if everything {
        channels.extend(tracker.channels().cloned());
        channels.extend(truth.counts().into_iter().map(|(channel, _)| channel).filter(|channel| feed.follows(channel.as_str())));
        whole.extend(channels.iter().filter(|channel| channel.kind() == ChannelKind::Presence).cloned());
    }
    let mut failed = Ok(());
    for channel in &channels {
        let mut here = count(channel.as_str());
        if here == 0 && channel.kind() == ChannelKind::Presence && tracker.is_occupied(channel.as_str()) {
            // A user who may still reconnect remains a member, so the channel is not vacant.
            match truth.members(channel).await {
                Ok(members) => here = members.len(),
                Err(error) => {
                    tracker.again(now, Due::Channel(channel.clone()));
                    failed = Err(error);
                    continue;
                }
            }
        }
        if tracker.channel(channel, here, now, out) {
            whole.insert(channel.clone());
        }
    }
    let wants_members =
        |channel: &ChannelName| feed.wants(Name::MemberAdded, channel.as_str()) || feed.wants(Name::MemberRemoved, channel.as_str());
    whole.retain(|channel| tracker.is_occupied(channel.as_str()) && wants_members(channel));
    users.retain(|channel, _| tracker.is_occupied(channel.as_str()) && !whole.contains(channel));
    for channel in whole {
        match truth.members(&channel).await {
            Ok(members) => {
                tracker.members(&channel, &users_of(&members), now, out);
            }
            Err(error) => {
                tracker.again(now, Due::Whole(channel));
                failed = Err(error);
            }
        }
    }
    for (channel, users) in users {
        let users: Vec<&str> = users.iter().map(|user| &**user).collect();
        match truth.have_joined(&channel, &users).await {
            Ok(are_in) => {
                for (user, is_in) in users.iter().zip(are_in) {
                    tracker.user(&channel, user, is_in, now, out);
                }
            }
            Err(error) => {
                tracker.again(now, Due::Whole(channel));
                failed = Err(error);
            }
        }
    }
    failed
}
