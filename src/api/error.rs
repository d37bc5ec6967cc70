//! Errors of the HTTP API: a status and `{"error": "…"}`.

use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::error;

use crate::cluster::BusError;
use crate::store::StoreError;

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// 400: the request is invalid, with the reason.
    #[must_use]
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 403: no such application, or a wrong key.
    #[must_use]
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Unauthorized")
    }

    /// 401: no key. Only for routes that the original does not have; elsewhere it answers 403.
    #[must_use]
    pub(crate) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Authorization: a client's key is needed, as `Bearer <key>`")
    }

    /// 401: not signed in to the dashboard.
    #[must_use]
    pub(crate) fn signed_out() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "sign in first")
    }

    /// 403: wrong credentials for the dashboard.
    #[must_use]
    pub(crate) fn wrong_password() -> Self {
        Self::new(StatusCode::FORBIDDEN, "that does not open the dashboard")
    }

    /// 429: too often or too many at once, with the reason.
    #[must_use]
    pub(crate) fn slow_down(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message)
    }

    /// 403: the credentials are wrong, with a reason that may be disclosed.
    #[must_use]
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: no such path.
    #[must_use]
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    /// 405: the path exists, but not for this method.
    #[must_use]
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
    }

    /// 413: the body is larger than `limit` bytes.
    #[must_use]
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("body: larger than limits.apiBody ({limit} bytes)"))
    }

    /// 413: the body is larger than this route ever needs.
    #[must_use]
    pub(crate) fn over(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("body: larger than the {limit} bytes that are read here"))
    }

    /// 404: the dashboard is disabled, with the setting that enables it.
    #[must_use]
    pub(crate) fn no_dashboard() -> Self {
        let message = "the dashboard is off: set dashboard.enabled = true and dashboard.password in the configuration, and restart";
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 408: the body did not arrive in time.
    #[must_use]
    pub(crate) fn slow_body(patience: Duration) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, format!("body: did not arrive within {} seconds", patience.as_secs()))
    }

    /// 415: the body is compressed.
    #[must_use]
    pub(crate) fn unsupported_encoding() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding: compressed bodies are not read, send plain JSON")
    }

    /// 429: more requests than `limits.apiRequestsPerSecond`.
    #[must_use]
    pub(crate) fn too_many_requests() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "more requests than limits.apiRequestsPerSecond for this application")
    }

    /// Adds the part of the request in which the error is.
    #[must_use]
    pub(crate) fn within(self, place: &str) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    /// The reason.
    #[must_use]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether the error is about the caller's credentials, not about the request.
    #[must_use]
    pub(crate) fn is_about_credentials(&self) -> bool {
        matches!(self.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)
    }

    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<StoreError> for ApiError {
    fn from(cause: StoreError) -> Self {
        error!(%cause, "the HTTP API could not read presence members");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "presence members cannot be read now")
    }
}

impl From<BusError> for ApiError {
    fn from(cause: BusError) -> Self {
        error!(%cause, sent = cause.sent, "cannot publish an event of the HTTP API");
        let message = "the event could not be published: Redis did not confirm it, and may have it or not; see the log of the server";
        match cause.sent {
            0 => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
            sent => Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{message}; the first {sent} channels of the request have it")),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.message }))).into_response();
        let header = match self.status {
            StatusCode::TOO_MANY_REQUESTS => Some((RETRY_AFTER, "1")),
            StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
            _ => None,
        };
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
