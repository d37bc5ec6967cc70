//! Joins and leaves of large channels, gathered for a moment, so that each client gets them in one write.
//!
//! Input: changes of members, and clients that are sent a member list. Output: the changes that each client has to be told, in
//! order: all that its list does not include. Who came and went meanwhile, or went and came, is announced to nobody but to those
//! whose list says otherwise.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::super::publish::FanOut;
use super::super::{Hub, Message, Observation, Push, Socket};
use super::leaves::{CALM, LARGE_CHANNEL};
use super::roster::MemberChange;
use crate::channel::ChannelName;
use crate::event::SocketId;

/// How long changes are gathered, for each socket that is told: 10 ms with 100 sockets, 100 ms with 1,000. A write takes some 5
/// microseconds, so the writes about one channel's members take a twentieth of a core. The first change after a pause is not delayed.
const PER_SOCKET: Duration = Duration::from_micros(100);

/// With this many changes to tell, a batch is told at once: as many frames as one system call writes.
const MAX_TOLD: usize = 64;

/// The same, counting changes that undo each other.
const MAX_KEPT: usize = 1024;

/// Number of locks that the channels are spread over.
const SHARDS: usize = 64;

type Shard = HashMap<ChannelName, Batch>;

/// The batches of all channels whose members changed a moment ago.
#[derive(Debug)]
pub(in crate::hub) struct Batches {
    /// Held while a batch is told: two batches of a channel must not overtake each other.
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// In channels with fewer sockets changes are told one by one, at once.
    least: usize,
    per_socket: Duration,
}

impl Default for Batches {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), least: LARGE_CHANNEL, per_socket: PER_SOCKET }
    }
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Added {
    /// Tell it now. `is_first`: further ones are gathered.
    Alone { is_first: bool },
    /// It is told with others. `is_full`: now.
    Gathered { is_full: bool },
}

impl Batches {
    /// Gathers changes of small channels too, for as long as those of the largest ones.
    #[cfg(test)]
    pub(in crate::hub) fn gather_all(&mut self) {
        (self.least, self.per_socket) = (0, CALM);
    }

    fn shard(&self, channel: &str) -> MutexGuard<'_, Shard> {
        self.shards[self.hasher.hash_one(channel) as usize % SHARDS].lock()
    }

    fn add(&self, channel: &ChannelName, sockets: usize, change: &MemberChange, except: Option<SocketId>) -> Added {
        let mut shard = self.shard(channel.as_str());
        if let Some(batch) = shard.get_mut(channel) {
            batch.add(change.clone(), except);
            return Added::Gathered { is_full: batch.is_full() };
        }
        let is_first = sockets >= self.least;
        if is_first {
            shard.insert(channel.clone(), Batch::default());
        }
        Added::Alone { is_first }
    }

    /// A socket is about to get a member list with all changes so far. Call this before it enters the room, and before any change
    /// that the list does not include.
    pub(super) fn list(&self, channel: &ChannelName, id: SocketId) {
        if let Some(batch) = self.shard(channel.as_str()).get_mut(channel) {
            batch.list(id);
        }
    }

    /// Whether a user has joined with this socket, and nobody has been told yet.
    pub(super) fn holds_join_of(&self, channel: &ChannelName, id: SocketId) -> bool {
        self.shard(channel.as_str()).get(channel).is_some_and(|batch| batch.holds_join_of(id))
    }

    /// Ends the gathering if nothing was gathered. Returns whether it has ended.
    fn close(&self, channel: &ChannelName) -> bool {
        let mut shard = self.shard(channel.as_str());
        let is_empty = shard.get(channel).is_none_or(|batch| batch.changes.is_empty());
        if is_empty {
            shard.remove(channel);
        }
        is_empty
    }

    fn time(&self, sockets: usize) -> Duration {
        self.per_socket.saturating_mul(u32::try_from(sockets).unwrap_or(u32::MAX)).min(CALM)
    }
}

/// Changes of one channel that are not announced yet.
#[derive(Debug, Default)]
struct Batch {
    changes: Vec<Gathered>,
    /// How many of the changes the list of a socket includes; 0 for one without a list that is not told of some of them.
    listed: HashMap<SocketId, usize>,
}

#[derive(Debug)]
struct Gathered {
    change: MemberChange,
    except: Option<SocketId>,
    /// The index of the change that undoes this one, or that this one undoes.
    counterpart: Option<usize>,
}

impl Batch {
    fn add(&mut self, change: MemberChange, except: Option<SocketId>) {
        let (index, user) = (self.changes.len(), change.member().user());
        let before = self.changes.iter_mut().enumerate().rfind(|(_, before)| before.change.member().user() == user);
        let undone = before.filter(|(_, before)| before.counterpart.is_none() && before.change.is_undone_by(&change));
        let counterpart = undone.map(|(at, undone)| {
            undone.counterpart = Some(index);
            at
        });
        if let Some(except) = except {
            self.listed.entry(except).or_default();
        }
        self.changes.push(Gathered { change, except, counterpart });
    }

