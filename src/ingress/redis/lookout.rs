//! [`Lookout`]: detects a wrong `keyPrefix` while no event arrives.
//!
//! Input: messages of all channels, until the first one with the prefix arrives. Output: one warning about an event without
//! the prefix, which is also reported to the hub for the dashboard. After either, the lookout ends.

use std::sync::atomic::{AtomicU32, Ordering};

use redis::Msg;
use redis::aio::PubSubSink;
use tracing::warn;

use super::{PRESENCE_UPDATES, subscriptions::ANSWER_TIMEOUT};
use crate::cluster::envelope::message_of;
use crate::hub::{Hub, Socket};

/// All channels.
const ANY: &str = "*";

/// Messages to inspect before giving up: on a Redis with much other traffic, receiving all of it costs too much.
const MAX_MESSAGES: u32 = 10_000;

/// Inspects messages outside the prefix.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    seen: AtomicU32,
}

impl Lookout {
    /// A lookout for a prefix. `None` for an empty prefix, with which all messages are received anyway.
    pub(super) fn new(key_prefix: &str) -> Option<Self> {
        (!key_prefix.is_empty()).then(Self::default)
    }

    fn is_over(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= MAX_MESSAGES
    }

    fn end(&self) {
        self.seen.store(MAX_MESSAGES, Ordering::Relaxed);
    }

    /// Subscribes to all channels. If the Redis user may not do that, the lookout ends.
    pub(super) async fn begin(&self, sink: &mut PubSubSink) {
        if !self.is_over() && !matches!(tokio::time::timeout(ANSWER_TIMEOUT, sink.psubscribe(ANY)).await, Ok(Ok(()))) {
            self.end();
        }
    }

    /// Whether the message came by the lookout's own subscription. One with the prefix ends the lookout; its other copy counts.
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

    /// Ends the lookout's subscription once it is over. Returns whether it is.
    pub(super) async fn is_done(&self, sink: &mut PubSubSink) -> bool {
        if !self.is_over() {
            return false;
        }
        // An error does not matter: a lost connection ends the subscription, too.
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, sink.punsubscribe(ANY)).await;
        true
    }
}
