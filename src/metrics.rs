//! Every metric: name, labels and unit. All names start with `laravel_echo_`.
//!
//! Input: other modules count here, each at the place where the counted thing happens. Output: [`Metrics::render`],
//! Prometheus text for `/metrics`. Labels are bounded sets: never a channel, user or socket id.

use std::array::from_fn;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::channel::ChannelKind;

pub(crate) mod auth;
mod labels;
pub(crate) mod webhooks;

use auth::AuthMetrics;
use labels::{BuildLabels, CallbackLabels, CauseLabels, EventLabels, KindLabels, RecoveredLabels};
use webhooks::WebhookMetrics;

pub use labels::{Callback, ConnectionLabels, Outcome, Recovered, Refusal, Source};

/// What is kept for clients that reconnect.
#[derive(Debug, Default)]
pub struct RecoveryLog {
    /// Events.
    pub events: Gauge,
    /// Their bytes.
    pub bytes: Gauge,
    /// Seconds since the oldest of them was sent.
    pub age: Gauge<f64, AtomicU64>,
    /// Sessions whose connection broke.
    pub sessions: Gauge,
}

/// Counters at one moment, each since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that were sent to at least one socket.
    pub delivered_events: u64,
    /// Events without any subscriber.
    pub unheard_events: u64,
    /// Messages that are not valid events.
    pub malformed_events: u64,
    /// Events of any outcome received from Redis.
    pub redis_events: u64,
    /// Messages put into the queues of clients by events.
    pub deliveries: u64,
    /// Whispers relayed.
    pub whispers: u64,
    /// Sockets that have connected.
    pub connects: u64,
    /// Refusals of any cause.
    pub refusals: u64,
    /// Callbacks that have ended.
    pub callbacks: u64,
    /// Their total time in microseconds.
    pub callback_micros: u64,
    /// Clients closed because they did not keep up.
    pub slow_clients: u64,
    /// Times the connection to Redis was lost.
    pub redis_losses: u64,
    /// Clients that resumed their session.
    pub recovered: u64,
    /// Clients that reconnected after some of the events they missed had been dropped.
    pub gaps: u64,
}

/// All metrics of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: Family<ConnectionLabels, Gauge>,
    subscriptions: Family<KindLabels, Gauge>,
    /// By source and outcome; looked up once, because they are incremented often.
    events: [[Counter; Outcome::ALL.len()]; Source::ALL.len()],
    refusals: Family<CauseLabels, Counter>,
    callbacks: Family<CallbackLabels, Counter>,
    recoveries: Family<RecoveredLabels, Counter>,
    /// Missed events sent to clients that resumed their session.
    pub replayed: Counter,
    /// What is kept for clients that reconnect; updated before it is rendered.
    pub recovery_log: RecoveryLog,
    /// Sockets that have connected.
    pub connects: Counter,
    /// Messages put into clients' queues by events.
    pub deliveries: Counter,
    /// Whispers relayed.
    pub whispers: Counter,
    /// Clients closed because they did not keep up.
    pub slow_clients: Counter,
    /// Time of one callback.
    callback_seconds: Histogram,
    /// Callbacks that have ended, and their total time in microseconds.
    callback_sum: [AtomicU64; 2],
    /// Callbacks in progress.
    pub callbacks_in_flight: Gauge,
    /// 1 while events can arrive from Redis.
    pub redis_up: Gauge,
    /// Channels and patterns that Redis has confirmed.
    pub redis_subscriptions: Gauge,
    /// Times the connection to Redis was lost.
    pub redis_losses: Counter,
    /// Times the connection to Redis was restored.
    pub redis_reconnects: Counter,
    presence_members: Gauge,
    /// Metrics of authorization.
    pub auth: AuthMetrics,
    /// Metrics of webhooks.
    pub webhooks: WebhookMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Buckets of callback times in seconds: from a fast PHP-FPM answer to the default timeout.
const CALLBACK_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

