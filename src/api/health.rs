//! `/health` and `/ready`, for load balancers and orchestrators. Neither requires a key.
//!
//! Input: the state of Redis and of the server's shutdown. Output: 200, or 503 with the reason.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::readiness::Readiness;

/// `{"status":"ok"}` as long as the process responds at all.
pub(crate) async fn health() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// `{"status":"ready"}`, or 503 with `{"status":"unavailable","reason":"redis","error":"…"}`.
pub(crate) async fn ready(State(readiness): State<Readiness>) -> Response {
    match readiness.obstacle() {
        None => Json(json!({ "status": "ready" })).into_response(),
        Some((reason, error)) => {
            let body = json!({ "status": "unavailable", "reason": reason, "error": error });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}
