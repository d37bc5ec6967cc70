//! [`JwtAuthorizer`]: signed tokens that list channels grant them without asking the application.
//!
//! Input: the Bearer token in a subscribe's `Authorization` header. Output: a grant or refusal by its claims; every
//! subscribe without such a token goes to the next authorizer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, dangerous, decode, decode_header};
use ring::digest::{SHA256, digest};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::http::AuthClientError;
use super::{AuthRequest, Authorizer, Denied, Grant, GrantedBy, Pass};
use crate::channel::{ChannelKind, ChannelName, Pattern};
use crate::clock::since_1970;
use crate::config::{ChannelAuth, Config, JwtConfig};
use crate::metrics::Metrics;
use crate::metrics::auth::SavedBy;
use crate::warn_throttled;

mod jwks;
mod keys;
mod removed;

use jwks::KeyError;
use keys::Keys;
use removed::Removed;

/// Invalid settings under `auth.jwt`.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// `auth.jwt.algorithm`.
    #[error("auth.jwt.algorithm: `{0}` is not supported")]
    Algorithm(String),
    /// `auth.jwt.publicKey`.
    #[error("auth.jwt.publicKey: `{}` is not a PEM public key for {algorithm:?}", crate::config::secrets::shown_path(.path))]
    PublicKey {
        /// The configured path.
        path: PathBuf,
        /// The configured algorithm.
        algorithm: Algorithm,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// `auth.jwt.jwks` as a file.
    #[error("auth.jwt.jwks: `{}` is not a JWKS with a key for {algorithm:?}", crate::config::secrets::shown_path(.path))]
    Jwks {
        /// The configured path.
        path: PathBuf,
        /// The configured algorithm.
        algorithm: Algorithm,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No key at all.
    #[error("auth.jwt: needs `secret`, `publicKey` or `jwks` for {0:?}")]
    NoKey(Algorithm),
    /// The client that fetches a JWKS.
    #[error(transparent)]
    Client(#[from] AuthClientError),
}

/// Grants channels by tokens; subscribes without one go to the next authorizer.
pub(crate) struct JwtAuthorizer<A> {
    next: A,
    keys: Keys,
    validation: Validation,
    channels_claim: String,
    info_claim: String,
    removed: Removed,
    metrics: Arc<Metrics>,
}

/// Upper bound of `auth.jwt.leeway`: a clock that is off by more than a year is no use anyway.
const MAX_LEEWAY_SECONDS: u64 = 365 * 24 * 3600;

type Claims = Map<String, Value>;

/// Why a token is rejected.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("{0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("its claim `{0}` does not list the channel")]
    NotListed(String),
    #[error("its header has `crit`, and no such extension is supported")]
    Critical,
    #[error("its holder was removed from the channel; a token issued later is accepted again")]
    Removed,
    #[error("it has no `sub`, which would be the user_id of a presence member")]
    NoSubject,
}

impl TokenError {
    /// 401: the client needs a new token. 403: a new token of the same kind would not help. 503: there are no keys to verify it yet.
    fn status(&self) -> u16 {
        match self {
            Self::Invalid(error) if *error.kind() == ErrorKind::ExpiredSignature => 401,
            Self::Key(KeyError::Unavailable) => 503,
            _ => 403,
        }
    }

    /// How to fix it, where the error alone does not say so.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Invalid(error) => match error.kind() {
                ErrorKind::InvalidSignature => {
                    Some("signed with another key: auth.jwt.secret, publicKey or jwks has to be the token issuer's")
                }
                ErrorKind::InvalidAlgorithm => Some("`alg` in the token's header has to be auth.jwt.algorithm"),
                ErrorKind::ExpiredSignature => Some("the page has to fetch a new token; where clocks differ, raise auth.jwt.leeway"),
                ErrorKind::ImmatureSignature => Some("its `nbf` is in the future: where clocks differ, raise auth.jwt.leeway"),
                ErrorKind::InvalidIssuer => Some("its `iss` has to be auth.jwt.issuer"),
                ErrorKind::InvalidAudience => Some("its `aud` has to contain auth.jwt.audience"),
                _ => None,
            },
            Self::NotListed(_) => Some("the application has to issue a token with that channel in it, or with a `*` pattern that matches"),
            Self::Key(_) | Self::Critical | Self::Removed | Self::NoSubject => None,
        }
    }
}

/// The status for a subscribe without a token to a channel that only tokens can grant.
const NO_TOKEN: u16 = 401;

impl<A: Authorizer> JwtAuthorizer<A> {
    /// Wraps `next`, with the keys of `auth.jwt` and the given algorithm.
    ///
    /// # Errors
    /// [`JwtError`] for an invalid algorithm or key.
    pub(crate) fn new(config: &Config, algorithm: &str, next: A, metrics: Arc<Metrics>) -> Result<Self, JwtError> {
        let jwt = &config.auth.jwt;
        let algorithm: Algorithm = algorithm.parse().map_err(|_| JwtError::Algorithm(algorithm.to_owned()))?;
        Ok(Self {
            next,
            keys: Keys::new(config, algorithm)?,
            validation: validation(jwt, algorithm),
            channels_claim: jwt.channels_claim.clone(),
            info_claim: jwt.info_claim.clone(),
            removed: Removed::new(config.auth.kicked_for),
            metrics,
        })
    }

