//! Metrics of webhooks. Input: [`crate::webhooks`] counts here. Output: a part of [`super::Metrics`].

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of webhooks.
#[derive(Debug, Default)]
pub struct WebhookMetrics {
    /// Events that a target has accepted.
    pub sent: Counter,
    /// Events that were dropped.
    pub dropped: Counter,
    /// Deliveries that failed; most are retried.
    pub failed: Counter,
    /// Events waiting for delivery.
    pub waiting: Gauge,
}

impl WebhookMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("webhook_events_sent", "Webhook events that a target has accepted", metrics.sent.clone());
        registry.register("webhook_events_dropped", "Webhook events that were dropped", metrics.dropped.clone());
        registry.register("webhook_deliveries_failed", "Webhook deliveries that failed and may be retried", metrics.failed.clone());
        registry.register("webhook_events_waiting", "Webhook events waiting on this node for delivery", metrics.waiting.clone());
        metrics
    }
}
