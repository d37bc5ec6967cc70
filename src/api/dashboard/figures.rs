//! [`Figures`]: one sample of the metrics per second, for ten minutes of small graphs.
//!
//! Input: the hub and its metrics. Output: [`Sample`]s. Each costs about fifty atomic loads, whether or not a page is open.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::status::memory_usage;
use crate::client::Client;
use crate::clock::since_1970;
use crate::hub::Hub;
use crate::metrics::Totals;

/// Number of samples kept: one per second.
const KEPT: usize = 600;

/// Counting clients by protocol visits every client, so it is done no more often than this.
const BREAKDOWN_LASTS: Duration = Duration::from_secs(5);

/// Column names of a [`Sample`], in order; all except `connections` and `memory` count one second.
pub(super) const COLUMNS: [&str; 9] =
    ["connections", "delivered", "unheard", "deliveries", "whispers", "refusals", "callbacks", "latency", "memory"];

/// One second. `latency` is the mean duration of its callbacks in milliseconds, `memory` is in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    /// Seconds since 1970.
    pub(super) at: u64,
    values: [u64; COLUMNS.len()],
}

/// The last ten minutes.
#[derive(Default)]
pub(super) struct Figures(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    before: Totals,
    samples: VecDeque<Sample>,
    breakdown: Option<(Instant, Value)>,
}

impl Figures {
    /// Records a sample.
    pub(super) fn sample(&self, hub: &Hub<Client>) {
        let now = hub.metrics().totals();
        let memory = memory_usage().map_or(0, |usage| usage.rss);
        let connections = hub.connections() as u64;
        let mut inner = self.0.lock();
        let before = std::mem::replace(&mut inner.before, now);
        let since = |counter: fn(&Totals) -> u64| counter(&now).saturating_sub(counter(&before));
        let callbacks = since(|totals| totals.callbacks);
        let latency = since(|totals| totals.callback_micros).checked_div(callbacks).unwrap_or_default() / 1000;
        let values = [
            connections,
            since(|totals| totals.delivered_events),
            since(|totals| totals.unheard_events),
            since(|totals| totals.deliveries),
            since(|totals| totals.whispers),
            since(|totals| totals.refusals),
            callbacks,
            latency,
            memory,
        ];
        if inner.samples.len() >= KEPT {
            inner.samples.pop_front();
        }
        let at = since_1970().as_secs();
        inner.samples.push_back(Sample { at, values });
    }

    /// Samples after this second, oldest first.
    pub(super) fn after(&self, at: u64) -> Vec<Sample> {
        let inner = self.0.lock();
        let newest = inner.samples.iter().rev().take_while(|sample| sample.at > at);
        let mut samples: Vec<_> = newest.copied().collect();
        samples.reverse();
        samples
    }

    /// Connected sockets by protocol and transport: `[{"engine":"4","transport":"websocket","count":3}]`.
    pub(super) fn breakdown(&self, hub: &Hub<Client>) -> Value {
        let mut inner = self.0.lock();
        if let Some((_, known)) = inner.breakdown.as_ref().filter(|(when, _)| when.elapsed() < BREAKDOWN_LASTS) {
            return known.clone();
        }
        let mut counts = HashMap::new();
        hub.each_socket(|socket| *counts.entry(socket.labels()).or_insert(0_u64) += 1);
        let mut rows: Vec<_> = counts.into_iter().collect();
        rows.sort_unstable_by_key(|(labels, count)| (std::cmp::Reverse(*count), labels.engine, labels.transport));
        let row = |(labels, count): (crate::metrics::ConnectionLabels, u64)| json!({ "engine": labels.engine, "transport": labels.transport, "count": count });
        let breakdown = Value::Array(rows.into_iter().map(row).collect());
        inner.breakdown = Some((Instant::now(), breakdown.clone()));
        breakdown
    }
}
