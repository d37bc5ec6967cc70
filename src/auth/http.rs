//! [`HttpApplication`]: asks the Laravel application, with the same request as the original.
//!
//! Input: [`AuthRequest`]s, and [`Call`]s when the shield lets them through. Output: `POST <authHost><authEndpoint>`
//! with `channel_name=…`, and the verdict on its response.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::header::{self, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tracing::info;

use super::answer::{Answer, Credentials};
use super::headers::{Forward, callback_headers};
use super::host::AuthHosts;
use super::shield::{Application, Call, Reply, Target};
use super::{AuthRequest, Denied};
use crate::config::Config;
use crate::metrics::{Callback, Metrics};
use crate::net::response;
use crate::net::unanswered::{Asked, Unanswered, causes};
use crate::proxies::TrustedProxies;
use crate::warn_throttled;

/// Characters escaped in a form value: the same as in the original's `request` library (RFC 3986).
const FORM: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Headers of a callback in addition to those of the call: Content-Type, and what the HTTP client adds (Accept, Host,
/// Content-Length).
const MORE_HEADERS: usize = 4;

/// Size limit of a response body, far above any real one. The rest is not read, and the body does not grant.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The HTTP client for callbacks could not be created.
#[derive(Debug, thiserror::Error)]
pub enum AuthClientError {
    /// `auth.tls.ca` is not a readable certificate.
    #[error("auth.tls.ca: `{}` is not a readable PEM certificate", crate::config::secrets::shown_path(.path))]
    Ca {
        /// The configured path.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The HTTP client itself.
    #[error("could not set up the client for authHost")]
    Client(#[from] reqwest::Error),
}

/// Asks the Laravel application over HTTP.
pub struct HttpApplication {
    client: reqwest::Client,
    hosts: AuthHosts,
    /// The entries of `hosts` that are not wildcards.
    targets: Vec<Arc<Target>>,
    endpoint: String,
    forward: Forward,
    sends_socket_id: bool,
    dev_mode: bool,
    metrics: Arc<Metrics>,
}

impl HttpApplication {
    /// Creates the pooled client.
    ///
    /// # Errors
    /// [`AuthClientError`] when the certificate authority cannot be read or TLS cannot be set up.
    pub fn new(config: &Config, proxies: &TrustedProxies, metrics: Arc<Metrics>) -> Result<Self, AuthClientError> {
        let hosts = AuthHosts::new(&config.auth_host);
        let endpoint = config.auth_endpoint.clone();
        Ok(Self {
            client: client(config)?,
            targets: hosts.bases().filter_map(|host| Target::new(host, &endpoint)).map(Arc::new).collect(),
            hosts,
            endpoint,
            forward: Forward::new(config, proxies.clone()),
            sends_socket_id: config.auth.send_socket_id.unwrap_or_else(|| config.clients.iter().any(|client| client.secret.is_some())),
            dev_mode: config.dev_mode,
            metrics,
        })
    }

    fn target(&self, host: &str) -> Option<Arc<Target>> {
        let known = self.targets.iter().find(|target| target.host == host).cloned();
        known.or_else(|| Target::new(host, &self.endpoint).map(Arc::new))
    }

    fn request(&self, call: &Call) -> reqwest::Result<reqwest::Request> {
        let mut request = self.client.post(call.target.url.clone()).body(form(call)).build()?;
        let headers = request.headers_mut();
        headers.reserve(call.headers.len() + MORE_HEADERS);
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        if let Some(credentials) = self.hosts.credentials(&call.target.host)
            && !headers.contains_key(header::AUTHORIZATION)
        {
            headers.insert(header::AUTHORIZATION, credentials.clone());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        Ok(request)
    }

    /// Sends the callback and reads the response.
    async fn send(&self, call: &Call) -> Result<Received, Failure> {
        let sent = match self.request(call) {
            Ok(request) => self.client.execute(request).await,
            Err(error) => Err(error),
        };
        let response = sent.map_err(|error| Failure { is_unanswered: is_unanswered(&error), error })?;
        let status = response.status().as_u16();
        let text = |name| response.headers().get(name).map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let (content_type, content_encoding) = (text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
        let location = text(header::LOCATION);
        let read = response::body(response, MAX_BODY_BYTES).await;
        let (body, is_cut) = read.map_err(|error| Failure { error, is_unanswered: false })?;
        let is_unreadable = is_cut || std::str::from_utf8(&body).is_err();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Received { status, content_type, content_encoding, location, body, is_unreadable })
    }
}

/// The client for callbacks: it follows no redirects and verifies certificates as `auth.tls` says.
///
/// # Errors
/// [`AuthClientError`] when the certificate authority cannot be read or TLS cannot be set up.
pub fn client(config: &Config) -> Result<reqwest::Client, AuthClientError> {
    let is_plain = config.auth_host.iter().all(|host| host.starts_with("http://"));
    let builder = client_builder(config, is_plain)?
        .redirect(reqwest::redirect::Policy::none())
        .timeout(config.auth.timeout)
        .tls_danger_accept_invalid_certs(!config.auth.tls.verify);
    Ok(builder.build()?)
}

/// A client that trusts the system's certificates and `auth.tls.ca`; `is_plain` if it will only make `http://` requests.
pub(crate) fn client_builder(config: &Config, is_plain: bool) -> Result<reqwest::ClientBuilder, AuthClientError> {
    let builder = reqwest::Client::builder();
    let Some(path) = &config.auth.tls.ca else {
        // Without this the server could not start on a machine without any certificates, such as a minimal container.
        return Ok(if is_plain { builder.tls_certs_only([]) } else { builder });
    };
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| AuthClientError::Ca { path: path.display().to_string(), source };
    let pem = crate::files::read(path).map_err(|error| unreadable(error.into()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(error.into()))?;
    if certificates.is_empty() {
        return Err(unreadable("it has no `BEGIN CERTIFICATE`".into()));
    }
    Ok(builder.tls_certs_merge(certificates))
}

fn form(call: &Call) -> String {
    const FIELD: &str = "channel_name=";
    let channel = call.channel.as_str();
    let mut form = String::with_capacity(FIELD.len() + channel.len());
    form.push_str(FIELD);
    form.extend(utf8_percent_encode(channel, &FORM));
    if let Some(socket) = call.socket {
        let _ = write!(form, "&socket_id={socket}");
    }
    form
}

/// A response as received.
struct Received {
    status: u16,
    content_type: Option<String>,
    content_encoding: Option<String>,
    location: Option<String>,
    body: String,
    is_unreadable: bool,
}

impl Received {
    fn answer(&self) -> Answer<'_> {
        Answer {
            status: self.status,
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
            location: self.location.as_deref(),
            body: &self.body,
            is_unreadable: self.is_unreadable,
        }
    }
}

/// A callback without a complete response.
struct Failure {
    error: reqwest::Error,
    /// The connection failed before any part of a response was received.
    is_unanswered: bool,
}

/// Whether the connection failed before any part of a response: it was refused, or a kept-alive connection turned out to
/// be closed. Timeouts do not count, because the application may be handling the request.
fn is_unanswered(error: &reqwest::Error) -> bool {
    if error.is_timeout() || error.is_builder() {
        return false;
    }
    let of_hyper = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    of_hyper.map_or_else(|| error.is_connect(), |cause| !cause.is_parse())
}

#[async_trait]
impl Application for HttpApplication {
    fn prepare(&self, request: AuthRequest<'_>) -> Result<Call, Denied> {
        let channel = request.channel;
        let Some(host) = self.hosts.choose(request.handshake) else {
            warn_throttled!(class = 0, key = channel.as_str(), %channel, "no entry of authHost matches the page of this client; add one without a wildcard");
            self.metrics.callback(Callback::Unreachable);
            return Err(Denied::new(0)
                .because("no entry of authHost matches the page of this client", "add an entry without a wildcard to authHost"));
        };
        let Some(target) = self.target(&host) else {
            let endpoint = &self.endpoint;
            warn_throttled!(class = 0, key = channel.as_str(), %channel, %host, endpoint, "authHost for the page of this client and authEndpoint do not make a valid URL");
            self.metrics.callback(Callback::Unreachable);
            return Err(Denied::new(0).because("authHost and authEndpoint do not make a valid URL", "check authHost and authEndpoint"));
        };
        let socket = self.sends_socket_id.then_some(request.socket);
        Ok(Call { socket, ..Call::new(target, channel.clone(), callback_headers(request, &self.forward)) })
    }

    async fn ask(&self, call: &Call) -> Reply {
        let (channel, url) = (&call.channel, &call.target.url);
        if self.dev_mode {
            info!("Sending auth request to: {url}");
        }
        let started = Instant::now();
        let in_flight = InFlight::new(&self.metrics);
        let answer = self.send(call).await;
        drop(in_flight);
        self.metrics.callback_took(started.elapsed());
        match answer {
            Ok(received) => match received.answer().judge() {
                Ok(grant) => {
                    self.metrics.callback(Callback::Granted);
                    Reply::Granted(grant)
                }
                Err(denied) => {
                    self.metrics.callback(Callback::Refused);
                    if call.is_probe {
                        return Reply::Refused(denied);
                    }
                    let (answer, status) = (received.answer(), received.status);
                    let (location, body, hint) = (answer.target(), answer.summary(), answer.hint(credentials(call)));
                    warn_throttled!(class = status, key = channel.as_str(), %channel, %url, location, body, hint, "Client can not be authenticated, got HTTP status {status}");
                    Reply::Refused(denied.because(body, hint))
                }
            },
            Err(Failure { error, is_unanswered }) => {
                self.metrics.callback(Callback::Unreachable);
                let Unanswered { cause, hint } = Asked::APPLICATION.explain(&error);
                Reply::Unanswered { may_retry: is_unanswered, cause, hint }
            }
        }
    }
}

fn credentials(call: &Call) -> Credentials {
    let has = |wanted| call.headers.iter().any(|(name, _)| *name == wanted);
    if has(header::COOKIE) {
        Credentials::Cookie
    } else if has(header::AUTHORIZATION) {
        Credentials::Token
    } else {
        Credentials::Nothing
    }
}

/// Counts a callback as in flight until it is dropped, so that cancelled ones are counted correctly.
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.callbacks_in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.callbacks_in_flight.dec();
    }
}
