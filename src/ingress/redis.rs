//! What Laravel publishes to Redis.
//!
//! Input: one connection to Redis, on which everything below the prefix is asked for, or the channels alone that somebody
//! here wants; see `subscriptions`. Output: events for the [`Hub`], with the prefix cut off. A lost Redis is looked for
//! again for ever.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use rand::RngExt as _;
use redis::Msg;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cluster::control::CONTROL_CHANNEL;
use crate::hub::{Hub, InterestSet, Socket};
use crate::metrics::Source;
use crate::readiness::RedisState;
use crate::redis_client::{Cause, Loss, Redis};

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod lookout;
mod message;
mod subscriptions;

pub use message::{MessageError, message_of};

pub(super) use message::{receive, without_prefix};

use lookout::Lookout;
use subscriptions::{SubscribeError, Subscriptions};

/// Wait after the first failure; doubled after each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait: a Redis that comes back is noticed within seconds.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Between two lines of the log about an outage that lasts.
const REMINDER: Duration = Duration::from_secs(5 * 60);

/// Between two signs of life of Redis, and the time for one.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The channel that `publishPresence` writes to. What comes from it is our own, or another node's, and no event.
pub(super) const PRESENCE_UPDATES: &str = "PresenceChannelUpdated";

/// Listens to Redis and publishes what it hears.
pub struct RedisIngress<S> {
    redis: Redis,
    key_prefix: String,
    hub: Arc<Hub<S>>,
    state: watch::Sender<RedisState>,
    subscriptions: Subscriptions,
    /// Where single channels are asked for, all the others are left alone.
    lookout: Option<Lookout>,
}

/// What was logged about an outage.
struct Outage {
    since: SystemTime,
    causes: Vec<Cause>,
    told: Instant,
}

impl Outage {
    /// After the first failure, which was logged.
    fn begin(cause: Cause) -> Self {
        Self { since: SystemTime::now(), causes: vec![cause], told: Instant::now() }
    }

    /// What to say about a further failure, if anything: each cause once, as a Redis that comes back and then wants a password needs a
    /// person; and now and then the rest, for a log that is read hours later.
    fn still(&mut self, cause: Cause, now: Instant) -> Option<&'static str> {
        let is_new = !self.causes.contains(&cause);
        if !is_new && now.duration_since(self.told) < REMINDER {
            return None;
        }
        self.told = now;
        if is_new {
            self.causes.push(cause);
            return Some("still no connection to Redis, for another reason than before");
        }
        Some("still no connection to Redis")
    }
}

impl<S: Socket> RedisIngress<S> {
    /// An ingress that is not running yet.
    #[must_use]
    pub fn new(redis: Redis, key_prefix: &str, hub: Arc<Hub<S>>, state: watch::Sender<RedisState>) -> Self {
        let subscriptions = Subscriptions::new(key_prefix, hub.interests().cloned(), hub.metrics().redis_subscriptions.clone());
        let lookout = if hub.interests().is_some() { None } else { Lookout::new(key_prefix) };
        Self { redis, key_prefix: key_prefix.to_owned(), hub, state, subscriptions, lookout }
    }

