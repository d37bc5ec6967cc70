//! A store that several nodes share, like Redis: with leases, with PUBLISHed changes, with a network that can be cut.
//!
//! It keeps the promises of [`crate::store::redis`] by simpler means, in one process and in the test's paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::delays::Pace;
use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::store::{Heartbeat, Joined, Left, Member, Members, PresenceStore, StoreError};

/// How long a node counts as alive after its last heartbeat.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// Delay between two attempts of a node that is cut off.
const RETRY: Duration = Duration::from_secs(1);

/// A change of a channel, PUBLISHed to every node.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) channel: ChannelName,
    pub(super) is_joining: bool,
    pub(super) socket: SocketId,
    pub(super) member: Member,
    pub(super) version: u64,
}

/// What stands in for Redis.
#[derive(Default)]
pub(super) struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    /// Members in the order of joining.
    channels: BTreeMap<ChannelName, Vec<Entry>>,
    /// When each lease ends.
    leases: BTreeMap<u64, Instant>,
    /// The channels to the nodes that are not cut off.
    wires: BTreeMap<usize, mpsc::UnboundedSender<Change>>,
    /// Grows with every change and every lease.
    count: u64,
}

#[derive(Clone, PartialEq)]
struct Entry {
    socket: SocketId,
    lease: u64,
    member: Member,
    place: u64,
}

impl State {
    fn lives(&self, lease: u64) -> bool {
        self.leases.get(&lease).is_some_and(|end| *end > Instant::now())
    }

    fn begin_lease(&mut self) -> u64 {
        self.count += 1;
        self.leases.insert(self.count, Instant::now() + LEASE);
        self.count
    }

    fn entries(&mut self, channel: &ChannelName) -> &mut Vec<Entry> {
        self.channels.entry(channel.clone()).or_default()
    }

    fn members(&mut self, channel: &ChannelName) -> Members {
        self.entries(channel).iter().map(|entry| (entry.socket, entry.member.clone())).collect()
    }

    fn publish(&self, channel: &ChannelName, is_joining: bool, socket: SocketId, member: &Member) {
        let change = Change { channel: channel.clone(), is_joining, socket, member: member.clone(), version: self.count };
        // A node that is gone receives nothing.
        self.wires.values().for_each(|wire| drop(wire.send(change.clone())));
    }

    fn join(&mut self, channel: &ChannelName, socket: SocketId, lease: u64, member: &Member, keeps_place: bool) -> Joined {
        self.count += 1;
        let (place, user) = (self.count, member.user().to_owned());
        let entries = self.entries(channel);
        let is_first = !entries.iter().any(|entry| entry.member.user() == user);
        let old = entries.iter().position(|entry| entry.socket == socket).map(|at| entries.remove(at));
        let is_same = old.as_ref().is_some_and(|old| old.member.user() == user);
        let place = old.as_ref().filter(|_| keeps_place && is_same).map_or(place, |old| old.place);
        let stays = |entries: &[Entry], old: &Entry| entries.iter().any(|entry| entry.member.user() == old.member.user());
        let replaced = old.filter(|old| !is_same && !stays(entries, old)).map(|old| old.member);
        entries.push(Entry { socket, lease, member: member.clone(), place });
        entries.sort_by_key(|entry| entry.place);
        if let Some(replaced) = &replaced {
            self.publish(channel, false, socket, replaced);
        }
        if is_first || !keeps_place {
            self.publish(channel, true, socket, member);
        }
        Joined { is_first, replaced, members: Some(self.members(channel)), version: self.count, has_lost: false }
    }

    fn leave(&mut self, channel: &ChannelName, socket: SocketId) -> Left {
        let entries = self.entries(channel);
        let Some(at) = entries.iter().position(|entry| entry.socket == socket) else { return Left::NotThere };
        let member = entries.remove(at).member;
        let remains = entries.iter().any(|entry| entry.member.user() == member.user());
        self.count += 1;
        if remains {
            return Left::Remains;
        }
        self.publish(channel, false, socket, &member);
        Left::Gone(member)
    }

