//! Settings: the HTTP API's applications and CORS headers: `[[clients]]` and `[apiOriginAllow]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::WebhookConfig;
use super::value::{self, As, Secret, Toggle};

/// One application that may use the HTTP API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiClient {
    /// Id in the path `/apps/<appId>/…`.
    #[serde(deserialize_with = "value::text")]
    pub app_id: String,
    /// Bearer key, also accepted as `auth_key`.
    #[serde(default)]
    pub key: Secret,
    /// Secret of Pusher signatures; empty means none.
    #[serde(default, deserialize_with = "value::secret", skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Refuse requests without a valid signature.
    #[serde(default)]
    #[serde(with = "As::<Toggle>")]
    pub require_signature: bool,
    /// Key that verifies JWTs for the API: an HS256 secret, or a PEM public key.
    #[serde(default, deserialize_with = "value::secret", skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Secret>,
    /// Webhooks that its key and secret sign.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<WebhookConfig>,
}

/// CORS headers of the HTTP API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiOriginAllow {
    /// Whether these headers are sent.
    #[serde(with = "As::<Toggle>")]
    pub allow_cors: bool,
    /// `Access-Control-Allow-Origin`.
    pub allow_origin: String,
    /// `Access-Control-Allow-Methods`.
    pub allow_methods: String,
    /// `Access-Control-Allow-Headers`.
    pub allow_headers: String,
}
