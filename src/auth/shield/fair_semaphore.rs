//! [`FairSemaphore`]: limits the calls in flight; waiting sockets take turns.
//!
//! Input: sockets with a call to send. Output: a [`Permit`] each. Every round admits one call of each waiting socket, so
//! that a socket with a thousand calls delays only itself. Turns go by socket rather than by address, because many users
//! share one address in an office, or behind a proxy that is not in `trustProxies`. The number of sockets per address is
//! limited by `limits.connectionsPerIp`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::event::SocketId;

/// A socket may hold at most one in `SHARE` of the permits, but always at least one.
const SHARE: usize = 8;

/// A semaphore with a queue that is fair between sockets.
#[derive(Debug)]
pub(super) struct FairSemaphore(Mutex<Line>);

#[derive(Debug)]
struct Line {
    /// Free permits; 0 while a socket that may take one is waiting.
    free: usize,
    /// Maximum permits per socket, so that a socket whose calls hang delays only itself.
    most: usize,
    /// Permits held by each socket that has any.
    held: HashMap<SocketId, usize>,
    /// Waiting calls, in the order in which they are admitted.
    waiting: BTreeMap<Place, (SocketId, oneshot::Sender<Permit>)>,
    /// The waiting calls of each socket that has any.
    askers: HashMap<SocketId, Asker>,
    /// The round that is being admitted.
    round: u64,
    next_number: u64,
}

/// A place in the queue: ordered by round, and by arrival within a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    round: u64,
    number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Asker {
    waiting: usize,
    /// The round of its last waiting call.
    last_round: u64,
}

impl FairSemaphore {
    pub(super) fn new(at_once: usize) -> Arc<Self> {
        let most = (at_once / SHARE).max(1);
        let line =
            Line { free: at_once, most, held: HashMap::new(), waiting: BTreeMap::new(), askers: HashMap::new(), round: 0, next_number: 0 };
        Arc::new(Self(Mutex::new(line)))
    }

    /// Waits for a permit. Dropping the future leaves the queue.
    pub(super) async fn take(self: &Arc<Self>, asker: SocketId) -> Permit {
        let mut waiter = {
            let mut line = self.0.lock();
            if line.free > 0 && line.may_have(asker) {
                line.free -= 1;
                line.hold(asker);
                return Permit { semaphore: Arc::clone(self), asker };
            }
            let (sender, turn) = oneshot::channel();
            Waiter { semaphore: self, place: line.add(asker, sender), turn }
        };
        (&mut waiter.turn).await.expect("a waiter taken from the queue always gets a permit")
    }

    fn release(self: &Arc<Self>, asker: SocketId) {
        let next = {
            let mut line = self.0.lock();
            line.let_go(asker);
            let next = line.pop();
            line.free += usize::from(next.is_none());
            next
        };
        if let Some((asker, next)) = next {
            // If the waiter has just been dropped, the permit is dropped here and goes to the next one.
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

    /// Removes the next waiter that may have a permit, and counts the permit as its own.
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

    /// One call of a socket has left the queue.
    fn forget(&mut self, socket: SocketId) {
        if let Some(asker) = self.askers.get_mut(&socket) {
            asker.waiting -= 1;
            if asker.waiting == 0 {
                self.askers.remove(&socket);
            }
        }
    }
}

/// A waiting call.
struct Waiter<'a> {
    semaphore: &'a FairSemaphore,
    place: Place,
    turn: oneshot::Receiver<Permit>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut line = self.semaphore.0.lock();
        if let Some((socket, _)) = line.waiting.remove(&self.place) {
            line.forget(socket);
        }
    }
}

/// Permission to send one call; released when dropped.
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

    /// Waiting calls with their names, in the order of arrival.
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

        /// The name of the call that is admitted next.
        fn next(&mut self) -> Option<(char, Permit)> {
            let found = self.0.iter_mut().enumerate().find_map(|(at, (_, waiting))| Some((at, waiting.now_or_never()?)));
            let (at, permit) = found?;
            Some((self.0.remove(at).0, permit))
        }

        /// The order in which all are admitted, one at a time.
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
        // A round has begun: new arrivals, and sockets already served in it, are in the next one.
        queue.add(&semaphore, 'd');
        drop(permit);
        assert_eq!(queue.order(), "bcabdaa");
        assert!(semaphore.0.lock().askers.is_empty());
        assert_eq!(semaphore.0.lock().free, 1);
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
        // A waiter that was given a permit but never polled to receive it.
        drop(queue.0.remove(0));
        assert_eq!(queue.order(), "b");
        let line = semaphore.0.lock();
        assert!(line.waiting.is_empty() && line.askers.is_empty());
        assert_eq!(line.free, 2);
    }
}
