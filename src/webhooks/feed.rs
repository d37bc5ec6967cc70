//! [`Feed`]: collects what has changed in the hub since the last check.
//!
//! Input: the hub's observations, made synchronously during its work. Output: [`Marks`]: channels and users to check, and events
//! to send as they happened. Memory is bounded: marks of the same channel are merged, and beyond a limit whole channels, or
//! everything, are marked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::happening::{Detail, Happening};
use super::target::Target;
use crate::channel::{ChannelKind, ChannelName, kind_of};
use crate::config::WebhookEvent;
use crate::hub::{Observation, Observer};
use crate::metrics::Metrics;
use crate::warn_throttled;

/// Maximum number of individually marked users; beyond it, their channels are marked as a whole.
const MAX_USERS: usize = 50_000;
/// Maximum number of individually marked channels; beyond it, everything is marked.
const MAX_CHANNELS: usize = 200_000;
/// Maximum number and bytes of collected events: on one node, and those queued for the leader.
pub(super) const MAX_EVENTS: usize = 10_000;
pub(super) const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Channels whose subscribers have changed.
    pub(super) channels: HashSet<ChannelName>,
    /// Presence channels whose complete member list has to be checked.
    pub(super) whole: HashSet<ChannelName>,
    /// Users who joined or left.
    pub(super) users: HashMap<ChannelName, HashSet<Box<str>>>,
    /// Everything has to be checked.
    pub(super) everything: bool,
    /// Events to send as they happened.
    pub(super) events: Vec<Happening>,
    user_count: usize,
    event_bytes: usize,
}

impl Marks {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.whole.is_empty() && self.users.is_empty() && !self.everything && self.events.is_empty()
    }

    pub(super) fn channel(&mut self, name: &str) {
        if self.everything || self.channels.contains(name) {
            return;
        }
        if self.channels.len() >= MAX_CHANNELS {
            self.everything = true;
            self.channels.clear();
        } else {
            self.channels.insert(name.into());
        }
    }

    pub(super) fn user(&mut self, channel: &str, user: &str) {
        if self.whole.contains(channel) {
            return;
        }
        if self.user_count >= MAX_USERS {
            self.whole.extend(self.users.drain().map(|(channel, _)| channel));
            self.user_count = 0;
            self.whole.insert(channel.into());
            return;
        }
        let is_new = match self.users.get_mut(channel) {
            Some(users) => !users.contains(user) && users.insert(user.into()),
            None => self.users.insert(channel.into(), HashSet::from([user.into()])).is_none(),
        };
        self.user_count += usize::from(is_new);
    }

    /// Adds an event, and returns whether there was room.
    fn event(&mut self, event: Happening) -> bool {
        if self.events.len() >= MAX_EVENTS || self.event_bytes + event.json.len() > MAX_EVENT_BYTES {
            return false;
        }
        self.event_bytes += event.json.len();
        self.events.push(event);
        true
    }
}

/// Observes the hub.
pub(super) struct Feed {
    targets: Arc<[Target]>,
    metrics: Arc<Metrics>,
    marks: Mutex<Marks>,
    /// Notified when there are marks.
    pub(super) marked: Notify,
    /// Whether a target wants `subscription_count`, and so every subscribe and unsubscribe is a mark.
    counts: bool,
}

impl Feed {
    pub(super) fn new(targets: Arc<[Target]>, metrics: Arc<Metrics>) -> Self {
        let counts = targets.iter().any(|target| target.events.has(WebhookEvent::SubscriptionCount));
        Self { targets, metrics, marks: Mutex::default(), marked: Notify::new(), counts }
    }

    /// Takes the changes since the last call.
    pub(super) fn take(&self) -> Marks {
        std::mem::take(&mut self.marks.lock())
    }

    fn mark(&self, mark: impl FnOnce(&mut Marks)) {
        let was_empty = {
            let mut marks = self.marks.lock();
            let was_empty = marks.is_empty();
            mark(&mut marks);
            was_empty
        };
        if was_empty {
            self.marked.notify_one();
        }
    }

    /// Whether any target wants `event` in `channel`.
    pub(super) fn wants(&self, event: WebhookEvent, channel: &str) -> bool {
        self.targets.iter().any(|target| target.wants(event, channel))
    }

