//! Who may join a guarded channel: the trait [`Authorizer`] and its outcomes.
//!
//! Input: a subscribe from the hub, with its headers and those of the handshake. Output: [`Grant`] or [`Denied`].
//!
//! ```text
//!   Hub ─▶ jwt: a signed token that lists channels decides alone
//!            └─▶ shield: one callback for equal subscribes; a limit, a queue and a circuit breaker per host
//!                  └─▶ http: asks the Laravel application
//! ```
//!
//! [`host`], [`headers`] and [`answer`] hold the pure decisions of a callback.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::channel::ChannelName;
use crate::config::{ChannelAuth, Config};
use crate::event::SocketId;
use crate::metrics::Metrics;
use crate::proxies::TrustedProxies;

pub mod answer;
pub(crate) mod headers;
pub mod host;
pub mod http;
pub(crate) mod jwt;
pub(crate) mod shield;

/// Headers a client sends with one subscribe (Echo's `auth.headers`), as text.
pub type SubscribeHeaders = Vec<(String, String)>;

/// The size in bytes of a subscribe's headers: names and values.
#[must_use]
pub fn bytes_of(headers: &[(String, String)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// A socket wants to join a guarded channel, or to stay in it.
#[derive(Debug, Clone, Copy)]
pub struct AuthRequest<'a> {
    /// The socket.
    pub socket: SocketId,
    /// The channel.
    pub channel: &'a ChannelName,
    /// Headers of this subscribe; they win over the handshake's.
    pub headers: &'a [(String, String)],
    /// Headers of the handshake request.
    pub handshake: &'a ::http::HeaderMap,
    /// Address at the other end of the connection: the client, or a proxy in front of the server.
    pub peer: Option<IpAddr>,
    /// Who decides, if a channel rule says so; otherwise a token if tokens are configured and one is sent, or the application.
    pub by: Option<ChannelAuth>,
    /// The socket is already in the channel, and the application is asked again whether it may stay: no cached answer and
    /// no token counts.
    pub is_again: bool,
}

/// The socket may join.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// `channel_data` of the answer, which describes a presence member.
    pub channel_data: Option<Arc<RawValue>>,
    /// When the grant expires; `None` for never.
    pub ends: Option<Instant>,
    /// The user's id, if the grant has it outside of `channel_data`.
    pub user: Option<Arc<str>>,
    /// Who gave the grant.
    pub by: GrantedBy,
}

/// Who granted a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantedBy {
    /// The application, by its answer to the callback.
    #[default]
    Application,
    /// A token that lists the channel.
    Token,
    /// The application, by a signature that the client sent.
    Signature,
}

impl GrantedBy {
    /// The name for logs and the dashboard.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Token => "token",
            Self::Signature => "signature",
        }
    }
}

/// A digest of a token that grants channels by itself. The token cannot be recovered from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pass(pub String);

/// The socket may not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The status for the client: the callback's HTTP status; 0 when it could not be sent or got no response; 503 when
    /// it was not sent, to protect the application from overload.
    pub status: u16,
    /// What the log says about it, for the dashboard.
    pub reason: Option<Arc<Reason>>,
}

/// Why a subscribe was refused, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What the application answered, or what went wrong, in one line.
    pub answer: String,
    /// What it usually means, and how to fix it.
    pub hint: Cow<'static, str>,
}

impl Denied {
    /// A refusal with this status and no reason.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self { status, reason: None }
    }

    /// The same refusal with a reason.
    #[must_use]
    pub fn because(self, answer: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Some(Arc::new(Reason { answer: answer.into(), hint: hint.into() })), ..self }
    }

    /// Whether this is a decision of the application, as opposed to a failure (5xx), its rate limit (429) or no response.
    #[must_use]
    pub const fn is_decision(&self) -> bool {
        matches!(self.status, 100..=428 | 430..=499)
    }
}

/// Decides who may join a guarded channel.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Decides about one subscribe. Failures are logged where they happen. Dropping the future cancels the request.
    ///
    /// # Errors
    /// [`Denied`] with the status for the client.
    async fn authorize(&self, request: AuthRequest<'_>) -> Result<Grant, Denied>;

    /// A user was removed from a channel, or from all of them: earlier grants no longer count.
    fn removed(&self, _user: Option<&str>, _channel: Option<&ChannelName>) {}

    /// A digest of the token in a subscribe's headers that grants channels by itself; it may be sent to other nodes.
    fn pass(&self, _headers: &[(String, String)]) -> Option<Pass> {
        None
    }

    /// The holder of a token was removed from a channel: that token does not grant the channel again.
    fn void(&self, _pass: &Pass, _channel: &ChannelName) {}
}

/// Invalid settings under `auth`.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The HTTP client for callbacks.
    #[error(transparent)]
    Client(#[from] http::AuthClientError),
    /// `auth.jwt`.
    #[error(transparent)]
    Jwt(#[from] jwt::JwtError),
}

/// The configured authorizer. It trusts the address headers of `proxies`.
///
/// # Errors
/// [`AuthError`] for an invalid certificate or key.
pub fn open(config: &Config, proxies: &TrustedProxies, metrics: &Arc<Metrics>) -> Result<Arc<dyn Authorizer>, AuthError> {
    let application = http::HttpApplication::new(config, proxies, Arc::clone(metrics))?;
    let shield = shield::Shield::new(&config.auth, application, Arc::clone(metrics));
    match &config.auth.jwt.algorithm {
        Some(algorithm) => Ok(Arc::new(jwt::JwtAuthorizer::new(config, algorithm, shield, Arc::clone(metrics))?)),
        None => Ok(Arc::new(shield)),
    }
}
