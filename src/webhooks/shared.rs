//! Webhooks of several nodes, or of one node with `store = "redis"`: the state sent last and the queues are in Redis.
//!
//! Every node reports its sockets per channel, what to check, and client events ([`report`]). One node leads ([`Leader`]): it
//! compares the current state with the state sent last, records the difference and puts it into the outboxes in one atomic step,
//! and sends it. When the leader dies, another node takes over once the lease has expired and continues from the recorded state;
//! a delivery that was in flight at that time is sent again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::books::{self, Books, Dropped, Pulled, Report};
use super::feed::{Feed, Marks};
use super::look::{gather, look};
use super::outbox::{Outbox, Waiting, batch};
use super::sender::{NO_ROOM, Sender, dead_letter};
use super::target::Target;
use super::tracker::Tracker;
use super::truth::Truth;
use super::{BATCH, BATCH_TIME};
use crate::channel::ChannelKind;
use crate::metrics::Metrics;
use crate::redis_client::QueryError;
use crate::store::StoreError;
use crate::telemetry::reminders::Reminders;

/// How often the leader checks everything, regardless of marks: a mark can be missing if Redis has lost a PUBLISH.
const SWEEP: Duration = Duration::from_secs(600);
/// Time between two attempts while Redis is unreachable.
const RETRY: Duration = Duration::from_millis(500);
/// How long shutdown waits for Redis to remove this node's state.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of counts in one report.
const COUNTS: usize = 5_000;

/// What webhooks do in Redis, for the log.
const WRITE_CHANGES: &str = "write changes to Redis";
const WRITE_QUEUED: &str = "write queued webhooks to Redis";
const TAKE_LEASE: &str = "take their lease from Redis";

/// Shared by the tasks.
pub(super) struct Common<T> {
    pub(super) books: Books,
    pub(super) truth: T,
    pub(super) feed: Arc<Feed>,
    pub(super) targets: Arc<[Target]>,
    pub(super) metrics: Arc<Metrics>,
    /// What Redis refuses, and why.
    pub(super) refusals: Mutex<Reminders<(&'static str, String)>>,
    pub(super) grace: Duration,
    pub(super) retry_for: Duration,
}

impl<T> Common<T> {
    /// Logs that `what` failed and will be retried.
    fn complain(&self, what: &'static str, error: &QueryError) {
        let reason = error.full_text();
        // The client logs a lost connection itself, and when Redis is back.
        if !matches!(error, QueryError::Refused(_)) {
            debug!(reason, "webhooks could not {what}; retrying");
        } else if self.refusals.lock().is_due((what, reason.clone())) {
            warn!(reason, hint = self.books.hint(error), "webhooks could not {what}; retrying");
        }
    }

    /// Logs that `what` works again if it had failed.
    fn works(&self, what: &'static str) {
        if self.refusals.lock().clear_if(|(failed, _)| *failed == what) {
            info!("webhooks can {what} again");
        }
    }

