//! [`Tracker`]: what was told of who is where, and what to tell next.
//!
//! Input: the truth about channels and users that may have changed. Output: the [`Happening`]s that lead from what was told to
//! that truth, in order. Who came is told at once, who is gone when that has lasted for `webhooksDelivery.grace`. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::happening::{Detail, Happening};
use crate::channel::{ChannelKind, ChannelName};
use crate::config::WebhookEvent as Name;

/// Counts of larger channels are told as seldom as Pusher tells them.
const LARGE: usize = 100;
const COUNT_PACE: Duration = Duration::from_secs(5);

/// What could not be looked at is looked at again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// What was told of one channel. There is one while it is told to be occupied.
#[derive(Debug, Default)]
struct Told {
    /// It is empty since then, untold.
    empty_since: Option<Instant>,
    count: usize,
    counted: Option<Instant>,
    /// A count is to be told later.
    is_count_due: bool,
    /// Users told to be here, and since when they are gone, untold.
    users: HashMap<Box<str>, Option<Instant>>,
}

/// What to look at when its time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    Channel(ChannelName),
    User(ChannelName, Box<str>),
    /// Everybody in a channel.
    Whole(ChannelName),
}

/// What was told, and what to tell next.
#[derive(Debug)]
pub(super) struct Tracker {
    grace: Duration,
    channels: HashMap<ChannelName, Told>,
    due: BTreeMap<(Instant, u64), Due>,
    /// Tells apart what is due at the same time.
    next: u64,
}

fn happening(name: Name, channel: &ChannelName, user: Option<&str>) -> Happening {
    Happening::now(name, channel.as_str(), Detail { user_id: user, ..Detail::default() })
}

impl Tracker {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, channels: HashMap::new(), due: BTreeMap::new(), next: 0 }
    }

    /// From now on nothing is waited for.
    pub(super) fn hurry(&mut self) {
        self.grace = Duration::ZERO;
    }

    /// When something is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// Takes what is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let later = self.due.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.due, later).into_values().collect()
    }

    fn later(&mut self, at: Instant, due: Due) {
        self.next += 1;
        self.due.insert((at, self.next), due);
    }

    /// A channel was told to be occupied, with this count and these users.
    pub(super) fn load(&mut self, channel: ChannelName, count: usize, users: HashSet<Box<str>>) {
        let users = users.into_iter().map(|user| (user, None)).collect();
        self.channels.insert(channel, Told { count, users, ..Told::default() });
    }

    /// This could not be looked at now.
    pub(super) fn again(&mut self, now: Instant, due: Due) {
        self.later(now + RETRY, due);
    }

    /// Every channel that was told to be occupied.
    pub(super) fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.channels.keys()
    }

    /// Whether a channel was told to be occupied.
    pub(super) fn is_occupied(&self, channel: &str) -> bool {
        self.channels.contains_key(channel)
    }

    /// So many sockets are in a channel. Whether it was vacant by what was told, so that its members are to be looked at.
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
            // Who goes over the limit, or below it, is large, too.
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

    /// These and no others are in a presence channel.
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

    /// A user is in a presence channel, or is not. Of a channel that was told to be vacant nothing is told of users: they are
    /// looked at when it is told to be occupied.
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
        // Looked at in time for the first absence: it has been back since.
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
