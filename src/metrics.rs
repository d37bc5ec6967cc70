//! Every metric: name, labels and unit. All names start with `laravel_echo_`.
//!
//! Input: the parts that do the work count here, each in the place where the thing counted happens. Output:
//! [`Metrics::render`], Prometheus text for `/metrics`. Labels are bounded sets: never a channel, user or socket id.

use std::array::from_fn;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::channel::ChannelKind;

pub(crate) mod auth;
pub(crate) mod webhooks;

use auth::AuthMetrics;
use webhooks::WebhookMetrics;

/// Where an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Redis `PUBLISH`.
    Redis,
    /// The HTTP API.
    Http,
    /// The built-in Redis endpoint.
    RedisServer,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It went to at least one socket.
    Delivered,
    /// Nobody was subscribed.
    NoSubscribers,
    /// It could not be read, or its name is reserved.
    Malformed,
}

/// Why something a client asked for was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A message that makes no sense.
    Malformed,
    /// A channel name over `limits.channelName`.
    ChannelName,
    /// More channels than `limits.subscriptions`.
    Subscriptions,
    /// Faster than `limits.subscribesPerSecond`.
    SubscribeRate,
    /// Headers of a subscribe (Echo's `auth.headers`) that are too large.
    Headers,
    /// Laravel said no, or could not be asked.
    Unauthorized,
    /// More users in a presence channel than `channels[].maxMembers`.
    Members,
    /// A whisper that breaks the rules: event name, channel kind or membership.
    Whisper,
    /// A whisper over `limits.whisperBytes`.
    WhisperSize,
    /// Faster than `limits.whispersPerSecond`.
    WhisperRate,
    /// A whisper for which the queue to the other nodes had no room.
    WhisperQueue,
    /// A page whose origin is not in `allowedOrigins`.
    Origin,
    /// More clients than `limits.connections`.
    Connections,
    /// More clients of one address than `limits.connectionsPerIp`.
    ConnectionsPerIp,
    /// The server is stopping.
    Draining,
    /// More requests to the HTTP API than `limits.apiRequestsPerSecond`.
    ApiRate,
    /// A message over `socketio.maxHttpBufferSize`.
    MessageSize,
}

/// What became of a client that came back to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recovered {
    /// It has what it missed.
    Recovered,
    /// Its session is not known, or was ended on purpose.
    Unknown,
    /// Some of what it missed is not kept any more.
    Gap,
}

impl Refusal {
    /// The setting to raise, for what keeps a client's wish back.
    #[must_use]
    pub const fn limit(self) -> Option<&'static str> {
        match self {
            Self::ChannelName => Some("limits.channelName"),
            Self::Subscriptions => Some("limits.subscriptions"),
            Self::SubscribeRate => Some("limits.subscribesPerSecond"),
            Self::Members => Some("channels[].maxMembers"),
            Self::WhisperSize => Some("limits.whisperBytes"),
            Self::WhisperRate => Some("limits.whispersPerSecond"),
            _ => None,
        }
    }
}

/// How a callback to the Laravel application ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Callback {
    /// The subscription was granted.
    Granted,
    /// The application answered, and said no.
    Refused,
    /// The application did not answer.
    Unreachable,
}

/// Gives an enum the label values of its variants.
macro_rules! label_values {
    ($type:ident { $($variant:ident => $value:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, so that each can be seen from the start.
            const ALL: &[Self] = &[$(Self::$variant),+];

            /// The value of its label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value),+ }
            }
        }

        impl EncodeLabelValue for $type {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    };
}

use label_values;

label_values!(Source { Redis => "redis", Http => "http", RedisServer => "redis_server" });
label_values!(Outcome { Delivered => "delivered", NoSubscribers => "no_subscribers", Malformed => "malformed" });
label_values!(Refusal { Malformed => "malformed", ChannelName => "channel_name", Subscriptions => "subscriptions", SubscribeRate => "subscribe_rate", Headers => "headers", Unauthorized => "unauthorized", Members => "members", Whisper => "whisper", WhisperSize => "whisper_size", WhisperRate => "whisper_rate", WhisperQueue => "whisper_queue", Origin => "origin", Connections => "connections", ConnectionsPerIp => "connections_per_ip", Draining => "draining", ApiRate => "api_rate", MessageSize => "message_size" });
label_values!(Recovered { Recovered => "recovered", Unknown => "unknown", Gap => "gap" });
label_values!(Callback { Granted => "granted", Refused => "refused", Unreachable => "unreachable" });

/// Labels of `laravel_echo_connections`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabels {
    /// Engine.IO version: `3` (socket.io-client 1 and 2) or `4` (3 and 4); `pusher` for Pusher's protocol.
    pub engine: &'static str,
    /// `polling` or `websocket`.
    pub transport: &'static str,
}

/// Labels of `laravel_echo_events_received_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    source: Source,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: Refusal,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecoveredLabels {
    outcome: Recovered,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallbackLabels {
    outcome: Callback,
}

/// What is kept for clients that come back.
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
    /// Events that went to a socket.
    pub delivered_events: u64,
    /// Events that found nobody.
    pub unheard_events: u64,
    /// Messages that are no events.
    pub malformed_events: u64,
    /// Events of any outcome that came from Redis.
    pub redis_events: u64,
    /// Messages put into the queues of clients by events.
    pub deliveries: u64,
    /// Whispers relayed.
    pub whispers: u64,
    /// Sockets connected so far.
    pub connects: u64,
    /// Things not done, for whatever cause.
    pub refusals: u64,
    /// Callbacks that have ended.
    pub callbacks: u64,
    /// What they took together, in microseconds.
    pub callback_micros: u64,
    /// Clients closed because they did not keep up.
    pub slow_clients: u64,
    /// Times Redis was lost.
    pub redis_losses: u64,
    /// Clients that came back to their session.
    pub recovered: u64,
    /// Clients that came back, and for which not all that they missed was kept.
    pub gaps: u64,
}

