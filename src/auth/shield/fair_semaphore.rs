//! [`FairSemaphore`]: so many at once; the others wait and take turns by asker.
//!
//! Input: sockets that want a turn. Output: a [`Permit`] each. Every round lets one question of every waiting socket
//! through, so that a socket with a thousand questions holds up itself and nobody else. Sockets and not addresses take
//! turns: behind a proxy that is not in `trustProxies`, and in an office, many users share an address. How many sockets
//! an address may have is for `limits.connectionsPerIp` to say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::lock;
use crate::event::SocketId;

/// A socket may have this part of the permits, and one at the least.
const SHARE: usize = 8;

/// So many at once.
#[derive(Debug)]
pub(super) struct FairSemaphore(Mutex<Line>);

#[derive(Debug)]
struct Line {
    /// Permits that nobody has; none while somebody waits who may have one.
    free: usize,
    /// Most permits of one socket: one whose questions hang holds up itself.
    most: usize,
    /// Permits of each socket that has some.
    held: HashMap<SocketId, usize>,
    /// Those who wait, in the order in which they are let through.
    waiting: BTreeMap<Place, (SocketId, oneshot::Sender<Permit>)>,
    /// What each socket that waits has in the line.
    askers: HashMap<SocketId, Asker>,
    /// The round that is being let through.
    round: u64,
    next_number: u64,
}

/// Rounds come one after the other; within a round it goes by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    round: u64,
    number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Asker {
    waiting: usize,
    /// The round of its last question.
    last_round: u64,
}

impl FairSemaphore {
    pub(super) fn new(at_once: usize) -> Arc<Self> {
        let most = (at_once / SHARE).max(1);
        let line =
            Line { free: at_once, most, held: HashMap::new(), waiting: BTreeMap::new(), askers: HashMap::new(), round: 0, next_number: 0 };
        Arc::new(Self(Mutex::new(line)))
    }

    /// Waits for a turn. Dropping the future leaves the line.
    pub(super) async fn take(self: &Arc<Self>, asker: SocketId) -> Permit {
        let mut waiter = {
            let mut line = lock(&self.0);
            if line.free > 0 && line.may_have(asker) {
                line.free -= 1;
                line.hold(asker);
                return Permit { semaphore: Arc::clone(self), asker };
            }
            let (sender, turn) = oneshot::channel();
            Waiter { semaphore: self, place: line.add(asker, sender), turn }
        };
        (&mut waiter.turn).await.expect("who takes a waiter out of the line gives it a permit")
    }

    fn release(self: &Arc<Self>, asker: SocketId) {
        let next = {
            let mut line = lock(&self.0);
            line.let_go(asker);
            let next = line.pop();
            line.free += usize::from(next.is_none());
            next
        };
        if let Some((asker, next)) = next {
            // A waiter that has just gone drops the permit, and the next one gets it.
            drop(next.send(Permit { semaphore: Arc::clone(self), asker }));
        }
    }
}

impl Line {
    fn add(&mut self, socket: SocketId, sender: oneshot::Sender<Permit>) -> Place {
        let round = self.round;
        let asker = self.askers.entry(socket).or_insert(Asker { waiting: 0, last_round: round });
        asker.waiting += 1;
        asker.last_round += 1;
        let place = Place { round: asker.last_round, number: self.next_number };
        self.next_number += 1;
        self.waiting.insert(place, (socket, sender));
        place
    }

    /// The next who may have a permit, and has it from now on.
    fn pop(&mut self) -> Option<(SocketId, oneshot::Sender<Permit>)> {
        let place = *self.waiting.iter().find(|(_, (socket, _))| self.may_have(*socket))?.0;
        let (socket, sender) = self.waiting.remove(&place)?;
        self.round = self.round.max(place.round);
        self.forget(socket);
        self.hold(socket);
        Some((socket, sender))
    }

    fn may_have(&self, socket: SocketId) -> bool {
        self.held.get(&socket).is_none_or(|held| *held < self.most)
    }

    fn hold(&mut self, socket: SocketId) {
        *self.held.entry(socket).or_default() += 1;
    }

