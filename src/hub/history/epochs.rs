//! [`Epochs`]: counts messages, and says which number an [`Offset`] stands for.
//!
//! Input: messages as they are counted, and names that all nodes adopt. Output: offsets for clients, and positions for the offsets
//! that clients send. An offset is `<epoch>-<number>`: a random name, and how far this process has counted since it adopted that
//! name. Several nodes receive the same messages from Redis in the same order, adopt the same name at the same message, and so
//! count in step: each node understands the offsets of the others.

use std::collections::VecDeque;

/// What each message adds to the count: one that goes to a channel and, in flat mode, to all sockets needs two offsets.
pub(super) const STEP: u64 = 2;

/// The largest name of an epoch that only this process knows; the names of shared epochs are times, which are larger.
const LARGEST_ALONE: u64 = u32::MAX as u64;

/// Epochs that are remembered: a new one begins whenever a node starts or reconnects to Redis.
const MAX_EPOCHS: usize = 256;

/// The number at which a process starts to count: the numbers below are for events that other nodes received earlier.
pub(super) const FIRST: u64 = 1 << 40;

/// A position in the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// The epoch's name.
    pub epoch: u64,
    /// The count since the epoch began.
    pub number: u64,
}

impl Offset {
    fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('-')?;
        Some(Self { epoch: u64::from_str_radix(epoch, 16).ok()?, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.number)
    }
}

/// The time in which one name is used.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) name: u64,
    /// This process's number when the epoch began.
    pub(super) begin: u64,
    /// This process's number when the epoch ended.
    pub(super) end: Option<u64>,
    /// Other nodes know this epoch too.
    pub(super) is_shared: bool,
    /// Something was sent in it that other nodes did not receive.
    is_alone: bool,
    /// The events that other nodes received before it are known by now.
    pub(super) is_filled: bool,
}

impl Epoch {
    pub(super) fn new(name: u64, begin: u64, is_shared: bool) -> Self {
        Self { name, begin, end: None, is_shared, is_alone: false, is_filled: false }
    }

    /// Whether the events before it can be fetched from another node. Only if it began before this process counted any
    /// message: numbers that were counted before it would differ from the other node's.
    pub(super) fn lacks_past(&self) -> bool {
        !self.is_shared && !self.is_alone && !self.is_filled && self.begin == FIRST && !self.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.end == Some(self.begin)
    }
}

/// The count of this process, and the epochs that it was in.
#[derive(Debug)]
pub(in crate::hub) struct Epochs {
    /// In the order of time; the last one is the current one.
    pub(super) list: VecDeque<Epoch>,
    number: u64,
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self { list: VecDeque::from([Epoch::new(u64::from(rand::random::<u32>()), FIRST, false)]), number: FIRST }
    }

    /// The number of the newest event, counted since this process began.
    pub(in crate::hub) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn epoch(&self) -> &Epoch {
        self.list.back().expect("there is an epoch from the start")
    }

    /// The offset of the newest event.
    pub(in crate::hub) fn newest(&self) -> Offset {
        let Epoch { name, begin, .. } = self.epoch();
        Offset { epoch: *name, number: self.number - begin }
    }

    /// The offset of the message that was counted last, as sent to its channel or to all sockets.
    pub(in crate::hub) fn place(&self, is_flat: bool) -> Offset {
        let Epoch { name, begin, .. } = self.epoch();
        Offset { epoch: *name, number: self.number_of(is_flat) - begin }
    }

    /// The number of the message that was counted last, as sent to its channel or to all sockets.
    pub(super) const fn number_of(&self, is_flat: bool) -> u64 {
        if is_flat { self.number } else { self.number - 1 }
    }

    /// Counts a message; [`Self::place`] then returns its offsets.
    pub(in crate::hub) const fn count(&mut self) {
        self.number += STEP;
    }

    /// An event is sent that other nodes do not receive.
    pub(in crate::hub) fn go_alone(&mut self) {
        if self.epoch().is_shared {
            self.begin_alone();
        }
        if let Some(epoch) = self.list.back_mut() {
            epoch.is_alone = true;
        }
    }

    /// Whether this node counts in step with the others.
    pub(in crate::hub) fn is_in_order(&self) -> bool {
        self.epoch().is_shared
    }

    /// All nodes adopt this name now.
    pub(in crate::hub) fn enter_order(&mut self, name: u64) {
        self.begin_epoch(name, true);
    }

    /// A name that follows those that all nodes adopted before; `now` grows with the time, and is larger than 32 bits.
    pub(in crate::hub) fn next_name(&self, now: u64) -> u64 {
        self.shared().map(|epoch| epoch.name + 1).fold(now, u64::max)
    }

    fn shared(&self) -> impl Iterator<Item = &Epoch> {
        self.list.iter().filter(|epoch| epoch.is_shared)
    }

    /// Begins an epoch that only this process knows.
    pub(super) fn begin_alone(&mut self) {
        self.begin_epoch(u64::from(rand::random::<u32>()), false);
    }

    fn begin_epoch(&mut self, name: u64, is_shared: bool) {
        if self.list.len() >= MAX_EPOCHS {
            self.list.pop_front();
        }
        if let Some(last) = self.list.back_mut() {
            last.end = Some(self.number);
        }
        self.list.push_back(Epoch::new(name, self.number, is_shared));
    }

    /// The number of an offset that a client sends; `None` when it is invalid or of another process.
    pub(in crate::hub) fn position(&self, offset: &str) -> Option<u64> {
        let offset = Offset::parse(offset)?;
        let epoch = self.list.iter().rfind(|epoch| epoch.name == offset.epoch)?;
        epoch.begin.checked_add(offset.number).filter(|number| *number <= epoch.end.unwrap_or(self.number))
    }

    /// The number from which a socket was in a channel, given an offset of any node: 0 when that was before all that is known
    /// here. `None` when it cannot be placed.
    pub(in crate::hub) fn since(&self, offset: &str) -> Option<u64> {
        self.position(offset).or_else(|| Offset::parse(offset).filter(|offset| self.is_older(offset.epoch)).map(|_| 0))
    }

    /// Whether no event that was sent after this number had this offset. All nodes count in step, so a client that comes from a
    /// node which was ahead receives again what it has received, at the same offset.
    pub(in crate::hub) fn is_before(&self, offset: &str, number: u64) -> bool {
        match (self.position(offset), Offset::parse(offset)) {
            (Some(position), _) => position <= number,
            // Not an offset. The next arm is for offsets of epochs that are unknown here.
            (None, None) => true,
            (None, Some(Offset { epoch, .. })) => epoch <= LARGEST_ALONE || self.is_older(epoch),
        }
    }

    /// Whether other nodes may have counted up to this offset when this node has not yet.
    pub(in crate::hub) fn is_ahead(&self, offset: &str) -> bool {
        let is_later = |Offset { epoch, number }: Offset| match self.list.iter().rfind(|known| known.name == epoch) {
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
    pub(in crate::hub) fn knows_since(&self, number: u64) -> bool {
        self.list.front().is_some_and(|oldest| oldest.begin <= number)
    }

    /// The offset of a number as other nodes understand it, or of the first position after it that they do; and whether it is
    /// the same position.
    pub(in crate::hub) fn shared_offset(&self, number: u64) -> Option<(Offset, bool)> {
        self.list.iter().find_map(|epoch| {
            let is_it = epoch.is_shared && number < epoch.end.unwrap_or(u64::MAX);
            is_it.then(|| (Offset { epoch: epoch.name, number: number.saturating_sub(epoch.begin) }, number >= epoch.begin))
        })
    }
}