    fn list(&mut self, id: SocketId) {
        self.listed.insert(id, self.changes.len());
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= MAX_KEPT || self.for_most().count() >= MAX_TOLD
    }

    fn holds_join_of(&self, id: SocketId) -> bool {
        let is_join = |gathered: &Gathered| matches!(gathered.change, MemberChange::Joining(socket, _) if socket == id);
        self.for_most().any(|index| is_join(&self.changes[index]))
    }

    /// The indices of the changes to tell sockets that are not in `listed`.
    fn for_most(&self) -> impl Iterator<Item = usize> {
        (0..self.changes.len()).filter(|&index| self.changes[index].counterpart.is_none())
    }

    /// The indices of the changes to tell a socket in `listed`, whose list includes the first `from`.
    fn for_listed(&self, id: SocketId, from: usize) -> impl Iterator<Item = usize> {
        let is_new = move |index: usize| index >= from && self.changes[index].except != Some(id);
        (from..self.changes.len()).filter(move |&index| {
            // Two that undo each other are told if one of them alone is news: the list includes the other one.
            is_new(index) && self.changes[index].counterpart.is_none_or(|other| !is_new(other))
        })
    }
}

impl<S: Socket> Hub<S> {
    /// Tells the sockets in a channel but `except` that a user has joined or left: in a large channel together with what changes
    /// in the next moments.
    pub(super) fn announce(self: &Arc<Self>, channel: &ChannelName, change: &MemberChange, except: Option<SocketId>) {
        let name = channel.as_str();
        // Compat: the original sends each change by itself, at once (`src/channels/presence-channel.ts`). Webhooks and the dashboard
        // are told of all of them.
        self.observers.tell(|| match change {
            MemberChange::Joining(_, member) => Observation::Joined { channel: name, member },
            MemberChange::Leaving(member) => Observation::Left { channel: name, member },
        });
        match self.batches.add(channel, self.rooms.count(name), change, except) {
            Added::Gathered { is_full: false } => {}
            Added::Gathered { is_full: true } => {
                self.tell_batch(name);
            }
            Added::Alone { is_first } => {
                if is_first {
                    self.gather(channel.clone());
                }
                self.fan_out(name, &Push::new(self.message(name, change)), except);
            }
        }
    }

    fn message<'a>(&self, channel: &'a str, change: &'a MemberChange) -> Message<'a> {
        match change {
            MemberChange::Joining(id, member) => Message::Joined { channel, member, socket: self.options.expose_socket_id.then_some(*id) },
            MemberChange::Leaving(member) => Message::Left { channel, member },
        }
    }

