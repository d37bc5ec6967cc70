//! Says why an event reaches no client: its channel has no subscribers, but one with nearly the same name has some.
//!
//! Input: channels of events without a subscriber, and the names of channels with subscribers. Output: a warning that says how
//! to fix the two names that are nearest to each other; the next two names are reported after the next event.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::warn_throttled;

/// Seconds between two checks of a channel without subscribers: an app may have many of them with nothing being wrong.
const LOOK_AGAIN: u32 = 10;

/// Number of slots that channels are hashed to. Of the channels that share a slot, one is checked per interval: events without
/// a subscriber may come by the million, so this takes no lock and no memory. A check reads the names of all channels with
/// subscribers, which may be 100,000, so there are six per second at most; a wrong prefix shows in any of them.
const PLACES: usize = 64;

/// Pairs of names that are remembered as reported. Beyond this, all are forgotten: clients may make up any number of names.
const MAX_SAID: usize = 1000;

/// What was checked, and what was reported.
#[derive(Debug)]
pub(super) struct Hints {
    started: Instant,
    hasher: RandomState,
    /// When each slot is checked again, in seconds since the start.
    looks: Vec<AtomicU32>,
    said: Mutex<HashSet<(Box<str>, Box<str>)>>,
    /// The channel of an event that was published without the prefix.
    outside: OnceLock<String>,
}

impl Default for Hints {
    fn default() -> Self {
        let looks = (0..PLACES).map(|_| AtomicU32::new(0)).collect();
        Self { started: Instant::now(), hasher: RandomState::new(), looks, said: Mutex::default(), outside: OnceLock::new() }
    }
}

/// How the channel of an event differs from the one that clients are in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Miss<'a> {
    /// The event's channel still has Redis's prefix.
    PrefixNotCut(&'a str),
    /// Clients joined `private-x` or `presence-x`, but the event went to `x`.
    EventNotGuarded(&'a str),
    /// The name that clients use contains `private-` or `presence-` twice.
    DoubledByClients,
    /// The event's channel contains it twice.
    DoubledByEvent,
    /// The name that clients use has a prefix that the event's has not.
    PrefixOnClients(&'a str),
    /// The names differ in upper and lower case.
    Case,
}

/// Prefixes that Echo and Laravel add to names themselves.
const KINDS: [&str; 2] = ["private-", "presence-"];

impl Hints {
    /// Whether it is time to check a channel in which an event found no subscriber.
    pub(super) fn is_due(&self, channel: &str) -> bool {
        let look = &self.looks[self.hasher.hash_one(channel) as usize % PLACES];
        let now = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX);
        let due = look.load(Ordering::Relaxed);
        // Of several threads at once, only one checks.
        now >= due && look.compare_exchange(due, now.saturating_add(LOOK_AGAIN), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Remembers the channel of an event that was published without the prefix; only the first one is kept.
    pub(super) fn saw_outside(&self, channel: &str) {
        let _ = self.outside.set(channel.to_owned());
    }

    /// The channel of an event that was published without the prefix, if one was seen.
    pub(super) fn outside(&self) -> Option<&str> {
        self.outside.get().map(String::as_str)
    }

    /// Whether `joined`, which has subscribers, is nearly the channel of the event.
    pub(super) fn is_near(event: &str, joined: &str) -> bool {
        miss(event, joined).is_some()
    }

    /// The nearest of the channels with subscribers, and how to fix the difference, whatever was reported before.
    pub(super) fn nearest<'a>(event: &'a str, joined: impl Iterator<Item = &'a str>) -> Option<(&'a str, String)> {
        let near = joined.filter_map(|joined| Some((joined, miss(event, joined)?)));
        let (joined, miss) = near.min_by_key(|(joined, miss)| nearness(event, joined, miss))?;
        Some((joined, miss.hint(event, joined)))
    }

    /// Warns about the nearest of the channels with subscribers, among those that were not reported before.
    pub(super) fn say<'a>(&self, event: &'a str, joined: impl Iterator<Item = &'a str>) {
        let Some((joined, miss, others)) = self.pick(event, joined) else {
            return;
        };
        let (hint, others) = (miss.hint(event, joined), (others > 0).then_some(others));
        warn_throttled!(
            class = 0,
            key = event,
            event_channel = event,
            client_channel = joined,
            others,
            hint,
            "an event found no subscriber, but clients are in a channel of nearly the same name"
        );
    }

    /// The nearest channel that was not reported, how it differs, and how many others are near.
    fn pick<'a>(&self, event: &'a str, joined: impl Iterator<Item = &'a str>) -> Option<(&'a str, Miss<'a>, usize)> {
        let mut said = self.said.lock();
        let is_new = |joined: &&str| !said.contains(&(event.into(), (*joined).into()));
        let near: Vec<_> = joined.filter(is_new).filter_map(|joined| Some((joined, miss(event, joined)?))).collect();
        let others = near.len().saturating_sub(1);
        let (joined, miss) = near.into_iter().min_by_key(|(joined, miss)| nearness(event, joined, miss))?;
        if said.len() >= MAX_SAID {
            said.clear();
        }
        said.insert((event.into(), joined.into()));
        Some((joined, miss, others))
    }
}

