//! [`Removals`]: who was taken out of late, so that no answer from before lets them in afterwards.
//!
//! Input: removals as they begin, and joins that were begun before them. Output: whether a join comes too late.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};

use parking_lot::{Mutex, MutexGuard};

use crate::channel::ChannelName;

/// Removals that are remembered; a join that was begun before the oldest of them is refused.
const MAX_KEPT: usize = 100_000;

/// Removals of users.
#[derive(Debug, Default)]
pub(super) struct Removals {
    hasher: RandomState,
    late: Mutex<Late>,
}

#[derive(Debug, Default)]
struct Late {
    /// All there have been.
    count: u64,
    /// The newest of them: hashes of the user, whose name may be of any length, and of the channel if it was not all of them.
    kept: VecDeque<(u64, Option<u64>)>,
}

/// What a user was taken out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The channel.
    Channel,
    /// Everything: its connections are closed.
    All,
}

impl Removals {
    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock()
    }

    /// A user is taken out of a channel, or of everything.
    pub(super) fn note(&self, user: &str, channel: Option<&ChannelName>) {
        let removal = (self.hasher.hash_one(user), channel.map(|channel| self.hasher.hash_one(channel)));
        let mut late = self.late();
        late.count += 1;
        late.kept.push_back(removal);
        if late.kept.len() > MAX_KEPT {
            late.kept.pop_front();
        }
    }

    /// How many there have been: what a join notes as it begins.
    pub(super) fn count(&self) -> u64 {
        self.late().count
    }

    /// What the user was taken out of, so that a join of `channel` does not count any more that was begun at `count`.
    pub(super) fn since(&self, count: u64, user: &str, channel: &ChannelName) -> Option<Scope> {
        let (user, channel) = (self.hasher.hash_one(user), self.hasher.hash_one(channel));
        let late = self.late();
        let newer = usize::try_from(late.count - count).unwrap_or(usize::MAX);
        let Some(known) = late.kept.len().checked_sub(newer) else { return Some(Scope::Channel) };
        let of_user = late.kept.iter().skip(known).filter(|(removed, _)| *removed == user);
        of_user
            .filter_map(|(_, from)| match from {
                None => Some(Scope::All),
                Some(from) => (*from == channel).then_some(Scope::Channel),
            })
            .max_by_key(|scope| *scope == Scope::All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_is_late_for_what_came_after_it_began() {
        let (removals, channel, other) = (Removals::default(), "private-a".into(), "private-b".into());
        removals.note("1", Some(&channel));
        let begun = removals.count();
        assert_eq!(removals.since(begun, "1", &channel), None, "it was asked for after the removal");
        removals.note("1", Some(&channel));
        assert_eq!(removals.since(begun, "1", &channel), Some(Scope::Channel));
        assert_eq!(removals.since(begun, "1", &other), None);
        assert_eq!(removals.since(begun, "2", &channel), None);
        removals.note("1", None);
        assert_eq!(removals.since(begun, "1", &other), Some(Scope::All));
        (0..MAX_KEPT).for_each(|n| removals.note(&format!("x{n}"), None));
        assert_eq!(removals.since(begun, "2", &channel), Some(Scope::Channel), "nobody knows any more");
    }
}