/// All metrics of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: Family<ConnectionLabels, Gauge>,
    subscriptions: Family<KindLabels, Gauge>,
    /// By source and outcome: looked up once, for they are counted often.
    events: [[Counter; Outcome::ALL.len()]; Source::ALL.len()],
    refusals: Family<CauseLabels, Counter>,
    callbacks: Family<CallbackLabels, Counter>,
    recoveries: Family<RecoveredLabels, Counter>,
    /// Events sent again to clients that came back.
    pub replayed: Counter,
    /// What is kept for clients that come back; set when it is read.
    pub recovery_log: RecoveryLog,
    /// Sockets connected so far.
    pub connects: Counter,
    /// Messages put into clients' queues by events.
    pub deliveries: Counter,
    /// Whispers relayed.
    pub whispers: Counter,
    /// Clients closed because they did not keep up.
    pub slow_clients: Counter,
    /// Time of one callback.
    callback_seconds: Histogram,
    /// Callbacks that have ended, and the microseconds that they took together.
    callback_sum: [AtomicU64; 2],
    /// Callbacks under way.
    pub callbacks_in_flight: Gauge,
    /// 1 while events can arrive from Redis.
    pub redis_up: Gauge,
    /// Channels and patterns that Redis has confirmed.
    pub redis_subscriptions: Gauge,
    /// Times Redis was lost.
    pub redis_losses: Counter,
    /// Times Redis was there again.
    pub redis_reconnects: Counter,
    presence_members: Gauge,
    /// The way to the application.
    pub auth: AuthMetrics,
    /// What the application is told.
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
    /// A fresh set, all zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("laravel_echo");
        // A gauge and no `info`, which older readers do not know.
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "Version of the server", build);
        let auth = AuthMetrics::new(&mut registry);
        let webhooks = WebhookMetrics::new(&mut registry);
        // Label values that alerts are written on exist from the start, so that a rate can be taken of them.
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
        registry.register("connects", "Sockets connected so far", metrics.connects.clone());
        registry.register("subscriptions", "Subscriptions of sockets to channels by kind of channel", metrics.subscriptions.clone());
        registry.register("events_received", "Events received by source and outcome", events);
        registry.register("deliveries", "Messages put into the queues of clients by events", metrics.deliveries.clone());
        registry.register("whispers", "Client events relayed", metrics.whispers.clone());
        registry.register("refusals", "Requests of clients and applications that were not done, by cause", metrics.refusals.clone());
        registry.register("auth_callbacks", "Callbacks to the Laravel application by outcome", metrics.callbacks.clone());
        registry.register("auth_callback_seconds", "Time of a callback to the Laravel application", metrics.callback_seconds.clone());
        registry.register("auth_callbacks_in_flight", "Callbacks under way", metrics.callbacks_in_flight.clone());
        registry.register("recoveries", "Clients that came back to their session, by outcome", metrics.recoveries.clone());
        registry.register("replayed", "Events sent to clients that came back, which they had missed", metrics.replayed.clone());
        let log = &metrics.recovery_log;
        registry.register("recovery_log_events", "Events kept for clients that come back", log.events.clone());
        registry.register("recovery_log_bytes", "Bytes of the events kept for clients that come back", log.bytes.clone());
        registry.register("recovery_log_age_seconds", "Age of the oldest event kept for clients that come back", log.age.clone());
        registry.register("recovery_sessions", "Sessions whose client may come back", log.sessions.clone());
        registry.register("redis_up", "1 while events can arrive from Redis", metrics.redis_up.clone());
        registry.register("redis_subscriptions", "Channels and patterns subscribed to at Redis", metrics.redis_subscriptions.clone());
        registry.register("redis_losses", "Times the connection to Redis was lost", metrics.redis_losses.clone());
        registry.register("redis_reconnects", "Times Redis was there again after it was lost", metrics.redis_reconnects.clone());
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

    /// Counts an event by where it came from and what became of it.
    pub fn event(&self, source: Source, outcome: Outcome) {
        self.events[source as usize][outcome as usize].inc();
    }

    /// Events received so far, whatever became of them.
    #[must_use]
    pub fn events_received(&self) -> u64 {
        self.events.iter().flatten().map(Counter::get).sum()
    }

    /// Counts something that was not done for a client.
    pub fn refusal(&self, cause: Refusal) {
        self.refusals.get_or_create(&CauseLabels { cause }).inc();
    }

    /// Counts a client that came back.
    pub fn recovered(&self, outcome: Recovered) {
        self.recoveries.get_or_create(&RecoveredLabels { outcome }).inc();
    }

    /// Counts a callback.
    pub fn callback(&self, outcome: Callback) {
        self.callbacks.get_or_create(&CallbackLabels { outcome }).inc();
    }

    /// A callback has ended.
    pub fn callback_took(&self, time: Duration) {
        self.callback_seconds.observe(time.as_secs_f64());
        self.callback_sum[0].fetch_add(1, Ordering::Relaxed);
        self.callback_sum[1].fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How far the counters are that the dashboard shows.
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

    /// Prometheus text (OpenMetrics 1.0). `connections` are counted now: a client's transport changes when it upgrades.
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
