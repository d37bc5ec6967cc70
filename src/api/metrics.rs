//! `/metrics`: on the main port with a client's key, or on a separate listener.
//!
//! Input: the counters of [`crate::metrics::Metrics`] and the sockets connected now. Output: OpenMetrics text, with a
//! content type that the caller accepts.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::auth::bearer;
use super::{Api, ApiError, Readiness, health};
use crate::client::Client;
use crate::hub::Hub;

type SocketIoHub = Hub<Client>;

/// On the main port: requires the key of any client in `Authorization: Bearer`.
///
/// # Errors
/// 401 without a key, 403 for a wrong one.
pub(crate) async fn with_key(State(api): State<Api>, headers: HeaderMap) -> Result<Response, ApiError> {
    let key = bearer(&headers).ok_or_else(ApiError::unauthenticated)?;
    if api.clients.iter().any(|client| client.opens_metrics(&key)) { Ok(text(&api.hub, &headers)) } else { Err(ApiError::unauthorized()) }
}

/// Routes of the separate listener, which requires no key.
pub(crate) fn router(hub: Arc<SocketIoHub>, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(async |State(hub): State<Arc<SocketIoHub>>, headers: HeaderMap| text(&hub, &headers)))
        .with_state(hub)
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .fallback(async || ApiError::not_found())
        .with_state(readiness)
}

/// The text is also valid in the older format; there, a counter's suffix is simply part of its name.
fn text(hub: &SocketIoHub, asker: &HeaderMap) -> Response {
    let mut accepted = asker.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let content_type = if accepted.any(|value| value.contains("application/openmetrics-text")) {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    let mut connections = HashMap::new();
    hub.measure_recovery();
    hub.each_socket(|socket| *connections.entry(socket.labels()).or_insert(0) += 1);
    ([(CONTENT_TYPE, content_type)], hub.metrics().render(connections.into_iter())).into_response()
}
