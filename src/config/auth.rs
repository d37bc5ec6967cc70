//! Settings: how the Laravel application is asked, and what tokens say in its place: `[auth]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{self, As, OneOrMany, Seconds, Secret, Toggle};

/// How the Laravel application is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthConfig {
    /// Time for one callback.
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
    /// Share an answer for so long; 0 turns it off.
    #[serde(with = "As::<Seconds>")]
    pub cache_ttl: Duration,
    /// Further handshake headers to pass on.
    #[serde(with = "As::<OneOrMany>")]
    pub forward: Vec<String>,
    /// Headers that clients may add to the callback.
    pub headers: AuthHeaders,
    /// Whether the callback carries the socket's id; unset: when an entry of `clients` has a `secret`, as Laravel's `pusher` and
    /// `reverb` drivers sign it.
    #[serde(with = "As::<Option<Toggle>>")]
    pub send_socket_id: Option<bool>,
    /// A token does not grant a channel again that its holder was removed from, for so long.
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
    /// The only ones, if there is such a list. Those that change what the request is are never let through.
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
    /// File with the certificate authority (PEM), besides the system's.
    pub ca: Option<PathBuf>,
}

impl Default for AuthTls {
    fn default() -> Self {
        Self { verify: true, ca: None }
    }
}

/// Tokens that grant channels without a callback. Nothing set means that no token is looked at.
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
    /// Clock difference that is forgiven.
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
