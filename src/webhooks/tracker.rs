//! [`Tracker`]: the state sent last, and the events to send next.
//!
//! Input: the current state of channels and users that may have changed. Output: the [`Happening`]s that lead from the state sent
//! last to the current one, in order. Arrivals are sent at once, departures after `webhooksDelivery.grace`. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::happening::{Detail, Happening};
use crate::channel::{ChannelKind, ChannelName};
use crate::config::WebhookEvent as Name;

/// Counts of larger channels are throttled to one in this time, as by Pusher.
const LARGE: usize = 100;
const COUNT_PACE: Duration = Duration::from_secs(5);

/// A check that failed is repeated after this time.
const RETRY: Duration = Duration::from_secs(1);

/// The state sent last of one channel, which exists while the channel was sent as occupied.
#[derive(Debug, Default)]
struct Told {
    /// Since when it is empty without that having been sent.
    empty_since: Option<Instant>,
    count: usize,
    counted: Option<Instant>,
    /// A throttled count has to be sent later.
    is_count_due: bool,
    /// Users sent as present, each with the time since when they are absent without that having been sent.
    users: HashMap<Box<str>, Option<Instant>>,
}

/// A scheduled check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    Channel(ChannelName),
    User(ChannelName, Box<str>),
    /// All members of a channel.
    Whole(ChannelName),
}

/// The state sent last of all channels, and scheduled checks.
#[derive(Debug)]
pub(super) struct Tracker {
    grace: Duration,
    channels: HashMap<ChannelName, Told>,
    due: BTreeMap<(Instant, u64), Due>,
    /// Distinguishes checks that are due at the same time.
    next: u64,
}

fn happening(name: Name, channel: &ChannelName, user: Option<&str>) -> Happening {
    Happening::now(name, channel.as_str(), Detail { user_id: user, ..Detail::default() })
}

