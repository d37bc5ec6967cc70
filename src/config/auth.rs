//! Settings: authorization by the Laravel application, or by tokens in its place: `[auth]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{self, As, OneOrMany, Seconds, Secret, Toggle};

/// Authorization by the Laravel application or tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthConfig {
    /// Timeout of one callback.
    #[serde(with = "As::<Seconds>")]
    pub timeout: Duration,
    /// Certificate of `authHost`.
    pub tls: AuthTls,
    /// Callbacks in flight per host.
    #[serde(deserialize_with = "value::integer")]
    pub max_concurrent: u32,
    /// How long a subscribe may wait for its turn.
    #[serde(with = "As::<Seconds>")]
    pub queue_timeout: Duration,
    /// How long an answer is cached; 0 turns the cache off.
    #[serde(with = "As::<Seconds>")]
    pub cache_ttl: Duration,
    /// Additional handshake headers to forward.
    #[serde(with = "As::<OneOrMany>")]
    pub forward: Vec<String>,
    /// Headers that clients may add to the callback.
    pub headers: AuthHeaders,
    /// Whether the callback carries the socket's id; unset: if an entry of `clients` has a `secret`, because Laravel's `pusher` and
    /// `reverb` drivers sign it.
    #[serde(with = "As::<Option<Toggle>>")]
    pub send_socket_id: Option<bool>,
    /// How long a token is refused for a channel that its holder was removed from.
    #[serde(with = "As::<Seconds>")]
    pub kicked_for: Duration,
    /// Tokens that grant channels without a callback.
    pub jwt: JwtConfig,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            tls: AuthTls::default(),
            max_concurrent: 64,
            queue_timeout: Duration::from_secs(30),
            cache_ttl: Duration::ZERO,
            forward: Vec::new(),
            headers: AuthHeaders::default(),
            send_socket_id: None,
            kicked_for: Duration::from_secs(300),
            jwt: JwtConfig::default(),
        }
    }
}

/// Headers that clients may add to the callback.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthHeaders {
    /// If set, the only allowed headers. Headers that change the meaning of the request are never allowed.
    #[serde(with = "As::<Option<OneOrMany>>")]
    pub allow: Option<Vec<String>>,
}

/// Certificate of `authHost`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthTls {
    /// `false` accepts any certificate.
    #[serde(with = "As::<Toggle>")]
    pub verify: bool,
    /// File with the certificate authority (PEM), in addition to the system's.
    pub ca: Option<PathBuf>,
}

impl Default for AuthTls {
    fn default() -> Self {
        Self { verify: true, ca: None }
    }
}

/// Tokens that grant channels without a callback. Disabled if `algorithm` is not set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtConfig {
    /// Signature algorithm, such as `HS256` or `RS256`.
    pub algorithm: Option<String>,
    /// Secret of the HS algorithms.
    #[serde(deserialize_with = "value::secret")]
    pub secret: Option<Secret>,
    /// File with the public key (PEM) of the RS, PS, ES and Ed algorithms.
    pub public_key: Option<PathBuf>,
    /// File or URL of a JWKS.
    pub jwks: Option<String>,
    /// Required `iss`.
    pub issuer: Option<String>,
    /// Required `aud`.
    pub audience: Option<String>,
    /// Tolerated clock difference.
    #[serde(with = "As::<Seconds>")]
    pub leeway: Duration,
    /// Claim with the list of channels.
    pub channels_claim: String,
    /// Claim that becomes `user_info`.
    pub info_claim: String,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            algorithm: None,
            secret: None,
            public_key: None,
            jwks: None,
            issuer: None,
            audience: None,
            leeway: Duration::ZERO,
            channels_claim: "channels".into(),
            info_claim: "info".into(),
        }
    }
}
