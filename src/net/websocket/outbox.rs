//! [`Outbox`]: frames queued for one client.
//!
//! Input: frames, shared by all their receivers. Output: batches for the client's transport: the task of its websocket, or
//! a poll request. A fan-out writes to idle websockets without waking their tasks, see [`Queued::defer`].

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Weak;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use parking_lot::{Mutex, MutexGuard};

use crate::event::CloseReason;
use crate::net::shared::Writer;

/// Maximum number of frames that one system call writes.
pub(super) const GATHERED: usize = 64;

/// More bytes than this are left to the client's task, so that no client holds up the other receivers of an event.
const MAX_FLUSHED_BYTES: u64 = 64 * 1024;

/// Frame capacity that an empty queue keeps.
const KEPT_FRAMES: usize = 16;

/// Capacity for kinds that an empty queue keeps.
const KEPT_KINDS: usize = 16;

/// How much may be queued for a client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of frames.
    pub frames: usize,
    /// Maximum number of bytes. A single frame always fits, however large.
    pub bytes: u64,
}

/// The queue of one client.
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    /// Queued frames that have a kind; created with the first one.
    kinds: Option<Box<Kinds>>,
    /// Unwritten frames and bytes. Includes those that a task has taken out of `frames` but not written yet.
    count: usize,
    bytes: u64,
    end: Option<End>,
    /// The websocket's task or the pending poll.
    task: Option<Waker>,
    stage: Stage,
    /// Whether more frames were queued at the last write than had come together: they arrive faster than they are written.
    is_rush: bool,
    /// How many frames have come together most recently, as far as it can be counted.
    together: u8,
    /// Whether a part of the first frame is written.
    is_begun: bool,
    /// Writes to the client's stream from outside of its task.
    writer: Option<Writer>,
    /// A task that only wants to know when the outbox ends.
    watcher: Option<Waker>,
}

/// Who writes the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// The client's task, which is going to look at the queue anyway.
    #[default]
    Busy,
    /// The client's task, once it is woken.
    Idle,
    /// The caller of [`Queued::defer`], in [`Outbox::flush`], unless the task looks at the queue first.
    Deferred,
}

/// Queued frames that have a kind, at most one of each, between those that have none.
#[derive(Debug, Default)]
struct Kinds {
    waiting: HashMap<u64, OfKind>,
    /// Frames without a kind that were taken out since this was created.
    taken: u64,
    serial: u64,
}

#[derive(Debug)]
struct OfKind {
    frame: Bytes,
    /// How many frames without a kind go before it, counted since [`Kinds`] was created; then its rank among those with a kind.
    place: (u64, u64),
}

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At once, dropping all queued frames.
    Now,
    /// After everything is written.
    Flushed,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// Too many frames or bytes are queued.
    Full,
    /// The connection is ending.
    Closed,
}

impl From<SendError> for CloseReason {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::TooSlow,
            SendError::Closed => Self::TransportClose,
        }
    }
}

/// Frames that a task has taken out of the queue, and how much of them it has written.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order in which to write them.
    pub frames: VecDeque<Bytes>,
    /// Whether the first frame is partly written, so that the rest has to come next.
    pub is_begun: bool,
    /// Frames written since the last call of [`Outbox::poll_batch`].
    count: usize,
    /// Bytes written since then.
    bytes: u64,
}

