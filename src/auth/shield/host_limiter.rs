//! [`HostLimiter`]: the concurrency limit, the queue and the circuit breaker of one host.
//!
//! Input: calls to send. Output: a [`Pass`] for each, with sockets taking turns, or the reason for refusing it.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use super::breaker::{Breaker, Change, Turn};
use super::fair_semaphore::{FairSemaphore, Permit};
use crate::event::SocketId;
use crate::metrics::Metrics;
pub(super) use crate::metrics::auth::Busy;

/// Limits the calls to one host.
pub(super) struct HostLimiter {
    host: String,
    semaphore: Arc<FairSemaphore>,
    breaker: Breaker,
    metrics: Arc<Metrics>,
}

impl HostLimiter {
    pub(super) fn new(host: &str, max_concurrent: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { host: host.to_owned(), semaphore: FairSemaphore::new(max_concurrent), breaker: Breaker::default(), metrics })
    }

    /// Waits for a turn to send a call or a probe. No call holds a permit while it waits for the host to recover.
    pub(super) async fn enter(self: &Arc<Self>, asker: SocketId, deadline: Instant) -> Result<Pass, Busy> {
        let started = Instant::now();
        let queued = Queued::new(&self.metrics);
        let turn = async {
            loop {
                let turn = self.breaker.turn().await;
                let mut pass = Pass { limiter: Arc::clone(self), turn: Some(turn), permit: None };
                if turn == Turn::Probe {
                    return pass;
                }
                pass.permit = Some(self.semaphore.take(asker).await);
                // The breaker may have opened while this call waited for its permit.
                if !self.breaker.is_open() {
                    return pass;
                }
            }
        };
        let outcome = tokio::time::timeout_at(deadline, turn).await;
        drop(queued);
        self.metrics.auth.queue_seconds.observe(started.elapsed().as_secs_f64());
        match outcome {
            Ok(pass) => Ok(pass),
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
                warn!(
                    host,
                    "the application does not respond: subscribes wait until it is back, at most auth.queueTimeout; while any of them \
                     waits, the server retries after 0.25 to 4 seconds"
                );
            }
            Change::Closed => {
                self.metrics.auth.breakers_open.dec();
                info!(host, "the application responds again");
            }
        }
    }
}

/// Counts a call as queued until it is sent or cancelled.
struct Queued<'a>(&'a Metrics);

impl<'a> Queued<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.auth.queued.inc();
        Self(metrics)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.auth.queued.dec();
    }
}

/// Permission to send one call or probe.
pub(super) struct Pass {
    limiter: Arc<HostLimiter>,
    /// `None` once the result is reported.
    turn: Option<Turn>,
    permit: Option<Permit>,
}

impl Pass {
    /// Whether it is for a probe instead of a call.
    pub(super) const fn is_probe(&self) -> bool {
        self.permit.is_none()
    }

    /// Reports the result of the call.
    pub(super) fn report(mut self, is_outage: bool) {
        if let Some(turn) = self.turn.take() {
            self.limiter.note(self.limiter.breaker.report(turn, is_outage));
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // Cancelled before the result was known.
        if let Some(turn) = self.turn.take() {
            self.limiter.breaker.give_up(turn);
        }
    }
}

impl Drop for HostLimiter {
    fn drop(&mut self) {
        if self.breaker.is_announced() {
            self.metrics.auth.breakers_open.dec();
        }
    }
}
