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
    /// Whether several frames were queued at the last write: they arrive faster than they are written.
    is_rush: bool,
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
        self.queue(frame).map(Queued::wake)
    }

    /// Like [`Self::send`], but the caller chooses who writes the frame.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn queue(&self, frame: Bytes) -> Result<Queued<'_>, SendError> {
        let mut state = self.state();
        state.check(&self.limits, frame.len())?;
        (state.count, state.bytes) = (state.count + 1, state.bytes + frame.len() as u64);
        state.frames.push_back(frame);
        Ok(Queued(state))
    }

    /// Like [`Self::queue`], but drops a queued frame of the same kind, so that only the newest is sent.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn queue_latest(&self, kind: u64, frame: Bytes) -> Result<Queued<'_>, SendError> {
        let mut state = self.state();
        if let Some(old) = state.kinds.as_mut().and_then(|kinds| kinds.waiting.remove(&kind)) {
            (state.count, state.bytes) = (state.count - 1, state.bytes - old.frame.len() as u64);
        }
        state.check(&self.limits, frame.len())?;
        state.put(kind, frame);
        Ok(Queued(state))
    }

    /// Like [`Self::queue`], but drops the new frame if one of its kind is queued, or if the queue is full.
    ///
    /// # Errors
    /// [`SendError::Closed`] after the end.
    pub fn queue_volatile(&self, kind: u64, frame: Bytes) -> Result<Queued<'_>, SendError> {
        let mut state = self.state();
        match state.check(&self.limits, frame.len()) {
            Err(SendError::Closed) => return Err(SendError::Closed),
            Err(SendError::Full) => {}
            Ok(()) if state.kinds.as_ref().is_some_and(|kinds| kinds.waiting.contains_key(&kind)) => {}
            Ok(()) => state.put(kind, frame),
        }
        Ok(Queued(state))
    }

    /// Writes the frames since [`Queued::defer`], in one system call. What the socket does not accept is left to the client's task.
    pub fn flush(&self) {
        let mut state = self.state();
        if state.stage == Stage::Deferred {
            state.stage = Stage::Idle;
            if !state.write() {
                state.wake_idle();
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
    /// empty, from when on `writer` may write the next frames; an error when the connection is to end.
    ///
    /// # Errors
    /// [`End`]; [`End::Flushed`] only once everything is written.
    pub fn poll_batch(&self, batch: &mut Batch, writer: Option<&Writer>, cx: &Context<'_>) -> Poll<Result<(), End>> {
        let mut state = self.state();
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
        } else {
            std::mem::swap(&mut state.frames, &mut batch.frames);
        }
        if !batch.frames.is_empty() {
            state.is_rush = batch.frames.len() > 1;
            return Poll::Ready(Ok(()));
        }
        // An idle client needs one buffer, and not a large one.
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
        let mut state = self.state();
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
        self.is_rush = batch.frames.len() > 1;
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
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::shared::SharedStream;

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
        assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Ok(())));
        assert_eq!(batch.frames.len(), 3);
        assert_eq!(outbox.send(bytes(10)), Err(SendError::Full));
        batch.written(15);
        assert_eq!(batch.frames.iter().map(Bytes::len).collect::<Vec<_>>(), [5, 10]);
        assert!(batch.is_begun);
        assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Ok(())));
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
        assert_eq!(outbox.poll_batch(&mut batch, None, &Context::from_waker(&waker)), Poll::Pending);
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
        assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Ok(())));
        batch.written(1);
        assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Err(End::Flushed)));
        outbox.end(End::Now);
        assert_eq!(outbox.poll_batch(&mut batch, None, &cx), Poll::Ready(Err(End::Now)));
    }

    /// What a task takes out now.
    fn written(outbox: &Outbox) -> Vec<u8> {
        let mut batch = Batch::default();
        let _ = outbox.poll_batch(&mut batch, None, &Context::from_waker(Waker::noop()));
        batch.frames.iter().flatten().copied().collect()
    }

    fn send(outbox: &Outbox, text: &'static str) {
        for frame in text.split_inclusive(|_: char| true) {
            match frame.as_bytes()[0] {
                kind @ b'a'..=b'z' => outbox.queue_latest(kind.into(), Bytes::from(frame)).unwrap().wake(),
                kind @ b'0'..=b'9' => outbox.queue_volatile(kind.into(), Bytes::from(frame)).unwrap().wake(),
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
            outbox.queue_latest(1, bytes(20)).unwrap().wake();
        }
        assert_eq!(outbox.queue_latest(2, bytes(1)).map(Queued::wake), Err(SendError::Full));
        assert_eq!(outbox.queue_volatile(2, bytes(1)).map(Queued::wake), Ok(()), "dropped");
        assert_eq!((outbox.waiting(), outbox.state().bytes), (2, 30));
        assert_eq!(written(&outbox).len(), 30);
        outbox.end(End::Now);
        assert_eq!(outbox.queue_latest(1, bytes(1)).map(Queued::wake), Err(SendError::Closed));
        assert_eq!(outbox.queue_volatile(1, bytes(1)).map(Queued::wake), Err(SendError::Closed));
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

    /// An outbox whose task is idle, how often it is woken, its stream, and the client's end.
    async fn idle() -> (Outbox, Arc<Wakes>, SharedStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = SharedStream::new(listener.accept().await.unwrap().0);
        std::future::poll_fn(|cx| stream.tcp().poll_write_ready(cx)).await.unwrap();
        let (outbox, wakes) = (outbox(1000, 1_000_000), Arc::new(Wakes::default()));
        let waker = Waker::from(Arc::clone(&wakes));
        let polled = outbox.poll_batch(&mut Batch::default(), Some(&stream.writer()), &Context::from_waker(&waker));
        assert_eq!(polled, Poll::Pending);
        (outbox, wakes, stream, client)
    }

    #[tokio::test]
    async fn deferred_frames_are_written_together_without_the_task() {
        let (outbox, wakes, _stream, mut client) = idle().await;
        assert!(outbox.queue(Bytes::from("one")).unwrap().defer());
        assert!(!outbox.queue(Bytes::from("two")).unwrap().defer(), "the first caller writes both");
        outbox.flush();
        let mut received = [0; 6];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!((&received, outbox.backlog(), wakes.0.load(Ordering::SeqCst)), (b"onetwo", (0, 0), 0));
        assert!(!outbox.queue(Bytes::from("three")).unwrap().defer(), "two frames at once are a rush");
        assert_eq!((outbox.waiting(), wakes.0.load(Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn a_task_that_looks_first_writes_what_was_deferred() {
        let (outbox, _, _stream, client) = idle().await;
        assert!(outbox.queue(Bytes::from("one")).unwrap().defer());
        assert_eq!(written(&outbox), b"one");
        outbox.send(Bytes::from("two")).unwrap();
        outbox.flush();
        assert_eq!((outbox.waiting(), client.try_read(&mut [0]).unwrap_err().kind()), (2, ErrorKind::WouldBlock));
    }

    #[tokio::test]
    async fn what_a_socket_does_not_accept_is_left_to_the_task() {
        let (outbox, wakes, _stream, mut client) = idle().await;
        let mut sent = Vec::new();
        for byte in (0..=u8::MAX).cycle() {
            let frame = vec![byte; 50_000];
            sent.extend_from_slice(&frame);
            assert!(outbox.queue(frame.into()).unwrap().defer());
            outbox.flush();
            if outbox.waiting() > 0 {
                break;
            }
        }
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        let rest = written(&outbox);
        let mut received = vec![0; sent.len() - rest.len()];
        client.read_exact(&mut received).await.unwrap();
        assert!([received, rest].concat() == sent);
    }

    #[tokio::test]
    async fn frames_for_a_stream_that_others_cannot_write_to_wake_the_task() {
        let (outbox, wakes, stream, _client) = idle().await;
        drop(stream);
        assert!(outbox.queue(Bytes::from("one")).unwrap().defer());
        outbox.flush();
        assert_eq!((outbox.waiting(), wakes.0.load(Ordering::SeqCst)), (1, 1), "the stream is closed");
        let polled = self::outbox(1, 1);
        assert_eq!(polled.poll_take(1, &Context::from_waker(Waker::noop())), Poll::Pending);
        assert!(!polled.queue(Bytes::from("one")).unwrap().defer(), "a poll carries the client, or TLS");
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
                        outbox.queue_latest(step.into(), Bytes::copy_from_slice(&[step])).unwrap().wake();
                    }
                    b'0'..=b'9' => {
                        if !list.contains(&step) {
                            list.push(step);
                        }
                        outbox.queue_volatile(step.into(), Bytes::copy_from_slice(&[step])).unwrap().wake();
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