    fn let_go(&mut self, socket: SocketId) {
        if let Some(held) = self.held.get_mut(&socket) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&socket);
            }
        }
    }

    /// One question of a socket waits no more.
    fn forget(&mut self, socket: SocketId) {
        if let Some(asker) = self.askers.get_mut(&socket) {
            asker.waiting -= 1;
            if asker.waiting == 0 {
                self.askers.remove(&socket);
            }
        }
    }
}

/// Somebody in the line.
struct Waiter<'a> {
    semaphore: &'a FairSemaphore,
    place: Place,
    turn: oneshot::Receiver<Permit>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut line = lock(&self.semaphore.0);
        if let Some((socket, _)) = line.waiting.remove(&self.place) {
            line.forget(socket);
        }
    }
}

/// One of the turns; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    semaphore: Arc<FairSemaphore>,
    asker: SocketId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.semaphore.release(self.asker);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::*;

    fn socket(name: char) -> SocketId {
        SocketId::new(1, name.into())
    }

    /// Those who wait, with their names, in the order of their coming.
    struct Queue(Vec<(char, BoxFuture<'static, Permit>)>);

    impl Queue {
        fn of(semaphore: &Arc<FairSemaphore>, names: &str) -> Self {
            let mut queue = Self(Vec::new());
            for name in names.chars() {
                queue.add(semaphore, name);
            }
            queue
        }

        fn add(&mut self, semaphore: &Arc<FairSemaphore>, name: char) {
            let semaphore = Arc::clone(semaphore);
            let mut waiting = async move { semaphore.take(socket(name)).await }.boxed();
            assert!((&mut waiting).now_or_never().is_none(), "{name} got a turn at once");
            self.0.push((name, waiting));
        }

        /// Whose turn it is.
        fn next(&mut self) -> Option<(char, Permit)> {
            let found = self.0.iter_mut().enumerate().find_map(|(at, (_, waiting))| Some((at, waiting.now_or_never()?)));
            let (at, permit) = found?;
            Some((self.0.remove(at).0, permit))
        }

        /// The order in which all get their turns, one at a time.
        fn order(&mut self) -> String {
            let mut order = String::new();
            while let Some((name, _permit)) = self.next() {
                order.push(name);
            }
            order
        }
    }

    #[test]
    fn who_asks_much_waits_for_itself() {
        let semaphore = FairSemaphore::new(1);
        let held = semaphore.take(socket('x')).now_or_never().unwrap();
        let mut queue = Queue::of(&semaphore, "aaaabbc");
        drop(held);
        let (first, permit) = queue.next().unwrap();
        assert_eq!(first, 'a');
        // A round has begun: who comes now, and who was served in it, is in the next one.
        queue.add(&semaphore, 'd');
        drop(permit);
        assert_eq!(queue.order(), "bcabdaa");
        assert!(lock(&semaphore.0).askers.is_empty());
        assert_eq!(lock(&semaphore.0).free, 1);
    }

    #[test]
    fn who_asks_again_and_again_does_not_pass_others() {
        let semaphore = FairSemaphore::new(1);
        let mut permit = semaphore.take(socket('x')).now_or_never().unwrap();
        let mut queue = Queue::of(&semaphore, "aabb");
        let mut order = String::new();
        for _ in 0..6 {
            if queue.0.iter().all(|(name, _)| *name != 'c') {
                queue.add(&semaphore, 'c');
            }
            drop(permit);
            let (name, next) = queue.next().unwrap();
            order.push(name);
            permit = next;
        }
        assert_eq!(order, "abcabc");
    }

    #[test]
    fn who_leaves_the_line_leaves_nothing_behind() {
        let semaphore = FairSemaphore::new(2);
        let held = [semaphore.take(socket('x')).now_or_never().unwrap(), semaphore.take(socket('y')).now_or_never().unwrap()];
        let mut queue = Queue::of(&semaphore, "aaab");
        queue.0.drain(..2);
        drop(held);
        // One that has been given a permit and did not look at it.
        drop(queue.0.remove(0));
        assert_eq!(queue.order(), "b");
        let line = lock(&semaphore.0);
        assert!(line.waiting.is_empty() && line.askers.is_empty());
        assert_eq!(line.free, 2);
    }
}
