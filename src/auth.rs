//! Who may join a guarded channel: the trait [`Authorizer`] and its outcomes.
//!
//! Input: a subscribe from the hub, with its headers and those of the handshake. Output: [`Grant`] or [`Denied`].
//!
//! ```text
//!   Hub ─▶ jwt: a signed token that lists channels decides alone
//!            └─▶ shield: one question for equal subscribes, a cap and a queue per host, a breaker
//!                  └─▶ http: asks the Laravel application
//! ```
//!
//! [`host`], [`headers`] and [`answer`] are the pure decisions of a callback.

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

/// What headers of a subscribe take up: names and values.
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
    /// Address at the other end of the connection: the client, or a proxy before it.
    pub peer: Option<IpAddr>,
    /// Who decides, where a rule of the channel says so; else tokens where they are set up, or the application.
    pub by: Option<ChannelAuth>,
    /// The socket is in the channel already, and the question is whether it may stay: no earlier answer and no token
    /// counts, the application decides anew.
    pub is_again: bool,
}

/// The socket may join.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// `channel_data` of the answer, which describes a presence member.
    pub channel_data: Option<Arc<RawValue>>,
    /// When the grant ends, if it does.
    pub ends: Option<Instant>,
    /// The user's id, where the grant tells it outside of `channel_data`.
    pub user: Option<Arc<str>>,
    /// Who gave it.
    pub by: GrantedBy,
}

/// Who has granted a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantedBy {
    /// The application, when it was asked.
    #[default]
    Application,
    /// A token that lists the channel.
    Token,
    /// The application, by a signature that the client brought.
    Signature,
}

impl GrantedBy {
    /// In a word, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Token => "token",
            Self::Signature => "signature",
        }
    }
}

/// Stands for what a client brings that grants channels by itself; the original cannot be had from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pass(pub String);

/// The socket may not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// What the client is told: the callback's HTTP status, 0 when it could not be sent or was not answered, 503 when
    /// it was not sent to spare the application.
    pub status: u16,
    /// What the log says about it, for whoever watches.
    pub reason: Option<Arc<Reason>>,
}

/// Why somebody may not join, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What was answered, or went wrong, in a line.
    pub answer: String,
    /// What it usually means, and what to do about it.
    pub hint: &'static str,
}

impl Denied {
    /// A refusal with this status, and no more to say.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self { status, reason: None }
    }

    /// The same refusal, with what the log says about it.
    #[must_use]
    pub fn because(self, answer: impl Into<String>, hint: &'static str) -> Self {
        Self { reason: Some(Arc::new(Reason { answer: answer.into(), hint })), ..self }
    }

    /// Whether somebody decided so: the application is there, and its answer was no.
    #[must_use]
    pub const fn is_decision(&self) -> bool {
        matches!(self.status, 100..=428 | 430..=499)
    }
}

/// Decides who may join a guarded channel.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Decides about one subscribe. Failures are logged where they happen. Dropping the future takes the question
    /// back.
    ///
    /// # Errors
    /// [`Denied`] with the status for the client.
    async fn authorize(&self, request: AuthRequest<'_>) -> Result<Grant, Denied>;

    /// Somebody was taken out of a channel, or of all of them: what was granted before counts no more.
    fn removed(&self, _user: Option<&str>, _channel: Option<&ChannelName>) {}

    /// What in the headers of a subscribe grants channels by itself, as a digest that other nodes may be told.
    fn pass(&self, _headers: &[(String, String)]) -> Option<Pass> {
        None
    }

    /// The holder of a pass was taken out of a channel: the pass does not let it in again.
    fn void(&self, _pass: &Pass, _channel: &ChannelName) {}
}

/// Settings under `auth` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The client for callbacks.
    #[error(transparent)]
    Client(#[from] http::AuthClientError),
    /// `auth.jwt`.
    #[error(transparent)]
    Jwt(#[from] jwt::JwtError),
}

/// The authorizer of the settings, which believes `proxies` about addresses.
///
/// # Errors
/// [`AuthError`] for a certificate or key that cannot be used.
pub fn open(config: &Config, proxies: &TrustedProxies, metrics: &Arc<Metrics>) -> Result<Arc<dyn Authorizer>, AuthError> {
    let application = http::HttpApplication::new(config, proxies, Arc::clone(metrics))?;
    let shield = shield::Shield::new(&config.auth, application, Arc::clone(metrics));
    match &config.auth.jwt.algorithm {
        Some(algorithm) => Ok(Arc::new(jwt::JwtAuthorizer::new(config, algorithm, shield, Arc::clone(metrics))?)),
        None => Ok(Arc::new(shield)),
    }
}
