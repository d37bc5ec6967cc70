//! [`HttpAuthorizer`]: asks the Laravel application with the request of the original.
//!
//! Input: [`AuthRequest`]s. Output: `POST <authHost><authEndpoint>` with `channel_name=…`, and the verdict on its answer.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::header::{self, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tracing::{info, warn};

use super::answer::{first_line, hint, judge};
use super::headers::callback_headers;
use super::host::AuthHosts;
use super::{AuthRequest, Authorizer, Denied, Grant};
use crate::channel::ChannelName;
use crate::config::Config;
use crate::metrics::{Callback, Metrics};

/// What a form value keeps unescaped; the set of the original's `request` library (RFC 3986).
const FORM: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// More than any answer holds; what comes after is not read.
const LONGEST_BODY: usize = 16 * 1024 * 1024;

/// The client for callbacks could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthClientError {
    /// `auth.tls.ca` cannot be used.
    #[error("auth.tls.ca: `{path}` is no readable PEM certificate")]
    Ca {
        /// The configured path.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The client itself.
    #[error("could not set up the client for authHost")]
    Client(#[from] reqwest::Error),
}

/// Asks the Laravel application over HTTP.
pub struct HttpAuthorizer {
    client: reqwest::Client,
    hosts: AuthHosts,
    endpoint: String,
    forward: Vec<HeaderName>,
    dev_mode: bool,
    metrics: Arc<Metrics>,
}

impl HttpAuthorizer {
    /// Makes the pooled client.
    ///
    /// # Errors
    /// [`AuthClientError`] when the certificate authority cannot be read or TLS cannot be set up.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, AuthClientError> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(config.auth.timeout.0)
            .tls_danger_accept_invalid_certs(!config.auth.tls.verify.0);
        if let Some(path) = &config.auth.tls.ca {
            let unreadable =
                |source: Box<dyn std::error::Error + Send + Sync>| AuthClientError::Ca { path: path.display().to_string(), source };
            let pem = std::fs::read(path).map_err(|error| unreadable(error.into()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(error.into()))?;
            builder = builder.tls_certs_merge(certificates);
        } else if config.auth_host.0.iter().all(|host| host.starts_with("http://")) {
            // Without this a machine with no certificates at all (a small container) could not even start.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            client: builder.build()?,
            hosts: AuthHosts::new(&config.auth_host.0),
            endpoint: config.auth_endpoint.clone(),
            forward: config.auth.forward.0.iter().filter_map(|name| name.parse().ok()).collect(),
            dev_mode: config.dev_mode.0,
            metrics,
        })
    }

    /// Sends the callback and reads its answer: status, content type and body.
    async fn ask(&self, url: &str, request: AuthRequest<'_>) -> Result<(u16, Option<String>, String), reqwest::Error> {
        let mut headers = callback_headers(request.headers, request.handshake, &self.forward);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let mut response = self.client.post(url).headers(headers).body(form(request.channel)).send().await?;
        let status = response.status().as_u16();
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_BODY {
                break;
            }
        }
        Ok((status, content_type, String::from_utf8_lossy(&body).into_owned()))
    }
}

fn form(channel: &ChannelName) -> String {
    format!("channel_name={}", utf8_percent_encode(channel.as_str(), &FORM))
}

/// What went wrong, down to the last cause: reqwest's own message stops at "error sending request".
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn failure_hint(error: &reqwest::Error, causes: &str) -> &'static str {
    if error.is_timeout() {
        "the application did not answer within auth.timeout"
    } else if causes.contains("certificate") {
        "the certificate of authHost is not trusted: set auth.tls.ca, or auth.tls.verify = false"
    } else if causes.contains("dns") {
        "the host name in authHost cannot be resolved"
    } else if error.is_connect() {
        "nothing answers at authHost: is the application running, and is the port right?"
    } else {
        "the connection to authHost broke"
    }
}

#[async_trait]
impl Authorizer for HttpAuthorizer {
    async fn authorize(&self, request: AuthRequest<'_>) -> Result<Grant, Denied> {
        let channel = request.channel;
        let Some(base) = self.hosts.choose(request.handshake) else {
            warn!(%channel, "no entry of authHost fits the page of this client; add one that is no wildcard");
            self.metrics.callback(Callback::Unreachable);
            return Err(Denied { status: 0 });
        };
        let url = format!("{base}{}", self.endpoint);
        if self.dev_mode {
            info!("Sending auth request to: {url}");
        }
        let started = Instant::now();
        self.metrics.callbacks_in_flight.inc();
        let answer = self.ask(&url, request).await;
        self.metrics.callbacks_in_flight.dec();
        self.metrics.callback_seconds.observe(started.elapsed().as_secs_f64());
        match answer {
            Ok((status, content_type, body)) => {
                judge(status, content_type.as_deref(), &body).inspect(|_| self.metrics.callback(Callback::Granted)).inspect_err(|_| {
                    self.metrics.callback(Callback::Refused);
                    let body = first_line(&body);
                    warn!(%channel, url, body, hint = hint(status), "Client can not be authenticated, got HTTP status {status}");
                })
            }
            Err(error) => {
                self.metrics.callback(Callback::Unreachable);
                let error = error.without_url();
                let cause = causes(&error);
                warn!(%channel, url, cause, hint = failure_hint(&error, &cause), "Error authenticating client");
                Err(Denied { status: 0 })
            }
        }
    }
}
