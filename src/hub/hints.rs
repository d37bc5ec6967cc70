//! Says why an event arrives nowhere: nobody is in its channel, but somebody is in one of nearly the same name.
//!
//! Input: channels of events without a subscriber, and the names of channels that have some. Output: one warning a
//! pair of names, with what to mend.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

/// A channel without subscribers is looked at so often at the most: an app may have many, and all are well.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// So many channels are remembered; with more, memory is worth more than the warning.
const REMEMBERED: usize = 1_000;

/// What was looked at, and what was said.
#[derive(Debug, Default)]
pub(super) struct Hints(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    looked_at: HashMap<Box<str>, Instant>,
    said: HashSet<(Box<str>, Box<str>)>,
}

/// How the channel of an event misses the one that clients are in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Miss<'a> {
    /// The event's channel still has Redis's prefix.
    PrefixNotCut(&'a str),
    /// Clients joined `private-x` or `presence-x`, the event went to `x`.
    EventNotGuarded(&'a str),
    /// `private-` or `presence-` stands twice in the name that clients use.
    DoubledByClients,
    /// It stands twice in the event's channel.
    DoubledByEvent,
    /// Clients' names start with something that the event's does not.
    PrefixOnClients(&'a str),
    /// Upper and lower case.
    Case,
}

/// Prefixes that Echo and Laravel put before names themselves.
const KINDS: [&str; 2] = ["private-", "presence-"];

impl Hints {
    /// Whether it is time to look at a channel that an event found empty.
    pub(super) fn is_due(&self, channel: &str) -> bool {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match memory.looked_at.get(channel) {
            Some(&last) if now - last < LOOK_AGAIN => return false,
            None if memory.looked_at.len() >= REMEMBERED => return false,
            _ => memory.looked_at.insert(channel.into(), now),
        };
        true
    }

    /// Whether `joined`, which has subscribers, is nearly the channel of the event.
    pub(super) fn is_near(event: &str, joined: &str) -> bool {
        miss(event, joined).is_some()
    }

    /// Warns about a pair of names, once.
    pub(super) fn say(&self, event: &str, joined: &str) {
        let is_new = self.0.lock().unwrap_or_else(PoisonError::into_inner).said.insert((event.into(), joined.into()));
        if let Some(miss) = miss(event, joined)
            && is_new
        {
            let hint = miss.hint(event, joined);
            warn!(
                event_channel = event,
                client_channel = joined,
                hint,
                "an event found no subscriber, but clients are in a channel of nearly the same name"
            );
        }
    }
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
                format!("clients should not name the prefix `{prefix}`: Laravel's events come without it here")
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
        for n in 0..REMEMBERED {
            let _ = hints.is_due(&n.to_string());
        }
        assert!(!hints.is_due("one too many"));
    }

    #[test]
    fn the_hint_says_what_to_write() {
        let hint = Miss::PrefixNotCut("laravel_database_").hint("laravel_database_news", "news");
        assert!(hint.contains("databaseConfig.redis.keyPrefix = \"laravel_database_\""), "{hint}");
        let hint = Miss::EventNotGuarded("presence-").hint("room", "presence-room");
        assert!(hint.contains("new PresenceChannel('room')"), "{hint}");
    }
}
