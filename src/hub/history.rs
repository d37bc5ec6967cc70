//! The events that were sent recently, for clients that resume: in the order of their delivery, as the bytes that went out.
//!
//! Small frames are copied next to each other: thousands of single allocations that are freed in the order of their age cost
//! more than the copy. Large frames are shared with the queues that hold them.
//!
//! Input: events as they are sent. Output: those that a client missed, all or none.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::config::RecoveryConfig;
use crate::event::SocketId;

mod epochs;
mod past;

use epochs::Epochs;

pub use epochs::Offset;

/// Bytes that are allocated at once for small frames. A client that does not read what it missed may keep a block for each frame.
const BLOCK: usize = 8 * 1024;

/// Larger frames, in bytes, are shared instead of copied.
const LARGEST_COPIED: usize = 1024;

/// A sent event.
#[derive(Debug)]
struct Sent {
    number: u64,
    at: Instant,
    channel: Bytes,
    /// It went to all sockets, whatever their channels.
    is_flat: bool,
    except: Option<SocketId>,
    frame: Bytes,
}

/// The memory that small frames are copied to. A block is freed with the last frame in it.
#[derive(Debug, Default)]
struct Blocks(BytesMut);

impl Blocks {
    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if self.0.capacity() < bytes.len() {
            self.0 = BytesMut::with_capacity(BLOCK.max(bytes.len()));
        }
        self.0.extend_from_slice(bytes);
        self.0.split().freeze()
    }

    fn keep(&mut self, frame: &Bytes) -> Bytes {
        if frame.len() <= LARGEST_COPIED { self.copy(frame) } else { frame.clone() }
    }
}

/// The events that were sent recently.
#[derive(Debug)]
pub(super) struct History {
    pub(super) epochs: Epochs,
    /// Some events up to this number were dropped, or were never received.
    lost: u64,
    sent: VecDeque<Sent>,
    blocks: Blocks,
    bytes: u64,
    window: Duration,
    max_events: usize,
    max_bytes: u64,
}

impl History {
    pub(super) fn new(config: &RecoveryConfig) -> Self {
        Self {
            epochs: Epochs::new(),
            lost: 0,
            sent: VecDeque::new(),
            blocks: Blocks::default(),
            bytes: 0,
            window: config.window,
            max_events: usize::try_from(config.events).unwrap_or(usize::MAX),
            max_bytes: config.bytes,
        }
    }

    /// Keeps the event that was counted last. Not for channels whose `deliver` is other than `all`.
    pub(super) fn keep(&mut self, channel: &str, is_flat: bool, except: Option<SocketId>, frame: &Bytes) {
        let (number, at) = (self.epochs.number_of(is_flat), Instant::now());
        let (channel, frame) = (self.blocks.copy(channel.as_bytes()), self.blocks.keep(frame));
        self.bytes += frame.len() as u64;
        self.sent.push_back(Sent { number, at, channel, is_flat, except, frame });
        self.forget(at);
    }