/// Smaller is nearer.
fn nearness(event: &str, joined: &str, miss: &Miss<'_>) -> (bool, usize) {
    (miss.is_made_by_clients(), joined.len().abs_diff(event.len()))
}

fn miss<'a>(event: &'a str, joined: &'a str) -> Option<Miss<'a>> {
    if event == joined {
        return None;
    }
    if let Some(prefix) = event.strip_suffix(joined).filter(|_| !joined.is_empty()) {
        return match prefix {
            kind if KINDS.contains(&kind) => KINDS.iter().any(|kind| joined.starts_with(kind)).then_some(Miss::DoubledByEvent),
            // A prefix ends where a word ends: `news` is no near miss of `sportsnews`.
            _ => prefix.ends_with(|end: char| !end.is_alphanumeric()).then_some(Miss::PrefixNotCut(prefix)),
        };
    }
    if let Some(prefix) = joined.strip_suffix(event).filter(|_| !event.is_empty()) {
        return match prefix {
            kind if KINDS.contains(&kind) && KINDS.iter().any(|kind| event.starts_with(kind)) => Some(Miss::DoubledByClients),
            kind if KINDS.contains(&kind) => Some(Miss::EventNotGuarded(kind)),
            _ => prefix.ends_with(|end: char| !end.is_alphanumeric()).then_some(Miss::PrefixOnClients(prefix)),
        };
    }
    event.eq_ignore_ascii_case(joined).then_some(Miss::Case)
}

impl Miss<'_> {
    /// Whether clients can make up any number of such names.
    const fn is_made_by_clients(&self) -> bool {
        matches!(self, Self::PrefixOnClients(_))
    }

    fn hint(&self, event: &str, joined: &str) -> String {
        match self {
            Self::PrefixNotCut(prefix) => {
                format!(
                    "if `{prefix}` is Laravel's Redis prefix (config/database.php), set databaseConfig.redis.keyPrefix = \"{prefix}\" and restart"
                )
            }
            Self::EventNotGuarded(kind) => {
                let class = if *kind == "private-" { "PrivateChannel" } else { "PresenceChannel" };
                format!("the event's broadcastOn() returns new Channel('{event}'); return new {class}('{event}')")
            }
            Self::DoubledByClients => {
                format!("Echo adds the prefix itself: Echo.private('x') joins private-x; clients asked for `{joined}`")
            }
            Self::DoubledByEvent => format!("PrivateChannel and PresenceChannel add the prefix themselves; the event went to `{event}`"),
            Self::PrefixOnClients(prefix) => {
                format!("clients should leave out the prefix `{prefix}`: Laravel's events arrive here without it")
            }
            Self::Case => "names of channels are case sensitive: write them alike in broadcastOn() and in Echo".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_told_apart() {
        for (event, joined, expected) in [
            ("laravel_database_news", "news", Some(Miss::PrefixNotCut("laravel_database_"))),
            ("app-database-private-a.1", "private-a.1", Some(Miss::PrefixNotCut("app-database-"))),
            ("private-private-a", "private-a", Some(Miss::DoubledByEvent)),
            ("private-a", "private-private-a", Some(Miss::DoubledByClients)),
            ("orders.1", "private-orders.1", Some(Miss::EventNotGuarded("private-"))),
            ("news", "laravel_database_news", Some(Miss::PrefixOnClients("laravel_database_"))),
            ("News", "news", Some(Miss::Case)),
            ("private-orders.1", "orders.1", None),
            ("orders.12", "orders.1", None),
            ("sportsnews", "news", None),
            ("news", "news", None),
            ("", "news", None),
        ] {
            assert_eq!(miss(event, joined), expected, "{event} {joined}");
        }
    }

    #[test]
    fn a_channel_is_looked_at_now_and_then() {
        let hints = Hints::default();
        assert!(hints.is_due("news"));
        assert!(!hints.is_due("news"));
        // However many channels there are, the work is bounded.
        let looks = (0..10 * PLACES).filter(|n| hints.is_due(&n.to_string())).count();
        assert!((PLACES / 2..PLACES).contains(&looks), "{looks}");
    }

    #[test]
    fn of_many_near_misses_the_nearest_is_said_then_the_next() {
        let hints = Hints::default();
        let made_up: Vec<String> = (0..2 * MAX_SAID).map(|n| format!("{n}-news")).collect();
        let joined = || made_up.iter().map(String::as_str).chain(["private-news"]);
        let pick = || hints.pick("news", joined()).map(|(joined, _, others)| (joined, others)).unwrap();
        assert_eq!(pick(), ("private-news", made_up.len()));
        assert_eq!(pick(), ("0-news", made_up.len() - 1));
        assert_eq!(hints.pick("news", ["0-news", "sports"].into_iter()), None);
        for _ in 0..made_up.len() {
            pick();
        }
        assert!(hints.said.lock().len() <= MAX_SAID);
    }

    #[test]
    fn the_hint_says_what_to_write() {
        let hint = Miss::PrefixNotCut("laravel_database_").hint("laravel_database_news", "news");
        assert!(hint.contains("databaseConfig.redis.keyPrefix = \"laravel_database_\""), "{hint}");
        let hint = Miss::EventNotGuarded("presence-").hint("room", "presence-room");
        assert!(hint.contains("new PresenceChannel('room')"), "{hint}");
    }
}