impl Batch {
    /// Notes that so many bytes of the frames are written.
    pub fn written(&mut self, mut bytes: usize) {
        self.bytes += bytes as u64;
        while let Some(first) = self.frames.front_mut().filter(|_| bytes > 0) {
            if bytes < first.len() {
                first.advance(bytes);
                self.is_begun = true;
                return;
            }
            bytes -= first.len();
            self.count += 1;
            self.is_begun = false;
            self.frames.pop_front();
        }
    }
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Frames and bytes that are not written yet.
    #[must_use]
    pub fn backlog(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.count, state.bytes)
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`SendError::Full`] when too many frames or bytes are queued, [`SendError::Closed`] after the end.
    pub fn send(&self, frame: Bytes) -> Result<(), SendError> {
        self.queue(frame).map(Queued::wake)
    }

    /// Like [`Self::send`], but the caller chooses who writes the frame.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn queue(&self, frame: Bytes) -> Result<Queued<'_>, SendError> {
        self.queue_all([frame])
    }

    /// Like [`Self::queue`], for several frames that go out together.
    ///
    /// # Errors
    /// As [`Self::send`]; the first ones may be queued.
    pub fn queue_all(&self, frames: impl IntoIterator<Item = Bytes>) -> Result<Queued<'_>, SendError> {
        let mut state = self.state.lock();
        state.together = 0;
        for frame in frames {
            state.check(&self.limits, frame.len())?;
            state.together = state.together.saturating_add(1);
            (state.count, state.bytes) = (state.count + 1, state.bytes + frame.len() as u64);
            state.frames.push_back(frame);
        }
        Ok(Queued(state))
    }

    /// Like [`Self::queue`], but drops a queued frame of the same kind, so that only the newest is sent.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn queue_latest(&self, kind: u64, frame: Bytes) -> Result<Queued<'_>, SendError> {
        let mut state = self.state.lock();
        if let Some(old) = state.kinds.as_mut().and_then(|kinds| kinds.waiting.remove(&kind)) {
            (state.count, state.bytes) = (state.count - 1, state.bytes - old.frame.len() as u64);
        }
        state.check(&self.limits, frame.len())?;
        state.put(kind, frame);
        Ok(Queued(state))
    }

    /// Like [`Self::queue`], but drops the new frame if one of its kind is queued, or if the queue is full; `None` then.
    ///
    /// # Errors
    /// [`SendError::Closed`] after the end.
    pub fn queue_volatile(&self, kind: u64, frame: Bytes) -> Result<Option<Queued<'_>>, SendError> {
        let mut state = self.state.lock();
        match state.check(&self.limits, frame.len()) {
            Err(SendError::Closed) => return Err(SendError::Closed),
            Err(SendError::Full) => return Ok(None),
            Ok(()) if state.kinds.as_ref().is_some_and(|kinds| kinds.waiting.contains_key(&kind)) => return Ok(None),
            Ok(()) => state.put(kind, frame),
        }
        Ok(Some(Queued(state)))
    }

    /// Writes the frames since [`Queued::defer`], in one system call. What the socket does not accept is left to the client's task.
    pub fn flush(&self) {
        let mut state = self.state.lock();
        if state.stage == Stage::Deferred {
            state.stage = Stage::Idle;
            if !state.write() {
                state.wake_idle();
            }
        }
    }

    /// Ends the outbox: no frame is accepted any more, and queued ones are dropped or written first.
    pub fn end(&self, end: End) {
        let mut state = self.state.lock();
        if state.end != Some(End::Now) {
            state.end = Some(end);
        }
        if end == End::Now {
            (state.frames, state.kinds, state.count, state.bytes) = (VecDeque::new(), None, 0, 0);
        }
        let watcher = state.watcher.take();
        drop(state);
        if let Some(watcher) = watcher {
            watcher.wake();
        }
        self.wake();
    }

    /// Waits for [`Self::end`]; supports a single waiter.
    pub fn poll_end(&self, cx: &Context<'_>) -> Poll<End> {
        let mut state = self.state.lock();
        if let Some(end) = state.end {
            return Poll::Ready(end);
        }
        state.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Removes the waiter of [`Self::poll_end`].
    pub fn unwatch(&self) {
        self.state.lock().watcher = None;
    }

    /// How the connection is to end, if it is ending.
    #[must_use]
    pub fn ending(&self) -> Option<End> {
        self.state.lock().end
    }

    /// Wakes the websocket's task or the pending poll.
    pub fn wake(&self) {
        let task = self.state.lock().task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Number of frames that are queued or being written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().count
    }

    /// For a websocket's task that is going to call [`Self::poll_batch`]: until then nobody needs to wake it, itself included.
    pub fn attend(&self) {
        self.state.lock().stage = Stage::Busy;
    }

    /// For a websocket's task: accounts for written frames, and refills `batch` when it is empty. `Pending` when the queue is
    /// empty, from when on `writer` may write the next frames; an error when the connection is to end.
    ///
    /// # Errors
    /// [`End`]; [`End::Flushed`] only once everything is written.
    pub fn poll_batch(&self, batch: &mut Batch, writer: Option<&Writer>, cx: &Context<'_>) -> Poll<Result<(), End>> {
        let mut state = self.state.lock();
        batch.is_begun |= std::mem::take(&mut state.is_begun);
        state.count = state.count.saturating_sub(std::mem::take(&mut batch.count));
        state.bytes = state.bytes.saturating_sub(std::mem::take(&mut batch.bytes));
        state.stage = Stage::Busy;
        state.remember(cx);
        if state.end == Some(End::Now) {
            return Poll::Ready(Err(End::Now));
        }
        if !batch.frames.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let has_kinds = state.kinds.as_ref().is_some_and(|kinds| !kinds.waiting.is_empty());
        if has_kinds {
            batch.frames = state.take(usize::MAX);
        } else if !state.frames.is_empty() {
            std::mem::swap(&mut state.frames, &mut batch.frames);
        }
        if !batch.frames.is_empty() {
            state.is_rush = batch.frames.len() > usize::from(state.together.max(1));
            return Poll::Ready(Ok(()));
        }
        // An idle client needs one buffer at the most, and not a large one.
        batch.frames = VecDeque::new();
        if state.frames.capacity() > KEPT_FRAMES {
            state.frames = VecDeque::new();
        }
        if state.writer.is_none() {
            state.writer = writer.cloned();
        }
        state.idle()
    }

    /// For a poll: takes out up to `most` frames. `Pending` when the queue is empty.
    ///
    /// # Errors
    /// [`End`]; [`End::Flushed`] only once everything is taken out.
    pub fn poll_take(&self, most: usize, cx: &Context<'_>) -> Poll<Result<VecDeque<Bytes>, End>> {
        let mut state = self.state.lock();
        state.stage = Stage::Busy;
        state.remember(cx);
        if state.end == Some(End::Now) {
            return Poll::Ready(Err(End::Now));
        }
        if state.is_empty() {
            return state.idle().map_ok(|()| VecDeque::new());
        }
        let taken = state.take(most);
        state.count -= taken.len();
        state.bytes -= taken.iter().map(|frame| frame.len() as u64).sum::<u64>();
        Poll::Ready(Ok(taken))
    }
}

