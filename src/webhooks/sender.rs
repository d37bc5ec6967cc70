//! [`Sender`]: delivers the queue of one target.
//!
//! Input: an [`Outbox`]. Output: deliveries, one at a time and so in order; a failed one is retried with exponential backoff for
//! `webhooksDelivery.retryFor`. Events that are given up are logged. Each target has its own sender.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::WARN_INTERVAL;
use super::happening::{body, now_ms};
use super::outbox::{Outbox, Waiting};
use super::post::DeliveryError;
use super::target::Target;
use crate::clock::milliseconds;
use crate::metrics::Metrics;
use crate::telemetry::reminders::Reminders;
use crate::warn_throttled;

/// Minimum and maximum time between two attempts.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Maximum bytes of undelivered events in one log line.
const MAX_LOGGED: usize = 16 * 1024;

/// Why events are dropped from a full outbox.
pub(super) const NO_ROOM: &str = "more events are queued than webhooksDelivery.queue or queueBytes allows";

/// Delivers the queue of one target.
pub(super) struct Sender {
    pub(super) targets: Arc<[Target]>,
    /// The index of its target.
    pub(super) index: usize,
    pub(super) retry_for: Duration,
    pub(super) metrics: Arc<Metrics>,
}

impl Sender {
    fn target(&self) -> &Target {
        &self.targets[self.index]
    }

    /// Sends until the outbox ends or `stop` is cancelled.
    pub(super) async fn run(self, outbox: Arc<dyn Outbox>, stop: CancellationToken) {
        stop.run_until_cancelled(self.deliver(&*outbox)).await;
    }

    async fn deliver(&self, outbox: &dyn Outbox) {
        let mut failures = 0;
        let mut reminders = Reminders::every(WARN_INTERVAL);
        while let Some(events) = outbox.first().await {
            let Err(cause) = self.target().send(body(events.iter().map(|event| &*event.json))).await else {
                if failures > 0 {
                    info!(webhook = self.target().label, failures, "webhook target accepts deliveries again");
                    failures = 0;
                    reminders.clear();
                }
                self.metrics.webhooks.sent.inc_by(events.len() as u64);
                outbox.done(&events).await;
                continue;
            };
            self.metrics.webhooks.failed.inc();
            if matches!(cause, DeliveryError::Gone) {
                failures = 0;
                reminders.clear();
                self.give_up(&events, "the target answered 410; remove it from `webhooks`, or fix its route");
                outbox.done(&events).await;
                continue;
            }
            failures += 1;
            if reminders.is_due(cause.to_string()) {
                warn!(
                    webhook = self.target().label,
                    cause = cause.to_string(),
                    failures,
                    hint = cause.hint(),
                    "webhook delivery failed; retrying"
                );
            }
            let oldest = now_ms().saturating_sub(milliseconds(self.retry_for));
            // Events are in order of time, so those that are too old come first.
            let too_old = events.iter().take_while(|event| event.time_ms < oldest).count();
            if too_old > 0 {
                self.give_up(&events[..too_old], &format!("{cause}, for longer than webhooksDelivery.retryFor"));
                outbox.done(&events[..too_old]).await;
            }
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Logs events that will not be delivered.
    pub(super) fn give_up(&self, events: &[Waiting], cause: &str) {
        dead_letter(&self.metrics, &self.target().label, events, cause);
    }
}

/// Logs and counts events that will not be delivered.
pub(super) fn dead_letter(metrics: &Metrics, target: &str, events: &[Waiting], cause: &str) {
    if events.is_empty() {
        return;
    }
    metrics.webhooks.dropped.inc_by(events.len() as u64);
    let count = events.len();
    warn_throttled!(class = 0, key = target, webhook = target, cause, count, events = listed(events), "webhook events given up");
}

/// The first events, as a JSON list for the log.
fn listed(events: &[Waiting]) -> String {
    let mut text = String::from("[");
    for event in events {
        if text.len() > 1 {
            text.push(',');
        }
        if text.len() + event.json.len() > MAX_LOGGED {
            text.push('…');
            break;
        }
        text.push_str(&event.json);
    }
    text.push(']');
    text
}

/// The time before the next attempt: exponential backoff with jitter, so that many nodes do not retry at the same time.
fn pause(failures: u32) -> Duration {
    let longest = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_RETRY);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_listed_up_to_a_length() {
        let event = |json: String| Waiting { id: String::new(), time_ms: 0, is_of_clients: false, json: json.into() };
        assert_eq!(listed(&[event("{}".to_owned()), event("{\"n\":1}".to_owned())]), "[{},{\"n\":1}]");
        let long = listed(&vec![event("x".repeat(1000)); 100]);
        assert!(long.len() <= MAX_LOGGED + 10 && long.ends_with(",…]"), "{}", long.len());
    }

    #[test]
    fn pauses_grow_to_a_limit_and_vary() {
        for failures in 1..100 {
            let longest = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(MAX_RETRY);
            let pause = pause(failures);
            assert!(pause >= longest / 2 && pause <= longest, "{failures}: {pause:?}");
        }
        assert!((0..100).map(|_| pause(10)).collect::<std::collections::HashSet<_>>().len() > 50);
    }
}
