//! [`Complaints`]: warns when Redis refuses what webhooks ask of it. Input: errors of Redis. Output: warnings with what to do, the
//! same one once a minute.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::books::Books;
use super::sender::SAY_AGAIN;
use crate::redis_client::QueryError;

/// What was complained of, with its reason, and when.
#[derive(Default)]
pub(super) struct Complaints(Mutex<HashMap<&'static str, (String, Instant)>>);

impl Complaints {
    /// Says that `what`, such as `could not write changes to Redis`, failed and is tried again.
    pub(super) fn say(&self, what: &'static str, error: &QueryError, books: &Books) {
        let reason = error.full_text();
        // A connection that is lost is told by its client, which also says when Redis is back.
        if !matches!(error, QueryError::Refused(_)) {
            return debug!(reason, "webhooks {what}; retrying");
        }
        {
            let mut told = self.0.lock();
            if told.get(what).is_some_and(|(before, at)| *before == reason && at.elapsed() < SAY_AGAIN) {
                return;
            }
            told.insert(what, (reason.clone(), Instant::now()));
        }
        warn!(reason, hint = books.hint(error), "webhooks {what}; retrying");
    }
}