    /// The Bearer token, if it lists channels. Other Bearer tokens are for the application.
    fn token<'a>(&self, headers: &'a [(String, String)]) -> Option<&'a str> {
        bearer(headers).filter(|token| {
            let claims = dangerous::insecure_decode_claims::<Claims>(token);
            claims.is_ok_and(|claims| claims.contains_key(&self.channels_claim))
        })
    }

    /// Decides by a token that lists channels.
    async fn judge(&self, token: &str, channel: &ChannelName) -> Result<Grant, TokenError> {
        let header = decode_header(token)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let key = self.keys.find(header.kid.as_deref()).await?;
        let claims: Claims = decode(token, &key, &self.validation)?.claims;
        if !lists(claims.get(&self.channels_claim), channel) {
            return Err(TokenError::NotListed(self.channels_claim.clone()));
        }
        let user = claims.get("sub").and_then(id_text);
        let issued = claims.get("iat").and_then(Value::as_f64);
        if self.removed.covers(user.as_deref(), || pass_of(token), channel.as_str(), issued) {
            return Err(TokenError::Removed);
        }
        let channel_data = match channel.kind() {
            ChannelKind::Presence if user.is_none() => return Err(TokenError::NoSubject),
            ChannelKind::Presence => Some(self.member(&claims)),
            ChannelKind::Private | ChannelKind::Public => None,
        };
        let leeway = Duration::from_secs(self.validation.leeway);
        Ok(Grant { channel_data: channel_data.map(Arc::from), ends: end(&claims, leeway), user: user.map(Arc::from), by: GrantedBy::Token })
    }

    /// `{"user_id": <sub>, "user_info": <info>}`
    fn member(&self, claims: &Claims) -> Box<serde_json::value::RawValue> {
        let mut member = Map::new();
        member.insert("user_id".to_owned(), claims.get("sub").cloned().unwrap_or_default());
        if let Some(info) = claims.get(&self.info_claim) {
            member.insert("user_info".to_owned(), info.clone());
        }
        to_raw_value(&member).expect("a JSON value can be written")
    }
}

fn validation(jwt: &JwtConfig, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = jwt.leeway.as_secs().min(MAX_LEEWAY_SECONDS);
    validation.validate_nbf = true;
    // `iss` and `aud` are required if configured, and ignored otherwise. `exp` is optional: that is the application's choice.
    validation.required_spec_claims.clear();
    if let Some(issuer) = &jwt.issuer {
        validation.set_issuer(&[issuer]);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    match &jwt.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        None => validation.validate_aud = false,
    }
    validation
}

#[async_trait]
impl<A: Authorizer> Authorizer for JwtAuthorizer<A> {
    async fn authorize(&self, request: AuthRequest<'_>) -> Result<Grant, Denied> {
        let token = match request.by {
            Some(ChannelAuth::Jwt) => match bearer(request.headers) {
                Some(token) => token,
                None => {
                    let (channel, hint) =
                        (request.channel, "its rule says `auth = \"jwt\"`: set auth.headers.Authorization in Echo's options to a token");
                    warn_throttled!(class = 0, key = channel.as_str(), %channel, hint, "Client can not be authenticated without a token: {NO_TOKEN}");
                    return Err(Denied::new(NO_TOKEN).because("no token was sent".to_owned(), hint));
                }
            },
            by => match self.token(request.headers).filter(|_| by.is_none() && !request.is_again) {
                Some(token) => token,
                None => return self.next.authorize(request).await,
            },
        };
        self.metrics.auth.saved(SavedBy::Token);
        self.judge(token, request.channel).await.map_err(|error| {
            let status = error.status();
            let (channel, hint) = (request.channel, error.hint());
            warn_throttled!(class = status, key = channel.as_str(), %channel, %error, hint, "Client can not be authenticated by its token: {status}");
            Denied::new(status).because(format!("its token was rejected: {error}"), hint.unwrap_or_default())
        })
    }

    fn removed(&self, user: Option<&str>, channel: Option<&ChannelName>) {
        if let Some(user) = user {
            self.removed.note(user, channel.map(ChannelName::as_str));
        }
        self.next.removed(user, channel);
    }

    fn pass(&self, headers: &[(String, String)]) -> Option<Pass> {
        self.token(headers).map(pass_of)
    }

    fn void(&self, pass: &Pass, channel: &ChannelName) {
        self.removed.note_token(pass, channel.as_str());
    }
}

/// The digest of a token without its signature: in some algorithms the same content has many valid signatures.
fn pass_of(token: &str) -> Pass {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    Pass(URL_SAFE_NO_PAD.encode(digest(&SHA256, signed.as_bytes())))
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &[(String, String)]) -> Option<&str> {
    let (_, value) = headers.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a claim (a name or a list of names, with `*` for any text) covers a channel.
fn lists(claim: Option<&Value>, channel: &ChannelName) -> bool {
    let covers = |value: &Value| value.as_str().is_some_and(|text| Pattern::new(text).matches(channel.as_str()));
    match claim {
        Some(Value::Array(names)) => names.iter().any(covers),
        Some(name) => covers(name),
        None => false,
    }
}

fn id_text(id: &Value) -> Option<String> {
    match id {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// When a token expires, on the monotonic clock. `None` without `exp`, or if it is too far away to represent.
fn end(claims: &Claims, leeway: Duration) -> Option<Instant> {
    let expires = claims.get("exp")?.as_f64()?;
    let now = since_1970();
    let left = Duration::try_from_secs_f64(expires).ok()?.saturating_sub(now);
    Instant::now().checked_add(left.checked_add(leeway)?)
}

#[cfg(test)]
mod tests;