    /// Listens until `stop`. Messages are published in the order they come.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        stop.run_until_cancelled(this.listen_for_ever()).await;
        // Nobody is to wait for channels that are not asked for any more.
        this.subscriptions.end();
    }

    async fn listen_for_ever(self: &Arc<Self>) {
        let mut wait = FIRST_WAIT;
        let mut outage = None;
        loop {
            let loss = self.listen().await;
            if *self.state.borrow() == RedisState::Up {
                wait = FIRST_WAIT;
            }
            self.lost(loss, &mut outage);
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::time::sleep(wait.mul_f64(jitter)).await;
            wait = (wait * 2).min(MAX_BACKOFF);
        }
    }

    /// One connection from its beginning to its end; returns why it ended.
    async fn listen(self: &Arc<Self>) -> Loss {
        let (mut sink, mut messages) = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => return error.into(),
        };
        if let Some(lookout) = &self.lookout {
            lookout.begin(&mut sink).await;
        }
        let mut following = JoinSet::new();
        let mut sink = match self.subscriptions.interests() {
            None => {
                self.up();
                Some(sink)
            }
            // In a task of its own, so that who joins does not wait for events that are on their way to others.
            Some(interests) => {
                following.spawn(Arc::clone(self).follow(Arc::clone(interests), sink));
                None
            }
        };
        let hearing = async {
            let mut looks_out = self.lookout.is_some();
            while let Some(message) = messages.next().await {
                self.take(&message);
                if looks_out && let (Some(lookout), Some(sink)) = (&self.lookout, &mut sink) {
                    looks_out = !lookout.is_done(sink).await;
                }
            }
            Loss::unreachable("the connection was closed")
        };
        let loss = tokio::select! {
            loss = hearing => loss,
            loss = self.watch() => loss,
            Some(Ok(loss)) = following.join_next() => loss,
        };
        following.shutdown().await;
        loss
    }

    /// Asks Redis for a sign of life now and then; returns when there is none. One that hangs closes no connection.
    async fn watch(&self) -> Loss {
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            let mut connection = match self.redis.connect().await {
                Ok(connection) => connection,
                Err(error) => return Loss::from(&error),
            };
            loop {
                tokio::time::sleep(PING_INTERVAL).await;
                match tokio::time::timeout(PING_TIMEOUT, redis::cmd("PING").exec_async(&mut connection)).await {
                    Ok(Ok(())) => {}
                    // The connection may have been closed for itself.
                    Ok(Err(_)) => break,
                    Err(_) => return Loss::unreachable("no answer to PING"),
                }
            }
        }
    }

    async fn connect(&self) -> Result<(PubSubSink, PubSubStream), SubscribeError> {
        let (mut sink, messages) = self.redis.pubsub().await?.split();
        self.subscriptions.begin(&mut sink).await?;
        Ok((sink, messages))
    }

    /// Asks for what is wanted, for as long as that goes well; returns why not.
    async fn follow(self: Arc<Self>, interests: Arc<InterestSet>, mut sink: PubSubSink) -> Loss {
        interests.connected();
        if let Err(error) = self.subscriptions.catch_up(&interests, &mut sink).await {
            return error.into();
        }
        self.up();
        self.subscriptions.follow(&interests, &mut sink).await.into()
    }

    fn up(&self) {
        self.hub.metrics().redis_up.set(1);
        let before = self.state.send_replace(RedisState::Up);
        let address = self.redis.address();
        match before {
            RedisState::Lost(_) => {
                self.hub.metrics().redis_reconnects.inc();
                info!(redis = address, "Redis is back; events arrive again; clients that were away before start afresh");
            }
            _ if self.subscriptions.interests().is_some() => {
                let hint = "nothing arrives? `laravel-echo-server doctor --listen 30` shows what is published, and with which prefix";
                info!(
                    redis = address,
                    key_prefix = self.key_prefix,
                    hint,
                    "subscribing to single channels (subscribers.redisMode = \"exact\")"
                );
            }
            _ => debug!(redis = address, "subscribed to Redis"),
        }
        self.hub.listens_again();
    }

    /// Notes the loss, and warns about it.
    fn lost(&self, loss: Loss, outage: &mut Option<Outage>) {
        let metrics = self.hub.metrics();
        metrics.redis_up.set(0);
        self.subscriptions.end();
        let (redis, reason, hint) = (self.redis.address(), &loss.reason, self.redis.hint(loss.cause));
        match (&*self.state.borrow(), outage.as_mut()) {
            (RedisState::Lost(_), Some(outage)) => {
                let since = humantime::format_rfc3339_seconds(outage.since);
                match outage.still(loss.cause, Instant::now()) {
                    Some(text) => warn!(redis, reason, %since, hint, "{text}"),
                    None => debug!(redis, reason, "Redis is still away"),
                }
            }
            (before, _) => {
                if *before == RedisState::Up {
                    metrics.redis_losses.inc();
                    // One that restarts needs no advice.
                    let hint = (loss.cause != Cause::Unreachable).then_some(hint);
                    warn!(redis, reason, hint, "lost the connection to Redis; clients stay connected, no events arrive until it is back");
                } else {
                    warn!(redis, reason, hint, "cannot reach Redis; retrying until it answers");
                }
                *outage = Some(Outage::begin(loss.cause));
            }
        }
        self.state.send_replace(RedisState::Lost(loss));
    }

    fn take(&self, message: &Msg) {
        if self.lookout.as_ref().is_some_and(|lookout| lookout.sees(&self.hub, message, &self.key_prefix)) {
            return;
        }
        let Some(channel) = without_prefix(message.get_channel_name(), &self.key_prefix) else {
            return;
        };
        if !self.subscriptions.counts(message, channel) {
            return;
        }
        if channel == PRESENCE_UPDATES || message.get_channel_name() == PRESENCE_UPDATES {
            return;
        }
        if channel == CONTROL_CHANNEL && self.hub.handle_control(message.get_payload_bytes()) {
            return;
        }
        receive(&self.hub, Source::Redis, channel, message.get_payload_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_that_lasts_is_told_again() {
        let mut outage = Outage::begin(Cause::Unreachable);
        let start = outage.told;
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert_eq!(outage.still(Cause::Unreachable, at(4)), None);
        assert_eq!(outage.still(Cause::Unreachable, at(5)), Some("still no connection to Redis"));
        assert_eq!(outage.still(Cause::Unreachable, at(6)), None);
        assert_eq!(outage.still(Cause::NoPassword, at(7)), Some("still no connection to Redis, for another reason than before"));
        assert_eq!(outage.still(Cause::Unreachable, at(11)), None);
        assert_eq!(outage.still(Cause::NoPassword, at(12)), Some("still no connection to Redis"));
    }
}
