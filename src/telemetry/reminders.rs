//! [`Reminders`]: logs a failure that lasts once, and again at intervals, instead of with every retry.
//!
//! Input: the reason of each failed attempt. Output: whether to log it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The reasons that were logged within the last interval.
#[derive(Debug)]
pub(crate) struct Reminders<R> {
    interval: Duration,
    logged: HashMap<R, Instant>,
}

impl<R: Eq + Hash> Reminders<R> {
    /// No reason has been logged; each will be once per `interval`.
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, logged: HashMap::new() }
    }

    /// Whether to log a failure: its reason was not logged within the interval.
    pub(crate) fn is_due(&mut self, reason: R) -> bool {
        let now = Instant::now();
        self.logged.retain(|_, at| now.duration_since(*at) < self.interval);
        let is_due = !self.logged.contains_key(&reason);
        if is_due {
            self.logged.insert(reason, now);
        }
        is_due
    }

    /// What failed works again: the next failure is logged. Returns whether one was.
    pub(crate) fn clear(&mut self) -> bool {
        self.clear_if(|_| true)
    }

    /// As [`Self::clear`], for the reasons that are over.
    pub(crate) fn clear_if(&mut self, is_over: impl Fn(&R) -> bool) -> bool {
        let before = self.logged.len();
        self.logged.retain(|reason, _| !is_over(reason));
        self.logged.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_reason_is_logged_once_per_interval() {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut reminders = Reminders::every(5 * MINUTE);
        let mut due_after = async |minutes: u32, reason| {
            tokio::time::advance(minutes * MINUTE).await;
            reminders.is_due(reason)
        };
        assert!(due_after(0, "unreachable").await);
        assert!(!due_after(4, "unreachable").await);
        assert!(due_after(0, "no password").await, "another reason");
        assert!(due_after(1, "unreachable").await, "a reminder");
        assert!(!due_after(3, "no password").await);
        assert!(due_after(1, "no password").await);
        assert!(reminders.clear());
        assert!(!reminders.clear());
        assert!(reminders.is_due("unreachable"));
    }
}