    /// Messages may have been missed: no client resumes from before this position.
    pub(super) fn gap(&mut self) {
        // A new epoch first: the other nodes may have counted messages that were missed here.
        self.epochs.begin_alone();
        self.epochs.count();
        self.lost = self.epochs.number();
    }

    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.sent.front() {
            let is_kept = self.sent.len() <= self.max_events && self.bytes <= self.max_bytes && now - oldest.at <= self.window;
            if is_kept {
                break;
            }
            self.bytes -= oldest.frame.len() as u64;
            self.lost = self.lost.max(oldest.number);
            self.sent.pop_front();
        }
    }

    /// How many events are kept, their bytes, and the age of the oldest.
    pub(super) fn size(&mut self) -> (usize, u64, Duration) {
        self.forget(Instant::now());
        (self.sent.len(), self.bytes, self.sent.front().map_or(Duration::ZERO, |oldest| oldest.at.elapsed()))
    }

    /// The frames that were sent after `position`, for a socket in the channels for which `since` returns the number from which
    /// it was in. `None`: some of them are no longer kept.
    pub(super) fn missed(&mut self, position: u64, socket: SocketId, since: impl Fn(&[u8]) -> Option<u64>) -> Option<Vec<Bytes>> {
        self.forget(Instant::now());
        if position < self.lost {
            return None;
        }
        let is_missed = |sent: &&Sent| {
            let is_for = sent.is_flat || since(&sent.channel).is_some_and(|since| sent.number > since);
            sent.except != Some(socket) && is_for
        };
        let first = self.sent.partition_point(|sent| sent.number <= position);
        Some(self.sent.range(first..).filter(is_missed).map(|sent| sent.frame.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::epochs::{FIRST, STEP};
    use super::*;

    fn history(events: u64, bytes: u64) -> History {
        History::new(&RecoveryConfig { events, bytes, window: Duration::from_secs(60), ..RecoveryConfig::default() })
    }

    /// Sends the next event; its frame is its ordinal number.
    fn send(history: &mut History, channel: &str, except: Option<SocketId>) -> Offset {
        history.epochs.count();
        let nth = ((history.epochs.number() - FIRST) / STEP).to_string();
        history.keep(channel, false, except, &Bytes::from(nth));
        history.epochs.place(false)
    }

    const SOCKET: SocketId = SocketId::new(1, 1);

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_comes_once_and_only_from_own_channels() {
        let mut history = history(100, 1000);
        let first = send(&mut history, "a", None);
        send(&mut history, "b", None);
        let late = send(&mut history, "late", None);
        send(&mut history, "a", Some(SOCKET));
        send(&mut history, "late", None);
        let [first, late] = [first, late].map(|offset| history.epochs.position(&offset.to_string()).unwrap());
        let since = |channel: &[u8]| match channel {
            b"a" => Some(0),
            b"late" => Some(late),
            _ => None,
        };
        assert_eq!(history.missed(first, SOCKET, since).unwrap(), ["5"]);
        assert_eq!(history.missed(0, SOCKET, since).unwrap(), ["1", "5"]);
        assert_eq!(history.missed(history.epochs.number(), SOCKET, since).unwrap(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn never_a_part() {
        let mut history = history(2, 1000);
        let first = send(&mut history, "a", None);
        let first = history.epochs.position(&first.to_string()).unwrap();
        for _ in 0..2 {
            send(&mut history, "a", None);
        }
        assert!(history.missed(0, SOCKET, |_| Some(0)).is_none());
        assert_eq!(history.missed(first, SOCKET, |_| Some(0)).unwrap().len(), 2);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(history.missed(first, SOCKET, |_| Some(0)).is_none());
        assert_eq!(history.missed(history.epochs.number(), SOCKET, |_| Some(0)).unwrap().len(), 0);
        let mut small = self::history(100, 2);
        for _ in 0..3 {
            send(&mut small, "a", None);
        }
        assert!(small.missed(0, SOCKET, |_| Some(0)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_gets_over_a_gap() {
        let mut history = history(100, 1000);
        let before = send(&mut history, "a", None);
        history.gap();
        let after = send(&mut history, "a", None);
        send(&mut history, "a", None);
        let missed = |history: &mut History, offset: Offset| {
            let position = history.epochs.position(&offset.to_string()).unwrap();
            history.missed(position, SOCKET, |_| Some(0)).map(|missed| missed.len())
        };
        assert_eq!(missed(&mut history, before), None);
        assert_eq!(missed(&mut history, after), Some(1));
    }

    #[test]
    fn nodes_that_hear_the_same_count_alike() {
        let [mut one, mut other] = [history(100, 1000), history(100, 1000)];
        let alone = send(&mut one, "a", None);
        assert_eq!(one.epochs.shared_offset(0), None);
        for history in [&mut one, &mut other] {
            history.epochs.enter_order(7);
        }
        let early = send(&mut one, "a", None);
        // A message that is not an event, or that no client needs.
        other.epochs.count();
        let late = send(&mut one, "a", None);
        assert_eq!(send(&mut other, "a", None), late);
        assert_eq!(other.epochs.position(&alone.to_string()), None);
        let [early, late] = [early, late].map(|offset| other.epochs.position(&offset.to_string()).unwrap());
        assert_eq!(late - early, STEP);
        assert_eq!(one.epochs.shared_offset(0), Some((Offset { epoch: 7, number: 0 }, false)), "the first place that both know");
        // An offset that only one node knows means nothing to the other, until both begin a new epoch.
        one.epochs.go_alone();
        let own = send(&mut one, "a", None);
        assert!(!one.epochs.is_in_order() && one.epochs.position(&own.to_string()).is_some());
        assert_eq!(other.epochs.position(&own.to_string()), None);
        assert_eq!(one.epochs.shared_offset(one.epochs.number()), None);
        for history in [&mut one, &mut other] {
            history.epochs.enter_order(8);
        }
        assert_eq!(one.epochs.newest(), other.epochs.newest());
        assert_eq!(one.epochs.shared_offset(one.epochs.number()), Some((one.epochs.newest(), true)));
        // One that has received neither the newest event nor the newest name yet.
        let newest = send(&mut one, "a", None).to_string();
        assert!(other.epochs.is_ahead(&newest) && !one.epochs.is_ahead(&newest) && !other.epochs.is_ahead("7-1"));
        one.epochs.enter_order(1 << 40);
        assert!(other.epochs.is_ahead(&one.epochs.newest().to_string()) && !other.epochs.is_ahead("x"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_comes_takes_up_what_another_has_heard() {
        let [mut one, mut other] = [history(100, 1000), history(100, 1000)];
        one.gap();
        one.epochs.enter_order(7);
        let early = send(&mut one, "a", None);
        send(&mut one, "b", Some(SOCKET));
        other.gap();
        // Both receive this, but the other does not know its position yet.
        let own = [&mut one, &mut other].map(|history| send(history, "a", None))[1];
        for history in [&mut one, &mut other] {
            history.epochs.enter_order(8);
        }
        assert!(other.lacks_past() && !one.lacks_past());
        assert_eq!(other.epochs.position(&early.to_string()), None);
        let past = one.past(8, 10_000).unwrap();
        assert!(other.take_up(8, &past) && !other.take_up(8, &past) && !other.lacks_past());
        let [early, own] = [early, own].map(|offset| other.epochs.position(&offset.to_string()).unwrap());
        assert_eq!(other.missed(early, SOCKET, |_| Some(0)).unwrap(), ["4"]);
        assert_eq!(other.missed(early, SocketId::new(1, 2), |_| Some(0)).unwrap(), ["3", "4"]);
        assert_eq!(other.missed(own, SOCKET, |_| Some(0)).unwrap(), [""; 0]);
        assert_eq!(own - early, 2 * STEP);
        assert_eq!(other.missed(early - 2, SOCKET, |_| Some(0)), None, "the first one began there");
        // It passes on what it was given, and no more than is asked for.
        other.epochs.enter_order(9);
        assert_eq!(other.past(9, 10_000).unwrap().len(), 4);
        assert_eq!(other.past(9, 100).unwrap().len(), 2);
        // A node that has sent something alone is out of step.
        let mut alone = history(100, 1000);
        alone.gap();
        alone.epochs.go_alone();
        send(&mut alone, "a", None);
        alone.epochs.enter_order(8);
        assert!(!alone.take_up(8, &past));
    }

    #[test]
    fn what_others_heard_meanwhile_is_no_place_here() {
        let [mut one, mut other] = [history(100, 1000), history(100, 1000)];
        for history in [&mut one, &mut other] {
            history.epochs.enter_order(7);
        }
        one.gap();
        let late = send(&mut other, "a", None);
        assert_eq!(one.epochs.position(&late.to_string()), None);
        assert_eq!(one.epochs.position(&other.epochs.newest().to_string()), None);
    }

    #[test]
    fn offsets_of_others_are_none() {
        let mut history = history(2, 1000);
        let own = send(&mut history, "a", None);
        assert_eq!(history.epochs.position(&own.to_string()), Some(FIRST + 1));
        let other = Offset { epoch: own.epoch.wrapping_add(1), number: 1 };
        for offset in ["", "-", "1", "x-1", "1-x", &other.to_string(), &Offset { number: 3, ..own }.to_string(), "9-99999999999999999999"] {
            assert_eq!(history.epochs.position(offset), None, "{offset}");
        }
        history.epochs.enter_order(9);
        history.epochs.count();
        assert_eq!(history.epochs.position(&Offset { number: 3, ..own }.to_string()), None, "that epoch has ended");
    }
}
