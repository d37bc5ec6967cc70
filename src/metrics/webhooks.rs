//! Metrics of webhooks. Input: [`crate::webhooks`] counts here. Output: a part of [`super::Metrics`].

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of what the application is told.
#[derive(Debug, Default)]
pub struct WebhookMetrics {
    /// Events that a target has taken.
    pub sent: Counter,
    /// Events that were given up.
    pub dropped: Counter,
    /// Deliveries that failed; most are tried again.
    pub failed: Counter,
    /// Events that wait for their delivery.
    pub waiting: Gauge,
}

impl WebhookMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("webhook_events_sent", "Events of webhooks that a target has taken", metrics.sent.clone());
        registry.register("webhook_events_dropped", "Events of webhooks that were given up", metrics.dropped.clone());
        registry.register("webhook_deliveries_failed", "Deliveries of webhooks that failed and may be tried again", metrics.failed.clone());
        registry.register(
            "webhook_events_waiting",
            "Events of webhooks that wait on this node for their delivery",
            metrics.waiting.clone(),
        );
        metrics
    }
}
