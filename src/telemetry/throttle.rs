//! [`warn_throttled!`](crate::warn_throttled): rate-limited warnings, for causes that any client can trigger at any rate.
//!
//! Input: lines with a class and a key. Output: the first lines of a class, then one per second with the number of
//! suppressed lines. Part of the budget is reserved for keys that were not logged recently, so that the first refusal of
//! one channel is logged even while ten thousand clients are refused another.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines of a class that may be logged in a burst.
const BURST: u32 = 50;
/// The part of the burst that is reserved for keys that were not logged recently.
const KEPT: u32 = 25;
/// The budget grows by one line in this time.
const PACE: Duration = Duration::from_secs(1);
/// A key counts as recent for this long after it was logged.
const LATELY: Duration = Duration::from_secs(60);
/// Number of slots for recent keys, chosen by hash; a key replaces another one in the same slot.
const PLACES: usize = 64;

/// The state of one call site.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<BTreeMap<u16, Lines>>);

/// The budget of one class.
#[derive(Debug)]
struct Lines {
    left: u32,
    /// The time up to which `left` has been refilled.
    counted: Instant,
    lately: [Option<(u64, Instant)>; PLACES],
    left_out: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

impl Throttle {
    /// A throttle with its full budget.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Calls `line` if the budget allows it, with the number of lines of this class that were suppressed before. Classes must
    /// be a bounded set, such as statuses; `key` may be anything.
    pub(crate) fn say(&self, class: u16, key: &(impl Hash + ?Sized), line: impl FnOnce(Option<u64>)) {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        if let Some(left_out) = self.turn(class, hasher.finish(), Instant::now()) {
            line((left_out > 0).then_some(left_out));
        }
    }

    fn turn(&self, class: u16, key: u64, now: Instant) -> Option<u64> {
        let mut classes = self.0.lock();
        let lines = classes.entry(class).or_insert(Lines { left: BURST, counted: now, lately: [None; PLACES], left_out: 0 });
        lines.turn(key, now)
    }
}

impl Lines {
    fn turn(&mut self, key: u64, now: Instant) -> Option<u64> {
        let paces = now.saturating_duration_since(self.counted).as_secs() / PACE.as_secs();
        self.left = u32::try_from(paces).unwrap_or(BURST).saturating_add(self.left).min(BURST);
        self.counted += PACE * u32::try_from(paces).unwrap_or(u32::MAX);
        let place = &mut self.lately[key as usize % PLACES];
        let is_repeated = place.is_some_and(|(last, at)| last == key && now.saturating_duration_since(at) < LATELY);
        if self.left <= if is_repeated { KEPT } else { 0 } {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        *place = Some((key, now));
        Some(std::mem::take(&mut self.left_out))
    }
}

/// A rate-limited [`tracing::warn!`]: see [`throttle`](crate::telemetry::throttle).
///
/// `class` is one of a few numbers, such as a status; each class has its own budget. `key` is what makes a line worth
/// logging in addition to others of its class, such as a channel.
#[macro_export]
macro_rules! warn_throttled {
    (class = $class:expr, key = $key:expr, $($line:tt)+) => {{
        static SAID: $crate::telemetry::throttle::Throttle = $crate::telemetry::throttle::Throttle::new();
        SAID.say($class, $key, |more_like_this| ::tracing::warn!(more_like_this, $($line)+));
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` lines with the same key are logged, and how many they report as suppressed.
    fn said(lines: &Throttle, count: u64, now: Instant) -> (u32, u64) {
        let turns: Vec<u64> = (0..count).filter_map(|_| lines.turn(403, 7, now)).collect();
        (turns.len() as u32, turns.iter().sum())
    }

    #[test]
    fn the_first_are_said_then_one_a_second_with_the_number_of_the_others() {
        let (lines, start) = (Throttle::new(), Instant::now());
        assert_eq!(said(&lines, 1000, start), (BURST - KEPT, 0));
        assert_eq!(said(&lines, 1000, start + PACE), (1, 1000 - u64::from(BURST - KEPT)));
        assert_eq!(said(&lines, 1000, start + PACE + PACE / 2), (0, 0));
        assert_eq!(said(&lines, 1, start + PACE * 2), (1, 1999));
        // After a pause the full budget is available again.
        assert_eq!(said(&lines, 1000, start + PACE * 1000), (BURST - KEPT, 0));
    }

    #[test]
    fn what_is_new_is_said_among_what_is_repeated() {
        let (lines, start) = (Throttle::new(), Instant::now());
        said(&lines, 1000, start);
        let is_said = |about, now| lines.turn(403, about, now).is_some();
        assert!(is_said(8, start), "another channel");
        assert!(!is_said(8, start));
        assert!(lines.turn(401, 7, start).is_some(), "another class");
        // Made-up keys can use up the reserved part, but no more.
        let made_up = (100..10_000).filter(|&about| is_said(about, start)).count();
        assert_eq!(made_up as u32, KEPT - 1);
        let late = start + PACE * BURST + LATELY;
        assert_eq!((0..10_000).filter(|&about| is_said(about, late)).count() as u32, BURST);
    }
}
