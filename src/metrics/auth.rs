//! Metrics of authorization: queue, circuit breaker, shared answers, tokens and grants with an expiry.
//!
//! Input: [`crate::auth`] and the hub count here. Output: a part of [`super::Metrics`].

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::label_values;

/// Why a callback was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Busy {
    /// Too many are waiting already.
    QueueFull,
    /// Its turn did not come within `auth.queueTimeout`.
    QueueTimeout,
    /// The application was unavailable for all of `auth.queueTimeout`.
    Outage,
}

/// What made a callback unnecessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SavedBy {
    /// An equal one was in progress.
    Sharing,
    /// An equal one was answered within `auth.cacheTtl`.
    Cache,
    /// A token decided the subscribe.
    Token,
}

/// The outcome of a grant that expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Renewal {
    /// The application granted it again.
    Renewed,
    /// It expired, and the socket left the channel.
    Ended,
}

label_values!(Busy { QueueFull => "queue_full", QueueTimeout => "queue_timeout", Outage => "outage" });
label_values!(SavedBy { Sharing => "sharing", Cache => "cache", Token => "token" });
label_values!(Renewal { Renewed => "renewed", Ended => "ended" });

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BusyLabels {
    cause: Busy,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SavedLabels {
    by: SavedBy,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RenewalLabels {
    outcome: Renewal,
}

/// Buckets of waiting times in seconds: from no wait to the default `auth.queueTimeout`.
const QUEUE_BUCKETS: [f64; 9] = [0.001, 0.01, 0.05, 0.25, 1.0, 2.5, 5.0, 15.0, 30.0];

/// Metrics of authorization.
#[derive(Debug)]
pub struct AuthMetrics {
    busy: Family<BusyLabels, Counter>,
    saved: Family<SavedLabels, Counter>,
    renewals: Family<RenewalLabels, Counter>,
    /// Callbacks that wait for their turn.
    pub queued: Gauge,
    /// How long callbacks waited for their turn.
    pub queue_seconds: Histogram,
    /// Callbacks sent a second time.
    pub retries: Counter,
    /// Hosts that currently do not respond.
    pub breakers_open: Gauge,
    /// Times a host was found not to respond.
    pub breaker_opens: Counter,
}

impl AuthMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            busy: Family::default(),
            saved: Family::default(),
            renewals: Family::default(),
            queued: Gauge::default(),
            queue_seconds: Histogram::new(QUEUE_BUCKETS),
            retries: Counter::<u64, AtomicU64>::default(),
            breakers_open: Gauge::default(),
            breaker_opens: Counter::default(),
        };
        registry.register("auth_busy", "Subscribes refused with 503 to protect the application, by cause", metrics.busy.clone());
        registry.register("auth_callbacks_saved", "Subscribes decided without a callback of their own", metrics.saved.clone());
        registry.register("auth_renewals", "Grants with an expiry, by outcome", metrics.renewals.clone());
        registry.register("auth_queued", "Callbacks that wait for their turn", metrics.queued.clone());
        registry.register("auth_queue_seconds", "Time callbacks waited for their turn", metrics.queue_seconds.clone());
        registry.register("auth_retries", "Callbacks sent again after a connection failed", metrics.retries.clone());
        registry.register("auth_breakers_open", "Hosts of authHost that currently do not respond", metrics.breakers_open.clone());
        registry.register("auth_breaker_opens", "Times a host of authHost was found not to respond", metrics.breaker_opens.clone());
        for &cause in Busy::ALL {
            let _ = metrics.busy.get_or_create(&BusyLabels { cause });
        }
        for &by in SavedBy::ALL {
            let _ = metrics.saved.get_or_create(&SavedLabels { by });
        }
        for &outcome in Renewal::ALL {
            let _ = metrics.renewals.get_or_create(&RenewalLabels { outcome });
        }
        metrics
    }

    /// Counts a callback that was not sent.
    pub fn busy(&self, cause: Busy) {
        self.busy.get_or_create(&BusyLabels { cause }).inc();
    }

    /// Counts a callback that was not needed.
    pub fn saved(&self, by: SavedBy) {
        self.saved.get_or_create(&SavedLabels { by }).inc();
    }

    /// Counts a grant that was renewed or has expired.
    pub fn renewal(&self, outcome: Renewal) {
        self.renewals.get_or_create(&RenewalLabels { outcome }).inc();
    }
}
