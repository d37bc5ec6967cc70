//! [`Removed`]: remembers users who were removed from a channel, whose tokens would let them back in at once.
//!
//! Input: removals by the HTTP API and by rechecks. Output: whether a token was issued before its holder's removal.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::auth::Pass;
use crate::clock::since_1970;

/// Maximum number of remembered removals. Beyond it, new ones are not recorded until old ones expire.
const MAX_REMOVALS: usize = 10_000;

/// Which tokens a removal affects.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Holder {
    /// All tokens of this user that were issued before the removal.
    User(Box<str>),
    /// The token with this digest, which may have no user in it.
    Token(Box<str>),
}

/// A holder and a channel; `None` for all channels.
type Key = (Holder, Option<Box<str>>);

/// Holders of tokens who were removed from a channel.
#[derive(Debug)]
pub(super) struct Removed {
    kept_for: Duration,
    /// When each removal is forgotten, and when it happened, in seconds since 1970.
    removals: Mutex<HashMap<Key, (Instant, f64)>>,
}

impl Removed {
    pub(super) fn new(kept_for: Duration) -> Self {
        Self { kept_for, removals: Mutex::default() }
    }

    /// A user was removed from `channel`, or from all channels.
    pub(super) fn note(&self, user: &str, channel: Option<&str>) {
        self.insert((Holder::User(user.into()), channel.map(Into::into)));
    }

    /// The holder of this token was removed.
    pub(super) fn note_token(&self, token: &Pass, channel: &str) {
        self.insert((Holder::Token(token.0.as_str().into()), Some(channel.into())));
    }

    fn insert(&self, key: Key) {
        let now = Instant::now();
        let mut removals = self.removals.lock();
        if removals.len() >= MAX_REMOVALS {
            removals.retain(|_, (ends, _)| *ends > now);
        }
        if removals.len() < MAX_REMOVALS {
            let since = since_1970().as_secs_f64();
            removals.insert(key, (now + self.kept_for, since));
        }
    }

    /// Whether the user was removed and the token is not known to have been issued later, or the holder of this very token
    /// was removed. `token` is computed only if any removals are remembered.
    pub(super) fn covers(&self, user: Option<&str>, token: impl FnOnce() -> Pass, channel: &str, issued: Option<f64>) -> bool {
        let removals = self.removals.lock();
        if removals.is_empty() {
            return false;
        }
        let now = Instant::now();
        let find = |holder, channel: Option<&str>| removals.get(&(holder, channel.map(Into::into))).filter(|(ends, _)| *ends > now);
        if find(Holder::Token(token().0.into()), Some(channel)).is_some() {
            return true;
        }
        user.is_some_and(|user| {
            [Some(channel), None].into_iter().any(|channel| {
                let removal = find(Holder::User(user.into()), channel);
                removal.is_some_and(|(_, at)| issued.is_none_or(|issued| issued <= *at))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(text: &str) -> Pass {
        Pass(text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_token_is_not_taken_until_the_removal_is_forgotten() {
        let removed = Removed::new(Duration::from_secs(300));
        let covers = |user: &str, channel: &str, issued| removed.covers(Some(user), || pass("x"), channel, issued);
        removed.note("1", Some("private-a"));
        removed.note("2", None);
        assert!(covers("1", "private-a", None) && covers("1", "private-a", Some(0.0)));
        assert!(!covers("1", "private-b", None) && !covers("3", "private-a", None));
        assert!(!covers("1", "private-a", Some(f64::MAX)), "a token of later");
        assert!(covers("2", "private-b", None));
        tokio::time::advance(Duration::from_secs(300)).await;
        assert!(!covers("1", "private-a", None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_without_a_user_is_remembered_itself() {
        let removed = Removed::new(Duration::from_secs(300));
        let covers = |token: &str, channel: &str| removed.covers(None, || pass(token), channel, Some(f64::MAX));
        removed.note_token(&pass("one"), "private-a");
        assert!(covers("one", "private-a"));
        assert!(!covers("other", "private-a") && !covers("one", "private-b"));
        tokio::time::advance(Duration::from_secs(300)).await;
        assert!(!covers("one", "private-a"));
    }
}
