//! [`warn_throttled!`](crate::warn_throttled): warnings that anybody may cause, however often, and that shall not fill a disk.
//!
//! Input: lines, with their class and what they are about. Output: the first ones of a class in full, then one a second,
//! with the number of those that were left out. A line about something else than the lines of late comes before those
//! that repeat them: a channel that is refused for the first time is seen while ten thousand clients are refused another.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines of a class that may be said at once.
const BURST: u32 = 50;
/// Of these, the ones that lines about something else are kept for.
const KEPT: u32 = 25;
/// Then there is one in this time.
const PACE: Duration = Duration::from_secs(1);
/// A line counts as a repetition for so long.
const LATELY: Duration = Duration::from_secs(60);
/// What lines are about is remembered in so many places, by hash; two that share one forget each other.
const PLACES: usize = 64;

/// The lines of one place in the source.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<BTreeMap<u16, Lines>>);

/// Lines of one class.
#[derive(Debug)]
struct Lines {
    left: u32,
    /// Up to when `left` is right.
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
    /// Nothing is said yet.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Calls `line`, with the number of lines of this class that were left out before it, if it is its turn. Classes are a
    /// bounded set, such as statuses; `key` may be anything.
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

/// A [`tracing::warn!`] that anybody may cause: see [`throttle`](crate::telemetry::throttle).
///
/// `class` is a number out of a few, such as a status: classes do not take each other's turns. `key` is what makes a line
/// worth reading besides the others of its class, such as a channel.
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

    /// How many of `count` lines about the same thing are said, and how many are said to be left out.
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
        // After a rest it is as at the beginning.
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
        // Whoever makes up new names uses up what is kept, and no more.
        let made_up = (100..10_000).filter(|&about| is_said(about, start)).count();
        assert_eq!(made_up as u32, KEPT - 1);
        let late = start + PACE * BURST + LATELY;
        assert_eq!((0..10_000).filter(|&about| is_said(about, late)).count() as u32, BURST);
    }
}