    fn ghosts(&self, channel: &ChannelName) -> Vec<Entry> {
        let entries = self.channels.get(channel).into_iter().flatten();
        entries.filter(|entry| !self.lives(entry.lease)).cloned().collect()
    }
}

impl Shared {
    /// The channel by which a node receives changes. A second one for the same node replaces the first.
    pub(super) fn wire(&self, node: usize) -> mpsc::UnboundedReceiver<Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().wires.insert(node, sender);
        receiver
    }

    /// Cuts a node's channel for changes.
    pub(super) fn unwire(&self, node: usize) {
        self.0.lock().wires.remove(&node);
    }
}

/// One node's view of the store.
pub(super) struct NodeStore {
    shared: Arc<Shared>,
    pace: Pace,
    mine: Mutex<Mine>,
    /// Notified when members turn out to be missing.
    lost: Notify,
}

/// What the node knows itself.
#[derive(Default)]
struct Mine {
    lease: u64,
    held: IndexMap<(ChannelName, SocketId), Member>,
    owed: BTreeMap<(ChannelName, SocketId), Option<Member>>,
    doubtful: BTreeSet<ChannelName>,
    network: Network,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Network {
    #[default]
    Up,
    /// Up again, but what the store holds is uncertain.
    Back,
    Cut,
    /// The node has died; its operations never complete.
    Dead,
}

impl Mine {
    fn doubt(&mut self) {
        self.doubtful = self.held.keys().map(|(channel, _)| channel.clone()).collect();
    }
}

impl NodeStore {
    pub(super) fn new(shared: &Arc<Shared>, seed: u64) -> Self {
        Self { shared: Arc::clone(shared), pace: Pace::new(seed), mine: Mutex::default(), lost: Notify::new() }
    }

    pub(super) fn cut(&self) {
        self.mine.lock().network = Network::Cut;
    }

    pub(super) fn repair(&self) {
        self.mine.lock().network = Network::Back;
    }

    pub(super) fn die(&self) {
        self.mine.lock().network = Network::Dead;
    }

    async fn reach(&self, what: &str, channel: &ChannelName, socket: Option<SocketId>) -> Result<(), StoreError> {
        self.pace.wait((what, channel.as_str(), socket)).await;
        let network = self.mine.lock().network;
        match network {
            Network::Up | Network::Back => Ok(()),
            Network::Cut => Err(StoreError("the network is cut".into())),
            Network::Dead => std::future::pending().await,
        }
    }

    /// Keeps the lease, or starts another one, under which everything must be written again.
    fn ensure_lease(&self, state: &mut State) -> u64 {
        let mut mine = self.mine.lock();
        if !state.lives(mine.lease) {
            mine.lease = state.begin_lease();
            mine.doubt();
        }
        mine.lease
    }

    async fn try_join(&self, channel: &ChannelName, socket: SocketId, member: Member, is_listed: bool) -> Result<Joined, StoreError> {
        self.reach("join", channel, Some(socket)).await?;
        let joined = {
            let mut state = self.shared.0.lock();
            let lease = self.ensure_lease(&mut state);
            state.join(channel, socket, lease, &member, false)
        };
        self.reach("joined", channel, Some(socket)).await?;
        let mut mine = self.mine.lock();
        let is_there = |socket| joined.members.iter().flatten().any(|(there, _)| *there == socket);
        let has_lost = mine.held.keys().any(|(name, socket)| name == channel && !is_there(*socket));
        if has_lost {
            mine.doubt();
            self.lost.notify_one();
        }
        Ok(Joined { has_lost, members: joined.members.filter(|_| is_listed), ..joined })
    }
}

#[async_trait]
impl PresenceStore for NodeStore {
    async fn join(&self, channel: &ChannelName, socket: SocketId, member: Member, is_listed: bool) -> Result<Joined, StoreError> {
        let key = (channel.clone(), socket);
        self.mine.lock().owed.remove(&key);
        let before = self.mine.lock().held.insert(key.clone(), member.clone());
        let result = self.try_join(channel, socket, member, is_listed).await;
        if result.is_err() {
            let mut mine = self.mine.lock();
            mine.held.shift_remove(&key);
            match before {
                Some(member) => {
                    mine.held.insert(key, member);
                    mine.doubtful.insert(channel.clone());
                }
                None => drop(mine.owed.insert(key, None)),
            }
        }
        result
    }

