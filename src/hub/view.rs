//! What the clients of this node believe about who is in a presence channel, when other nodes change it too.
//!
//! Input: news of single members from the other nodes, and lists from the store, each with the version of the channel
//! it belongs to, in any order. Output: what is new to the clients. They are told of every change of the belief and of
//! nothing else, and whoever joins gets the belief; so all of them know the same, and none hears anything twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::store::{Member, Members};

/// Users known to be gone that are kept: more than leave while a list is on its way.
const MAX_GONE: usize = 1024;

/// Beliefs of all channels that clients of this node are in.
#[derive(Debug, Default)]
pub(super) struct Views(Mutex<HashMap<ChannelName, Arc<Mutex<View>>>>);

/// The belief about one channel.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The version of the newest list that was taken up. News up to it are in the list.
    version: u64,
    users: HashMap<Box<str>, Belief>,
    /// How many of them may be beliefs that the user is gone.
    gone: usize,
    /// Nobody looks at this view any more.
    is_gone: bool,
}

/// A user, with the version of the last change. Who has left since the last list is kept, so that an older list does
/// not bring them back.
#[derive(Debug)]
struct Belief {
    version: u64,
    here: Option<(SocketId, Member)>,
}

/// A change that clients are to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// The user is here now, with this socket.
    Joining(SocketId, Member),
    /// The user is gone.
    Leaving(Member),
}

impl Views {
    /// Begins to keep the channel's news. To be called before the list is asked for: news that overtake it count.
    pub(super) fn open(&self, channel: &ChannelName) {
        self.enter(channel, |_| {});
    }

    /// Runs `change` on the channel's view, which is made if there is none.
    pub(super) fn enter<T>(&self, channel: &ChannelName, change: impl FnOnce(&mut View) -> T) -> T {
        loop {
            let view = Arc::clone(self.0.lock().entry(channel.clone()).or_default());
            let mut view = view.lock();
            if !view.is_gone {
                return change(&mut view);
            }
        }
    }

    /// Runs `change` on the channel's view, if somebody looks at it.
    pub(super) fn visit(&self, channel: &str, change: impl FnOnce(&mut View)) {
        let view = self.0.lock().get(channel).cloned();
        if let Some(view) = view {
            change(&mut view.lock());
        }
    }

    /// Forgets the channel's view when nobody looks at it.
    pub(super) fn prune(&self, channel: &ChannelName, is_empty: impl FnOnce() -> bool) {
        let mut views = self.0.lock();
        let Some(view) = views.get(channel).cloned() else { return };
        // Whoever enters holds the view until its socket is in the room.
        let mut view = view.lock();
        if is_empty() {
            view.is_gone = true;
            views.remove(channel);
        }
    }

    /// Whether news of the channel are heard.
    pub(super) fn is_open(&self, channel: &ChannelName) -> bool {
        self.0.lock().contains_key(channel)
    }

    pub(super) fn channels(&self) -> Vec<ChannelName> {
        self.0.lock().keys().cloned().collect()
    }
}

impl View {
    /// Takes up one change. What is returned is to be told.
    pub(super) fn hear(&mut self, version: u64, news: News) -> Option<News> {
        let user = match &news {
            News::Joining(_, member) | News::Leaving(member) => member.user(),
        };
        let known = self.users.get(user);
        if version <= known.map_or(self.version, |belief| belief.version.max(self.version)) {
            return None;
        }
        let was_here = known.is_some_and(|belief| belief.here.is_some());
        let here = match &news {
            News::Joining(socket, member) => Some((*socket, member.clone())),
            News::Leaving(_) => None,
        };
        let is_new = was_here != here.is_some();
        self.gone += usize::from(here.is_none());
        self.users.insert(user.into(), Belief { version, here });
        if self.gone > MAX_GONE {
            self.forget_gone();
        }
        is_new.then_some(news)
    }

    /// News come in order, so what is believed is complete up to the newest: older lists have nothing to add.
    fn forget_gone(&mut self) {
        let newest = self.users.values().map(|belief| belief.version).max();
        self.version = newest.map_or(self.version, |newest| newest.max(self.version));
        self.users.retain(|_, belief| belief.here.is_some());
        self.gone = 0;
    }

    /// Takes up a list. What is returned is to be told.
    pub(super) fn merge(&mut self, version: u64, members: &Members) -> Vec<News> {
        if version < self.version || version == 0 {
            return Vec::new();
        }
        self.version = version;
        self.gone = 0;
        let (mut news, listed) = self.take_in(version, members);
        self.users.retain(|user, belief| {
            let stays = belief.version > version || listed.contains(&**user);
            if let (false, Some((_, member))) = (stays, &belief.here) {
                news.push(News::Leaving(member.clone()));
            }
            stays
        });
        news
    }

