//! What Laravel publishes to Redis.
//!
//! Input: `PSUBSCRIBE <keyPrefix>*` and messages of the form `{"event":"…","data":…,"socket":"…"}`. Output: events for
//! the [`Hub`], with the prefix cut off and not a byte of `data` touched. A lost Redis is looked for again for ever.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use rand::RngExt as _;
use redis::Msg;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cluster::questions::TOPIC;
use crate::egress::Socket;
use crate::event::{Event, SocketId, is_reserved};
use crate::hub::Hub;
use crate::metrics::{Metrics, Outcome, Source};
use crate::redis_client::Redis;

/// Time for connecting and subscribing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait after the first failure; doubled after each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait: a Redis that comes back is noticed within seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The channel that `publishPresence` writes to. What comes from it is our own, or another node's, and no event.
pub(super) const PRESENCE_UPDATES: &str = "PresenceChannelUpdated";

/// Whether events can arrive from Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisState {
    /// `subscribers.redis` is false.
    Off,
    /// Not there yet since the start.
    Connecting,
    /// Subscribed.
    Up,
    /// Lost, or never reached; with the reason.
    Lost(String),
}

/// Listens to Redis and publishes what it hears.
pub struct RedisIngress<S> {
    redis: Redis,
    key_prefix: String,
    hub: Arc<Hub<S>>,
    state: watch::Sender<RedisState>,
}

/// A message of Laravel's `RedisBroadcaster`.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    socket: Option<&'a RawValue>,
    /// In what the presence store of a node tells the others: the channel's version. Laravel sends no such key.
    #[serde(borrow, default)]
    presence: Option<&'a RawValue>,
}

/// Why a message is no event.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// It is no JSON object with an event name.
    #[error("the payload is no JSON object with an event name")]
    Malformed(#[from] serde_json::Error),
    /// Its name is one that Socket.IO clients keep for themselves.
    #[error("event name `{0}` is reserved by Socket.IO")]
    Reserved(String),
}

impl<S: Socket> RedisIngress<S> {
    /// An ingress that is not running yet.
    #[must_use]
    pub fn new(redis: Redis, key_prefix: &str, hub: Arc<Hub<S>>, state: watch::Sender<RedisState>) -> Self {
        Self { redis, key_prefix: key_prefix.to_owned(), hub, state }
    }