/// A queued frame, for which the caller chooses who writes it.
#[must_use]
#[derive(Debug)]
pub struct Queued<'a>(MutexGuard<'a, State>);

impl Queued<'_> {
    /// Leaves it to the client's task or poll, and wakes it.
    pub fn wake(mut self) {
        self.0.wake_idle();
    }

    /// Leaves it to the caller, who has to call [`Outbox::flush`] if this returns `true`: cheaper than waking a task for each
    /// receiver of an event. In a rush it wakes the task after all, which then writes more frames per system call.
    pub fn defer(mut self) -> bool {
        let state = &mut *self.0;
        let is_idle = state.stage == Stage::Idle && !state.is_rush;
        let is_deferred = is_idle && state.writer.is_some() && state.bytes <= MAX_FLUSHED_BYTES;
        if is_deferred {
            state.stage = Stage::Deferred;
        } else {
            state.wake_idle();
        }
        is_deferred
    }
}

/// The first frames, as many as one system call writes.
pub(super) fn gathered<'a>(frames: &'a VecDeque<Bytes>, slices: &'a mut [IoSlice<'a>; GATHERED]) -> &'a [IoSlice<'a>] {
    let count = frames.len().min(GATHERED);
    for (slice, frame) in slices.iter_mut().zip(frames) {
        *slice = IoSlice::new(frame);
    }
    &slices[..count]
}

