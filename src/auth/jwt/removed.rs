//! [`Removed`]: users who were taken out of a channel, whose tokens would let them back in at once.
//!
//! Input: removals by the HTTP API and by rechecks. Output: whether a token was issued before its holder's removal.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Removals that are remembered.
const MAX_REMOVALS: usize = 10_000;

/// A user, and the channel; `None`: all channels.
type Key = (Box<str>, Option<Box<str>>);

/// Users who were taken out of a channel.
#[derive(Debug)]
pub(super) struct Removed {
    kept_for: Duration,
    /// When it is forgotten, and when it happened, in seconds since 1970.
    removals: Mutex<HashMap<Key, (Instant, f64)>>,
}

impl Removed {
    pub(super) fn new(kept_for: Duration) -> Self {
        Self { kept_for, removals: Mutex::default() }
    }

    pub(super) fn note(&self, user: &str, channel: Option<&str>) {
        let now = Instant::now();
        let mut removals = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        if removals.len() >= MAX_REMOVALS {
            removals.retain(|_, (ends, _)| *ends > now);
        }
        if removals.len() < MAX_REMOVALS {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            removals.insert((user.into(), channel.map(Into::into)), (now + self.kept_for, since));
        }
    }

    /// Whether the user was removed, and the token is not known to be of a later time.
    pub(super) fn covers(&self, user: &str, channel: &str, issued: Option<f64>) -> bool {
        let removals = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        if removals.is_empty() {
            return false;
        }
        let now = Instant::now();
        [Some(channel), None].into_iter().any(|channel| {
            let removal = removals.get(&(user.into(), channel.map(Into::into)));
            removal.is_some_and(|(ends, at)| *ends > now && issued.is_none_or(|issued| issued <= *at))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_old_token_is_not_taken_until_the_removal_is_forgotten() {
        let removed = Removed::new(Duration::from_secs(300));
        removed.note("1", Some("private-a"));
        removed.note("2", None);
        assert!(removed.covers("1", "private-a", None) && removed.covers("1", "private-a", Some(0.0)));
        assert!(!removed.covers("1", "private-b", None) && !removed.covers("3", "private-a", None));
        assert!(!removed.covers("1", "private-a", Some(f64::MAX)), "a token of later");
        assert!(removed.covers("2", "private-b", None));
        tokio::time::advance(Duration::from_secs(300)).await;
        assert!(!removed.covers("1", "private-a", None));
    }
}
