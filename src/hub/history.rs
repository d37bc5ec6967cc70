//! The events that were sent recently, for clients that resume: in the order of their delivery, as the bytes that went out.
//!
//! Small frames are copied next to each other: thousands of single allocations that are freed in the order of their age cost
//! more than the copy. Large frames are shared with the queues that hold them.
//!
//! Input: events as they are sent. Output: those that a client missed, all or none. An offset is `<epoch>-<number>`: a random name,
//! and how far this process has counted since it adopted that name. Several nodes receive the same messages from Redis in the same
//! order, adopt the same name at the same message, and so count in step: each node understands the offsets of the others.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::milliseconds;
use crate::config::RecoveryConfig;
use crate::event::SocketId;

/// What each message adds to the count: one that goes to a channel and, in flat mode, to all sockets needs two offsets.
const STEP: u64 = 2;

/// The largest name of an epoch that only this process knows; the names of shared epochs are times, which are larger.
const LARGEST_ALONE: u64 = u32::MAX as u64;

/// Epochs that are remembered: a new one begins whenever a node starts or reconnects to Redis.
const MAX_EPOCHS: usize = 256;

/// Bytes that are allocated at once for small frames. A client that does not read what it missed may keep a block for each frame.
const BLOCK: usize = 8 * 1024;

/// Larger frames, in bytes, are shared instead of copied.
const LARGEST_COPIED: usize = 1024;

/// A position in the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// The epoch's name.
    pub epoch: u64,
    /// The count since the epoch began.
    pub number: u64,
}

impl Offset {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('-')?;
        Some(Self { epoch: u64::from_str_radix(epoch, 16).ok()?, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.number)
    }
}

/// The number at which a process starts to count: the numbers below are for events that other nodes received earlier.
const FIRST: u64 = 1 << 40;

/// The time in which one name is used.
#[derive(Debug)]
struct Epoch {
    name: u64,
    /// This process's number when the epoch began.
    begin: u64,
    /// This process's number when the epoch ended.
    end: Option<u64>,
    /// Other nodes know this epoch too.
    is_shared: bool,
    /// Something was sent in it that other nodes did not receive.
    is_alone: bool,
    /// The events that other nodes received before it are known by now.
    is_filled: bool,
}

impl Epoch {
    fn new(name: u64, begin: u64, is_shared: bool) -> Self {
        Self { name, begin, end: None, is_shared, is_alone: false, is_filled: false }
    }

    /// Whether the events before it can be fetched from another node. Only if it began before this process counted any
    /// message: numbers that were counted before it would differ from the other node's.
    fn lacks_past(&self) -> bool {
        !self.is_shared && !self.is_alone && !self.is_filled && self.begin == FIRST && !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.end == Some(self.begin)
    }
}

/// The events that a node received before all nodes took a new name, for a node that did not. Numbers are counted back from there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Past {
    /// Events up to here are missing.
    lost: u64,
    /// The epochs' names, and where each begins and ends.
    epochs: Vec<(u64, u64, u64)>,
}

