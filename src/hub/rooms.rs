//! Which sockets are in which channel, organised for fan-out.
//!
//! A fan-out works on a snapshot: it holds no lock that a join or leave needs. Sockets are kept in chunks behind `Arc`s, so
//! that a snapshot costs one reference count per chunk, and a change during a fan-out copies at most two chunks.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::Socket;
use crate::channel::ChannelName;
use crate::event::SocketId;

/// Sockets per chunk: few enough to copy in microseconds, many enough that a snapshot of 10,000 sockets is short.
const CHUNK: usize = 128;

/// Number of locks that the channels are spread over; more than the cores of any machine this runs on.
const SHARDS: usize = 64;

/// The sockets in one channel, in no particular order.
#[derive(Debug)]
pub(super) struct Room<S> {
    /// All of them are full, except the last one.
    chunks: Vec<Arc<Vec<Entry<S>>>>,
    /// The index of each socket, counted over all chunks.
    places: HashMap<SocketId, usize>,
}

/// The id is stored beside the handle, so that a fan-out can skip a socket without following the handle.
#[derive(Debug, Clone)]
struct Entry<S> {
    id: SocketId,
    socket: S,
}

/// The sockets in a channel at one moment.
#[derive(Debug)]
pub(super) struct Snapshot<S>(Vec<Arc<Vec<Entry<S>>>>);

impl<S> Snapshot<S> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketId, &S)> {
        self.0.iter().flat_map(|chunk| chunk.iter()).map(|entry| (entry.id, &entry.socket))
    }
}

impl<S: Socket> Room<S> {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), places: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn snapshot(&self) -> Snapshot<S> {
        Snapshot(self.chunks.clone())
    }

    pub(super) fn insert(&mut self, socket: S) {
        let id = socket.id();
        if self.places.contains_key(&id) {
            return;
        }
        self.places.insert(id, self.places.len());
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push(Entry { id, socket }),
            _ => self.chunks.push(Arc::new(vec![Entry { id, socket }])),
        }
    }

    pub(super) fn remove(&mut self, id: SocketId) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        // The last socket fills the gap.
        let last_chunk = self.chunks.last_mut().expect("a member has a chunk");
        let last = Arc::make_mut(last_chunk).pop().expect("no chunk is empty");
        if last_chunk.is_empty() {
            self.chunks.pop();
        }
        if last.id != id {
            self.places.insert(last.id, place);
            Arc::make_mut(&mut self.chunks[place / CHUNK])[place % CHUNK] = last;
        }
    }
}

type Shard<S> = RwLock<HashMap<ChannelName, Mutex<Room<S>>>>;

/// All channels with at least one socket.
#[derive(Debug)]
pub(super) struct Rooms<S> {
    shards: Vec<Shard<S>>,
    /// Locked while an event is sent to a channel of the shard.
    orders: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl<S: Socket> Rooms<S> {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, orders: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    fn place(&self, channel: &str) -> usize {
        self.hasher.hash_one(channel) as usize % SHARDS
    }

    fn shard(&self, channel: &str) -> &Shard<S> {
        &self.shards[self.place(channel)]
    }

    /// Locked while an event is sent, so that all sockets in the channel receive events in the same order, whatever their sources.
    pub(super) fn order(&self, channel: &str) -> MutexGuard<'_, ()> {
        self.orders[self.place(channel)].lock()
    }

    /// Returns how many sockets are in the channel afterwards.
    pub(super) fn join(&self, channel: &ChannelName, socket: S) -> usize {
        let mut shard = self.shard(channel.as_str()).write();
        let room = shard.entry(channel.clone()).or_insert_with(|| Mutex::new(Room::new()));
        let room = room.get_mut();
        room.insert(socket);
        room.len()
    }

    /// Returns how many sockets are in the channel afterwards.
    pub(super) fn leave(&self, channel: &ChannelName, id: SocketId) -> usize {
        let mut shard = self.shard(channel.as_str()).write();
        let Some(room) = shard.get_mut(channel.as_str()) else {
            return 0;
        };
        let room = room.get_mut();
        room.remove(id);
        let count = room.len();
        if count == 0 {
            shard.remove(channel.as_str());
        }
        count
    }

    /// Lets go of capacity for channels that have gone.
    pub(super) fn shrink(&self) {
        for shard in &self.shards {
            shard.write().shrink_to_fit();
        }
    }

    /// The sockets in a channel; `None` when there are none.
    pub(super) fn snapshot(&self, channel: &str) -> Option<Snapshot<S>> {
        let shard = self.shard(channel).read();
        let room = shard.get(channel)?.lock();
        Some(room.snapshot())
    }

    /// How many sockets are in a channel.
    pub(super) fn count(&self, channel: &str) -> usize {
        let shard = self.shard(channel).read();
        shard.get(channel).map_or(0, |room| room.lock().len())
    }

    /// Every channel for which `wanted` is true, with its socket count.
    pub(super) fn channels(&self, mut wanted: impl FnMut(&ChannelName) -> bool) -> Vec<(ChannelName, usize)> {
        let mut channels = Vec::new();
        for shard in &self.shards {
            for (name, room) in shard.read().iter() {
                if wanted(name) {
                    channels.push((name.clone(), room.lock().len()));
                }
            }
        }
        channels
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::hub::tests::Recorder;

    fn socket(n: usize) -> Recorder {
        Recorder::numbered(&format!("1.{n}"))
    }

    fn ids(snapshot: &Snapshot<Recorder>) -> BTreeSet<SocketId> {
        snapshot.iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn members_survive_any_order_of_joins_and_leaves() {
        let mut room = Room::new();
        let mut expected = BTreeSet::new();
        let mut state = 7_u64;
        for _ in 0..5_000 {
            // A fixed pseudo-random walk: the same on every run.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let socket = socket((state >> 33) as usize % 400);
            if state >> 63 == 0 {
                expected.insert(socket.id());
                room.insert(socket);
            } else {
                expected.remove(&socket.id());
                room.remove(socket.id());
            }
            assert_eq!(room.len(), expected.len());
        }
        assert_eq!(ids(&room.snapshot()), expected);
    }

    #[test]
    fn a_snapshot_does_not_change() {
        let rooms = Rooms::new();
        let channel = ChannelName::from("news");
        for n in 0..300 {
            rooms.join(&channel, socket(n));
        }
        let snapshot = rooms.snapshot("news").unwrap();
        for n in 0..300 {
            rooms.leave(&channel, socket(n).id());
        }
        assert_eq!(ids(&snapshot).len(), 300);
        assert!(rooms.snapshot("news").is_none());
        assert!(rooms.channels(|_| true).is_empty());
    }

    #[test]
    fn joining_twice_counts_once() {
        let rooms = Rooms::new();
        let channel = ChannelName::from("news");
        rooms.join(&channel, socket(1));
        rooms.join(&channel, socket(1));
        assert_eq!(rooms.count("news"), 1);
    }
}
