//! [`Outbox`]: the queue of one target.
//!
//! Input: events in the order of delivery. Output: the first of them, repeatedly until they are marked as done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::happening::now_ms;
use super::{BATCH, BATCH_BYTES};
use crate::metrics::Metrics;

/// One queued event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its id in the outbox.
    pub(super) id: String,
    /// When it happened, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// Clients can cause any number of such events.
    pub(super) is_of_clients: bool,
    pub(super) json: Arc<str>,
}

/// The queue of one target.
#[async_trait]
pub(super) trait Outbox: Send + Sync + 'static {
    /// Waits for the first events: at least one, and at most as many as fit into one delivery. `None` when the outbox has ended.
    async fn first(&self) -> Option<Vec<Waiting>>;
    /// Removes events that were delivered or dropped.
    async fn done(&self, events: &[Waiting]);
}

/// Numbers events. Numbers keep growing across restarts, unless the clock goes backwards.
#[derive(Debug, Default)]
pub(super) struct Numbers(AtomicU64);

impl Numbers {
    /// The next number: the time in microseconds, or one more than the last.
    pub(super) fn next(&self) -> u64 {
        let now = now_ms().saturating_mul(1000);
        let last = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
        last.map_or(now, |last| now.max(last + 1))
    }
}

/// A queue in memory.
pub(super) struct MemoryOutbox {
    queue: Mutex<Queue>,
    /// Notified when an event was added.
    filled: Notify,
    /// Cancelled when no more events will be added.
    closed: CancellationToken,
    max_events: usize,
    max_bytes: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// No event before this index is a client event, so that a full queue is not searched from the start for each new event.
    searched: usize,
}

impl Queue {
    /// Removes the oldest client event, or else the oldest event.
    fn make_room(&mut self) -> Option<Waiting> {
        let is_of_clients = |place: &usize| self.waiting[*place].is_of_clients;
        match (self.searched..self.waiting.len()).find(is_of_clients) {
            Some(place) => {
                self.searched = place;
                let oldest = self.waiting.remove(place)?;
                self.bytes -= oldest.json.len();
                Some(oldest)
            }
            None => {
                self.searched = self.waiting.len();
                self.pop_front_if(|_| true)
            }
        }
    }

    fn pop_front_if(&mut self, is_it: impl FnOnce(&Waiting) -> bool) -> Option<Waiting> {
        let first = self.waiting.pop_front_if(|first| is_it(first))?;
        self.searched = self.searched.saturating_sub(1);
        self.bytes -= first.json.len();
        Some(first)
    }
}

impl MemoryOutbox {
    pub(super) fn new(max_events: usize, max_bytes: usize, metrics: Arc<Metrics>) -> Self {
        let closed = CancellationToken::new();
        Self { queue: Mutex::default(), filled: Notify::new(), closed, max_events, max_bytes, metrics }
    }

    /// Adds an event. Returns the events dropped for it: the oldest client events first, then the oldest of all, because the newest
    /// ones describe the current state.
    pub(super) fn push(&self, event: Waiting) -> Vec<Waiting> {
        let mut dropped = Vec::new();
        {
            let mut queue = self.queue.lock();
            queue.bytes += event.json.len();
            queue.waiting.push_back(event);
            while queue.waiting.len() > 1 && (queue.waiting.len() > self.max_events || queue.bytes > self.max_bytes) {
                dropped.extend(queue.make_room());
            }
        }
        self.metrics.webhooks.waiting.inc();
        self.metrics.webhooks.waiting.dec_by(i64::try_from(dropped.len()).unwrap_or(i64::MAX));
        self.filled.notify_one();
        dropped
    }

    /// Ends the queue: no more events will be added.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().waiting.is_empty()
    }

    /// Removes and returns all queued events.
    pub(super) fn drain(&self) -> Vec<Waiting> {
        let mut queue = self.queue.lock();
        let Queue { waiting, .. } = std::mem::take(&mut *queue);
        self.metrics.webhooks.waiting.dec_by(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        waiting.into()
    }
}

/// The first of `events` that fit into one delivery; at least one.
pub(super) fn batch(events: impl Iterator<Item = Waiting>) -> Vec<Waiting> {
    let mut bytes = 0;
    let fits = |event: &Waiting| {
        let is_first = bytes == 0;
        bytes += event.json.len();
        is_first || bytes <= BATCH_BYTES
    };
    events.take(BATCH).take_while(fits).collect()
}

