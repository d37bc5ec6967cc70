//! What this node's clients have been told about the members of a presence channel that other nodes change too.
//!
//! Input: changes of single members from the other nodes, and lists from the store, each with the channel's version, in any
//! order. Output: what is new to the clients. They are told of every change of the roster and of nothing else, and a socket
//! that joins gets the roster; so all of them know the same, and none is told anything twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::store::{Member, Members};

/// Maximum number of users who are gone that a complete roster remembers.
const MAX_GONE: usize = 64;

/// Rosters of all channels that clients of this node are in.
#[derive(Debug, Default)]
pub(super) struct Rosters(Mutex<HashMap<ChannelName, Arc<Mutex<Roster>>>>);

/// The roster of one channel.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// The roster includes all changes up to this version: that of the newest list that was applied, or of a later change.
    version: u64,
    /// Whether a full list was applied, and no change can have been missed since: a socket that joins needs no list from the store.
    is_complete: bool,
    /// In the order of joining.
    users: IndexMap<Box<str>, RosterEntry>,
    /// How many of them are entries of users who are gone.
    gone: usize,
    /// A socket was sent it. Before, nobody here knows anything by it: a client that has resumed its session on this node is in the room
    /// already, and waits for its list.
    is_shown: bool,
    /// Removed from [`Rosters`]: no client here uses it any more.
    is_dropped: bool,
}

/// A user, with the version of the last change. A user who has left since the last list is remembered, so that an older list
/// does not bring them back.
#[derive(Debug, Clone)]
struct RosterEntry {
    version: u64,
    here: Option<(SocketId, Member)>,
}

/// A change to announce to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberChange {
    /// The user is in the channel now, with this socket.
    Joining(SocketId, Member),
    /// The user is gone.
    Leaving(Member),
}

impl MemberChange {
    pub(super) fn member(&self) -> &Member {
        match self {
            Self::Joining(_, member) | Self::Leaving(member) => member,
        }
    }

    /// Whether nothing has changed after both.
    pub(super) fn is_undone_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Joining(_, member), Self::Leaving(gone)) => member.user() == gone.user(),
            (Self::Leaving(member), Self::Joining(_, back)) => member == back,
            _ => false,
        }
    }
}

impl Rosters {
    /// Starts the channel's roster. Call this before requesting the list: changes that overtake the list must be applied.
    pub(super) fn open(&self, channel: &ChannelName) {
        self.enter(channel, |_| {});
    }

    /// Runs `change` on the channel's roster, which is created if there is none.
    pub(super) fn enter<T>(&self, channel: &ChannelName, change: impl FnOnce(&mut Roster) -> T) -> T {
        loop {
            let roster = Arc::clone(self.0.lock().entry(channel.clone()).or_default());
            let mut roster = roster.lock();
            if !roster.is_dropped {
                return change(&mut roster);
            }
        }
    }

    /// Runs `change` on the channel's roster, if there is one.
    pub(super) fn visit(&self, channel: &str, change: impl FnOnce(&mut Roster)) {
        let roster = self.0.lock().get(channel).cloned();
        if let Some(roster) = roster {
            change(&mut roster.lock());
        }
    }

    /// Drops the channel's roster when no client here uses it.
    pub(super) fn prune(&self, channel: &ChannelName, is_empty: impl FnOnce() -> bool) {
        let mut rosters = self.0.lock();
        let Some(roster) = rosters.get(channel).cloned() else { return };
        // A join holds the roster until its socket is in the room.
        let mut roster = roster.lock();
        if is_empty() {
            roster.is_dropped = true;
            rosters.remove(channel);
        }
    }

    /// How many users are in the channel, as far as this node knows. `None` while the roster is being changed: announcing the
    /// change may close a slow client, whose leave asks for this count.
    pub(super) fn count(&self, channel: &str) -> Option<usize> {
        let roster = self.0.lock().get(channel).cloned()?;
        roster.try_lock().map(|roster| roster.users.len().saturating_sub(roster.gone))
    }

    /// Whether a socket that joins the channel is to be shown a list from the store, because the roster may lack something.
    pub(super) fn needs_list(&self, channel: &ChannelName) -> bool {
        let roster = self.0.lock().get(channel).cloned();
        roster.is_none_or(|roster| !roster.lock().is_complete)
    }

    /// Changes of the channel may be missed: its roster is not complete until the next list.
    pub(super) fn doubt(&self, channel: &str) {
        self.visit(channel, |roster| roster.is_complete = false);
    }

