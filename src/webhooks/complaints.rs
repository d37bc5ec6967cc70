//! [`Complaints`]: warns when Redis refuses what webhooks ask of it. Input: errors of Redis. Output: warnings with what to do, the
//! same one once a minute.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::books::Books;
use super::sender::WARN_INTERVAL;
use crate::redis_client::QueryError;

/// What failed, with its reason, and when it was logged.
#[derive(Default)]
pub(super) struct Complaints(Mutex<HashMap<&'static str, (String, Instant)>>);

impl Complaints {
    /// Logs that `what`, such as `could not write changes to Redis`, failed and will be retried.
    pub(super) fn say(&self, what: &'static str, error: &QueryError, books: &Books) {
        let reason = error.full_text();
        // The client logs a lost connection itself, and when Redis is back.
        if !matches!(error, QueryError::Refused(_)) {
            return debug!(reason, "webhooks {what}; retrying");
        }
        {
            let mut told = self.0.lock();
            if told.get(what).is_some_and(|(before, at)| *before == reason && at.elapsed() < WARN_INTERVAL) {
                return;
            }
            told.insert(what, (reason.clone(), Instant::now()));
        }
        warn!(reason, hint = books.hint(error), "webhooks {what}; retrying");
    }
}
