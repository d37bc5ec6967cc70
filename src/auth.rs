//! Who may join a guarded channel: the trait [`Authorizer`] and its outcomes.
//!
//! Input: a subscribe from the hub, with its headers and those of the handshake. Output: [`Grant`] or [`Denied`].
//! [`http::HttpAuthorizer`] asks the Laravel application; [`host`], [`headers`] and [`answer`] are its pure decisions.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::channel::ChannelName;

pub mod answer;
pub mod headers;
pub mod host;
pub mod http;

/// Headers a client sends with one subscribe (Echo's `auth.headers`), as text.
pub type SubscribeHeaders = Vec<(String, String)>;

/// A socket wants to join a guarded channel.
#[derive(Debug, Clone, Copy)]
pub struct AuthRequest<'a> {
    /// The channel.
    pub channel: &'a ChannelName,
    /// Headers of this subscribe; they win over the handshake's.
    pub headers: &'a [(String, String)],
    /// Headers of the handshake request.
    pub handshake: &'a ::http::HeaderMap,
}

/// The socket may join.
#[derive(Debug, Default)]
pub struct Grant {
    /// `channel_data` of the answer, which describes a presence member.
    pub channel_data: Option<Arc<RawValue>>,
}

/// The socket may not join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// What the client is told: the callback's HTTP status, or 0 when it could not be sent or was not answered.
    pub status: u16,
}

/// Decides who may join a guarded channel.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Decides about one subscribe. Failures are logged where they happen.
    ///
    /// # Errors
    /// [`Denied`] with the status for the client.
    async fn authorize(&self, request: AuthRequest<'_>) -> Result<Grant, Denied>;
}
