//! [`Outbox`]: frames queued for one client.
//!
//! Input: frames, shared by all their receivers. Output: batches for the client's transport: the task of its websocket, or
//! a poll request.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use parking_lot::{Mutex, MutexGuard};

use crate::event::CloseReason;

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
    /// The task has nothing to write and wants to be woken for the next frame.
    is_idle: bool,
    /// A task that only wants to know when the outbox ends.
    watcher: Option<Waker>,
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
        let state = self.state();
        (state.count, state.bytes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`SendError::Full`] when too many frames or bytes are queued, [`SendError::Closed`] after the end.
    pub fn send(&self, frame: Bytes) -> Result<(), SendError> {
        let mut state = self.state();
        state.check(&self.limits, frame.len())?;
        (state.count, state.bytes) = (state.count + 1, state.bytes + frame.len() as u64);
        state.frames.push_back(frame);
        wake_idle(state);
        Ok(())
    }

    /// Like [`Self::send`], but drops a queued frame of the same kind, so that only the newest is sent.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_latest(&self, kind: u64, frame: Bytes) -> Result<(), SendError> {
        let mut state = self.state();
        if let Some(old) = state.kinds.as_mut().and_then(|kinds| kinds.waiting.remove(&kind)) {
            (state.count, state.bytes) = (state.count - 1, state.bytes - old.frame.len() as u64);
        }
        state.check(&self.limits, frame.len())?;
        state.put(kind, frame);
        wake_idle(state);
        Ok(())
    }

    /// Like [`Self::send`], but drops the new frame if one of its kind is queued, or if the queue is full.
    ///
    /// # Errors
    /// [`SendError::Closed`] after the end.
    pub fn send_volatile(&self, kind: u64, frame: Bytes) -> Result<(), SendError> {
        let mut state = self.state();
        match state.check(&self.limits, frame.len()) {
            Err(SendError::Full) => Ok(()),
            Err(SendError::Closed) => Err(SendError::Closed),
            Ok(()) if state.kinds.as_ref().is_some_and(|kinds| kinds.waiting.contains_key(&kind)) => Ok(()),
            Ok(()) => {
                state.put(kind, frame);
                wake_idle(state);
                Ok(())
            }
        }
    }

    /// Ends the outbox: no frame is accepted any more, and queued ones are dropped or written first.
    pub fn end(&self, end: End) {
        let mut state = self.state();
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
        let mut state = self.state();
        if let Some(end) = state.end {
            return Poll::Ready(end);
        }
        state.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Removes the waiter of [`Self::poll_end`].
    pub fn unwatch(&self) {
        self.state().watcher = None;
    }

    /// How the connection is to end, if it is ending.
    #[must_use]
    pub fn ending(&self) -> Option<End> {
        self.state().end
    }

    /// Wakes the websocket's task or the pending poll.
    pub fn wake(&self) {
        let task = self.state().task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Number of frames that are queued or being written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().count
    }

    /// For a websocket's task: accounts for written frames, and refills `batch` when it is empty. `Pending` when the queue is
    /// empty; an error when the connection is to end.
    ///
    /// # Errors
    /// [`End`]; [`End::Flushed`] only once everything is written.
    pub fn poll_batch(&self, batch: &mut Batch, cx: &Context<'_>) -> Poll<Result<(), End>> {
        let mut state = self.state();
        state.count = state.count.saturating_sub(std::mem::take(&mut batch.count));
        state.bytes = state.bytes.saturating_sub(std::mem::take(&mut batch.bytes));
        state.remember(cx);
        if state.end == Some(End::Now) {
            return Poll::Ready(Err(End::Now));
        }
        if !batch.frames.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if batch.frames.capacity() > KEPT_FRAMES {
            batch.frames = VecDeque::new();
        }
        let has_kinds = state.kinds.as_ref().is_some_and(|kinds| !kinds.waiting.is_empty());
        if has_kinds {
            batch.frames = state.take(usize::MAX);
        } else {
            std::mem::swap(&mut state.frames, &mut batch.frames);
        }
        if !batch.frames.is_empty() {
            return Poll::Ready(Ok(()));
        }
        state.idle()
    }

    /// For a poll: takes out up to `most` frames. `Pending` when the queue is empty.
    ///
    /// # Errors
    /// [`End`]; [`End::Flushed`] only once everything is taken out.
    pub fn poll_take(&self, most: usize, cx: &Context<'_>) -> Poll<Result<VecDeque<Bytes>, End>> {
        let mut state = self.state();
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

/// Wakes the task if it is waiting for the next frame.
fn wake_idle(mut state: MutexGuard<'_, State>) {
    let task = if std::mem::take(&mut state.is_idle) { state.task.clone() } else { None };
    drop(state);
    if let Some(task) = task {
        task.wake();
    }
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
                self.is_idle = true;
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    fn outbox(frames: usize, bytes: u64) -> Outbox {
        Outbox::new(Limits { frames, bytes })
    }

    fn bytes(length: usize) -> Bytes {
        Bytes::from(vec![b'x'; length])
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn frames_taken_but_not_written_still_count() {
        let outbox = outbox(3, 100);
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            outbox.send(bytes(10)).unwrap();
        }
        assert_eq!(outbox.send(bytes(10)), Err(SendError::Full));
        let mut batch = Batch::default();
        assert_eq!(outbox.poll_batch(&mut batch, &cx), Poll::Ready(Ok(())));
        assert_eq!(batch.frames.len(), 3);
        assert_eq!(outbox.send(bytes(10)), Err(SendError::Full));
        batch.written(15);
        assert_eq!(batch.frames.iter().map(Bytes::len).collect::<Vec<_>>(), [5, 10]);
        assert!(batch.is_begun);
        assert_eq!(outbox.poll_batch(&mut batch, &cx), Poll::Ready(Ok(())));
        outbox.send(bytes(10)).unwrap();
        assert_eq!(outbox.send(bytes(1)), Err(SendError::Full));
    }

    #[test]
    fn bytes_are_limited_too_but_a_single_frame_always_fits() {
        let outbox = outbox(1000, 100);
        outbox.send(bytes(1_000)).unwrap();
        assert_eq!(outbox.send(bytes(1)), Err(SendError::Full));
    }

    #[test]
    fn polls_take_up_to_their_limit_and_leave_the_rest() {
        let outbox = outbox(3, 100);
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_take(2, &cx), Poll::Pending);
        for length in 1..=3 {
            outbox.send(bytes(length)).unwrap();
        }
        outbox.end(End::Flushed);
        assert_eq!(outbox.poll_take(2, &cx), Poll::Ready(Ok([bytes(1), bytes(2)].into())));
        assert_eq!(outbox.waiting(), 1);
        assert_eq!(outbox.poll_take(2, &cx), Poll::Ready(Ok([bytes(3)].into())));
        assert_eq!(outbox.poll_take(2, &cx), Poll::Ready(Err(End::Flushed)));
    }

    #[test]
    fn an_idle_task_is_woken_once_for_many_frames() {
        let outbox = outbox(1000, 1000);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut batch = Batch::default();
        assert_eq!(outbox.poll_batch(&mut batch, &Context::from_waker(&waker)), Poll::Pending);
        outbox.send(bytes(1)).unwrap();
        outbox.send(bytes(1)).unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_end_is_immediate_or_waits_for_queued_frames() {
        let cx = Context::from_waker(Waker::noop());
        let outbox = outbox(1000, 1000);
        outbox.send(bytes(1)).unwrap();
        outbox.end(End::Flushed);
        assert_eq!(outbox.send(bytes(1)), Err(SendError::Closed));
        let mut batch = Batch::default();
        assert_eq!(outbox.poll_batch(&mut batch, &cx), Poll::Ready(Ok(())));
        batch.written(1);
        assert_eq!(outbox.poll_batch(&mut batch, &cx), Poll::Ready(Err(End::Flushed)));
        outbox.end(End::Now);
        assert_eq!(outbox.poll_batch(&mut batch, &cx), Poll::Ready(Err(End::Now)));
    }

    /// What a task takes out now.
    fn written(outbox: &Outbox) -> Vec<u8> {
        let mut batch = Batch::default();
        let _ = outbox.poll_batch(&mut batch, &Context::from_waker(Waker::noop()));
        batch.frames.iter().flatten().copied().collect()
    }

    fn send(outbox: &Outbox, text: &'static str) {
        for frame in text.split_inclusive(|_: char| true) {
            match frame.as_bytes()[0] {
                kind @ b'a'..=b'z' => outbox.send_latest(kind.into(), Bytes::from(frame)).unwrap(),
                kind @ b'0'..=b'9' => outbox.send_volatile(kind.into(), Bytes::from(frame)).unwrap(),
                _ => outbox.send(Bytes::from(frame)).unwrap(),
            }
        }
    }

    #[test]
    fn the_newest_of_a_kind_stays_and_other_frames_keep_their_order() {
        let outbox = outbox(5, 100);
        send(&outbox, "aAbBaba");
        assert_eq!(outbox.waiting(), 4);
        assert_eq!(written(&outbox), b"ABba");
        let outbox = self::outbox(1000, 1000);
        send(&outbox, "1A1B21");
        assert_eq!(written(&outbox), b"1AB2", "the oldest volatile frame stays");
        send(&outbox, "1a");
        assert_eq!(written(&outbox), b"1a");
    }

    #[test]
    fn a_thousand_replacements_take_the_room_of_one() {
        let outbox = outbox(2, 30);
        outbox.send(bytes(10)).unwrap();
        for _ in 0..1000 {
            outbox.send_latest(1, bytes(20)).unwrap();
        }
        assert_eq!(outbox.send_latest(2, bytes(1)), Err(SendError::Full));
        assert_eq!(outbox.send_volatile(2, bytes(1)), Ok(()), "dropped");
        assert_eq!((outbox.waiting(), outbox.state().bytes), (2, 30));
        assert_eq!(written(&outbox).len(), 30);
        outbox.end(End::Now);
        assert_eq!(outbox.send_latest(1, bytes(1)), Err(SendError::Closed));
        assert_eq!(outbox.send_volatile(1, bytes(1)), Err(SendError::Closed));
    }

    #[test]
    fn frames_left_by_a_poll_can_still_be_replaced() {
        let outbox = outbox(1000, 1000);
        let cx = Context::from_waker(Waker::noop());
        let take = |most| match outbox.poll_take(most, &cx) {
            Poll::Ready(Ok(frames)) => frames.iter().flatten().copied().collect::<Vec<u8>>(),
            other => panic!("{other:?}"),
        };
        send(&outbox, "AabBc");
        assert_eq!(take(2), b"Aa");
        send(&outbox, "Cbca");
        assert_eq!(take(2), b"BC");
        assert_eq!(outbox.waiting(), 3);
        assert_eq!(take(usize::MAX), b"bca");
        assert_eq!(outbox.poll_take(1, &cx), Poll::Pending);
    }

    proptest::proptest! {
        /// Compares with a plain list from which older frames of a kind are removed.
        #[test]
        fn any_mix_matches_a_plain_list(steps in "[a-cA-C0-2|]{0,60}") {
            let outbox = outbox(1000, 1000);
            let (mut expected, mut list) = (Vec::new(), Vec::<u8>::new());
            let mut seen = Vec::new();
            let cx = Context::from_waker(Waker::noop());
            for step in steps.bytes() {
                match step {
                    b'|' => {
                        let taken = list.len().min(2);
                        expected.extend(list.drain(..taken));
                        if let Poll::Ready(Ok(frames)) = outbox.poll_take(2, &cx) {
                            seen.extend(frames.iter().flatten().copied());
                        }
                    }
                    b'a'..=b'z' => {
                        list.retain(|other| *other != step);
                        list.push(step);
                        outbox.send_latest(step.into(), Bytes::copy_from_slice(&[step])).unwrap();
                    }
                    b'0'..=b'9' => {
                        if !list.contains(&step) {
                            list.push(step);
                        }
                        outbox.send_volatile(step.into(), Bytes::copy_from_slice(&[step])).unwrap();
                    }
                    _ => {
                        list.push(step);
                        outbox.send(Bytes::copy_from_slice(&[step])).unwrap();
                    }
                }
                proptest::prop_assert_eq!(outbox.waiting(), list.len());
            }
            expected.extend(list);
            seen.extend(written(&outbox));
            proptest::prop_assert_eq!(seen, expected);
        }
    }
}
