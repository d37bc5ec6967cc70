//! Redis subscriptions: everything with the prefix, or only the channels that clients of this node use.
//!
//! Input: the channels that the hub wants ([`InterestSet`]). Output: commands on one connection, one at a time, so that
//! Redis ends up with the latest state.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use redis::aio::PubSubSink;
use redis::{Msg, RedisError};
use tokio::time::error::Elapsed;

use crate::channel::ChannelName;
use crate::cluster::control::CONTROL_CHANNEL;
use crate::hub::{Change, InterestSet};
use crate::redis_client::{Loss, glob, pattern};

/// How long Redis may take to answer a command.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The subscriptions of this node.
pub(super) struct Subscriptions {
    key_prefix: String,
    /// Patterns subscribed to on every connection. With `interests`, one for each of its flat patterns, in the same order.
    patterns: Vec<String>,
    /// A channel subscribed to on every connection.
    topic: Option<String>,
    interests: Option<Arc<InterestSet>>,
    /// Number of subscriptions that Redis has confirmed.
    confirmed: Gauge,
}

/// Redis did not subscribe or unsubscribe.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubscribeError {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("no answer in {ANSWER_TIMEOUT:?}")]
    Late(#[from] Elapsed),
}

impl From<SubscribeError> for Loss {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::Redis(error) => Self::from(&error),
            SubscribeError::Late(_) => Self::unreachable(error.to_string()),
        }
    }
}

impl Subscriptions {
    /// With `interests`, subscribes only to wanted channels.
    pub(super) fn new(key_prefix: &str, interests: Option<Arc<InterestSet>>, confirmed: Gauge) -> Self {
        let prefix = glob(key_prefix, &['*']);
        let (patterns, topic) = match &interests {
            None => (vec![pattern(key_prefix)], None),
            Some(interests) => {
                let patterns = interests.flat().iter().map(|flat| prefix.clone() + &glob(&flat.widened(), &[])).collect();
                // Also needed without other nodes: Redis may close idle connections (`timeout`), but not those of subscribers.
                (patterns, interests.flat_of(CONTROL_CHANNEL).is_none().then(|| format!("{key_prefix}{CONTROL_CHANNEL}")))
            }
        };
        Self { key_prefix: key_prefix.to_owned(), patterns, topic, interests, confirmed }
    }

    pub(super) fn interests(&self) -> Option<&Arc<InterestSet>> {
        self.interests.as_ref()
    }

    /// Makes the subscriptions that every new connection needs.
    pub(super) async fn begin(&self, sink: &mut PubSubSink) -> Result<(), SubscribeError> {
        let asking = async {
            if !self.patterns.is_empty() {
                sink.psubscribe(&self.patterns).await?;
            }
            if let Some(topic) = &self.topic {
                sink.subscribe(topic).await?;
            }
            Ok::<_, RedisError>(())
        };
        tokio::time::timeout(ANSWER_TIMEOUT, asking).await??;
        self.confirmed.set((self.patterns.len() + usize::from(self.topic.is_some())) as i64);
        Ok(())
    }

    /// Subscribes to all channels that are already wanted.
    pub(super) async fn catch_up(&self, interests: &InterestSet, sink: &mut PubSubSink) -> Result<(), SubscribeError> {
        loop {
            let change = interests.take();
            if change.is_empty() {
                return Ok(());
            }
            self.apply(interests, &change, sink).await?;
        }
    }

    /// Subscribes and unsubscribes as wanted channels change; returns only with an error.
    pub(super) async fn follow(&self, interests: &InterestSet, sink: &mut PubSubSink) -> SubscribeError {
        loop {
            let change = interests.next().await;
            if let Err(error) = self.apply(interests, &change, sink).await {
                return error;
            }
        }
    }

    async fn apply(&self, interests: &InterestSet, change: &Change, sink: &mut PubSubSink) -> Result<(), SubscribeError> {
        // UNSUBSCRIBE without a name would end all subscriptions.
        if !change.given_up.is_empty() {
            tokio::time::timeout(ANSWER_TIMEOUT, sink.unsubscribe(self.topics(&change.given_up))).await??;
            self.confirmed.dec_by(change.given_up.len() as i64);
        }
        if !change.wanted.is_empty() {
            tokio::time::timeout(ANSWER_TIMEOUT, sink.subscribe(self.topics(&change.wanted))).await??;
            self.confirmed.inc_by(change.wanted.len() as i64);
            interests.heard(&change.wanted);
        }
        Ok(())
    }

    fn topics(&self, channels: &[ChannelName]) -> Vec<String> {
        channels.iter().map(|channel| format!("{}{channel}", self.key_prefix)).collect()
    }

    /// Ends all subscriptions.
    pub(super) fn end(&self) {
        self.confirmed.set(0);
        if let Some(interests) = &self.interests {
            interests.lost();
        }
    }

    /// Whether to process this copy of a message. Redis sends one copy for each matching pattern, and another for a
    /// subscription to the channel by name.
    pub(super) fn counts(&self, message: &Msg, channel: &str) -> bool {
        let Some(interests) = &self.interests else { return true };
        match interests.flat_of(channel) {
            None => !message.from_pattern(),
            Some(at) => message.get_pattern::<String>().is_ok_and(|pattern| pattern == self.patterns[at]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Pattern;

    fn subscriptions(flat: &[&str]) -> Subscriptions {
        let interests = InterestSet::new(flat.iter().map(|text| Pattern::new(text)).collect());
        Subscriptions::new("app[1]*_", Some(interests), Gauge::default())
    }

    fn message(pattern: Option<&str>, channel: &str) -> Msg {
        let words = match pattern {
            Some(pattern) => vec!["pmessage", pattern, channel, "x"],
            None => vec!["message", channel, "x"],
        };
        let words = words.into_iter().map(|word| redis::Value::BulkString(word.into())).collect();
        Msg::from_owned_value(redis::Value::Array(words)).unwrap()
    }

    #[test]
    fn a_prefix_is_taken_literally_and_a_star_in_flat_channels_is_not() {
        assert_eq!(Subscriptions::new("app[1]*_", None, Gauge::default()).patterns, [r"app\[1\]\*_*"]);
        let exact = subscriptions(&["news.*", "what?"]);
        assert_eq!(exact.patterns, [r"app\[1\]\*_news.*", r"app\[1\]\*_what\?"]);
        assert_eq!(exact.topic.as_deref(), Some("app[1]*_laravel-echo:nodes"));
        assert_eq!(subscriptions(&["laravel*"]).topic, None, "the pattern covers it");
    }

    #[test]
    fn a_message_received_twice_counts_once() {
        let exact = subscriptions(&["news.*", "*.sport"]);
        let [first, second] = [&exact.patterns[0], &exact.patterns[1]];
        for (pattern, channel, counts) in [
            (None, "orders", true),
            (Some(first), "news.sport", true),
            (Some(second), "news.sport", false),
            (None, "news.sport", false),
            (Some(second), "other.sport", true),
        ] {
            let message = message(pattern.map(String::as_str), channel);
            assert_eq!(exact.counts(&message, channel), counts, "{pattern:?} {channel}");
        }
    }
}
