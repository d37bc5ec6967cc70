//! [`Gate`]: the way to one host, with its cap, its queue and its breaker.
//!
//! Input: questions that want to be asked. Output: a [`Pass`] each, in order of arrival, or the reason why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{info, warn};

use super::breaker::{Breaker, Change, Turn};
use crate::metrics::Metrics;
pub(super) use crate::metrics::auth::Busy;

/// Questions that may wait for one host: more than any queue gets through in its time, few enough to fit in memory.
const LONGEST_QUEUE: usize = 100_000;

/// The way to one host.
pub(super) struct Gate {
    host: String,
    /// First come, first served.
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    breaker: Breaker,
    metrics: Arc<Metrics>,
}

impl Gate {
    pub(super) fn new(host: &str, max_concurrent: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            host: host.to_owned(),
            permits: Arc::new(Semaphore::new(max_concurrent.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            breaker: Breaker::default(),
            metrics,
        })
    }

    /// Waits for a turn.
    pub(super) async fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Pass, Busy> {
        let started = Instant::now();
        let place = Place::take(self)?;
        let turn = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, self.breaker.turn().await)
        };
        let outcome = tokio::time::timeout_at(deadline, turn).await;
        drop(place);
        self.metrics.auth.queue_seconds.observe(started.elapsed().as_secs_f64());
        match outcome {
            Ok((permit, turn)) => Ok(Pass { gate: Arc::clone(self), turn: Some(turn), _permit: permit }),
            Err(_) if self.breaker.is_open() => Err(Busy::Outage),
            Err(_) => Err(Busy::QueueTimeout),
        }
    }

    fn note(&self, change: Change) {
        let host = &self.host;
        match change {
            Change::None => {}
            Change::Opened => {
                self.metrics.auth.breaker_opens.inc();
                self.metrics.auth.breakers_open.inc();
                warn!(host, "the application does not answer; subscribes wait while one at a time finds out whether it is back");
            }
            Change::Closed => {
                self.metrics.auth.breakers_open.dec();
                info!(host, "the application answers again");
            }
        }
    }
}

/// A place in the queue.
struct Place<'a>(&'a Gate);

impl<'a> Place<'a> {
    fn take(gate: &'a Gate) -> Result<Self, Busy> {
        if gate.waiting.fetch_add(1, Ordering::Relaxed) >= LONGEST_QUEUE {
            gate.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy::QueueFull);
        }
        gate.metrics.auth.queued.inc();
        Ok(Self(gate))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.auth.queued.dec();
    }
}

/// Leave to ask once.
pub(super) struct Pass {
    gate: Arc<Gate>,
    /// `None` once it is reported.
    turn: Option<Turn>,
    _permit: OwnedSemaphorePermit,
}

impl Pass {
    /// The question is answered, or failed.
    pub(super) fn report(mut self, is_outage: bool) {
        if let Some(turn) = self.turn.take() {
            self.gate.note(self.gate.breaker.report(turn, is_outage));
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // Given up before there was an answer.
        if let Some(turn) = self.turn.take() {
            self.gate.breaker.give_up(turn);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.breaker.is_open() {
            self.metrics.auth.breakers_open.dec();
        }
    }
}