impl Tracker {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, channels: HashMap::new(), due: BTreeMap::new(), next: 0 }
    }

    /// Drops the grace period: departures are sent at once from now on.
    pub(super) fn hurry(&mut self) {
        self.grace = Duration::ZERO;
    }

    /// When the next check is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// Removes and returns the checks that are due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let later = self.due.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.due, later).into_values().collect()
    }

    fn later(&mut self, at: Instant, due: Due) {
        self.next += 1;
        self.due.insert((at, self.next), due);
    }

    /// Restores a channel that was sent as occupied, with this count and these users.
    pub(super) fn load(&mut self, channel: ChannelName, count: usize, users: HashSet<Box<str>>) {
        let users = users.into_iter().map(|user| (user, None)).collect();
        self.channels.insert(channel, Told { count, users, ..Told::default() });
    }

    /// Repeats a failed check later.
    pub(super) fn again(&mut self, now: Instant, due: Due) {
        self.later(now + RETRY, due);
    }

    /// All channels that were sent as occupied.
    pub(super) fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.channels.keys()
    }

    /// Whether a channel was sent as occupied.
    pub(super) fn is_occupied(&self, channel: &str) -> bool {
        self.channels.contains_key(channel)
    }

    /// Updates the number of sockets in a channel. Returns whether a presence channel is newly occupied: check its members then.
    pub(super) fn channel(&mut self, name: &ChannelName, count: usize, now: Instant, out: &mut Vec<Happening>) -> bool {
        let is_new = !self.channels.contains_key(name);
        if is_new {
            if count == 0 {
                return false;
            }
            out.push(happening(Name::ChannelOccupied, name, None));
        }
        let told = self.channels.entry(name.clone()).or_default();
        let mut due = None;
        if name.kind() != ChannelKind::Presence && told.count != count {
            // A channel that crosses the limit in either direction counts as large.
            let next = told.counted.filter(|_| told.count.max(count) > LARGE).map(|counted| counted + COUNT_PACE);
            match next.filter(|next| *next > now) {
                None => {
                    (told.count, told.counted, told.is_count_due) = (count, Some(now), false);
                    let detail = Detail { subscription_count: Some(count), ..Detail::default() };
                    out.push(Happening::now(Name::SubscriptionCount, name.as_str(), detail));
                }
                Some(_) if told.is_count_due => {}
                Some(next) => {
                    told.is_count_due = true;
                    due = Some(next);
                }
            }
        }
        if count > 0 {
            told.empty_since = None;
        } else {
            let since = *told.empty_since.get_or_insert(now);
            if now >= since + self.grace {
                self.vacate(name, out);
                return false;
            }
            if since == now {
                self.later(now + self.grace, Due::Channel(name.clone()));
            }
        }
        if let Some(next) = due {
            self.later(next, Due::Channel(name.clone()));
        }
        is_new && name.kind() == ChannelKind::Presence
    }

    fn vacate(&mut self, name: &ChannelName, out: &mut Vec<Happening>) {
        let Some(told) = self.channels.remove(name) else { return };
        out.extend(told.users.keys().map(|user| happening(Name::MemberRemoved, name, Some(user))));
        if told.count > 0 {
            out.push(Happening::now(Name::SubscriptionCount, name.as_str(), Detail { subscription_count: Some(0), ..Detail::default() }));
        }
        out.push(happening(Name::ChannelVacated, name, None));
    }

    /// Updates the complete member list of a presence channel.
    pub(super) fn members(&mut self, name: &ChannelName, users: &HashSet<&str>, now: Instant, out: &mut Vec<Happening>) {
        let Some(told) = self.channels.get(name) else { return };
        let gone: Vec<Box<str>> = told.users.keys().filter(|user| !users.contains(&***user)).cloned().collect();
        for user in users {
            self.user(name, user, true, now, out);
        }
        for user in gone {
            self.user(name, &user, false, now, out);
        }
    }

    /// Updates whether a user is in a presence channel. Ignored for channels sent as vacant: all members are checked when the
    /// channel is sent as occupied.
    pub(super) fn user(&mut self, name: &ChannelName, user: &str, is_in: bool, now: Instant, out: &mut Vec<Happening>) {
        let Some(told) = self.channels.get_mut(name) else { return };
        match (told.users.get_mut(user), is_in) {
            (None, true) => {
                told.users.insert(user.into(), None);
                out.push(happening(Name::MemberAdded, name, Some(user)));
            }
            (Some(gone), true) => *gone = None,
            (Some(gone), false) => {
                let since = *gone.get_or_insert(now);
                if now >= since + self.grace {
                    told.users.remove(user);
                    out.push(happening(Name::MemberRemoved, name, Some(user)));
                } else if since == now {
                    self.later(now + self.grace, Due::User(name.clone(), user.into()));
                }
            }
            (None, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(3);

    struct Case {
        tracker: Tracker,
        now: Instant,
    }

    impl Case {
        fn new() -> Self {
            Self { tracker: Tracker::new(GRACE), now: Instant::now() }
        }

        fn after(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            self
        }

        fn due(&mut self) -> Vec<Due> {
            self.tracker.take_due(self.now)
        }

        fn channel(&mut self, name: &str, count: usize) -> Vec<&'static str> {
            let mut out = Vec::new();
            self.tracker.channel(&name.into(), count, self.now, &mut out);
            out.iter().map(|happening| happening.event.as_str()).collect()
        }

        fn user(&mut self, name: &str, user: &str, is_in: bool) -> Vec<&'static str> {
            let mut out = Vec::new();
            self.tracker.user(&name.into(), user, is_in, self.now, &mut out);
            out.iter().map(|happening| happening.event.as_str()).collect()
        }
    }

    #[test]
    fn who_comes_back_in_time_was_not_away() {
        let mut case = Case::new();
        assert_eq!(case.channel("presence-a", 1), ["channel_occupied"]);
        assert_eq!(case.user("presence-a", "1", true), ["member_added"]);
        assert_eq!(case.user("presence-a", "1", false), [""; 0]);
        assert_eq!(case.channel("presence-a", 0), [""; 0]);
        assert_eq!(case.after(GRACE / 2).channel("presence-a", 1), [""; 0]);
        assert_eq!(case.user("presence-a", "1", true), [""; 0]);
        // Checked when the first absence is due, but the user has been back since.
        assert_eq!(case.tracker.next_due(), Some(case.now + GRACE / 2));
        assert_eq!(case.after(GRACE / 2).due().len(), 2);
        assert_eq!(case.user("presence-a", "1", false), [""; 0]);
        assert_eq!(case.after(GRACE / 2).user("presence-a", "1", false), [""; 0]);
        assert_eq!(case.after(GRACE / 2).user("presence-a", "1", false), ["member_removed"]);
    }

    #[test]
    fn an_empty_channel_has_no_members() {
        let mut case = Case::new();
        case.channel("presence-a", 2);
        case.user("presence-a", "1", true);
        assert_eq!(case.channel("presence-a", 0), [""; 0]);
        assert_eq!(case.after(GRACE).due(), [Due::Channel("presence-a".into())]);
        assert_eq!(case.channel("presence-a", 0), ["member_removed", "channel_vacated"]);
        assert_eq!(case.user("presence-a", "2", true), [""; 0], "it is looked at when there is somebody");
        assert!(!case.tracker.is_occupied("presence-a"));
        assert_eq!(case.tracker.next_due(), None);
    }

    #[test]
    fn a_short_visit_that_nobody_looked_at_is_not_told() {
        assert_eq!(Case::new().channel("news", 0), [""; 0]);
    }

    #[test]
    fn counts_of_large_channels_are_told_seldom() {
        let mut case = Case::new();
        assert_eq!(case.channel("news", 100), ["channel_occupied", "subscription_count"]);
        assert_eq!(case.channel("news", 99), ["subscription_count"]);
        assert_eq!(case.channel("news", 101), [""; 0]);
        assert_eq!(case.channel("news", 150), [""; 0]);
        assert_eq!(case.tracker.next_due(), Some(case.now + COUNT_PACE));
        assert_eq!(case.after(COUNT_PACE).due().len(), 1);
        assert_eq!(case.channel("news", 150), ["subscription_count"]);
        assert_eq!(case.channel("presence-a", 5), ["channel_occupied"]);
    }
}