    fn note_dropped(&self, dropped: Dropped) {
        let mut by_target: HashMap<usize, Vec<Waiting>> = HashMap::new();
        for (index, json) in dropped {
            by_target.entry(index).or_default().push(Waiting { id: String::new(), time_ms: 0, is_of_clients: false, json: json.into() });
        }
        for (index, events) in by_target {
            dead_letter(&self.metrics, &self.targets[index].label, &events, NO_ROOM);
        }
    }
}

/// Starts reporting, and leading when no other node leads.
pub(super) fn start<T: Truth>(common: Common<T>, tasks: &mut JoinSet<()>, last: &CancellationToken) {
    let common = Arc::new(common);
    let reported = CancellationToken::new();
    tasks.spawn(report(Arc::clone(&common), last.clone(), reported.clone()));
    tasks.spawn(lead(common, last.clone(), reported));
}

/// Reports this node's changes until shutdown; then removes the node.
async fn report<T: Truth>(common: Arc<Common<T>>, last: CancellationToken, reported: CancellationToken) {
    let mut number = 0;
    let mut is_anew = true;
    let pace = common.books.lease / 3;
    loop {
        let is_last = last.is_cancelled();
        let mut reports = if is_anew && !is_last { everything(&common) } else { Vec::new() };
        let mut marks = common.feed.take();
        let events = std::mem::take(&mut marks.events);
        let counts = marks.channels.iter().map(|channel| (channel.clone(), common.truth.count(channel.as_str()))).collect();
        reports.push(Report { counts, marks: books::written(&marks), events, ..Report::default() });
        let mut was_known = true;
        for mut report in reports {
            number += 1;
            report.number = number;
            was_known &= send(&common, &report, &last).await;
        }
        if is_last {
            break;
        }
        // Redis has lost this node's state, or its lease had expired: report everything again.
        is_anew = !was_known || marks.everything;
        if !is_anew {
            tokio::select! {
                () = common.feed.marked.notified() => sleep(BATCH_TIME).await,
                () = sleep(pace) => {}
                () = last.cancelled() => {}
            }
        }
    }
    if let Ok(Err(error)) = tokio::time::timeout(LEAVE_TIMEOUT, common.books.forget(&common.books.node)).await {
        debug!(error = error.full_text(), "webhooks could not remove this node from Redis; its lease expires by itself");
    }
    reported.cancel();
}

/// Reports that replace all earlier ones with this node's complete counts.
fn everything<T: Truth>(common: &Common<T>) -> Vec<Report> {
    let counts: Vec<_> = common.truth.counts().into_iter().filter(|(channel, _)| common.feed.follows(channel.as_str())).collect();
    // Mark everything, because earlier reports may have been about channels that are empty now.
    let mut reports = vec![Report { is_anew: true, marks: vec![books::EVERYTHING.to_owned()], ..Report::default() }];
    reports.extend(counts.chunks(COUNTS).map(|some| {
        let mut marks = Marks::default();
        for (channel, _) in some {
            marks.channel(channel.as_str());
            if channel.kind() == ChannelKind::Presence {
                marks.whole.insert(channel.clone());
            }
        }
        Report { counts: some.to_vec(), marks: books::written(&marks), ..Report::default() }
    }));
    reports
}

/// Sends a report until Redis has accepted it, or until shutdown. `false` if Redis did not know this node.
async fn send<T: Truth>(common: &Common<T>, report: &Report, last: &CancellationToken) -> bool {
    loop {
        match common.books.report(report).await {
            Ok((was_known, dropped)) => {
                common.works(WRITE_CHANGES);
                if dropped > 0 {
                    common.metrics.webhooks.dropped.inc_by(dropped);
                    warn!(events = dropped, "webhook events dropped: too many are queued for the leading node");
                }
                return was_known || report.is_anew;
            }
            // Retried unchanged, so that it counts once. Changes in the meantime are collected in the feed, which is bounded.
            Err(error) if !last.is_cancelled() => {
                common.complain(WRITE_CHANGES, &error);
                sleep(RETRY).await;
            }
            Err(error) => {
                let events = report.events.len();
                if events == 0 {
                    // The other nodes find the rest by themselves, once this node's lease has expired.
                    debug!(reason = error.full_text(), "webhooks could not write the last changes to Redis");
                    return true;
                }
                warn!(
                    reason = error.full_text(),
                    events,
                    hint = common.books.hint(&error),
                    "webhooks could not write the last changes to Redis; these events are lost"
                );
                return true;
            }
        }
    }
}

/// Why a node has stopped leading.
#[derive(Debug, thiserror::Error)]
enum LeadError {
    #[error("another node leads")]
    Lost,
    #[error("{}", .0.full_text())]
    Redis(#[from] QueryError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Leads whenever no other node does, until this node has sent its last report.
async fn lead<T: Truth>(common: Arc<Common<T>>, last: CancellationToken, reported: CancellationToken) {
    let token = format!("{}-{:016x}", common.books.node, rand::random::<u64>());
    while !last.is_cancelled() {
        match common.books.pull(&token, false).await {
            Ok(Some(pulled)) => {
                common.works(TAKE_LEASE);
                debug!("this node sends the webhooks");
                let outcome = Box::pin(Leader::new(&common, &token).run(pulled, &reported)).await;
                match outcome {
                    Ok(()) => {
                        if let Ok(Err(error)) = tokio::time::timeout(LEAVE_TIMEOUT, common.books.release(&token)).await {
                            debug!(error = error.full_text(), "could not release the lease of webhooks; it expires by itself");
                        }
                        return;
                    }
                    Err(error) => {
                        match &error {
                            LeadError::Redis(error) => common.complain(WRITE_QUEUED, error),
                            _ => info!(%error, "this node no longer sends the webhooks"),
                        }
                        last.run_until_cancelled(sleep(RETRY)).await;
                    }
                }
            }
            Ok(None) => {
                common.works(TAKE_LEASE);
                last.run_until_cancelled(sleep(common.books.lease / 8)).await;
            }
            Err(error) => {
                common.complain(TAKE_LEASE, &error);
                last.run_until_cancelled(sleep(RETRY)).await;
            }
        }
    }
}

/// Renews the lease independently of how long a check takes. Returns when that fails.
async fn keep(books: &Books, token: &str, until: &Mutex<Instant>) -> LeadError {
    loop {
        let before = Instant::now();
        match books.renew(token).await {
            Ok(true) => *until.lock() = before + books.lease,
            Ok(false) => return LeadError::Lost,
            Err(error) => return error.into(),
        }
        sleep(books.lease / 4).await;
    }
}

/// The state of the leading node.
struct Leader<'a, T> {
    common: &'a Arc<Common<T>>,
    token: &'a str,
    tracker: Tracker,
    /// The time until which no other node can lead.
    until: Arc<Mutex<Instant>>,
}

impl<'a, T: Truth> Leader<'a, T> {
    fn new(common: &'a Arc<Common<T>>, token: &'a str) -> Self {
        let tracker = Tracker::new(common.grace);
        Self { common, token, tracker, until: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Leads until this node has sent its last report, or the lead is lost.
    async fn run(mut self, pulled: Pulled, reported: &CancellationToken) -> Result<(), LeadError> {
        let books = &self.common.books;
        for known in books.told().await? {
            self.tracker.load(known.channel, known.count, known.users);
        }
        let stop = CancellationToken::new();
        let mut senders = JoinSet::new();
        for index in 0..self.common.targets.len() {
            let (targets, metrics) = (Arc::clone(&self.common.targets), Arc::clone(&self.common.metrics));
            let sender = Sender { targets, index, retry_for: self.common.retry_for, metrics };
            let outbox = RedisOutbox { common: Arc::clone(self.common), index, until: Arc::clone(&self.until), waiting: AtomicI64::new(0) };
            senders.spawn(sender.run(Arc::new(outbox), stop.clone()));
        }
        let (token, until) = (self.token, Arc::clone(&self.until));
        let outcome = tokio::select! {
            outcome = self.tell(pulled, reported) => outcome,
            error = keep(books, token, &until) => Err(error),
        };
        stop.cancel();
        while senders.join_next().await.is_some() {}
        outcome
    }

    async fn tell(&mut self, first: Pulled, reported: &CancellationToken) -> Result<(), LeadError> {
        let mut swept = None;
        let mut pulled = Some(first);
        loop {
            let is_last = reported.is_cancelled();
            let Pulled { marks, events, live, dead } = match pulled.take() {
                Some(pulled) => pulled,
                None => self.common.books.pull(self.token, true).await?.ok_or(LeadError::Lost)?,
            };
            let (mark_count, event_count) = (marks.len(), events.len());
            let mut marks = books::read(&marks);
            for channel in self.common.books.forget_dead(&dead).await? {
                marks.channel(channel.as_str());
            }
            let now = Instant::now();
            let is_sweep = swept.is_none_or(|swept| now >= swept + SWEEP) || marks.everything;
            if is_sweep {
                swept = Some(now);
                marks.channels.extend(self.common.books.channels(&live).await?);
                marks.channels.extend(self.tracker.channels().cloned());
                marks.whole.extend(marks.channels.iter().filter(|channel| channel.kind() == ChannelKind::Presence).cloned());
                marks.everything = false;
            }
            let marks = gather(&mut self.tracker, marks, now);
            if mark_count + event_count > 0 || !marks.is_empty() {
                let counts = self.common.books.counts(&marks.channels, &live).await?;
                let count = |channel: &str| counts.get(channel).copied().unwrap_or_default();
                let (told, looked) = look(&mut self.tracker, &self.common.truth, count, marks, &self.common.feed, now).await;
                let events: Vec<_> = events.iter().filter_map(|event| books::event(event)).collect();
                let dropped =
                    self.common.books.commit(self.token, &told, &events, (mark_count, event_count)).await?.ok_or(LeadError::Lost)?;
                self.common.works(WRITE_QUEUED);
                self.common.note_dropped(dropped);
                looked?;
            }
            if is_last {
                return Ok(());
            }
            tokio::select! {
                () = sleep(BATCH_TIME) => {}
                () = reported.cancelled() => {}
            }
        }
    }
}

/// The queue in Redis of one target, as long as this node leads.
struct RedisOutbox<T> {
    common: Arc<Common<T>>,
    index: usize,
    until: Arc<Mutex<Instant>>,
    /// This queue's share of the gauge.
    waiting: AtomicI64,
}

impl<T> RedisOutbox<T> {
    fn leads(&self) -> bool {
        Instant::now() < *self.until.lock()
    }

    fn note_waiting(&self, now: usize) {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let before = self.waiting.swap(now, Ordering::Relaxed);
        self.common.metrics.webhooks.waiting.inc_by(now - before);
    }
}

impl<T> Drop for RedisOutbox<T> {
    fn drop(&mut self) {
        self.note_waiting(0);
    }
}

#[async_trait]
impl<T: Truth> Outbox for RedisOutbox<T> {
    async fn first(&self) -> Option<Vec<Waiting>> {
        loop {
            match self.common.books.first(self.index, BATCH).await {
                // A node that was suspended or cut off from Redis may have lost the lead without knowing yet.
                Ok((events, len)) if self.leads() => {
                    self.note_waiting(len);
                    if !events.is_empty() {
                        return Some(batch(events.into_iter()));
                    }
                }
                Ok(_) => {}
                Err(error) => self.common.complain("could not read waiting events from Redis", &error),
            }
            sleep(BATCH_TIME).await;
        }
    }

    async fn done(&self, events: &[Waiting]) {
        // Retried until it succeeds: otherwise these events would be sent again, and later ones must not be sent before them.
        while let Err(error) = self.common.books.done(self.index, events).await {
            self.common.complain("could not record a delivery in Redis", &error);
            sleep(RETRY).await;
        }
    }
}