impl State {
    /// Whether a frame of so many bytes may be queued.
    fn check(&self, limits: &Limits, bytes: usize) -> Result<(), SendError> {
        if self.end.is_some() {
            return Err(SendError::Closed);
        }
        let is_full = self.count >= limits.frames || self.count > 0 && self.bytes + bytes as u64 > limits.bytes;
        if is_full { Err(SendError::Full) } else { Ok(()) }
    }

    /// Queues a frame of a kind, none of which is queued, behind all others.
    fn put(&mut self, kind: u64, frame: Bytes) {
        (self.count, self.bytes) = (self.count + 1, self.bytes + frame.len() as u64);
        let kinds = self.kinds.get_or_insert_default();
        kinds.serial += 1;
        let place = (kinds.taken + self.frames.len() as u64, kinds.serial);
        kinds.waiting.insert(kind, OfKind { frame, place });
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.kinds.as_ref().is_none_or(|kinds| kinds.waiting.is_empty())
    }

    /// Takes out up to `most` frames, in order.
    fn take(&mut self, most: usize) -> VecDeque<Bytes> {
        let Some(kinds) = &mut self.kinds else {
            let rest = self.frames.split_off(most.min(self.frames.len()));
            return std::mem::replace(&mut self.frames, rest);
        };
        let mut places: Vec<_> = kinds.waiting.iter().map(|(kind, waiting)| (waiting.place, *kind)).collect();
        places.sort_unstable();
        let mut places = places.into_iter().peekable();
        let mut taken = VecDeque::new();
        while taken.len() < most {
            let next = places.next_if(|((before, _), _)| *before <= kinds.taken);
            let of_kind = next.and_then(|(_, kind)| kinds.waiting.remove(&kind)).map(|waiting| waiting.frame);
            let is_plain = of_kind.is_none();
            let Some(frame) = of_kind.or_else(|| self.frames.pop_front()) else { break };
            kinds.taken += u64::from(is_plain);
            taken.push_back(frame);
        }
        if kinds.waiting.is_empty() && kinds.waiting.capacity() > KEPT_KINDS {
            self.kinds = None;
        }
        taken
    }

    /// Wakes a task that has nothing to write.
    fn wake_idle(&mut self) {
        if self.stage == Stage::Idle {
            self.stage = Stage::Busy;
            if let Some(task) = &self.task {
                task.wake_by_ref();
            }
        }
    }

    /// Writes in place of the task, which is idle. `false`: some of it is left.
    fn write(&mut self) -> bool {
        let Some(writer) = self.writer.as_ref().and_then(Weak::upgrade).filter(|_| self.bytes <= MAX_FLUSHED_BYTES) else {
            return false;
        };
        if self.is_empty() {
            return true;
        }
        let mut batch = Batch { frames: self.take(usize::MAX), ..Batch::default() };
        self.is_rush = batch.frames.len() > usize::from(self.together.max(1));
        let written = match batch.frames.len() {
            1 => writer.try_write(&batch.frames[0]),
            _ => writer.try_write_vectored(gathered(&batch.frames, &mut [IoSlice::new(&[]); GATHERED])),
        };
        // The task gets the same error, and handles it.
        batch.written(written.unwrap_or(0));
        (self.count, self.bytes) = (self.count - batch.count, self.bytes - batch.bytes);
        (self.frames, self.is_begun) = (batch.frames, batch.is_begun);
        self.frames.is_empty()
    }

    fn remember(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }

    /// Handles an empty queue.
    fn idle(&mut self) -> Poll<Result<(), End>> {
        match self.end {
            Some(end) => Poll::Ready(Err(end)),
            None => {
                self.stage = Stage::Idle;
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests;
