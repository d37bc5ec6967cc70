//! Validates `[[webhooks]]` and `[webhooksDelivery]`. Input: a resolved configuration. Output: problems.

use super::problem::UNSET;
use super::{Found, quoted};
use crate::config::webhooks::Webhook;
use crate::config::{Config, WebhookTarget};

/// Headers that every delivery sets itself.
const OWN_HEADERS: [&str; 6] = ["content-type", "content-length", "host", "transfer-encoding", "x-pusher-key", "x-pusher-signature"];

impl Found {
    pub(super) fn webhooks(&mut self, config: &Config) {
        for webhook in config.all_webhooks() {
            self.webhook(&webhook, config);
        }
        let delivery = &config.webhooks_delivery;
        for (key, is_zero) in [
            ("webhooksDelivery.timeout", delivery.timeout.is_zero()),
            ("webhooksDelivery.queue", delivery.queue == 0),
            ("webhooksDelivery.queueBytes", delivery.queue_bytes == 0),
        ] {
            if is_zero {
                self.refuse(key, "0", "1 or more");
            }
        }
    }

    fn webhook(&mut self, webhook: &Webhook<'_>, config: &Config) {
        let (path, entry) = (webhook.path(), webhook.config);
        if entry.events.is_empty() {
            self.refuse(format!("{path}.events"), "empty", "names such as `channel_occupied`; leave it out for the usual four");
        }
        if entry.channels.is_empty() {
            self.refuse(format!("{path}.channels"), "empty", "patterns such as `presence-*`; leave it out for all channels");
        }
        for pattern in &entry.channels {
            self.pattern(&format!("{path}.channels"), pattern);
        }
        match entry.target {
            WebhookTarget::Http => self.http_webhook(webhook, config),
            WebhookTarget::Queue => {
                if entry.job.as_ref().is_none_or(|job| job.is_empty() || job.contains(char::is_whitespace)) {
                    self.refuse(format!("{path}.job"), UNSET, "a class of the application with `fire($job, $data)`")
                        .fix("for example `job = \"App\\\\Jobs\\\\EchoWebhook\"`; docs/webhooks.md has one to copy");
                }
                if entry.queue.is_empty() {
                    self.refuse(format!("{path}.queue"), "empty", "the name of a queue of Laravel, usually `default`");
                }
            }
        }
    }

    fn http_webhook(&mut self, webhook: &Webhook<'_>, config: &Config) {
        let (path, entry) = (webhook.path(), webhook.config);
        let url = reqwest::Url::parse(&entry.url).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            // A URL may contain a password.
            let value = if entry.url.is_empty() { "empty" } else { "not a web address" };
            self.refuse(format!("{path}.url"), value, "a URL such as `https://app.example.com/webhooks/echo`");
        }
        if webhook.credentials(config).is_none() {
            let problem = match &entry.app_id {
                Some(id) if webhook.owner.is_none() => {
                    self.refuse(format!("{path}.appId"), quoted(id), "the `appId` of an entry of `clients` that has a `secret`")
                }
                _ => self.refuse(format!("{path}.secret"), UNSET, "the secret that deliveries are signed with"),
            };
            problem.fix("name an entry of `clients` with a `secret` in `appId`, or write `key` and `secret` here");
        }
        for (name, value) in &entry.headers {
            let is_own = OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str());
            if is_own || http::HeaderName::try_from(name.as_str()).is_err() || http::HeaderValue::try_from(value.as_str()).is_err() {
                self.refuse(
                    format!("{path}.headers.{name}"),
                    if is_own { "set" } else { "not a header" },
                    "the name of an HTTP header that deliveries do not set themselves, with one line of text",
                );
            }
        }
    }
}
