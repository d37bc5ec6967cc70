//! Warns when clients keep failing to connect. Input: refused engine requests. Output: a throttled warning per cause.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

/// Failures of one kind within [`WINDOW`] that lead to a warning; fewer can be a coincidence.
const MANY: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Minimum time between two warnings about the same cause.
const QUIET: Duration = Duration::from_secs(600);

/// Failures by Engine.IO error code.
#[derive(Debug, Default)]
pub(super) struct FailedHandshakes(Mutex<HashMap<u64, Failures>>);

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
    warned: Option<Instant>,
}

impl FailedHandshakes {
    /// Counts a refused request; `detail` is its query or its origin.
    pub(super) fn count(&self, code: u64, detail: &str) {
        if self.should_warn(code) {
            let hint = hint(code);
            warn!(code, detail, hint, "clients keep failing to connect");
        }
    }

    fn should_warn(&self, code: u64) -> bool {
        let mut failures = self.0.lock();
        let now = Instant::now();
        let failures = failures.entry(code).or_insert(Failures { count: 0, since: now, warned: None });
        if now - failures.since > WINDOW {
            (failures.count, failures.since) = (0, now);
        }
        failures.count += 1;
        let is_quiet = failures.warned.is_some_and(|warned| now - warned < QUIET);
        if failures.count < MANY || is_quiet {
            return false;
        }
        failures.warned = Some(now);
        true
    }
}

/// What an Engine.IO error code usually means, and what to do about it.
fn hint(code: u64) -> &'static str {
    match code {
        0 => "they ask for a transport that is off or does not exist: check socketio.transports here and `transports` in the client",
        1 => "their session is unknown: several nodes need sticky sessions for polling, or clients with transports: ['websocket']",
        2 => "they open a session with a method other than GET: does a proxy change the request?",
        3 => "they ask for JSONP, or their websocket request lost its Upgrade header (does a proxy pass `Upgrade` and `Connection` on?)",
        4 => "their page's origin is not allowed: add it to allowedOrigins",
        _ => "is something other than a socket.io client connecting here?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_cause_is_warned_about_once() {
        let failed = FailedHandshakes::default();
        let said: Vec<bool> = (0..MANY * 2).map(|_| failed.should_warn(1)).collect();
        assert_eq!(said.iter().filter(|&&said| said).count(), 1);
        assert!(said[MANY as usize - 1]);
        assert!(!failed.should_warn(5), "causes are counted separately");
    }
}
