//! [`Target`]: one resolved entry of `[[webhooks]]`. Input: the settings. Output: whether it wants an event, and how to send it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::post::{DeliveryError, Post};
use super::queue::QueuePush;
use crate::auth::http::AuthClientError;
use crate::channel::Pattern;
use crate::config::{Config, Webhook, WebhookEvent, WebhookTarget};
use crate::hub::Rules;

/// Webhooks cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The HTTP client for deliveries.
    #[error("cannot set up the client for webhooks")]
    Client(#[from] AuthClientError),
    /// Redis settings.
    #[error(transparent)]
    Redis(#[from] crate::redis_client::RedisConfigError),
}

/// The events about occupancy and members.
const ABOUT_PRESENCE: [WebhookEvent; 5] = [
    WebhookEvent::ChannelOccupied,
    WebhookEvent::ChannelVacated,
    WebhookEvent::MemberAdded,
    WebhookEvent::MemberRemoved,
    WebhookEvent::SubscriptionCount,
];

/// A set of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Events(u16);

impl Events {
    pub(super) fn new(events: &[WebhookEvent]) -> Self {
        Self(events.iter().fold(0, |bits, &event| bits | 1 << event as u16))
    }

    pub(super) const fn has(self, event: WebhookEvent) -> bool {
        self.0 & 1 << event as u16 != 0
    }
}

/// How events are delivered to a target.
enum Way {
    Http(Box<Post>),
    Queue(Box<QueuePush>),
}

/// A target of webhooks: which events it wants, and how they are delivered.
pub(super) struct Target {
    /// Its name in the log.
    pub(super) label: String,
    /// Its id, the same on all nodes and after a restart.
    pub(super) id: String,
    pub(super) events: Events,
    channels: Vec<Pattern>,
    /// Channel rules, which may suppress an event.
    rules: Arc<ArcSwap<Rules>>,
    way: Way,
}

impl Target {
    /// All configured targets.
    pub(super) fn all(config: &Config, rules: &Arc<ArcSwap<Rules>>) -> Result<Arc<[Self]>, WebhookError> {
        let mut targets = config.all_webhooks().map(|webhook| Self::new(&webhook, config, rules)).collect::<Result<Vec<_>, _>>()?;
        // Each has a queue of its own, also where several have the same URL and signature.
        let mut known = HashMap::new();
        for target in &mut targets {
            let count = known.entry(target.id.clone()).or_insert(0_u32);
            *count += 1;
            if *count > 1 {
                target.id = format!("{}-{count}", target.id);
            }
        }
        Ok(targets.into())
    }

    fn new(webhook: &Webhook<'_>, config: &Config, rules: &Arc<ArcSwap<Rules>>) -> Result<Self, WebhookError> {
        let entry = webhook.config;
        let place = match entry.target {
            // Several applications may be told at one URL. Not the secret, which changes.
            WebhookTarget::Http => format!("{}\n{}", entry.url, webhook.credentials(config).map_or("", |(key, _)| key)),
            WebhookTarget::Queue => format!("queue:{}:{}", entry.queue, entry.job.as_deref().unwrap_or_default()),
        };
        Ok(Self {
            label: label(webhook),
            id: HEXLOWER.encode(&digest(&SHA256, place.as_ref()).as_ref()[..8]),
            events: Events::new(&entry.events),
            channels: entry.channels.iter().map(|text| Pattern::new(text)).collect(),
            rules: Arc::clone(rules),
            way: match entry.target {
                WebhookTarget::Http => Way::Http(Box::new(Post::new(webhook, config)?)),
                WebhookTarget::Queue => Way::Queue(Box::new(QueuePush::new(entry, config)?)),
            },
        })
    }

    /// Delivers a body.
    pub(super) async fn send(&self, body: String) -> Result<(), DeliveryError> {
        match &self.way {
            Way::Http(post) => post.send(body).await,
            Way::Queue(queue) => queue.send(&body).await,
        }
    }

    /// Whether it wants `event` in `channel`; patterns do not apply to events without a channel.
    pub(super) fn wants(&self, event: WebhookEvent, channel: &str) -> bool {
        self.events.has(event) && (channel.is_empty() || self.fits(channel) && self.rules.load().of(channel).tells(event))
    }

    /// Whether it wants events about the occupancy or members of a channel.
    pub(super) fn follows(&self, channel: &str) -> bool {
        let mut asked = ABOUT_PRESENCE.into_iter().filter(|event| self.events.has(*event)).peekable();
        asked.peek().is_some() && self.fits(channel) && {
            let rules = self.rules.load();
            let rule = rules.of(channel);
            asked.any(|event| rule.tells(event))
        }
    }

    fn fits(&self, channel: &str) -> bool {
        self.channels.iter().any(|pattern| pattern.matches(channel))
    }
}

/// The name of a target in the log, without user, password and query.
#[must_use]
pub fn label(webhook: &Webhook<'_>) -> String {
    match webhook.config.target {
        WebhookTarget::Queue => format!("queue {}", webhook.config.queue),
        WebhookTarget::Http => match reqwest::Url::parse(&webhook.config.url) {
            Ok(url) => {
                let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
                format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
            }
            Err(_) => webhook.path(),
        },
    }
}
