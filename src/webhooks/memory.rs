//! [`Local`]: webhooks of a single node, with everything in memory.
//!
//! Input: the marks of the feed. Output: events in the outbox of each target, and a sender for each. The state sent last is lost at
//! shutdown, so shutdown sends that all channels are vacated.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::BATCH_TIME;
use super::feed::{Feed, Marks};
use super::happening::Happening;
use super::look::{gather, look};
use super::outbox::{MemoryOutbox, Numbers, Outbox, Waiting};
use super::sender::{NO_ROOM, Sender, dead_letter};
use super::target::Target;
use super::tracker::Tracker;
use super::truth::Truth;
use crate::config::Config;
use crate::metrics::Metrics;

/// Webhooks of a single node.
pub(super) struct Local<T> {
    truth: T,
    feed: Arc<Feed>,
    tracker: Tracker,
    numbers: Numbers,
    targets: Arc<[Target]>,
    outboxes: Vec<Arc<MemoryOutbox>>,
    metrics: Arc<Metrics>,
}

impl<T: Truth> Local<T> {
    /// Starts the tasks. `last` is cancelled when nothing more happens, `stop` when the time for shutdown is over.
    pub(super) fn start(
        config: &Config,
        truth: T,
        feed: &Arc<Feed>,
        targets: Arc<[Target]>,
        metrics: &Arc<Metrics>,
        tasks: &mut JoinSet<()>,
        (last, stop): (&CancellationToken, &CancellationToken),
    ) {
        let delivery = &config.webhooks_delivery;
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let outbox = |_| Arc::new(MemoryOutbox::new(size(delivery.queue), size(delivery.queue_bytes), Arc::clone(metrics)));
        let outboxes: Vec<_> = targets.iter().map(outbox).collect();
        for (index, outbox) in outboxes.iter().enumerate() {
            let sender = Sender { targets: Arc::clone(&targets), index, retry_for: delivery.retry_for, metrics: Arc::clone(metrics) };
            tasks.spawn(sender.run(Arc::clone(outbox) as Arc<dyn Outbox>, stop.clone()));
        }
        let local = Self {
            truth,
            feed: Arc::clone(feed),
            tracker: Tracker::new(delivery.grace),
            numbers: Numbers::default(),
            targets,
            outboxes,
            metrics: Arc::clone(metrics),
        };
        tasks.spawn(local.run(last.clone(), stop.clone()));
    }

    async fn run(mut self, last: CancellationToken, stop: CancellationToken) {
        while last.run_until_cancelled(self.wait()).await.is_some() {
            let marks = self.feed.take();
            self.look(marks).await;
        }
        // All clients have left, and there is no later time to send that.
        self.tracker.hurry();
        let mut marks = self.feed.take();
        self.tracker.channels().for_each(|channel| marks.channel(channel.as_str()));
        self.look(marks).await;
        self.outboxes.iter().for_each(|outbox| outbox.close());
        // The senders end when their outbox is empty, or are stopped.
        let is_empty = async {
            for outbox in &self.outboxes {
                while !outbox.is_empty() {
                    sleep(BATCH_TIME).await;
                }
            }
        };
        stop.run_until_cancelled(is_empty).await;
        for (target, outbox) in self.targets.iter().zip(&self.outboxes) {
            dead_letter(&self.metrics, &target.label, &outbox.drain(), "the server ended before the target took them");
        }
    }

    /// Waits until there is something to check, and a little longer for related changes.
    async fn wait(&self) {
        let due = async {
            match self.tracker.next_due() {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.feed.marked.notified() => sleep(BATCH_TIME).await,
            () = due => {}
        }
    }

    async fn look(&mut self, mut marks: Marks) {
        let events = std::mem::take(&mut marks.events);
        let now = Instant::now();
        let marks = gather(&mut self.tracker, marks, now);
        let counts = |channel: &str| self.truth.count(channel);
        let (told, outcome) = look(&mut self.tracker, &self.truth, counts, marks, &self.feed, now).await;
        if let Err(error) = outcome {
            // This can only fail with members in Redis; the failed checks are scheduled again.
            warn!(%error, "webhooks cannot read members now; changes are sent later");
        }
        for happening in told.iter().chain(&events) {
            self.put(happening);
        }
    }

    fn put(&self, happening: &Happening) {
        let mut waiting = None;
        for (target, outbox) in self.targets.iter().zip(&self.outboxes) {
            if target.wants(happening.event, &happening.channel) {
                let waiting: &Waiting = waiting.get_or_insert_with(|| {
                    let seq = self.numbers.next();
                    let is_of_clients = happening.is_of_clients();
                    Waiting { id: seq.to_string(), time_ms: happening.time_ms, is_of_clients, json: happening.numbered(seq).into() }
                });
                let dropped = outbox.push(waiting.clone());
                dead_letter(&self.metrics, &target.label, &dropped, NO_ROOM);
            }
        }
    }
}