    /// Changes may have been missed: no roster is complete until the next list.
    pub(super) fn doubt_all(&self) {
        let rosters: Vec<_> = self.0.lock().values().cloned().collect();
        rosters.iter().for_each(|roster| roster.lock().is_complete = false);
    }

    /// Whether changes of the channel are applied.
    pub(super) fn is_open(&self, channel: &ChannelName) -> bool {
        self.0.lock().contains_key(channel)
    }

    pub(super) fn channels(&self) -> Vec<ChannelName> {
        self.0.lock().keys().cloned().collect()
    }
}

impl Roster {
    /// Applies a change that a node has told. Returns it if clients have to be told.
    pub(super) fn apply(&mut self, version: u64, news: MemberChange) -> Option<MemberChange> {
        let news = self.change(version, news);
        if self.is_complete && self.gone > MAX_GONE {
            self.forget_gone(version);
        }
        news
    }

    /// A socket of this node has joined, as the store says. Changes of other nodes up to this version may still be on their way.
    /// Returns the changes to announce.
    pub(super) fn join_here(&mut self, version: u64, socket: SocketId, member: &Member, replaced: Option<&Member>) -> Vec<MemberChange> {
        let left = replaced.and_then(|member| self.change(version, MemberChange::Leaving(member.clone())));
        let joined = self.change(version, MemberChange::Joining(socket, member.clone()));
        left.into_iter().chain(joined).collect()
    }

    /// A user has left, on a single node: nothing else changes the channel meanwhile. Returns the change if clients have to be told.
    pub(super) fn leave_here(&mut self, member: &Member) -> Option<MemberChange> {
        self.users.get(member.user())?.here.as_ref()?;
        let (_, gone) = self.users.shift_remove(member.user())?.here?;
        self.is_shown.then_some(MemberChange::Leaving(gone))
    }

    fn change(&mut self, version: u64, news: MemberChange) -> Option<MemberChange> {
        let user = news.member().user();
        let known = self.users.get(user);
        if version <= known.map_or(self.version, |entry| entry.version.max(self.version)) {
            return None;
        }
        let was_here = known.is_some_and(|entry| entry.here.is_some());
        let was_gone = known.is_some() && !was_here;
        let here = match &news {
            MemberChange::Joining(socket, member) => Some((*socket, member.clone())),
            MemberChange::Leaving(_) => None,
        };
        let is_new = was_here != here.is_some();
        if here.is_some() {
            // The newest socket of a user represents it.
            self.users.shift_remove(user);
        }
        self.gone = self.gone + usize::from(here.is_none()) - usize::from(was_gone);
        self.users.insert(user.into(), RosterEntry { version, here });
        (is_new && self.is_shown).then_some(news)
    }

    /// What nodes tell arrives in order, so a complete roster includes all changes before the `newest` one heard: older lists have
    /// nothing to add. Another change of the same version may follow: when a socket joins as another user, one leaves and one joins.
    fn forget_gone(&mut self, newest: u64) {
        let complete = self.version.max(newest.saturating_sub(1));
        self.version = complete;
        self.users.retain(|_, entry| entry.here.is_some() || entry.version > complete);
        self.count_gone();
    }

    /// Applies a list. `is_here`: whether a user is in the channel though the list lacks them. Returns the changes to announce.
    pub(super) fn apply_snapshot(&mut self, version: u64, members: &Members, is_here: impl Fn(&str) -> bool) -> Vec<MemberChange> {
        if version < self.version || version == 0 {
            return Vec::new();
        }
        (self.version, self.is_complete) = (version, true);
        self.take_in(version, members, |user, unlisted| unlisted.version > version || unlisted.here.is_some() && is_here(user))
    }

    /// Adds members who joined here while the store is unreachable: they count as present until newer changes say otherwise.
    /// Returns the changes to announce.
    pub(super) fn add_here(&mut self, members: &Members) -> Vec<MemberChange> {
        let mut news = Vec::new();
        for (socket, member) in members {
            let known = self.users.get(member.user());
            if known.is_none_or(|entry| entry.here.is_none()) {
                let version = known.map_or(self.version, |entry| entry.version);
                news.push(MemberChange::Joining(*socket, member.clone()));
                self.gone -= usize::from(known.is_some());
                self.users.insert(member.user().into(), RosterEntry { version, here: Some((*socket, member.clone())) });
            }
        }
        self.to_tell(news)
    }