impl Metrics {
    /// A new set of metrics, all zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("laravel_echo");
        // A gauge instead of `info`, which older parsers do not support.
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "Version of the server", build);
        let auth = AuthMetrics::new(&mut registry);
        let webhooks = WebhookMetrics::new(&mut registry);
        // Create all label values at start, so that alerts can take a rate of series that were never incremented.
        let events = Family::<EventLabels, Counter>::default();
        let counter = |source, outcome| events.get_or_create(&EventLabels { source, outcome }).clone();
        let counters = from_fn(|source| from_fn(|outcome| counter(Source::ALL[source], Outcome::ALL[outcome])));
        let metrics = Self {
            auth,
            webhooks,
            connections: Family::default(),
            subscriptions: Family::default(),
            events: counters,
            refusals: Family::default(),
            callbacks: Family::default(),
            recoveries: Family::default(),
            replayed: Counter::default(),
            recovery_log: RecoveryLog::default(),
            connects: Counter::<u64, AtomicU64>::default(),
            deliveries: Counter::default(),
            whispers: Counter::default(),
            slow_clients: Counter::default(),
            callback_seconds: Histogram::new(CALLBACK_BUCKETS),
            callback_sum: Default::default(),
            callbacks_in_flight: Gauge::default(),
            redis_up: Gauge::default(),
            redis_subscriptions: Gauge::default(),
            redis_losses: Counter::default(),
            redis_reconnects: Counter::default(),
            presence_members: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("connections", "Connected sockets by Engine.IO version and transport", metrics.connections.clone());
        registry.register("connects", "Sockets that have connected", metrics.connects.clone());
        registry.register("subscriptions", "Subscriptions of sockets to channels by kind of channel", metrics.subscriptions.clone());
        registry.register("events_received", "Events received by source and outcome", events);
        registry.register("deliveries", "Messages put into the queues of clients by events", metrics.deliveries.clone());
        registry.register("whispers", "Client events relayed", metrics.whispers.clone());
        registry.register("refusals", "Refused requests of clients and applications, by cause", metrics.refusals.clone());
        registry.register("auth_callbacks", "Callbacks to the Laravel application by outcome", metrics.callbacks.clone());
        registry.register("auth_callback_seconds", "Time of a callback to the Laravel application", metrics.callback_seconds.clone());
        registry.register("auth_callbacks_in_flight", "Callbacks in progress", metrics.callbacks_in_flight.clone());
        registry.register("recoveries", "Attempts of clients to resume their session, by outcome", metrics.recoveries.clone());
        registry.register("replayed", "Missed events sent to clients that resumed their session", metrics.replayed.clone());
        let log = &metrics.recovery_log;
        registry.register("recovery_log_events", "Events kept for clients that reconnect", log.events.clone());
        registry.register("recovery_log_bytes", "Bytes of the events kept for clients that reconnect", log.bytes.clone());
        registry.register("recovery_log_age_seconds", "Age of the oldest event kept for clients that reconnect", log.age.clone());
        registry.register("recovery_sessions", "Sessions that a disconnected client may resume", log.sessions.clone());
        registry.register("redis_up", "1 while events can arrive from Redis", metrics.redis_up.clone());
        registry.register("redis_subscriptions", "Channels and patterns subscribed to at Redis", metrics.redis_subscriptions.clone());
        registry.register("redis_losses", "Times the connection to Redis was lost", metrics.redis_losses.clone());
        registry.register("redis_reconnects", "Times the connection to Redis was restored", metrics.redis_reconnects.clone());
        registry.register("slow_clients_closed", "Clients closed because they did not keep up", metrics.slow_clients.clone());
        registry.register("presence_members", "Presence memberships of this node's sockets", metrics.presence_members.clone());
        for &outcome in Recovered::ALL {
            let _ = metrics.recoveries.get_or_create(&RecoveredLabels { outcome });
        }
        for &outcome in Callback::ALL {
            let _ = metrics.callbacks.get_or_create(&CallbackLabels { outcome });
        }
        for &cause in Refusal::ALL {
            let _ = metrics.refusals.get_or_create(&CauseLabels { cause });
        }
        for kind in [ChannelKind::Public, ChannelKind::Private, ChannelKind::Presence] {
            let _ = metrics.subscriptions.get_or_create(&KindLabels { kind: kind.as_str() });
        }
        Self { registry, ..metrics }
    }

    /// Counts an event by its source and outcome.
    pub fn event(&self, source: Source, outcome: Outcome) {
        self.events[source as usize][outcome as usize].inc();
    }

    /// Events received so far, of any outcome.
    #[must_use]
    pub fn events_received(&self) -> u64 {
        self.events.iter().flatten().map(Counter::get).sum()
    }

    /// Counts a refusal.
    pub fn refusal(&self, cause: Refusal) {
        self.refusals.get_or_create(&CauseLabels { cause }).inc();
    }

    /// Counts a client's attempt to resume its session.
    pub fn recovered(&self, outcome: Recovered) {
        self.recoveries.get_or_create(&RecoveredLabels { outcome }).inc();
    }

    /// Counts a callback.
    pub fn callback(&self, outcome: Callback) {
        self.callbacks.get_or_create(&CallbackLabels { outcome }).inc();
    }

    /// Records the duration of a callback that has ended.
    pub fn callback_took(&self, time: Duration) {
        self.callback_seconds.observe(time.as_secs_f64());
        self.callback_sum[0].fetch_add(1, Ordering::Relaxed);
        self.callback_sum[1].fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The current values of the counters that the dashboard shows.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let events = |outcome: Outcome| self.events.iter().map(|counters| counters[outcome as usize].get()).sum();
        let from = |source: Source| self.events[source as usize].iter().map(Counter::get).sum();
        let refusals = Refusal::ALL.iter().map(|&cause| self.refusals.get_or_create(&CauseLabels { cause }).get()).sum();
        let returned = |outcome| self.recoveries.get_or_create(&RecoveredLabels { outcome }).get();
        Totals {
            delivered_events: events(Outcome::Delivered),
            unheard_events: events(Outcome::NoSubscribers),
            malformed_events: events(Outcome::Malformed),
            redis_events: from(Source::Redis),
            deliveries: self.deliveries.get(),
            whispers: self.whispers.get(),
            connects: self.connects.get(),
            refusals,
            callbacks: self.callback_sum[0].load(Ordering::Relaxed),
            callback_micros: self.callback_sum[1].load(Ordering::Relaxed),
            slow_clients: self.slow_clients.get(),
            redis_losses: self.redis_losses.get(),
            recovered: returned(Recovered::Recovered),
            gaps: returned(Recovered::Gap),
        }
    }

    /// A subscription began.
    pub fn subscribed(&self, kind: ChannelKind) {
        if kind == ChannelKind::Presence {
            self.presence_members.inc();
        }
        self.subscriptions.get_or_create(&KindLabels { kind: kind.as_str() }).inc();
    }

    /// A subscription ended.
    pub fn unsubscribed(&self, kind: ChannelKind) {
        if kind == ChannelKind::Presence {
            self.presence_members.dec();
        }
        self.subscriptions.get_or_create(&KindLabels { kind: kind.as_str() }).dec();
    }

    /// Prometheus text (OpenMetrics 1.0). `connections` are passed in instead of counted, as a client's transport can change.
    #[must_use]
    pub fn render(&self, connections: impl Iterator<Item = (ConnectionLabels, i64)>) -> String {
        let connections: HashMap<_, _> = connections.collect();
        for (engine, transport) in [("3", "polling"), ("3", "websocket"), ("4", "polling"), ("4", "websocket"), ("pusher", "websocket")] {
            let labels = ConnectionLabels { engine, transport };
            let count = connections.get(&labels).copied().unwrap_or_default();
            self.connections.get_or_create(&labels).set(count);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a String cannot fail");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_under_their_labels() {
        let metrics = Metrics::new();
        for (index, &source) in Source::ALL.iter().enumerate() {
            for (nth, &outcome) in Outcome::ALL.iter().enumerate() {
                (0..index * 10 + nth).for_each(|_| metrics.event(source, outcome));
            }
        }
        assert_eq!(metrics.events_received(), 3 * (1 + 2) + 3 * (10 + 20));
        let text = metrics.render(std::iter::empty());
        for (source, tens) in [("redis", 0), ("http", 1), ("redis_server", 2)] {
            for (outcome, ones) in [("delivered", 0), ("no_subscribers", 1), ("malformed", 2)] {
                let line = format!("laravel_echo_events_received_total{{source=\"{source}\",outcome=\"{outcome}\"}} {}", tens * 10 + ones);
                assert!(text.lines().any(|seen| seen == line), "{line} in {text}");
            }
        }
    }
}