    /// Tells what changes in a channel at intervals, until nothing has changed during one.
    fn gather(self: &Arc<Self>, channel: ChannelName) {
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            let gathering = async {
                loop {
                    tokio::time::sleep(hub.batches.time(hub.rooms.count(channel.as_str()))).await;
                    if hub.batches.close(&channel) {
                        break;
                    }
                    hub.tell_batch(channel.as_str());
                }
            };
            hub.closing.run_until_cancelled(gathering).await
        });
    }

    /// Tells what has been gathered for a channel.
    pub(in crate::hub) fn tell_batch(self: &Arc<Self>, channel: &str) {
        let mut fan_out = FanOut::default();
        self.queue_batch(channel, &mut fan_out);
        self.finish(fan_out);
    }

    /// Queues what has been gathered for a channel, for all its sockets.
    pub(in crate::hub) fn queue_batch(&self, channel: &str, fan_out: &mut FanOut<S>) {
        let mut shard = self.batches.shard(channel);
        let Some(batch) = shard.get_mut(channel).filter(|batch| !batch.changes.is_empty()) else { return };
        let batch = std::mem::take(batch);
        let Some(receivers) = self.rooms.snapshot(channel) else { return };
        let pushes: Vec<_> = batch.changes.iter().map(|gathered| Push::new(self.message(channel, &gathered.change))).collect();
        let for_most: Vec<_> = batch.for_most().map(|index| &pushes[index]).collect();
        for (id, socket) in receivers.iter() {
            match batch.listed.get(&id) {
                None => fan_out.push_all(socket, &for_most),
                Some(&from) => {
                    let own: Vec<_> = batch.for_listed(id, from).map(|index| &pushes[index]).collect();
                    fan_out.push_all(socket, &own);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::store::Member;

    fn member(user: u32, info: u32) -> Member {
        Member::parse(&format!(r#"{{"user_id":{user},"user_info":{info}}}"#)).unwrap()
    }

    fn socket(n: u32) -> SocketId {
        SocketId::parse(&format!("1.{n}")).unwrap()
    }

    fn joining(user: u32) -> MemberChange {
        MemberChange::Joining(socket(user), member(user, 0))
    }

    fn leaving(user: u32) -> MemberChange {
        MemberChange::Leaving(member(user, 0))
    }

    fn told(batch: &Batch, id: u32) -> Vec<MemberChange> {
        let change = |index: usize| batch.changes[index].change.clone();
        match batch.listed.get(&socket(id)) {
            None => batch.for_most().map(change).collect(),
            Some(&from) => batch.for_listed(socket(id), from).map(change).collect(),
        }
    }

    #[test]
    fn who_came_and_went_is_announced_to_those_alone_who_knew() {
        let mut batch = Batch::default();
        batch.list(socket(1));
        batch.add(joining(1), Some(socket(1)));
        batch.list(socket(2));
        batch.add(joining(2), Some(socket(2)));
        assert!(batch.holds_join_of(socket(1)));
        batch.add(leaving(1), None);
        assert!(!batch.holds_join_of(socket(1)));
        assert_eq!(told(&batch, 9), [joining(2)]);
        assert_eq!(told(&batch, 2), [leaving(1)], "it is in the list");
        batch.add(joining(1), None);
        assert_eq!(told(&batch, 9), [joining(2), joining(1)]);
        assert_eq!(told(&batch, 2), [leaving(1), joining(1)]);
    }

    #[test]
    fn who_went_and_came_back_as_somebody_with_another_name_is_announced() {
        let mut batch = Batch::default();
        batch.add(leaving(1), None);
        let again = MemberChange::Joining(socket(1), member(1, 2));
        batch.add(again.clone(), Some(socket(1)));
        assert_eq!(told(&batch, 9), [leaving(1), again]);
    }

    #[test]
    fn what_undoes_each_other_is_bounded_too() {
        let mut batch = Batch::default();
        let mut count = 0;
        while !batch.is_full() {
            batch.add(joining(1), None);
            batch.add(leaving(1), None);
            count += 2;
        }
        assert_eq!((count, told(&batch, 9)), (MAX_KEPT, Vec::new()));
        let mut batch = Batch::default();
        for user in 0.. {
            if batch.is_full() {
                break;
            }
            batch.add(joining(user), None);
        }
        assert_eq!(batch.changes.len(), MAX_TOLD);
    }

    /// Numbers of sockets wrap around.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// The user joins with a new socket.
        Join(u32),
        Leave(usize),
        /// A socket gets a new list, for this user.
        Again(usize, u32),
        Tell,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1..6_u32).prop_map(Step::Join),
            5 => (0..8_usize).prop_map(Step::Leave),
            2 => (0..8_usize, 1..6_u32).prop_map(|(socket, user)| Step::Again(socket, user)),
            2 => Just(Step::Tell),
        ];
        prop::collection::vec(step, 1..80)
    }

    /// One channel: its sockets, each with its user, and the users whom the client believes to be here.
    #[derive(Default)]
    struct World {
        batch: Batch,
        here: BTreeMap<u32, (u32, BTreeSet<u32>)>,
        count: u32,
    }

    impl World {
        fn users(&self) -> BTreeSet<u32> {
            self.here.values().map(|(user, _)| *user).collect()
        }

        fn nth(&self, n: usize) -> Option<u32> {
            self.here.keys().nth(n.checked_rem(self.here.len())?).copied()
        }

        /// A socket joins, in the order of the hub's steps.
        fn enter(&mut self, id: u32, user: u32) {
            let before = self.users();
            let old = self.here.remove(&id).map(|(user, _)| user);
            let replaced = old.filter(|old| *old != user && !self.users().contains(old));
            self.here.insert(id, (user, BTreeSet::new()));
            let users = self.users();
            self.here.insert(id, (user, users));
            self.batch.list(socket(id));
            if let Some(gone) = replaced {
                self.batch.add(leaving(gone), Some(socket(id)));
            }
            if !before.contains(&user) {
                self.batch.add(MemberChange::Joining(socket(id), member(user, 0)), Some(socket(id)));
            }
        }

        fn leave(&mut self, id: u32) {
            let Some((user, _)) = self.here.remove(&id) else { return };
            if !self.users().contains(&user) {
                self.batch.add(leaving(user), None);
            }
        }

        fn tell(&mut self) {
            let batch = std::mem::take(&mut self.batch);
            let users = self.users();
            for (&id, (_, here)) in &mut self.here {
                let changes = told(&batch, id);
                if !batch.listed.contains_key(&socket(id)) {
                    assert_eq!(changes.len(), here.symmetric_difference(&users).count(), "nothing in vain");
                }
                for change in changes {
                    let user = change.member().user().parse().unwrap();
                    let is_news = match change {
                        MemberChange::Joining(..) => here.insert(user),
                        MemberChange::Leaving(_) => here.remove(&user),
                    };
                    assert!(is_news, "{user} is no news to {here:?}");
                }
                assert_eq!(*here, users);
            }
        }
    }

    proptest! {
        #[test]
        fn after_each_batch_everyone_believes_the_truth(steps in steps()) {
            let mut world = World::default();
            for step in steps {
                match step {
                    Step::Join(user) => {
                        world.count += 1;
                        world.enter(world.count, user);
                    }
                    Step::Leave(n) => world.nth(n).into_iter().for_each(|id| world.leave(id)),
                    Step::Again(n, user) => world.nth(n).into_iter().for_each(|id| world.enter(id, user)),
                    Step::Tell => world.tell(),
                }
            }
            world.tell();
        }
    }
}
