//! [`Removals`]: users who were removed recently, so that no earlier answer of the application lets them in afterwards.
//!
//! Input: removals as they begin, and joins that were started before them. Output: whether a join is outdated.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};

use parking_lot::Mutex;

use crate::channel::ChannelName;

/// Removals that are remembered; a join that was started before the oldest of them is refused.
const MAX_KEPT: usize = 100_000;

/// Removals of users.
#[derive(Debug, Default)]
pub(super) struct Removals {
    hasher: RandomState,
    late: Mutex<Late>,
}

#[derive(Debug, Default)]
struct Late {
    /// How many there have been in total.
    count: u64,
    /// The newest of them: hashes of the user, whose id may have any length, and of the channel, unless it was all of them.
    kept: VecDeque<(u64, Option<u64>)>,
}

/// What a user was removed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// One channel.
    Channel,
    /// Everything: the user's connections are closed.
    All,
}

impl Removals {
    /// Records that a user is removed from a channel, or from everything.
    pub(super) fn note(&self, user: &str, channel: Option<&ChannelName>) {
        let removal = (self.hasher.hash_one(user), channel.map(|channel| self.hasher.hash_one(channel)));
        let mut late = self.late.lock();
        late.count += 1;
        late.kept.push_back(removal);
        if late.kept.len() > MAX_KEPT {
            late.kept.pop_front();
        }
    }

    /// How many there have been; a join notes this when it starts.
    pub(super) fn count(&self) -> u64 {
        self.late.lock().count
    }

    /// What the user was removed from since `count`, as far as that makes a join of `channel` that was started then outdated.
    pub(super) fn since(&self, count: u64, user: &str, channel: &ChannelName) -> Option<Scope> {
        let (user, channel) = (self.hasher.hash_one(user), self.hasher.hash_one(channel));
        let late = self.late.lock();
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
