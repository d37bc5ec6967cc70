//! The labels of metrics, and their values: bounded sets, of which each series exists from the start.
//!
//! Input: what other modules count. Output: labels as Prometheus writes them; the dashboard shows the same words.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

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

/// The outcome of a received event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was sent to at least one socket, or dropped for some that do not keep up.
    Delivered,
    /// No socket was subscribed to its channel.
    NoSubscribers,
    /// It could not be parsed, or its name is reserved.
    Malformed,
}

/// Why a request of a client or an application was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A message that cannot be parsed or is not allowed at this point.
    Malformed,
    /// A channel name over `limits.channelName`.
    ChannelName,
    /// More channels than `limits.subscriptions`.
    Subscriptions,
    /// More subscribes per second than `limits.subscribesPerSecond`.
    SubscribeRate,
    /// Headers of a subscribe (Echo's `auth.headers`) that are too large.
    Headers,
    /// Laravel refused, or could not be reached.
    Unauthorized,
    /// More users in a presence channel than `channels[].maxMembers`.
    Members,
    /// A socket that joins a large presence channel again and again, maybe as one user after another.
    Users,
    /// A whisper that breaks the rules: event name, channel kind or membership.
    Whisper,
    /// A whisper over `limits.whisperBytes`.
    WhisperSize,
    /// More whispers per second than `limits.whispersPerSecond`.
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

/// The outcome of a client's attempt to resume its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recovered {
    /// It got all events that it missed.
    Recovered,
    /// Its session is unknown, or was ended on purpose.
    Unknown,
    /// Some of the events that it missed are no longer kept.
    Gap,
}

impl Refusal {
    /// The setting to raise, if the cause is a limit on what clients do.
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
    /// The application responded with a refusal or an error.
    Refused,
    /// The application did not respond.
    Unreachable,
}

/// Defines the label values of an enum's variants.
macro_rules! label_values {
    ($type:ident { $($variant:ident => $value:literal),+ $(,)? }) => {
        impl $type {
            /// All values, so that each series exists from the start.
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];

            /// The label value.
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

pub(super) use label_values;

label_values!(Source { Redis => "redis", Http => "http", RedisServer => "redis_server" });
label_values!(Outcome { Delivered => "delivered", NoSubscribers => "no_subscribers", Malformed => "malformed" });
label_values!(Refusal {
    Malformed => "malformed",
    ChannelName => "channel_name",
    Subscriptions => "subscriptions",
    SubscribeRate => "subscribe_rate",
    Headers => "headers",
    Unauthorized => "unauthorized",
    Members => "members",
    Users => "users",
    Whisper => "whisper",
    WhisperSize => "whisper_size",
    WhisperRate => "whisper_rate",
    WhisperQueue => "whisper_queue",
    Origin => "origin",
    Connections => "connections",
    ConnectionsPerIp => "connections_per_ip",
    Draining => "draining",
    ApiRate => "api_rate",
    MessageSize => "message_size",
});
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
pub(super) struct EventLabels {
    pub(super) source: Source,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BuildLabels {
    pub(super) version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabels {
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CauseLabels {
    pub(super) cause: Refusal,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RecoveredLabels {
    pub(super) outcome: Recovered,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallbackLabels {
    pub(super) outcome: Callback,
}