    async fn leave(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError> {
        let key = (channel.clone(), socket);
        let member = self.mine.lock().held.shift_remove(&key);
        self.mine.lock().owed.insert(key.clone(), member);
        self.reach("leave", channel, Some(socket)).await?;
        let left = self.shared.0.lock().leave(channel, socket);
        self.reach("left", channel, Some(socket)).await?;
        self.mine.lock().owed.remove(&key);
        Ok(left)
    }

    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError> {
        Ok(self.versioned(channel).await?.1)
    }

    async fn versioned(&self, channel: &ChannelName) -> Result<(u64, Members), StoreError> {
        self.reach("members", channel, None).await?;
        let answer = {
            let mut state = self.shared.0.lock();
            let members = state.members(channel);
            // Redis keeps nothing of a channel without members.
            (if members.is_empty() { 0 } else { state.count }, members)
        };
        self.reach("listed", channel, None).await?;
        Ok(answer)
    }

    async fn next_maintenance(&self) {
        let is_cut = self.mine.lock().network == Network::Cut;
        // What was lost is put back at once.
        let _ = tokio::time::timeout(if is_cut { RETRY } else { LEASE / 3 }, self.lost.notified()).await;
    }

    async fn heartbeat(&self) -> Result<Heartbeat, StoreError> {
        self.reach("renew", &"".into(), None).await?;
        let mut state = self.shared.0.lock();
        let before = self.mine.lock().lease;
        let lease = self.ensure_lease(&mut state);
        state.leases.insert(lease, Instant::now() + LEASE);
        let mut mine = self.mine.lock();
        if mine.network == Network::Back {
            mine.network = Network::Up;
            mine.doubt();
        }
        let mut unreconciled = mine.doubtful.clone();
        unreconciled.extend(mine.owed.keys().map(|(channel, _)| channel.clone()));
        unreconciled.extend(state.channels.keys().filter(|channel| !state.ghosts(channel).is_empty()).cloned());
        Ok(Heartbeat { unreconciled: unreconciled.into_iter().collect(), has_lost: lease != before })
    }

    async fn reconcile(&self, channel: &ChannelName) -> Result<Vec<Member>, StoreError> {
        self.reach("settle", channel, None).await?;
        let mut gone = Vec::new();
        {
            let mut state = self.shared.0.lock();
            let lease = self.ensure_lease(&mut state);
            let mut mine = self.mine.lock();
            if mine.doubtful.remove(channel) {
                for ((_, socket), member) in mine.held.iter().filter(|((name, _), _)| name == channel) {
                    state.join(channel, *socket, lease, member, true);
                }
            }
            let owed: Vec<_> = mine.owed.extract_if(.., |(name, _), _| name == channel).collect();
            for ((_, socket), member) in owed {
                gone.extend(match state.leave(channel, socket) {
                    Left::Gone(member) => Some(member),
                    Left::Remains => None,
                    // The answer to the first attempt was lost.
                    Left::NotThere => member,
                });
            }
        }
        let ghosts = self.shared.0.lock().ghosts(channel);
        self.reach("take ghosts", channel, None).await?;
        let mut state = self.shared.0.lock();
        for ghost in ghosts {
            // It may have returned meanwhile.
            if state.entries(channel).contains(&ghost)
                && let Left::Gone(member) = state.leave(channel, ghost.socket)
            {
                gone.push(member);
            }
        }
        Ok(gone)
    }

    fn doubt(&self, channel: &ChannelName, user: &str) -> bool {
        let mut mine = self.mine.lock();
        let is_there = mine.held.iter().any(|((name, _), member)| name == channel && member.user() == user);
        if is_there {
            mine.doubtful.insert(channel.clone());
            self.lost.notify_one();
        }
        is_there
    }

    async fn close(&self) {
        // Members that could not be removed are removed by other nodes, once the lease has ended.
        let mut state = self.shared.0.lock();
        let mine = self.mine.lock();
        if mine.network != Network::Cut {
            state.leases.remove(&mine.lease);
        }
    }
}
