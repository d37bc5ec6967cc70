//! The time of day, where it leaves this process: in tokens, signatures, records and lines for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970. A clock that is set before that says 0.
#[must_use]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time in whole milliseconds.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