#[async_trait]
impl Outbox for MemoryOutbox {
    async fn first(&self) -> Option<Vec<Waiting>> {
        loop {
            let is_closed = self.closed.is_cancelled();
            let first = batch(self.queue.lock().waiting.iter().cloned());
            if !first.is_empty() {
                return Some(first);
            }
            if is_closed {
                return None;
            }
            tokio::select! {
                () = self.filled.notified() => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    async fn done(&self, events: &[Waiting]) {
        let mut queue = self.queue.lock();
        // Some may have been dropped in the meantime.
        let before = queue.waiting.len();
        while queue.pop_front_if(|first| events.iter().any(|event| event.id == first.id)).is_some() {}
        let removed = before - queue.waiting.len();
        self.metrics.webhooks.waiting.dec_by(i64::try_from(removed).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, bytes: usize) -> Waiting {
        Waiting { id: id.to_string(), time_ms: 0, is_of_clients: false, json: "x".repeat(bytes).into() }
    }

    #[test]
    fn what_clients_send_without_end_takes_no_place_of_who_is_there() {
        let outbox = MemoryOutbox::new(10, 1_000_000, Arc::default());
        let whisper = |id| Waiting { is_of_clients: true, ..event(id, 10) };
        (0..5).for_each(|id| drop(outbox.push(event(id, 10))));
        (100..200).for_each(|id| drop(outbox.push(whisper(id))));
        (5..8).for_each(|id| drop(outbox.push(event(id, 10))));
        let left: Vec<String> = outbox.drain().into_iter().map(|event| event.id).collect();
        assert_eq!(left, ["0", "1", "2", "3", "4", "198", "199", "5", "6", "7"]);
    }

    #[tokio::test]
    async fn what_clients_send_goes_first_also_after_a_delivery() {
        let outbox = MemoryOutbox::new(4, 1_000_000, Arc::default());
        let whisper = |id| Waiting { is_of_clients: true, ..event(id, 10) };
        for id in 0..5 {
            outbox.push(event(id, 10));
        }
        outbox.done(&[event(1, 10), event(2, 10)]).await;
        for id in 10..12 {
            outbox.push(whisper(id));
        }
        assert_eq!(outbox.push(event(5, 10)), [whisper(10)]);
        assert_eq!(outbox.push(event(6, 10)), [whisper(11)]);
        assert_eq!(outbox.push(event(7, 10)), [event(3, 10)]);
        assert_eq!(outbox.drain(), [event(4, 10), event(5, 10), event(6, 10), event(7, 10)]);
    }

    #[tokio::test]
    async fn the_oldest_go_when_there_is_no_room() {
        let outbox = MemoryOutbox::new(3, 100, Arc::new(Metrics::new()));
        for id in 0..3 {
            assert_eq!(outbox.push(event(id, 10)), []);
        }
        let first = outbox.first().await.unwrap();
        assert_eq!(outbox.push(event(3, 10)), [event(0, 10)]);
        assert_eq!(outbox.push(event(4, 95)).len(), 3);
        // An event that was dropped in the meantime can still be marked as done.
        outbox.done(&first).await;
        assert_eq!(outbox.first().await.unwrap(), [event(4, 95)]);
        outbox.done(&[event(4, 95)]).await;
        outbox.close();
        assert_eq!(outbox.first().await, None);
    }

    #[tokio::test]
    async fn deliveries_are_bounded_in_number_and_bytes() {
        let outbox = MemoryOutbox::new(1000, 10_000_000, Arc::new(Metrics::new()));
        (0..150).for_each(|id| drop(outbox.push(event(id, 10))));
        assert_eq!(outbox.first().await.unwrap().len(), BATCH);
        let outbox = MemoryOutbox::new(1000, 10_000_000, Arc::new(Metrics::new()));
        (0..5).for_each(|id| drop(outbox.push(event(id, 700_000))));
        assert_eq!(outbox.first().await.unwrap().len(), 1);
    }

    #[test]
    fn numbers_grow() {
        let numbers = Numbers::default();
        let (first, second) = (numbers.next(), numbers.next());
        assert!(first < second && first > 1_700_000_000_000_000);
    }
}