/// An event of a [`Past`].
#[derive(Debug, Serialize, Deserialize)]
struct PastEvent {
    number: u64,
    channel: String,
    is_flat: bool,
    except: Option<SocketId>,
    /// Milliseconds since it was sent.
    age: u64,
}

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
    /// In the order of time; the last one is the current one.
    epochs: VecDeque<Epoch>,
    /// The number of the newest event, counted since this process began.
    number: u64,
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
            epochs: VecDeque::from([Epoch::new(u64::from(rand::random::<u32>()), FIRST, false)]),
            number: FIRST,
            lost: 0,
            sent: VecDeque::new(),
            blocks: Blocks::default(),
            bytes: 0,
            window: config.window,
            max_events: usize::try_from(config.events).unwrap_or(usize::MAX),
            max_bytes: config.bytes,
        }
    }

    /// The number of the newest event, counted since this process began.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    fn epoch(&self) -> &Epoch {
        self.epochs.back().expect("there is an epoch from the start")
    }

    /// The offset of the newest event.
    pub(super) fn newest(&self) -> Offset {
        let Epoch { name, begin, .. } = self.epoch();
        Offset { epoch: *name, number: self.number - begin }
    }

    /// The offset of the message that was counted last, as sent to its channel or to all sockets.
    pub(super) fn place(&self, is_flat: bool) -> Offset {
        let newest = self.newest();
        Offset { number: if is_flat { newest.number } else { newest.number - 1 }, ..newest }
    }

    /// Counts a message; [`Self::place`] then returns its offsets.
    pub(super) const fn count(&mut self) {
        self.number += STEP;
    }

    /// Keeps the event that was counted last. Not for channels whose `deliver` is other than `all`.
    pub(super) fn keep(&mut self, channel: &str, is_flat: bool, except: Option<SocketId>, frame: &Bytes) {
        let (number, at) = (if is_flat { self.number } else { self.number - 1 }, Instant::now());
        let (channel, frame) = (self.blocks.copy(channel.as_bytes()), self.blocks.keep(frame));
        self.bytes += frame.len() as u64;
        self.sent.push_back(Sent { number, at, channel, is_flat, except, frame });
        self.forget(at);
    }

    /// Messages may have been missed: no client resumes from before this position.
    pub(super) fn gap(&mut self) {
        // A new epoch first: the other nodes may have counted messages that were missed here.
        self.begin_epoch(u64::from(rand::random::<u32>()), false);
        self.count();
        self.lost = self.number;
    }

    /// An event is sent that other nodes do not receive.
    pub(super) fn go_alone(&mut self) {
        if self.epoch().is_shared {
            self.begin_epoch(u64::from(rand::random::<u32>()), false);
        }
        if let Some(epoch) = self.epochs.back_mut() {
            epoch.is_alone = true;
        }
    }

    /// Whether this node counts in step with the others.
    pub(super) fn is_in_order(&self) -> bool {
        self.epoch().is_shared
    }

    /// All nodes adopt this name now.
    pub(super) fn enter_order(&mut self, name: u64) {
        self.begin_epoch(name, true);
    }

    /// Whether another node may have events that were sent before this one received anything.
    pub(super) fn lacks_past(&self) -> bool {
        let last = self.epoch();
        if last.is_shared { self.wants_past(last.name) } else { last.lacks_past() }
    }

    /// Whether the events from before all nodes adopted this name are missing here, and only those.
    pub(super) fn wants_past(&self, name: u64) -> bool {
        let at = self.epochs.iter().rposition(|epoch| epoch.name == name);
        let before = at.and_then(|at| self.epochs.get(at.checked_sub(1)?));
        before.is_some_and(|before| before.lacks_past() && before.end.is_some_and(|end| self.lost <= end))
    }

    /// What this node received before all nodes adopted this name, in parts: a [`Past`], and events, each as a line of JSON
    /// followed by its bytes. `None` when this node was out of step with the others then.
    pub(super) fn past(&self, name: u64, max_bytes: usize) -> Option<Vec<Vec<u8>>> {
        let at = self.epochs.iter().rposition(|epoch| epoch.name == name)?;
        let end = self.epochs[at].begin;
        let is_bar = |epoch: &Epoch| !epoch.is_shared && !epoch.is_filled && !epoch.is_empty();
        let first = self.epochs.range(..at).rposition(is_bar).map_or(0, |bar| bar + 1);
        let begin = self.lost.max(self.epochs.get(first).filter(|_| first < at)?.begin);
        if begin > end {
            return None;
        }
        let (mut lost, mut bytes, mut events) = (begin, 0, Vec::new());
        for sent in self.sent.iter().rev().skip_while(|sent| sent.number > end).take_while(|sent| sent.number > begin) {
            let event = PastEvent {
                number: end - sent.number,
                channel: String::from_utf8_lossy(&sent.channel).into_owned(),
                is_flat: sent.is_flat,
                except: sent.except,
                age: milliseconds(sent.at.elapsed()),
            };
            let mut part = serde_json::to_vec(&event).expect("texts and numbers serialize");
            part.push(b'\n');
            part.extend_from_slice(&sent.frame);
            bytes += part.len();
            if bytes > max_bytes {
                lost = sent.number;
                break;
            }
            events.push(part);
        }
        let epochs = self
            .epochs
            .range(first..at)
            .filter(|epoch| epoch.is_shared)
            .map(|epoch| (epoch.name, end - epoch.begin, end - epoch.end.unwrap_or(end)));
        let past = Past { lost: end - lost, epochs: epochs.collect() };
        events.push(serde_json::to_vec(&past).expect("numbers serialize"));
        events.reverse();
        Some(events)
    }

    /// Adds what another node received before all adopted this name. `false`: it does not fit what was received here.
    pub(super) fn take_up(&mut self, name: u64, parts: &[Vec<u8>]) -> bool {
        let Some(at) = self.epochs.iter().rposition(|epoch| epoch.name == name) else { return false };
        let end = self.epochs[at].begin;
        let past = parts.split_first().and_then(|(past, events)| Some((serde_json::from_slice::<Past>(past).ok()?, events)));
        // Nothing was missed since, so counted back from the name, this node's messages have the same numbers on both nodes.
        let Some((past, events)) = past.filter(|_| self.wants_past(name)) else { return false };
        self.epochs[at - 1].is_filled = true;
        while let Some(own) = self.sent.pop_front_if(|own| own.number <= end) {
            self.bytes -= own.frame.len() as u64;
        }
        let now = Instant::now();
        for part in events.iter().rev() {
            let Some(line) = part.iter().position(|byte| *byte == b'\n') else { return false };
            let Ok(event) = serde_json::from_slice::<PastEvent>(&part[..line]) else { return false };
            let frame = Bytes::copy_from_slice(&part[line + 1..]);
            self.bytes += frame.len() as u64;
            let at = now.checked_sub(Duration::from_millis(event.age)).unwrap_or(now);
            let (number, channel) = (end.saturating_sub(event.number), event.channel.into());
            self.sent.push_front(Sent { number, at, channel, is_flat: event.is_flat, except: event.except, frame });
        }
        for (name, begin, ended) in past.epochs.into_iter().rev() {
            let [begin, ended] = [begin, ended].map(|back| end.saturating_sub(back));
            self.epochs.push_front(Epoch { end: Some(ended), ..Epoch::new(name, begin, true) });
        }
        self.lost = end.saturating_sub(past.lost);
        self.forget(now);
        true
    }

    /// A name that follows those that all nodes adopted before; `now` grows with the time, and is larger than 32 bits.
    pub(super) fn next_name(&self, now: u64) -> u64 {
        self.shared().map(|epoch| epoch.name + 1).fold(now, u64::max)
    }

    fn shared(&self) -> impl Iterator<Item = &Epoch> {
        self.epochs.iter().filter(|epoch| epoch.is_shared)
    }

    fn begin_epoch(&mut self, name: u64, is_shared: bool) {
        if self.epochs.len() >= MAX_EPOCHS {
            self.epochs.pop_front();
        }
        if let Some(last) = self.epochs.back_mut() {
            last.end = Some(self.number);
        }
        self.epochs.push_back(Epoch::new(name, self.number, is_shared));
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

    /// The number of an offset that a client sends; `None` when it is invalid or of another process.
    pub(super) fn position(&self, offset: &str) -> Option<u64> {
        let offset = Offset::parse(offset)?;
        let epoch = self.epochs.iter().rfind(|epoch| epoch.name == offset.epoch)?;
        epoch.begin.checked_add(offset.number).filter(|number| *number <= epoch.end.unwrap_or(self.number))
    }

    /// The number from which a socket was in a channel, given an offset of any node: 0 when that was before all that is known
    /// here. `None` when it cannot be placed.
    pub(super) fn since(&self, offset: &str) -> Option<u64> {
        self.position(offset).or_else(|| Offset::parse(offset).filter(|offset| self.is_older(offset.epoch)).map(|_| 0))
    }

    /// Whether no event that was sent after this number had this offset. All nodes count in step, so a client that comes from a
    /// node which was ahead receives again what it has received, at the same offset.
    pub(super) fn is_before(&self, offset: &str, number: u64) -> bool {
        match (self.position(offset), Offset::parse(offset)) {
            (Some(position), _) => position <= number,
            // Not an offset. The next arm is for offsets of epochs that are unknown here.
            (None, None) => true,
            (None, Some(Offset { epoch, .. })) => epoch <= LARGEST_ALONE || self.is_older(epoch),
        }
    }

    /// Whether other nodes may have counted up to this offset when this node has not yet.
    pub(super) fn is_ahead(&self, offset: &str) -> bool {
        let is_later = |Offset { epoch, number }: Offset| match self.epochs.iter().rfind(|known| known.name == epoch) {
            Some(known) => known.is_shared && known.end.is_none() && number > self.number - known.begin,
            None => epoch > LARGEST_ALONE && self.shared().all(|known| known.name < epoch),
        };
        Offset::parse(offset).is_some_and(is_later)
    }

    /// Whether a shared epoch ended before all those that are known here.
    fn is_older(&self, name: u64) -> bool {
        name > LARGEST_ALONE && self.shared().next().is_some_and(|oldest| name < oldest.name)
    }

    /// Whether all epochs since this number are known.
    pub(super) fn knows_since(&self, number: u64) -> bool {
        self.epochs.front().is_some_and(|oldest| oldest.begin <= number)
    }

    /// The offset of a number as other nodes understand it, or of the first position after it that they do; and whether it is
    /// the same position.
    pub(super) fn shared_offset(&self, number: u64) -> Option<(Offset, bool)> {
        self.epochs.iter().find_map(|epoch| {
            let is_it = epoch.is_shared && number < epoch.end.unwrap_or(u64::MAX);
            is_it.then(|| (Offset { epoch: epoch.name, number: number.saturating_sub(epoch.begin) }, number >= epoch.begin))
        })
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
    use super::*;

    fn history(events: u64, bytes: u64) -> History {
        History::new(&RecoveryConfig { events, bytes, window: Duration::from_secs(60), ..RecoveryConfig::default() })
    }

    /// Sends the next event; its frame is its ordinal number.
    fn send(history: &mut History, channel: &str, except: Option<SocketId>) -> Offset {
        history.count();
        let nth = ((history.number() - FIRST) / STEP).to_string();
        history.keep(channel, false, except, &Bytes::from(nth));
        history.place(false)
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
        let [first, late] = [first, late].map(|offset| history.position(&offset.to_string()).unwrap());
        let since = |channel: &[u8]| match channel {
            b"a" => Some(0),
            b"late" => Some(late),
            _ => None,
        };
        assert_eq!(history.missed(first, SOCKET, since).unwrap(), ["5"]);
        assert_eq!(history.missed(0, SOCKET, since).unwrap(), ["1", "5"]);
        assert_eq!(history.missed(history.number(), SOCKET, since).unwrap(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn never_a_part() {
        let mut history = history(2, 1000);
        let first = send(&mut history, "a", None);
        let first = history.position(&first.to_string()).unwrap();
        for _ in 0..2 {
            send(&mut history, "a", None);
        }
        assert!(history.missed(0, SOCKET, |_| Some(0)).is_none());
        assert_eq!(history.missed(first, SOCKET, |_| Some(0)).unwrap().len(), 2);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(history.missed(first, SOCKET, |_| Some(0)).is_none());
        assert_eq!(history.missed(history.number(), SOCKET, |_| Some(0)).unwrap().len(), 0);
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
            let position = history.position(&offset.to_string()).unwrap();
            history.missed(position, SOCKET, |_| Some(0)).map(|missed| missed.len())
        };
        assert_eq!(missed(&mut history, before), None);
        assert_eq!(missed(&mut history, after), Some(1));
    }

    #[test]
    fn nodes_that_hear_the_same_count_alike() {
        let [mut one, mut other] = [history(100, 1000), history(100, 1000)];
        let alone = send(&mut one, "a", None);
        assert_eq!(one.shared_offset(0), None);
        for history in [&mut one, &mut other] {
            history.enter_order(7);
        }
        let early = send(&mut one, "a", None);
        // A message that is not an event, or that no client needs.
        other.count();
        let late = send(&mut one, "a", None);
        assert_eq!(send(&mut other, "a", None), late);
        assert_eq!(other.position(&alone.to_string()), None);
        let [early, late] = [early, late].map(|offset| other.position(&offset.to_string()).unwrap());
        assert_eq!(late - early, STEP);
        assert_eq!(one.shared_offset(0), Some((Offset { epoch: 7, number: 0 }, false)), "the first place that both know");
        // An offset that only one node knows means nothing to the other, until both begin a new epoch.
        one.go_alone();
        let own = send(&mut one, "a", None);
        assert!(!one.is_in_order() && one.position(&own.to_string()).is_some());
        assert_eq!(other.position(&own.to_string()), None);
        assert_eq!(one.shared_offset(one.number()), None);
        for history in [&mut one, &mut other] {
            history.enter_order(8);
        }
        assert_eq!(one.newest(), other.newest());
        assert_eq!(one.shared_offset(one.number()), Some((one.newest(), true)));
        // One that has received neither the newest event nor the newest name yet.
        let newest = send(&mut one, "a", None).to_string();
        assert!(other.is_ahead(&newest) && !one.is_ahead(&newest) && !other.is_ahead("7-1"));
        one.enter_order(1 << 40);
        assert!(other.is_ahead(&one.newest().to_string()) && !other.is_ahead("x"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_comes_takes_up_what_another_has_heard() {
        let [mut one, mut other] = [history(100, 1000), history(100, 1000)];
        one.gap();
        one.enter_order(7);
        let early = send(&mut one, "a", None);
        send(&mut one, "b", Some(SOCKET));
        other.gap();
        // Both receive this, but the other does not know its position yet.
        let own = [&mut one, &mut other].map(|history| send(history, "a", None))[1];
        for history in [&mut one, &mut other] {
            history.enter_order(8);
        }
        assert!(other.lacks_past() && !one.lacks_past());
        assert_eq!(other.position(&early.to_string()), None);
        let past = one.past(8, 10_000).unwrap();
        assert!(other.take_up(8, &past) && !other.take_up(8, &past) && !other.lacks_past());
        let [early, own] = [early, own].map(|offset| other.position(&offset.to_string()).unwrap());
        assert_eq!(other.missed(early, SOCKET, |_| Some(0)).unwrap(), ["4"]);
        assert_eq!(other.missed(early, SocketId::new(1, 2), |_| Some(0)).unwrap(), ["3", "4"]);
        assert_eq!(other.missed(own, SOCKET, |_| Some(0)).unwrap(), [""; 0]);
        assert_eq!(own - early, 2 * STEP);
        assert_eq!(other.missed(early - 2, SOCKET, |_| Some(0)), None, "the first one began there");
        // It passes on what it was given, and no more than is asked for.
        other.enter_order(9);
        assert_eq!(other.past(9, 10_000).unwrap().len(), 4);
        assert_eq!(other.past(9, 100).unwrap().len(), 2);
        // A node that has sent something alone is out of step.
        let mut alone = history(100, 1000);
        alone.gap();
        alone.go_alone();
        send(&mut alone, "a", None);
        alone.enter_order(8);
        assert!(!alone.take_up(8, &past));
    }

    #[test]
    fn what_others_heard_meanwhile_is_no_place_here() {
        let [mut one, mut other] = [history(100, 1000), history(100, 1000)];
        for history in [&mut one, &mut other] {
            history.enter_order(7);
        }
        one.gap();
        let late = send(&mut other, "a", None);
        assert_eq!(one.position(&late.to_string()), None);
        assert_eq!(one.position(&other.newest().to_string()), None);
    }

    #[test]
    fn offsets_of_others_are_none() {
        let mut history = history(2, 1000);
        let own = send(&mut history, "a", None);
        assert_eq!(history.position(&own.to_string()), Some(FIRST + 1));
        let other = Offset { epoch: own.epoch.wrapping_add(1), number: 1 };
        for offset in ["", "-", "1", "x-1", "1-x", &other.to_string(), &Offset { number: 3, ..own }.to_string(), "9-99999999999999999999"] {
            assert_eq!(history.position(offset), None, "{offset}");
        }
        history.enter_order(9);
        history.count();
        assert_eq!(history.position(&Offset { number: 3, ..own }.to_string()), None, "that epoch has ended");
    }
}