    /// Listens until `stop`. Messages are published in the order they come.
    pub async fn run(self, stop: CancellationToken) {
        let mut wait = FIRST_WAIT;
        loop {
            let reason = tokio::select! {
                reason = self.listen(&mut wait) => reason,
                () = stop.cancelled() => return,
            };
            self.lost(&reason);
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::select! {
                () = tokio::time::sleep(wait.mul_f64(jitter)) => {}
                () = stop.cancelled() => return,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// One connection from its beginning to its end; returns why it ended.
    async fn listen(&self, wait: &mut Duration) -> String {
        let connect = async {
            let mut pubsub = self.redis.pubsub().await?;
            pubsub.psubscribe(format!("{}*", escape_pattern(&self.key_prefix))).await?;
            Ok::<_, redis::RedisError>(pubsub)
        };
        let mut pubsub = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(pubsub)) => pubsub,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("no answer in {CONNECT_TIMEOUT:?}"),
        };
        self.up();
        *wait = FIRST_WAIT;
        let mut messages = pubsub.on_message();
        while let Some(message) = messages.next().await {
            self.take(&message);
        }
        "the connection was closed".into()
    }

    fn up(&self) {
        self.hub.metrics().redis_up.set(1);
        let before = self.state.send_replace(RedisState::Up);
        let address = self.redis.address();
        match before {
            RedisState::Lost(_) => {
                self.hub.metrics().redis_reconnects.inc();
                info!(redis = address, "Redis is back; events arrive again");
            }
            _ => debug!(redis = address, "subscribed to Redis"),
        }
        self.hub.catch_up();
    }

    /// Notes the loss, and says so once.
    fn lost(&self, reason: &str) {
        let metrics = self.hub.metrics();
        metrics.redis_up.set(0);
        let address = self.redis.address();
        let before = self.state.send_replace(RedisState::Lost(reason.to_owned()));
        match before {
            RedisState::Lost(_) => debug!(redis = address, reason, "Redis is still away"),
            RedisState::Up => {
                metrics.redis_losses.inc();
                warn!(redis = address, reason, "Redis is lost; clients stay connected, no events arrive until it is back");
            }
            RedisState::Off | RedisState::Connecting => {
                let hint = "check databaseConfig.redis (host, port, password) and that Redis runs";
                warn!(redis = address, reason, hint, "cannot reach Redis; trying again until it is there");
            }
        }
    }

    fn take(&self, message: &Msg) {
        let Some(channel) = message.get_channel_name().strip_prefix(&self.key_prefix) else {
            return;
        };
        if channel == PRESENCE_UPDATES || message.get_channel_name() == PRESENCE_UPDATES {
            return;
        }
        if channel == TOPIC && self.hub.consult(message.get_payload_bytes()) {
            return;
        }
        match message_of(channel, message.get_payload_bytes()) {
            Ok((event, version)) => {
                if !version.is_some_and(|version| self.hub.hear(&event, version)) {
                    self.hub.publish(&event, Source::Redis);
                }
            }
            Err(error) => skipped(self.hub.metrics(), Source::Redis, channel, &error),
        }
    }
}

/// Counts and logs a message that is no event.
pub(super) fn skipped(metrics: &Metrics, source: Source, channel: &str, error: &MessageError) {
    metrics.event(source, Outcome::Malformed);
    match error {
        MessageError::Malformed(cause) => debug!(channel, %cause, "skipped a message that is no event"),
        MessageError::Reserved(_) => warn!(channel, %error, "skipped an event; rename it with broadcastAs()"),
    }
}

/// Reads a message of a channel (without prefix).
///
/// # Errors
/// [`MessageError`] when it is no event.
pub fn event_of<'a>(channel: &'a str, payload: &'a [u8]) -> Result<Event<'a>, MessageError> {
    message_of(channel, payload).map(|(event, _)| event)
}

/// As [`event_of`], with the version if it is a change of a presence channel.
fn message_of<'a>(channel: &'a str, payload: &'a [u8]) -> Result<(Event<'a>, Option<u64>), MessageError> {
    let envelope: Envelope<'a> = serde_json::from_slice(payload)?;
    if is_reserved(&envelope.event) {
        return Err(MessageError::Reserved(envelope.event.into_owned()));
    }
    let socket: Option<Cow<'_, str>> = envelope.socket.and_then(|id| serde_json::from_str(id.get()).ok());
    let version = envelope.presence.and_then(|version| version.get().parse().ok());
    let event = Event {
        channel,
        name: envelope.event,
        data: envelope.data.unwrap_or(RawValue::NULL),
        except: socket.and_then(|id| SocketId::parse(&id)),
    };
    Ok((event, version))
}

/// A prefix is text, not a pattern: its glob characters stand for themselves.
fn escape_pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len());
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_its_data_to_the_byte() {
        let payload = r#"{"event":"App\\Events\\Sent","data":{"b":1.0,"a":"\u017e\/", "socket":null},"socket":"AbCd-_0123456789"}"#;
        let (event, version) = message_of("news", payload.as_bytes()).unwrap();
        assert_eq!(version, None);
        assert_eq!(event.name, "App\\Events\\Sent");
        assert_eq!(event.data.get(), r#"{"b":1.0,"a":"\u017e\/", "socket":null}"#);
        assert_eq!(event.except, SocketId::parse("AbCd-_0123456789"));
    }

    #[test]
    fn odd_sockets_leave_nobody_out() {
        for socket in ["null", "5", "{}", "\"\"", "\"constructor\""] {
            let payload = format!(r#"{{"event":"sent","socket":{socket},"more":1}}"#);
            let event = event_of("news", payload.as_bytes()).unwrap();
            assert_eq!(event.except, None, "{socket}");
            assert_eq!(event.data.get(), "null");
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for payload in ["", "5", "null", "{}", "[]", "text", r#"{"event":5}"#, r#"{"event":null}"#, "\u{1}"] {
            assert!(matches!(event_of("news", payload.as_bytes()), Err(MessageError::Malformed(_))), "{payload}");
        }
        assert!(matches!(event_of("news", b"{\"event\":\"\xff\"}"), Err(MessageError::Malformed(_))));
        assert!(matches!(event_of("news", br#"{"event":"disconnect"}"#), Err(MessageError::Reserved(_))));
    }

    #[test]
    fn deep_data_is_no_matter() {
        let payload = format!(r#"{{"event":"sent","data":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(event_of("news", payload.as_bytes()).is_ok());
    }

    #[test]
    fn a_prefix_is_taken_literally() {
        assert_eq!(escape_pattern("app[1]*_"), r"app\[1\]\*_");
    }
}
