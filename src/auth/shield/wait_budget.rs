//! [`WaitBudget`]: bounds the subscribes that wait for the application, and their memory.
//!
//! Input: subscribes that want to wait. Output: whether they may. A socket may take up at most as much as is then still
//! free: a single socket gets at most half, and however many sockets take all they can, there is room for one more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;

use crate::event::SocketId;

/// Maximum of waiting subscribes: more than any application handles in `auth.queueTimeout`, few enough to fit in memory.
const MAX_WAITING: Load = Load { subscribes: 100_000, bytes: 100_000_000 };

/// The waiting subscribes of all sockets.
#[derive(Debug, Default)]
pub(super) struct WaitBudget(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    all: Load,
    /// The share of each socket that has any.
    sockets: HashMap<SocketId, Load>,
}

/// Waiting subscribes and their size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    subscribes: usize,
    /// Bytes of their headers.
    bytes: usize,
}

impl Load {
    const fn plus(self, bytes: usize) -> Self {
        Self { subscribes: self.subscribes + 1, bytes: self.bytes.saturating_add(bytes) }
    }

    const fn minus(self, bytes: usize) -> Self {
        Self { subscribes: self.subscribes - 1, bytes: self.bytes - bytes }
    }
}

impl WaitBudget {
    /// Adds a subscribe with `bytes` of headers; `None` when its socket, or all sockets together, exceed the budget.
    pub(super) fn join(&self, socket: SocketId, bytes: usize) -> Option<Waiting<'_>> {
        let mut state = self.0.lock();
        let own = state.sockets.get(&socket).copied().unwrap_or_default().plus(bytes);
        let all = state.all.plus(bytes);
        if own.subscribes + all.subscribes > MAX_WAITING.subscribes || own.bytes.saturating_add(all.bytes) > MAX_WAITING.bytes {
            return None;
        }
        state.all = all;
        state.sockets.insert(socket, own);
        Some(Waiting { budget: self, socket, bytes })
    }
}

/// A waiting subscribe; leaves the budget when dropped.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    budget: &'a WaitBudget,
    socket: SocketId,
    bytes: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.budget.0.lock();
        state.all = state.all.minus(self.bytes);
        if let Entry::Occupied(mut own) = state.sockets.entry(self.socket) {
            *own.get_mut() = own.get().minus(self.bytes);
            if own.get().subscribes == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(number: usize) -> SocketId {
        SocketId::parse(&format!("1.{number}")).unwrap()
    }

    /// Adds subscribes of a socket until one is refused. Returns how many were accepted.
    fn fill<'a>(budget: &'a WaitBudget, number: usize, bytes: usize, waiting: &mut Vec<Waiting<'a>>) -> usize {
        let before = waiting.len();
        waiting.extend(std::iter::from_fn(|| budget.join(socket(number), bytes)));
        waiting.len() - before
    }

    #[test]
    fn however_many_take_what_they_can_there_is_room_for_one_more() {
        let (budget, mut waiting) = (WaitBudget::default(), Vec::new());
        assert_eq!(fill(&budget, 0, 0, &mut waiting), MAX_WAITING.subscribes / 2);
        for number in 1..10 {
            assert!(fill(&budget, number, 0, &mut waiting) > 0, "{number}");
        }
        assert!(waiting.len() < MAX_WAITING.subscribes);
        waiting.clear();
        assert_eq!(budget.0.lock().all, Load::default());
        assert!(budget.0.lock().sockets.is_empty());
    }

    #[test]
    fn large_headers_are_counted_by_their_bytes() {
        let (budget, mut waiting) = (WaitBudget::default(), Vec::new());
        assert_eq!(fill(&budget, 0, 32_000, &mut waiting), MAX_WAITING.bytes / 2 / 32_000);
        assert!(budget.join(socket(1), MAX_WAITING.bytes).is_none());
        assert!(budget.join(socket(1), 32_000).is_some());
    }
}
