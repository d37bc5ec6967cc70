//! Settings: webhooks: `[[webhooks]]` and `[webhooksDelivery]`.
//!
//! Input: the tables as [`load`](super::load) finds them. Output: a part of [`Config`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{self, As, ByteSize, OneOrMany, Seconds, Secret};
use super::{ApiClient, Config};

/// One target of webhooks. Unknown keys are an error, because a misspelled one would silently leave a default in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// How events are delivered.
    pub target: WebhookTarget,
    /// For `http`: the URL that deliveries are POSTed to.
    pub url: String,
    /// The events to send.
    pub events: Vec<WebhookEvent>,
    /// The channels (with `*`) whose events are sent.
    #[serde(with = "As::<OneOrMany>")]
    pub channels: Vec<String>,
    /// Additional headers of deliveries.
    pub headers: BTreeMap<String, String>,
    /// The entry of `clients` whose key and secret sign deliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// Key that deliveries carry, instead of `appId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// Secret that deliveries are signed with, instead of `appId`.
    #[serde(deserialize_with = "value::secret", skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// For `queue`: the name of Laravel's queue.
    pub queue: String,
    /// For `queue`: the job, such as `App\Jobs\EchoWebhook`, optionally with a method after `@`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        use WebhookEvent::{ChannelOccupied, ChannelVacated, MemberAdded, MemberRemoved};
        Self {
            target: WebhookTarget::Http,
            url: String::new(),
            events: vec![ChannelOccupied, ChannelVacated, MemberAdded, MemberRemoved],
            channels: vec!["*".to_owned()],
            headers: BTreeMap::new(),
            app_id: None,
            key: None,
            secret: None,
            queue: "default".to_owned(),
            job: None,
        }
    }
}

/// How events are delivered to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookTarget {
    /// A signed POST.
    Http,
    /// A job in one of Laravel's queues in Redis.
    Queue,
}

/// The events of webhooks. The first seven are Pusher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookEvent {
    /// The first socket joined a channel.
    ChannelOccupied,
    /// The last socket left a channel.
    ChannelVacated,
    /// A user joined a presence channel.
    MemberAdded,
    /// A user left a presence channel.
    MemberRemoved,
    /// A client whispered.
    ClientEvent,
    /// A cache channel had no event for a new subscriber.
    CacheMiss,
    /// The number of subscribed sockets has changed.
    SubscriptionCount,
    /// A client has connected.
    Connected,
    /// A client has disconnected.
    Disconnected,
    /// A client's subscribe was refused.
    SubscribeRefused,
}

impl WebhookEvent {
    /// Whether clients can cause any number of such events: they are dropped before events about occupancy and members.
    #[must_use]
    pub const fn is_of_clients(self) -> bool {
        matches!(self, Self::ClientEvent | Self::CacheMiss | Self::Connected | Self::Disconnected | Self::SubscribeRefused)
    }

    /// The name in deliveries and settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::SubscribeRefused => "subscribe_refused",
        }
    }
}

/// How deliveries are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhooksDelivery {
    /// How long a channel must stay empty, or a member away, before that is sent.
    #[serde(with = "As::<Seconds>")]
    pub grace: Duration,
    /// Timeout of one delivery.
    #[serde(with = "As::<Seconds>")]
    pub timeout: Duration,
    /// How long a delivery is retried.
    #[serde(with = "As::<Seconds>")]
    pub retry_for: Duration,
    /// Maximum number of events queued for one target.
    #[serde(deserialize_with = "value::integer")]
    pub queue: u64,
    /// Maximum bytes of these events.
    #[serde(with = "As::<ByteSize>")]
    pub queue_bytes: u64,
    /// Where they are queued.
    pub store: WebhookStore,
}

impl Default for WebhooksDelivery {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            retry_for: Duration::from_secs(600),
            queue: 10_000,
            queue_bytes: 32_000_000,
            store: WebhookStore::Memory,
        }
    }
}

/// Where events are queued for delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookStore {
    /// In this process.
    Memory,
    /// In Redis.
    Redis,
}

/// An entry of `webhooks`, or of a client's `webhooks`, with its client.
#[derive(Debug, Clone, Copy)]
pub struct Webhook<'a> {
    /// The entry.
    pub config: &'a WebhookConfig,
    /// The client that it belongs to.
    pub(super) owner: Option<&'a ApiClient>,
    /// The index of the client, if there is one, and its own index.
    pub(super) place: (Option<usize>, usize),
}

impl<'a> Webhook<'a> {
    /// Its path in the settings, such as `webhooks[0]`.
    #[must_use]
    pub fn path(&self) -> String {
        match self.place {
            (None, index) => format!("webhooks[{index}]"),
            (Some(client), index) => format!("clients[{client}].webhooks[{index}]"),
        }
    }

    /// Key and secret that sign its deliveries: its own, those of its client, or those of the only client with a secret.
    #[must_use]
    pub fn credentials(&self, config: &'a Config) -> Option<(&'a str, &'a str)> {
        let of = |client: &'a ApiClient| Some((client.key.expose(), client.secret.as_ref()?.expose()));
        let own_key = self.config.key.as_ref().map(Secret::expose);
        if let Some(secret) = &self.config.secret {
            return Some((own_key.unwrap_or_default(), secret.expose()));
        }
        if let Some(client) = self.owner {
            return of(client);
        }
        match &self.config.app_id {
            Some(id) => config.clients.iter().find(|client| client.app_id == *id).and_then(of),
            None => {
                let mut signing = config.clients.iter().filter_map(of);
                signing.next().filter(|_| signing.next().is_none())
            }
        }
    }
}

impl Config {
    /// All targets of webhooks.
    pub fn all_webhooks(&self) -> impl Iterator<Item = Webhook<'_>> {
        let own = self.webhooks.iter().enumerate().map(|(index, config)| Webhook { config, owner: None, place: (None, index) });
        let of_clients = self.clients.iter().enumerate().flat_map(|(at, client)| {
            let entry = move |(index, config)| Webhook { config, owner: Some(client), place: (Some(at), index) };
            client.webhooks.iter().enumerate().map(entry)
        });
        own.chain(of_clients)
    }

    /// Whether webhooks keep their state and queues in Redis. Clusters always do.
    #[must_use]
    pub fn webhooks_use_redis(&self) -> bool {
        self.cluster.enabled || self.webhooks_delivery.store == WebhookStore::Redis
    }
}
