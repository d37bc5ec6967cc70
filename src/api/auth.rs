//! Who may use the HTTP API: the application id in the path, and its key.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use subtle::ConstantTimeEq as _;

use super::{Api, ApiError};
use crate::config::ApiClient;

/// Proof that a request came with the key of the application in its path.
#[derive(Debug, Clone)]
pub struct App {
    /// The application's id.
    pub id: String,
}

impl FromRequestParts<Api> for App {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, api).await.map_err(|_| ApiError::unauthorized())?;
        let id = params.iter().find(|(name, _)| *name == "app_id").map(|(_, id)| id.to_owned());
        let id = id.ok_or_else(ApiError::unauthorized)?;
        let client = api.clients.iter().find(|client| client.app_id == id).ok_or_else(ApiError::unauthorized)?;
        match given_key(parts) {
            Some(key) if has_key(client, &key) => Ok(Self { id }),
            _ => Err(ApiError::unauthorized()),
        }
    }
}

/// The key of a request: `Authorization: Bearer <key>`, the bare key there, or `?auth_key=`. The header decides when
/// there are both (`src/server.ts:181`).
fn given_key(parts: &Parts) -> Option<String> {
    match parts.headers.get(AUTHORIZATION).map(|value| value.to_str()) {
        Some(Ok(value)) if !value.is_empty() => Some(value.strip_prefix("Bearer ").unwrap_or(value).to_owned()),
        Some(Err(_)) => None,
        _ => {
            let query = parts.uri.query()?;
            form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "auth_key").map(|(_, key)| key.into_owned())
        }
    }
}

/// Compares in constant time; an empty key lets nobody in.
fn has_key(client: &ApiClient, given: &str) -> bool {
    let key = client.key.expose();
    !key.is_empty() && bool::from(key.as_bytes().ct_eq(given.as_bytes()))
}
