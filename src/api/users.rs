//! `POST /apps/:id/users/:user/terminate_connections`: logs a user out everywhere.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tracing::info;

use super::Api;
use super::body::PostedNothing;

/// Closes all sockets known to belong to the user. Responds `{}`, like Pusher, even if there are none; `{"partial":true}` if a
/// node did not answer in time, so that some may still be open.
pub(crate) async fn terminate(Path((app_id, user)): Path<(String, String)>, State(api): State<Api>, _: PostedNothing) -> Json<Value> {
    let done = api.hub.terminate_user_everywhere(&user).await;
    info!(app_id, user, sockets = done.value, partial = done.is_partial, "closed the connections of a user");
    Json(if done.is_partial { json!({ "partial": true }) } else { json!({}) })
}
