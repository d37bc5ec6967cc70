//! [`Lookout`]: a wrong `keyPrefix` is seen while nothing arrives yet.
//!
//! Input: what is published to any channel, until the first message with the prefix comes. Output: one warning about an event
//! without the prefix, which the hub is told of for the dashboard, and nothing is looked out for any more.

use std::sync::atomic::{AtomicU32, Ordering};

use redis::Msg;
use redis::aio::PubSubSink;
use tracing::warn;

use super::message::message_of;
use super::{PRESENCE_UPDATES, subscriptions::ANSWER_TIMEOUT};
use crate::hub::{Hub, Socket};

/// All channels.
const ANY: &str = "*";

/// Messages of other kinds that are looked at: on a Redis with much else, the outlook is not worth its traffic.
const MAX_MESSAGES: u32 = 10_000;

/// Looks at what comes outside of the prefix.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    seen: AtomicU32,
}

impl Lookout {
    /// For a prefix, with which messages of other channels are not heard. `None` without one: everything is heard.
    pub(super) fn new(key_prefix: &str) -> Option<Self> {
        (!key_prefix.is_empty()).then(Self::default)
    }

    fn is_over(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= MAX_MESSAGES
    }

    fn end(&self) {
        self.seen.store(MAX_MESSAGES, Ordering::Relaxed);
    }

    /// Asks for all channels. A user of Redis who may not hear them makes do without.
    pub(super) async fn begin(&self, sink: &mut PubSubSink) {
        if !self.is_over() && !matches!(tokio::time::timeout(ANSWER_TIMEOUT, sink.psubscribe(ANY)).await, Ok(Ok(()))) {
            self.end();
        }
    }

    /// Whether the message has come for the lookout's sake. One with the prefix, whose other copy counts, ends it.
    pub(super) fn sees<S: Socket>(&self, hub: &Hub<S>, message: &Msg, key_prefix: &str) -> bool {
        if !message.get_pattern::<String>().is_ok_and(|pattern| pattern == ANY) {
            return false;
        }
        let channel = message.get_channel_name();
        if channel.starts_with(key_prefix) {
            self.end();
        } else if !self.is_over() {
            self.seen.fetch_add(1, Ordering::Relaxed);
            if channel != PRESENCE_UPDATES && message_of(channel, message.get_payload_bytes()).is_ok() {
                let hint = "if it is this application's, keyPrefix is not Laravel's prefix: `laravel-echo-server doctor --listen 30` names the right one";
                warn!(channel, key_prefix, hint, "an event was published outside of databaseConfig.redis.keyPrefix, and reaches no client");
                hub.saw_outside_prefix(channel);
                self.end();
            }
        }
        true
    }

    /// Stops asking for all channels once there is nothing to look out for. Returns whether that is so.
    pub(super) async fn is_done(&self, sink: &mut PubSubSink) -> bool {
        if !self.is_over() {
            return false;
        }
        // A connection that is lost brings nothing more, either.
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, sink.punsubscribe(ANY)).await;
        true
    }
}
