//! What Laravel publishes to Redis.
//!
//! Input: one connection to Redis, on which everything below the prefix is asked for, or the channels alone that somebody
//! here wants; see `subscriptions`. Output: events for the [`Hub`], with the prefix cut off. A lost Redis is looked for
//! again for ever.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use rand::RngExt as _;
use redis::Msg;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cluster::questions::TOPIC;
use crate::hub::{Hub, Socket, Wanted};
use crate::metrics::Source;
use crate::net::tls::refused_certificate;
use crate::readiness::RedisState;
use crate::redis_client::Redis;

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

impl<S: Socket> RedisIngress<S> {
    /// An ingress that is not running yet.
    #[must_use]
    pub fn new(redis: Redis, key_prefix: &str, hub: Arc<Hub<S>>, state: watch::Sender<RedisState>) -> Self {
        let subscriptions = Subscriptions::new(key_prefix, hub.wanted().cloned(), hub.metrics().redis_subscriptions.clone());
        let lookout = if hub.wanted().is_some() { None } else { Lookout::new(key_prefix) };
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
        loop {
            let reason = self.listen().await;
            if *self.state.borrow() == RedisState::Up {
                wait = FIRST_WAIT;
            }
            self.lost(&reason);
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::time::sleep(wait.mul_f64(jitter)).await;
            wait = (wait * 2).min(MAX_BACKOFF);
        }
    }

    /// One connection from its beginning to its end; returns why it ended.
    async fn listen(self: &Arc<Self>) -> String {
        let (mut sink, mut messages) = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => return error.to_string(),
        };
        if let Some(lookout) = &self.lookout {
            lookout.begin(&mut sink).await;
        }
        let mut following = JoinSet::new();
        let mut sink = match self.subscriptions.wanted() {
            None => {
                self.up();
                Some(sink)
            }
            // In a task of its own, so that who joins does not wait for events that are on their way to others.
            Some(wanted) => {
                following.spawn(Arc::clone(self).follow(Arc::clone(wanted), sink));
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
            "the connection was closed".to_owned()
        };
        let reason = tokio::select! {
            reason = hearing => reason,
            reason = self.watch() => reason,
            Some(Ok(reason)) = following.join_next() => reason,
        };
        following.shutdown().await;
        reason
    }

    /// Asks Redis for a sign of life now and then; returns when there is none. One that hangs closes no connection.
    async fn watch(&self) -> String {
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            let mut connection = match self.redis.connect().await {
                Ok(connection) => connection,
                Err(error) => return format!("no sign of life: {error}"),
            };
            loop {
                tokio::time::sleep(PING_INTERVAL).await;
                match tokio::time::timeout(PING_TIMEOUT, redis::cmd("PING").exec_async(&mut connection)).await {
                    Ok(Ok(())) => {}
                    // The connection may have been closed for itself.
                    Ok(Err(_)) => break,
                    Err(_) => return "no answer to PING".to_owned(),
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
    async fn follow(self: Arc<Self>, wanted: Arc<Wanted>, mut sink: PubSubSink) -> String {
        wanted.connected();
        if let Err(error) = self.subscriptions.catch_up(&wanted, &mut sink).await {
            return error.to_string();
        }
        self.up();
        self.subscriptions.follow(&wanted, &mut sink).await.to_string()
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
            _ if self.subscriptions.wanted().is_some() => {
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

    /// Notes the loss, and says so once.
    fn lost(&self, reason: &str) {
        let metrics = self.hub.metrics();
        metrics.redis_up.set(0);
        self.subscriptions.end();
        let address = self.redis.address();
        let before = self.state.send_replace(RedisState::Lost(reason.to_owned()));
        match before {
            RedisState::Lost(_) => debug!(redis = address, reason, "Redis is still away"),
            RedisState::Up => {
                metrics.redis_losses.inc();
                warn!(redis = address, reason, "Redis is lost; clients stay connected, no events arrive until it is back");
            }
            RedisState::Off | RedisState::Connecting => {
                let hint = if reason.contains("certificate") {
                    refused_certificate(reason)
                        .unwrap_or("its certificate is not trusted: set databaseConfig.redis.tls.ca, or tls.rejectUnauthorized = false")
                } else {
                    "check databaseConfig.redis (host, port, password) and that Redis runs"
                };
                warn!(redis = address, reason, hint, "cannot reach Redis; trying again until it is there");
            }
        }
    }

    fn take(&self, message: &Msg) {
        if self.lookout.as_ref().is_some_and(|lookout| lookout.sees(message, &self.key_prefix)) {
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
        if channel == TOPIC && self.hub.consult(message.get_payload_bytes()) {
            return;
        }
        receive(&self.hub, Source::Redis, channel, message.get_payload_bytes());
    }
}