    /// Applies a list that may be incomplete: it makes no user leave. Returns the changes to announce.
    pub(super) fn apply_partial(&mut self, version: u64, members: &Members) -> Vec<MemberChange> {
        if version < self.version || version == 0 {
            return Vec::new();
        }
        self.take_in(version, members, |_, _| true)
    }

    /// Users in a list are present, unless newer changes say otherwise, and come first from now on. `stays`: whether an entry that
    /// the list lacks is kept. Returns the changes to announce.
    fn take_in(&mut self, version: u64, members: &Members, stays: impl Fn(&str, &RosterEntry) -> bool) -> Vec<MemberChange> {
        let mut seen = HashSet::with_capacity(members.len());
        // The newest socket of a user represents it.
        let newest: Vec<_> = members.iter().rev().filter(|(_, member)| seen.insert(member.user())).collect();
        let mut news = Vec::new();
        let mut users = IndexMap::with_capacity(newest.len());
        for (socket, member) in newest.into_iter().rev() {
            let known = self.users.get(member.user());
            if known.is_none_or(|entry| entry.version <= version && entry.here.is_none()) {
                news.push(MemberChange::Joining(*socket, member.clone()));
            }
            let newer = known.filter(|entry| entry.version > version).cloned();
            let entry = newer.unwrap_or_else(|| RosterEntry { version, here: Some((*socket, member.clone())) });
            users.insert(Box::from(member.user()), entry);
        }
        for (user, entry) in std::mem::take(&mut self.users) {
            if users.contains_key(&user) {
                continue;
            }
            if stays(&user, &entry) {
                users.insert(user, entry);
            } else if let Some((_, member)) = entry.here {
                news.push(MemberChange::Leaving(member));
            }
        }
        self.users = users;
        self.count_gone();
        self.to_tell(news)
    }

    fn to_tell(&self, news: Vec<MemberChange>) -> Vec<MemberChange> {
        if self.is_shown { news } else { Vec::new() }
    }

    fn count_gone(&mut self) {
        self.gone = self.users.values().filter(|entry| entry.here.is_none()).count();
    }

    /// The roster as a list, in the order of joining: one entry per user. Whoever is sent it is to be told of changes from now on.
    pub(super) fn show(&mut self) -> Members {
        self.is_shown = true;
        self.list()
    }

