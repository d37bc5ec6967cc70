//! [`Post`]: one signed delivery. Input: a body. Output: a POST to the target, and whether it was accepted.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;

use super::target::WebhookError;
use crate::auth::http::client_builder;
use crate::config::value::Secret;
use crate::config::{Config, Webhook};
use crate::net::response;
use crate::net::unanswered::{Asked, Unanswered};
use crate::signature::sign;

/// How much of a response is read, so that its connection can be reused.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why a delivery was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The target refuses this delivery for good: 410.
    #[error("the target answered 410")]
    Gone,
    /// It answered with another status than 2xx.
    #[error("the target answered {0}")]
    Status(u16),
    /// It could not be reached or did not respond.
    #[error("{}", .0.cause)]
    Unreachable(Unanswered),
    /// Redis did not take it.
    #[error("{reason}")]
    Redis {
        /// What Redis, or the connection to it, said.
        reason: String,
        /// What to do about it.
        hint: String,
    },
}

impl DeliveryError {
    /// How to fix it.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Gone => "the application no longer wants deliveries: remove this target from the settings",
            Self::Status(301..=399) => "redirects are not followed: set `url` to the address that it redirects to",
            Self::Status(401 | 403) => "does the application know the key and secret of this target?",
            Self::Status(404) => "is `url` right, and does the route exist?",
            Self::Status(405) => "the route has to accept POST",
            Self::Status(419) => "exclude the route from Laravel's CSRF protection",
            Self::Status(_) => "see the application's log",
            Self::Unreachable(Unanswered { hint, .. }) | Self::Redis { hint, .. } => hint,
        }
    }
}

/// Sends deliveries to one URL.
pub struct Post {
    client: reqwest::Client,
    url: Secret,
    key: Option<HeaderValue>,
    secret: Secret,
    headers: HeaderMap,
}

impl Post {
    /// A client for the entry.
    ///
    /// # Errors
    /// [`WebhookError::Client`] for invalid certificates.
    pub fn new(webhook: &Webhook<'_>, config: &Config) -> Result<Self, WebhookError> {
        let entry = webhook.config;
        let builder = client_builder(config, entry.url.starts_with("http://"))?
            // Pusher's PHP library reads `X-Pusher-Key` with `getallheaders()`, which keeps the case of names.
            .http1_title_case_headers()
            .redirect(Policy::none())
            .timeout(config.webhooks_delivery.timeout)
            .pool_max_idle_per_host(1)
            .tcp_keepalive(Duration::from_secs(60))
            .tls_danger_accept_invalid_certs(!config.auth.tls.verify)
            .user_agent(concat!("laravel-echo-server/", env!("CARGO_PKG_VERSION")));
        let (key, secret) = webhook.credentials(config).unwrap_or_default();
        let header = |(name, value): (&String, &String)| Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?));
        Ok(Self {
            client: builder.build().map_err(crate::auth::http::AuthClientError::from)?,
            url: Secret(entry.url.clone()),
            key: HeaderValue::from_str(key).ok(),
            secret: Secret(secret.to_owned()),
            headers: entry.headers.iter().filter_map(header).collect(),
        })
    }

    /// Sends a body, signed like Pusher's.
    ///
    /// # Errors
    /// [`DeliveryError`] when it was not accepted.
    pub async fn send(&self, body: String) -> Result<(), DeliveryError> {
        let signature = sign(self.secret.expose().as_bytes(), body.as_bytes());
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.key {
            headers.insert("x-pusher-key", key.clone());
        }
        headers.insert("x-pusher-signature", HeaderValue::from_str(&signature).expect("hex is plain text"));
        let request = self.client.post(self.url.expose()).headers(headers).body(body);
        let response = request.send().await.map_err(|error| DeliveryError::Unreachable(Asked::WEBHOOK.explain(&error)))?;
        let status = response.status().as_u16();
        // The status says it all, even if the body breaks off.
        let _ = response::body(response, MAX_ANSWER_BYTES).await;
        match status {
            200..=299 => Ok(()),
            410 => Err(DeliveryError::Gone),
            status => Err(DeliveryError::Status(status)),
        }
    }
}