    /// Takes up who joined here while the store is away: they are here until newer news say otherwise. What is returned is to be
    /// told.
    pub(super) fn add_here(&mut self, members: &Members) -> Vec<News> {
        let mut news = Vec::new();
        for (socket, member) in members {
            let known = self.users.get(member.user());
            if known.is_none_or(|belief| belief.here.is_none()) {
                let version = known.map_or(self.version, |belief| belief.version);
                news.push(News::Joining(*socket, member.clone()));
                self.users.insert(member.user().into(), Belief { version, here: Some((*socket, member.clone())) });
            }
        }
        news
    }

    /// Takes up a list that may lack somebody: nobody is gone by it. What is returned is to be told.
    pub(super) fn add(&mut self, version: u64, members: &Members) -> Vec<News> {
        if version < self.version || version == 0 {
            return Vec::new();
        }
        self.take_in(version, members).0
    }

    /// Those in a list are here, unless newer news say otherwise. Returns what is new, and the users in the list.
    fn take_in<'a>(&mut self, version: u64, members: &'a Members) -> (Vec<News>, HashSet<&'a str>) {
        let mut news = Vec::new();
        let mut listed = HashSet::with_capacity(members.len());
        // The newest socket of a user speaks for it.
        for (socket, member) in members.iter().rev() {
            if !listed.insert(member.user()) {
                continue;
            }
            let known = self.users.get(member.user());
            if known.is_some_and(|belief| belief.version > version) {
                continue;
            }
            if known.is_none_or(|belief| belief.here.is_none()) {
                news.push(News::Joining(*socket, member.clone()));
            }
            self.users.insert(member.user().into(), Belief { version, here: Some((*socket, member.clone())) });
        }
        news.reverse();
        (news, listed)
    }

    /// The belief as a list: in the order of `members`, and who is not in there after them.
    pub(super) fn list(&self, members: &Members) -> Members {
        let is_here = |user: &str| self.users.get(user).is_some_and(|belief| belief.here.is_some());
        let mut list: Members = members.iter().filter(|(_, member)| is_here(member.user())).cloned().collect();
        let listed: HashSet<&str> = members.iter().map(|(_, member)| member.user()).collect();
        let mut others: Vec<_> = self.users.iter().filter(|(user, _)| !listed.contains(&***user)).map(|(_, belief)| belief).collect();
        others.sort_unstable_by_key(|belief| belief.version);
        list.extend(others.into_iter().filter_map(|belief| belief.here.clone()));
        list
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

    fn joining(user: u32) -> News {
        News::Joining(socket(user), member(user))
    }

    fn list(users: &[u32]) -> Members {
        users.iter().map(|&user| (socket(user), member(user))).collect()
    }

    #[test]
    fn nothing_is_told_twice() {
        let mut view = View::default();
        assert_eq!(view.merge(10, &list(&[1])), [joining(1)]);
        assert_eq!(view.hear(10, joining(1)), None, "it is in the list");
        assert_eq!(view.hear(11, joining(2)), Some(joining(2)));
        assert_eq!(view.merge(11, &list(&[1, 2])), []);
        assert_eq!(view.hear(12, News::Leaving(member(2))), Some(News::Leaving(member(2))));
        assert_eq!(view.hear(12, News::Leaving(member(2))), None);
        assert_eq!(view.hear(13, News::Leaving(member(3))), None, "nobody knew of it");
    }

    #[test]
    fn news_that_overtake_a_list_count() {
        let mut view = View::default();
        view.merge(10, &list(&[1, 2]));
        view.hear(13, News::Leaving(member(1)));
        view.hear(12, joining(3));
        // Taken before both.
        let taken = list(&[1, 2, 4]);
        assert_eq!(view.merge(11, &taken), [joining(4)]);
        assert_eq!(view.list(&taken), list(&[2, 4, 3]));
    }

    #[test]
    fn who_is_gone_is_forgotten_in_the_end() {
        let mut view = View::default();
        view.merge(10, &list(&[1]));
        for version in 0..5_000 {
            let (user, version) = (u32::try_from(version).unwrap() + 2, version * 2 + 20);
            assert!(view.hear(version, joining(user)).is_some());
            assert!(view.hear(version + 1, News::Leaving(member(user))).is_some());
        }
        assert!(view.users.len() <= MAX_GONE + 1, "{}", view.users.len());
        assert_eq!(view.list(&list(&[1, 2, 3])), list(&[1]));
    }

    #[test]
    fn a_list_makes_up_for_missed_news() {
        let mut view = View::default();
        view.merge(10, &list(&[1, 2]));
        assert_eq!(view.merge(20, &list(&[2, 3])), [joining(3), News::Leaving(member(1))]);
        assert_eq!(view.merge(15, &list(&[1])), [], "an older list says nothing");
        assert_eq!(view.merge(0, &list(&[])), [], "nor does a store that has lost everything");
    }

    #[test]
    fn a_list_that_lacks_somebody_takes_nobody_away() {
        let mut view = View::default();
        view.merge(10, &list(&[1, 2]));
        assert_eq!(view.add(20, &list(&[3])), [joining(3)]);
        assert_eq!(view.hear(19, News::Leaving(member(1))), Some(News::Leaving(member(1))), "it still counts");
        assert_eq!(view.hear(21, joining(2)), None, "put back, which is no news");
        assert_eq!(view.merge(22, &list(&[2])), [News::Leaving(member(3))]);
    }

    /// What happens to one node's view of a channel.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// The user comes if it is not here, else it goes.
        Change(u32),
        /// So many of the news that wait arrive.
        Hear(usize),
        /// A list is taken from the store.
        Take,
        /// The list that was taken longest ago arrives.
        Merge,
        /// A list arrives that lacks all but so many members.
        Torn(usize),
        /// All news that wait are lost, and the list that is taken then arrives before anything else.
        Outage,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1..6_u32).prop_map(Step::Change),
            4 => (1..4_usize).prop_map(Step::Hear),
            2 => Just(Step::Take),
            2 => Just(Step::Merge),
            1 => (0..4_usize).prop_map(Step::Torn),
            1 => Just(Step::Outage),
        ];
        prop::collection::vec(step, 1..80)
    }

    /// A store that counts changes, a wire that delivers them in order, and a client that believes what it is told.
    #[derive(Default)]
    struct World {
        version: u64,
        here: Vec<u32>,
        wire: VecDeque<(u64, News)>,
        taken: VecDeque<(u64, Members)>,
        view: View,
        client: Vec<u32>,
    }

    impl World {
        fn change(&mut self, user: u32) {
            self.version += 1;
            let news = match self.here.iter().position(|&other| other == user) {
                Some(at) => {
                    self.here.remove(at);
                    News::Leaving(member(user))
                }
                None => {
                    self.here.push(user);
                    joining(user)
                }
            };
            self.wire.push_back((self.version, news));
        }

        fn hear(&mut self) {
            let Some((version, news)) = self.wire.pop_front() else { return };
            let news = self.view.hear(version, news);
            self.believe(news);
        }

        fn merge(&mut self) {
            let Some((version, members)) = self.taken.pop_front() else { return };
            let news = self.view.merge(version, &members);
            self.believe(news);
        }

        fn believe(&mut self, news: impl IntoIterator<Item = News>) {
            for news in news {
                let (News::Joining(_, member) | News::Leaving(member)) = &news;
                let user = member.user().parse().unwrap();
                let known = self.client.iter().position(|&other| other == user);
                match (news, known) {
                    (News::Joining(..), None) => self.client.push(user),
                    (News::Leaving(_), Some(at)) => drop(self.client.remove(at)),
                    (news, _) => panic!("{news:?} is no news to {:?}", self.client),
                }
            }
        }

        fn run(&mut self, step: Step) {
            match step {
                Step::Change(user) => self.change(user),
                Step::Hear(count) => (0..count).for_each(|_| self.hear()),
                Step::Take => self.taken.push_back((self.version, list(&self.here))),
                Step::Merge => self.merge(),
                Step::Torn(count) => {
                    let some = &self.here[..count.min(self.here.len())];
                    let news = self.view.add(self.version, &list(some));
                    self.believe(news);
                }
                Step::Outage => {
                    self.wire.clear();
                    self.taken.push_front((self.version, list(&self.here)));
                    self.merge();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn in_the_end_everyone_believes_the_truth(steps in steps()) {
            // Somebody is in the channel from the beginning, as the client itself would be.
            let mut world = World { version: 1, here: vec![0], ..World::default() };
            world.run(Step::Take);
            world.run(Step::Merge);
            steps.into_iter().for_each(|step| world.run(step));
            while !world.wire.is_empty() {
                world.hear();
            }
            // As once everything is settled.
            world.run(Step::Take);
            while !world.taken.is_empty() {
                world.merge();
            }
            world.here.sort_unstable();
            world.client.sort_unstable();
            prop_assert_eq!(&world.here, &world.client);
            let mut listed: Vec<u32> = world.view.list(&list(&[])).iter().map(|(_, member)| member.user().parse().unwrap()).collect();
            listed.sort_unstable();
            prop_assert_eq!(world.here, listed);
        }
    }
}