    /// Whether any target wants events about the occupancy or members of a channel.
    pub(super) fn follows(&self, channel: &str) -> bool {
        self.targets.iter().any(|target| target.follows(channel))
    }

    fn tell(&self, event: WebhookEvent, channel: &str, detail: impl FnOnce(Detail<'_>) -> Happening) {
        if self.wants(event, channel) {
            let happening = detail(Detail::default());
            let mut had_room = true;
            self.mark(|marks| had_room = marks.event(happening));
            if !had_room {
                self.metrics.webhooks.dropped.inc();
                warn_throttled!(
                    class = 0,
                    key = event.as_str(),
                    event = event.as_str(),
                    channel,
                    "webhook event dropped: too many at once"
                );
            }
        }
    }

    /// Counts and logs the events that were not taken, and are lost now.
    pub(super) fn close(&self) {
        let events = self.take().events.len();
        if events > 0 {
            self.metrics.webhooks.dropped.inc_by(events as u64);
            warn!(events, "webhook events dropped: the server has ended");
        }
    }
}

impl Observer for Feed {
    fn observe(&self, observation: &Observation<'_>) {
        use WebhookEvent as Name;
        match *observation {
            Observation::Subscribed { channel, count, .. } => {
                if (count == 1 || self.counts) && self.follows(channel) {
                    self.mark(|marks| marks.channel(channel));
                }
            }
            Observation::Unsubscribed { channel, count, .. } => {
                if (count == 0 || self.counts) && self.follows(channel) {
                    self.mark(|marks| marks.channel(channel));
                }
            }
            Observation::Joined { channel, member } | Observation::Left { channel, member } => {
                // With a leave grace, the last member may leave long after the last socket.
                if matches!(observation, Observation::Left { .. }) && self.follows(channel) {
                    self.mark(|marks| marks.channel(channel));
                }
                if self.wants(Name::MemberAdded, channel) || self.wants(Name::MemberRemoved, channel) {
                    self.mark(|marks| marks.user(channel, member.user()));
                }
            }
            Observation::Whispered { channel, socket, name, data, user } => self.tell(Name::ClientEvent, channel, |detail| {
                let user_id = user.filter(|_| kind_of(channel) == ChannelKind::Presence);
                let detail = Detail { event: Some(name), data: Some(data.get()), socket_id: Some(socket), user_id, ..detail };
                Happening::now(Name::ClientEvent, channel, detail)
            }),
            Observation::CacheMiss { channel } => {
                self.tell(Name::CacheMiss, channel, |detail| Happening::now(Name::CacheMiss, channel, detail));
            }
            Observation::Connected { socket } => {
                self.tell(Name::Connected, "", |detail| Happening::now(Name::Connected, "", Detail { socket_id: Some(socket), ..detail }))
            }
            Observation::Disconnected { socket, reason } => self.tell(Name::Disconnected, "", |detail| {
                let detail = Detail { socket_id: Some(socket), reason: Some(reason.as_str()), ..detail };
                Happening::now(Name::Disconnected, "", detail)
            }),
            Observation::Refused { channel, socket, status: Some(status), .. } => self.tell(Name::SubscribeRefused, channel, |detail| {
                let detail = Detail { socket_id: Some(socket), status: Some(status), ..detail };
                Happening::now(Name::SubscribeRefused, channel, detail)
            }),
            Observation::Refused { .. }
            | Observation::TurnedAway { .. }
            | Observation::Granted { .. }
            | Observation::Published { .. }
            | Observation::Dropped { .. }
            | Observation::Returned { .. }
            | Observation::Afresh { .. }
            | Observation::Gap => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_bounded() {
        let mut marks = Marks::default();
        (0..MAX_CHANNELS + 10).for_each(|n| marks.channel(&n.to_string()));
        assert!(marks.everything && marks.channels.is_empty());
        (0..MAX_USERS + 10).for_each(|n| marks.user("presence-a", &n.to_string()));
        assert!(marks.users.is_empty());
        assert!(marks.whole.contains("presence-a"));
        let event = || Happening::now(WebhookEvent::CacheMiss, "cache-a", Detail::default());
        assert_eq!((0..MAX_EVENTS + 10).filter(|_| marks.event(event())).count(), MAX_EVENTS);
    }
}
