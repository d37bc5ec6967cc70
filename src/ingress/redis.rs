//! Events that Laravel publishes to Redis.
//!
//! Input: one connection to Redis. It subscribes to everything with the prefix, or only to the channels that clients of this
//! node use; see `subscriptions`. Output: events for the [`Hub`], without the prefix. A lost connection is retried
//! indefinitely.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
use crate::redis_client::{Cause, Loss, REMINDER_INTERVAL, Redis};
use crate::telemetry::reminders::Reminders;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod lookout;
mod message;
mod subscriptions;

pub(super) use message::{receive, without_prefix};

use lookout::Lookout;
use subscriptions::{SubscribeError, Subscriptions};

/// Wait after the first failure; doubled after each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait: a Redis that is up again is noticed within seconds.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// What this connection is called in the log, as [`ReconnectingClient`](crate::redis_client::ReconnectingClient)s have names.
const CONNECTION: &str = "events";

/// Interval between PINGs, and the time for their answer.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The channel that `publishPresence` writes to. Its messages come from this or another node and are not events.
pub(super) const PRESENCE_UPDATES: &str = "PresenceChannelUpdated";

/// Subscribes to Redis and publishes what it receives to the hub.
pub struct RedisIngress<S> {
    redis: Redis,
    key_prefix: String,
    hub: Arc<Hub<S>>,
    state: watch::Sender<RedisState>,
    subscriptions: Subscriptions,
    /// Detects a wrong `keyPrefix`. `None` when subscribing to single channels, where other channels are not received.
    lookout: Option<Lookout>,
}

/// An outage, for the log.
struct Outage {
    since: SystemTime,
    reminders: Reminders<Cause>,
}

impl<S: Socket> RedisIngress<S> {
    /// Creates an ingress; [`Self::run`] starts it.
    #[must_use]
    pub fn new(redis: Redis, key_prefix: &str, hub: Arc<Hub<S>>, state: watch::Sender<RedisState>) -> Self {
        let subscriptions = Subscriptions::new(key_prefix, hub.interests().cloned(), hub.metrics().redis_subscriptions.clone());
        let lookout = if hub.interests().is_some() { None } else { Lookout::new(key_prefix) };
        Self { redis, key_prefix: key_prefix.to_owned(), hub, state, subscriptions, lookout }
    }

    /// Receives until `stop`. Messages are published in the order in which they arrive.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        stop.run_until_cancelled(this.reconnect_forever()).await;
        // Releases joins that wait for a subscription to be confirmed: none will be confirmed any more.
        this.subscriptions.end();
    }

    async fn reconnect_forever(self: &Arc<Self>) {
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

    /// Runs one connection to its end and returns why it ended.
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
            // In a task of its own, so that a join does not wait behind the delivery of events.
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

    /// Pings Redis regularly; returns when there is no answer. A Redis that hangs does not close its connections.
    async fn watch(&self) -> Loss {
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            let mut connection = match self.redis.connect().await {
                Ok(connection) => connection,
                Err(error) => return Loss::from(&error),
            };
            loop {
                tokio::time::sleep(PING_INTERVAL).await;
                match tokio::time::timeout(PING_TIMEOUT, connection.ping()).await {
                    Ok(Ok(())) => {}
                    // Redis may have closed only this connection: open another one.
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

    /// Subscribes to the wanted channels until an error, which is returned.
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
                info!(
                    redis = address,
                    connection = CONNECTION,
                    "Redis is back; events arrive again; clients that disconnected before that start new sessions"
                );
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

    /// Records the loss and logs it.
    fn lost(&self, loss: Loss, outage: &mut Option<Outage>) {
        let metrics = self.hub.metrics();
        metrics.redis_up.set(0);
        self.subscriptions.end();
        let (redis, reason, hint) = (self.redis.address(), &loss.reason, self.redis.hint(loss.cause));
        match (&*self.state.borrow(), outage.as_mut()) {
            (RedisState::Lost(before), Some(outage)) => {
                if outage.reminders.is_due(loss.cause) {
                    let since = humantime::format_rfc3339_seconds(outage.since);
                    let change = if before.cause == loss.cause { "" } else { ", for another reason than before" };
                    warn!(redis, connection = CONNECTION, reason, %since, hint, "still no connection to Redis{change}");
                } else {
                    debug!(redis, reason, "still no connection to Redis");
                }
            }
            (before, _) => {
                if *before == RedisState::Up {
                    metrics.redis_losses.inc();
                    // No hint: it may just be restarting.
                    let hint = (loss.cause != Cause::Unreachable).then_some(hint);
                    warn!(
                        redis,
                        connection = CONNECTION,
                        reason,
                        hint,
                        "lost the connection to Redis; clients stay connected, no events arrive until it is back"
                    );
                } else {
                    warn!(redis, connection = CONNECTION, reason, hint, "cannot reach Redis; retrying until it answers");
                }
                let mut reminders = Reminders::every(REMINDER_INTERVAL);
                reminders.is_due(loss.cause);
                *outage = Some(Outage { since: SystemTime::now(), reminders });
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
