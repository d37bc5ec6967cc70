//! How the HTTP API fails: a status and `{"error": "…"}`.

use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::error;

use crate::cluster::BusError;
use crate::store::StoreError;

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// The request makes no sense: 400 with what is wrong.
    #[must_use]
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// No such application, or not its key: 403.
    #[must_use]
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Unauthorized")
    }

    /// There is no key at all: 401. Only for routes that the original does not have; it answers 403.
    #[must_use]
    pub(crate) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Authorization: a client's key is needed, as `Bearer <key>`")
    }

    /// Nobody has signed in to the dashboard: 401.
    #[must_use]
    pub(crate) fn signed_out() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "sign in first")
    }

    /// Not what opens the dashboard: 403.
    #[must_use]
    pub(crate) fn wrong_password() -> Self {
        Self::new(StatusCode::FORBIDDEN, "that does not open the dashboard")
    }

    /// Too often or too many at once: 429, with why.
    #[must_use]
    pub(crate) fn slow_down(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message)
    }

    /// The credentials are there, and wrong in a way that may be told: 403.
    #[must_use]
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// No such path: 404.
    #[must_use]
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    /// The path exists, but not for this method: 405.
    #[must_use]
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
    }

    /// The body is larger than `limit` bytes: 413.
    #[must_use]
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("body: larger than limits.apiBody ({limit} bytes)"))
    }

    /// The body is larger than what is ever asked for there: 413.
    #[must_use]
    pub(crate) fn over(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("body: larger than the {limit} bytes that are read here"))
    }

    /// There is no dashboard: 404, with what to set.
    #[must_use]
    pub(crate) fn no_dashboard() -> Self {
        let message = "the dashboard is off: set dashboard.enabled = true and dashboard.password in the configuration, and restart";
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The body did not come in time: 408.
    #[must_use]
    pub(crate) fn slow_body(patience: Duration) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, format!("body: did not arrive within {} seconds", patience.as_secs()))
    }

    /// The body is compressed: 415.
    #[must_use]
    pub(crate) fn unsupported_encoding() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding: compressed bodies are not read, send plain JSON")
    }

    /// More requests than `limits.apiRequestsPerSecond`: 429.
    #[must_use]
    pub(crate) fn too_many_requests() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "more requests than limits.apiRequestsPerSecond for this application")
    }

    /// Says in which part of the request the error is.
    #[must_use]
    pub(crate) fn within(self, place: &str) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    /// What is wrong.
    #[must_use]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether it is about who asks, and not about what.
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
        error!(%cause, sent = cause.sent, "an event of the HTTP API was lost");
        let message = "the event could not be published, Redis is away";
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