    fn list(&self) -> Members {
        self.users.values().filter_map(|entry| entry.here.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn member(user: u32) -> Member {
        Member::parse(&format!(r#"{{"user_id":{user}}}"#)).unwrap()
    }

    fn socket(n: u32) -> SocketId {
        SocketId::parse(&format!("1.{n}")).unwrap()
    }

    /// A roster that a client knows.
    fn shown() -> Roster {
        Roster { is_shown: true, ..Roster::default() }
    }

    /// No user is in the channel but for those in the list.
    const NOBODY: fn(&str) -> bool = |_| false;

    fn joining(user: u32) -> MemberChange {
        MemberChange::Joining(socket(user), member(user))
    }

    fn list(users: &[u32]) -> Members {
        users.iter().map(|&user| (socket(user), member(user))).collect()
    }

    #[test]
    fn nothing_is_told_twice() {
        let mut roster = shown();
        assert_eq!(roster.apply_snapshot(10, &list(&[1]), NOBODY), [joining(1)]);
        assert_eq!(roster.apply(10, joining(1)), None, "it is in the list");
        assert_eq!(roster.apply(11, joining(2)), Some(joining(2)));
        assert_eq!(roster.apply_snapshot(11, &list(&[1, 2]), NOBODY), []);
        assert_eq!(roster.apply(12, MemberChange::Leaving(member(2))), Some(MemberChange::Leaving(member(2))));
        assert_eq!(roster.apply(12, MemberChange::Leaving(member(2))), None);
        assert_eq!(roster.apply(13, MemberChange::Leaving(member(3))), None, "nobody knew of it");
    }

    #[test]
    fn before_anybody_was_shown_it_nothing_is_told() {
        let mut roster = Roster::default();
        assert_eq!(roster.apply(12, joining(2)), None);
        assert_eq!(roster.apply_snapshot(11, &list(&[1]), NOBODY), []);
        assert_eq!(roster.join_here(13, socket(3), &member(3), None), []);
        assert_eq!(roster.show(), list(&[1, 2, 3]));
        assert_eq!(roster.apply(14, joining(4)), Some(joining(4)));
    }

    #[test]
    fn the_newest_socket_of_a_user_represents_it() {
        let mut roster = shown();
        roster.apply_snapshot(10, &list(&[1, 2]), NOBODY);
        let renamed = Member::parse(r#"{"user_id":1,"user_info":"new"}"#).unwrap();
        assert_eq!(roster.apply(11, MemberChange::Joining(socket(3), renamed.clone())), None, "the user is there");
        assert_eq!(roster.list(), [(socket(2), member(2)), (socket(3), renamed)]);
    }

    #[test]
    fn news_that_overtake_a_list_count() {
        let mut roster = shown();
        roster.apply_snapshot(10, &list(&[1, 2]), NOBODY);
        roster.apply(13, MemberChange::Leaving(member(1)));
        roster.apply(12, joining(3));
        // Taken before both changes.
        let taken = list(&[1, 2, 4]);
        assert_eq!(roster.apply_snapshot(11, &taken, NOBODY), [joining(4)]);
        assert_eq!(roster.list(), list(&[2, 4, 3]));
    }

    #[test]
    fn who_is_gone_is_forgotten_in_the_end() {
        let mut roster = shown();
        roster.apply_snapshot(10, &list(&[1]), NOBODY);
        for version in 0..5_000 {
            let (user, version) = (u32::try_from(version).unwrap() + 2, version * 2 + 20);
            assert!(roster.apply(version, joining(user)).is_some());
            assert!(roster.apply(version + 1, MemberChange::Leaving(member(user))).is_some());
        }
        assert!(roster.users.len() <= MAX_GONE + 1, "{}", roster.users.len());
        assert_eq!(roster.list(), list(&[1]));
    }

    #[test]
    fn who_replaces_another_user_is_announced_though_that_one_is_forgotten() {
        let mut roster = shown();
        let most = u32::try_from(MAX_GONE).unwrap();
        roster.apply_snapshot(10, &list(&(0..=most).collect::<Vec<_>>()), NOBODY);
        for user in 0..=most {
            // One socket that joins again as another user: both changes have the version of that join.
            let version = 11 + u64::from(user);
            assert_eq!(roster.apply(version, MemberChange::Leaving(member(user))), Some(MemberChange::Leaving(member(user))));
            assert_eq!(roster.apply(version, joining(1_000 + user)), Some(joining(1_000 + user)));
        }
    }

    #[test]
    fn while_the_first_list_is_on_its_way_nobody_is_forgotten() {
        let mut roster = shown();
        for user in 1..=2_000 {
            roster.apply(20 + u64::from(user), MemberChange::Leaving(member(user)));
        }
        let all: Vec<u32> = (0..=2_000).collect();
        assert_eq!(roster.apply_snapshot(20, &list(&all), NOBODY), [joining(0)]);
    }

    #[test]
    fn a_join_here_overtakes_what_others_tell() {
        let mut roster = shown();
        roster.apply_snapshot(10, &list(&[1, 2]), NOBODY);
        assert_eq!(roster.join_here(15, socket(3), &member(3), None), [joining(3)]);
        for version in 16..200 {
            roster.join_here(version, socket(3), &member(3), Some(&member(100 + u32::try_from(version).unwrap())));
        }
        assert_eq!(roster.apply(12, joining(4)), Some(joining(4)), "told before");
        assert_eq!(roster.apply(15, joining(3)), None, "its own");
        assert_eq!(roster.apply(201, MemberChange::Leaving(member(1))), Some(MemberChange::Leaving(member(1))));
        assert_eq!(roster.join_here(202, socket(9), &member(4), None), [], "of a user who is here");
        assert_eq!(roster.list().iter().map(|(_, member)| member.user()).collect::<Vec<_>>(), ["2", "3", "4"]);
    }

    #[test]
    fn a_list_makes_up_for_missed_news() {
        let mut roster = shown();
        roster.apply_snapshot(10, &list(&[1, 2]), NOBODY);
        assert_eq!(roster.apply_snapshot(20, &list(&[2, 3]), NOBODY), [joining(3), MemberChange::Leaving(member(1))]);
        assert_eq!(roster.apply_snapshot(15, &list(&[1]), NOBODY), [], "an older list says nothing");
        assert_eq!(roster.apply_snapshot(0, &list(&[]), NOBODY), [], "nor does a store that has lost everything");
    }

    #[test]
    fn a_list_that_lacks_somebody_takes_nobody_away() {
        let mut roster = shown();
        roster.apply_snapshot(10, &list(&[1, 2]), NOBODY);
        assert_eq!(roster.apply_partial(20, &list(&[3])), [joining(3)]);
        assert_eq!(roster.apply(19, MemberChange::Leaving(member(1))), Some(MemberChange::Leaving(member(1))), "it still counts");
        assert_eq!(roster.apply(21, joining(2)), None, "put back, which is no news");
        assert_eq!(roster.apply_snapshot(22, &list(&[2]), NOBODY), [MemberChange::Leaving(member(3))]);
    }

    /// What happens to one node's roster of a channel.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// The user joins if absent, and leaves otherwise.
        Change(u32),
        /// This many of the pending changes arrive.
        Hear(usize),
        /// The store is asked for a list.
        Take,
        /// The oldest list that is on its way arrives.
        Merge,
        /// A list arrives that lacks all but this many members.
        Torn(usize),
        /// The user joins on this node, with another socket if present.
        Join(u32),
        /// All pending changes are lost, and then a new list arrives before anything else.
        Outage,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1..6_u32).prop_map(Step::Change),
            4 => (1..4_usize).prop_map(Step::Hear),
            2 => Just(Step::Take),
            2 => Just(Step::Merge),
            1 => (0..4_usize).prop_map(Step::Torn),
            3 => (1..6_u32).prop_map(Step::Join),
            1 => Just(Step::Outage),
        ];
        prop::collection::vec(step, 1..80)
    }

    /// A store that counts changes, a wire that delivers them in order, and a client that believes what it is told.
    #[derive(Default)]
    struct World {
        version: u64,
        here: Vec<u32>,
        wire: VecDeque<(u64, MemberChange)>,
        taken: VecDeque<(u64, Members)>,
        roster: Roster,
        client: Vec<u32>,
    }

    impl World {
        fn change(&mut self, user: u32) {
            self.version += 1;
            let news = match self.here.iter().position(|&other| other == user) {
                Some(at) => {
                    self.here.remove(at);
                    MemberChange::Leaving(member(user))
                }
                None => {
                    self.here.push(user);
                    joining(user)
                }
            };
            self.wire.push_back((self.version, news));
        }

        fn apply(&mut self) {
            let Some((version, news)) = self.wire.pop_front() else { return };
            let news = self.roster.apply(version, news);
            self.believe(news);
        }

        fn apply_snapshot(&mut self) {
            let Some((version, members)) = self.taken.pop_front() else { return };
            let news = self.roster.apply_snapshot(version, &members, NOBODY);
            self.believe(news);
        }

        fn believe(&mut self, news: impl IntoIterator<Item = MemberChange>) {
            for news in news {
                let user = news.member().user().parse().unwrap();
                let known = self.client.iter().position(|&other| other == user);
                match (news, known) {
                    (MemberChange::Joining(..), None) => self.client.push(user),
                    (MemberChange::Leaving(_), Some(at)) => drop(self.client.remove(at)),
                    (news, _) => panic!("{news:?} is no news to {:?}", self.client),
                }
            }
        }

        fn run(&mut self, step: Step) {
            match step {
                Step::Change(user) => self.change(user),
                Step::Hear(count) => (0..count).for_each(|_| self.apply()),
                Step::Take => self.taken.push_back((self.version, list(&self.here))),
                Step::Merge => self.apply_snapshot(),
                Step::Torn(count) => {
                    let some = &self.here[..count.min(self.here.len())];
                    let news = self.roster.apply_partial(self.version, &list(some));
                    self.believe(news);
                }
                Step::Join(user) => {
                    if self.here.contains(&user) {
                        self.version += 1;
                    } else {
                        self.change(user);
                    }
                    let news = self.roster.join_here(self.version, socket(user), &member(user), None);
                    self.believe(news);
                }
                Step::Outage => {
                    self.wire.clear();
                    self.taken.push_front((self.version, list(&self.here)));
                    self.apply_snapshot();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn in_the_end_everyone_believes_the_truth(steps in steps()) {
            // One user is in the channel from the beginning, as the client itself would be.
            let mut world = World { version: 1, here: vec![0], roster: shown(), ..World::default() };
            world.run(Step::Take);
            world.run(Step::Merge);
            steps.into_iter().for_each(|step| world.run(step));
            while !world.wire.is_empty() {
                world.apply();
            }
            // The last list, taken when everything has settled.
            world.run(Step::Take);
            while !world.taken.is_empty() {
                world.apply_snapshot();
            }
            world.here.sort_unstable();
            world.client.sort_unstable();
            prop_assert_eq!(&world.here, &world.client);
            let mut listed: Vec<u32> = world.roster.list().iter().map(|(_, member)| member.user().parse().unwrap()).collect();
            listed.sort_unstable();
            prop_assert_eq!(world.here, listed);
        }
    }
}
