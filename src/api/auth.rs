//! Access to the HTTP API: the application id in the path, with a key, a token or a signature.
//!
//! Input: path, `Authorization` and query of a request, and the entries of `clients`. Output: [`App`], the proof of access
//! that handlers require, or 403 and 429.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::params::Params;
use super::signature::{Signable, Signed, verify};
use super::token::{TokenKey, TokenKeyError};
use super::{Api, ApiError};
use crate::clock::since_1970;
use crate::config::ApiClient;
use crate::config::value::Secret;
use crate::metrics::Refusal;
use crate::warn_throttled;

/// A parsed entry of `clients`.
pub struct Client {
    app_id: String,
    key: Secret,
    secret: Option<Secret>,
    requires_signature: bool,
    token_key: Option<TokenKey>,
    /// `limits.apiRequestsPerSecond`, with a burst of one second's requests.
    requests: Option<DefaultDirectRateLimiter>,
}

impl Client {
    /// Parses an entry of `clients`.
    ///
    /// # Errors
    /// [`TokenKeyError`] when its `jwt` is not a usable key.
    pub fn new(client: &ApiClient, requests_per_second: u32) -> Result<Self, TokenKeyError> {
        let token_key = client.jwt.as_ref().map(|jwt| TokenKey::new(&client.app_id, jwt.expose())).transpose()?;
        Ok(Self {
            app_id: client.app_id.clone(),
            key: client.key.clone(),
            secret: client.secret.clone(),
            requires_signature: client.require_signature,
            token_key,
            requests: std::num::NonZeroU32::new(requests_per_second).map(|rate| RateLimiter::direct(Quota::per_second(rate))),
        })
    }

    /// Whether a bearer may read the metrics: a token, or the key if it alone grants access to the API.
    pub(super) fn opens_metrics(&self, bearer: &str) -> bool {
        match &self.token_key {
            Some(key) if TokenKey::is_token(bearer) => key.verify(bearer, &self.app_id).is_ok(),
            _ => !self.requires_signature && self.key.is(bearer.as_bytes()),
        }
    }

    /// Whether these credentials open the dashboard: a token; else the secret, if there is one, because the key is then public
    /// (Pusher clients use it); else the key.
    pub(super) fn opens_dashboard(&self, given: &str) -> bool {
        match (&self.token_key, &self.secret) {
            (Some(key), _) if TokenKey::is_token(given) => key.verify(given, &self.app_id).is_ok(),
            (_, Some(secret)) => secret.is(given.as_bytes()),
            (_, None) => !self.requires_signature && self.key.is(given.as_bytes()),
        }
    }

    /// Checks the credentials of a request. `Some`: a valid signature, with which the body is still to be compared.
    fn admit(&self, given: &Given<'_>) -> Result<Option<Signed>, Denial> {
        if let (Some(key), Some(token)) = (&self.token_key, given.bearer.as_deref().filter(|text| TokenKey::is_token(text))) {
            let verified = key.verify(token, &self.app_id).map(|()| None);
            return verified.map_err(|error| Denial { hint: Some(error.hint()), error: ApiError::forbidden(error.to_string()) });
        }
        let auth_key = given.params.get("auth_key");
        let has_key = given.bearer.as_deref().or(auth_key).is_some_and(|key| self.key.is(key.as_bytes()));
        let names_app = given.bearer.is_none() && auth_key == Some(self.app_id.as_str());
        match &self.secret {
            Some(secret) if (has_key || names_app) && given.params.get("auth_signature").is_some() => {
                let signed = verify(secret.expose(), given.request, since_1970().as_secs());
                signed.map(Some).map_err(|error| Denial { hint: error.hint(), error: ApiError::forbidden(error.to_string()) })
            }
            _ if !has_key => Err(ApiError::unauthorized().into()),
            _ if self.requires_signature => Err(Denial {
                error: ApiError::forbidden("auth_signature is missing, and this application requires signatures"),
                hint: Some("sign requests as Pusher's libraries do, or remove `requireSignature` from this entry of `clients`"),
            }),
            _ => Ok(None),
        }
    }
}

/// Why a request is refused.
struct Denial {
    error: ApiError,
    /// How to fix it, unless the key or the secret is wrong.
    hint: Option<&'static str>,
}

impl From<ApiError> for Denial {
    fn from(error: ApiError) -> Self {
        Self { error, hint: None }
    }
}

/// The credentials in a request.
struct Given<'a> {
    /// If present, the header decides (`src/server.ts:181`).
    bearer: Option<String>,
    params: Params,
    request: Signable<'a>,
}

impl Given<'_> {
    /// Whether it shows any, right or wrong.
    fn has_key(&self) -> bool {
        self.bearer.is_some() || self.params.get("auth_key").is_some()
    }
}

/// Proof that a request may act for the application in its path.
#[derive(Debug, Clone)]
pub(crate) struct App {
    id: Box<str>,
    signed: Option<Signed>,
}

impl App {
    /// Compares the body with the signature, if the request has one.
    ///
    /// # Errors
    /// 403 when the signature does not cover this body.
    pub(crate) fn check_body(&self, body: &[u8]) -> Result<(), ApiError> {
        match &self.signed {
            Some(signed) => signed.check_body(body).map_err(|error| {
                let hint = "the signature is valid, but for another body: a proxy in between may have changed it";
                warn_throttled!(class = 0, key = &self.id, app_id = &*self.id, %error, hint, "refused a request of the HTTP API");
                ApiError::forbidden(error.to_string())
            }),
            None => Ok(()),
        }
    }
}

impl FromRequestParts<Api> for App {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path = RawPathParams::from_request_parts(parts, api).await.map_err(|_| ApiError::unauthorized())?;
        let id = path.iter().find(|(name, _)| *name == "app_id").map(|(_, id)| id).ok_or_else(ApiError::unauthorized)?;
        let query = parts.uri.query().unwrap_or_default();
        let given = Given {
            bearer: bearer(&parts.headers),
            params: Params::parse(query),
            request: Signable { method: parts.method.as_str(), path: parts.uri.path(), query },
        };
        let mut denial = Denial::from(ApiError::unauthorized());
        for client in api.clients.iter().filter(|client| client.app_id == id) {
            match client.admit(&given) {
                Ok(signed) => {
                    if client.requests.as_ref().is_some_and(|requests| requests.check().is_err()) {
                        api.hub.metrics().refusal(Refusal::ApiRate);
                        return Err(ApiError::too_many_requests());
                    }
                    return Ok(Self { id: id.into(), signed });
                }
                Err(error) => denial = error,
            }
        }
        let is_known = api.clients.iter().any(|client| client.app_id == id);
        let (class, usual) = match (is_known, given.has_key()) {
            (false, _) => (0, "no entry of `clients` has this appId; after a change of the file send SIGHUP or restart the server"),
            (true, true) => (1, "the key or secret of the request does not match this entry of `clients`"),
            (true, false) => (2, "send the `key` of this entry of `clients`: `Authorization: Bearer <key>`, or `?auth_key=<key>`"),
        };
        let hint = denial.hint.unwrap_or(usual);
        warn_throttled!(class = class, key = id, app_id = id, error = denial.error.message(), hint, "refused a request of the HTTP API");
        Err(denial.error)
    }
}

/// The key in `Authorization: Bearer <key>`, or in the bare header. A header that cannot be a key still overrides `auth_key`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION).filter(|value| !value.is_empty())?;
    let text = value.to_str().unwrap_or_default();
    Some(text.strip_prefix("Bearer ").unwrap_or(text).to_owned())
}
