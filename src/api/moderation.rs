//! Revoking access: `POST /apps/:id/users/:user/unsubscribe` and `POST /apps/:id/channels/:name/recheck`.
//!
//! Input: requests with the application's key. Output: calls to the hub, and the number of affected sockets on all nodes.

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::body::{Posted, PostedNothing};
use super::{Api, ApiError, writes};
use crate::channel::ChannelName;
use crate::hub::{ClusterWide, Recheck};

/// The routes of this file.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/apps/{app_id}/users/{user}/unsubscribe", writes(post(unsubscribe)))
        .route("/apps/{app_id}/channels/{channel}/recheck", writes(post(recheck)))
}

/// `{"channel":"private-orders.1"}`
#[derive(Debug, Deserialize)]
struct UnsubscribeBody {
    channel: String,
}

/// `{"unsubscribed":2}`, and `"partial":true` when a node did not answer in time.
#[derive(Debug, Serialize)]
struct Unsubscribed {
    unsubscribed: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

/// `{"checked":5,"removed":1,"undecided":0}`, and `"partial":true` when a node did not answer in time.
#[derive(Debug, Serialize)]
pub(super) struct Rechecked {
    checked: usize,
    removed: usize,
    undecided: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

/// Unsubscribes a user's sockets from a channel.
async fn unsubscribe(
    State(api): State<Api>,
    Path((_, user)): Path<(String, String)>,
    Posted(body): Posted,
) -> Result<Json<Unsubscribed>, ApiError> {
    let body: UnsubscribeBody = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("body: must be an object such as {{\"channel\":\"private-orders.1\"}}: {error}")))?;
    let done = api.hub.unsubscribe_user_everywhere(&user, &ChannelName::from(body.channel)).await;
    Ok(Json(Unsubscribed { unsubscribed: done.value, partial: done.is_partial }))
}

/// Asks the application about every socket in a channel again; responds when that is done.
async fn recheck(
    State(api): State<Api>,
    Path((_, channel)): Path<(String, String)>,
    _: PostedNothing,
) -> Result<Json<Rechecked>, ApiError> {
    recheck_channel(api, channel.into()).await.map(Json)
}

/// Asks the application about every socket in a channel again, on all nodes.
pub(super) async fn recheck_channel(api: Api, channel: ChannelName) -> Result<Rechecked, ApiError> {
    if !api.hub.is_guarded(channel.as_str()) {
        return Err(ApiError::bad_request("channel: only private and presence channels are granted, and can be rechecked"));
    }
    // Runs to the end even if the caller stops waiting.
    let done = tokio::spawn(async move { api.hub.recheck_everywhere(&channel).await }).await;
    let unknown = ClusterWide { value: Recheck::default(), is_partial: true };
    let ClusterWide { value: Recheck { checked, removed, undecided }, is_partial } = done.unwrap_or(unknown);
    Ok(Rechecked { checked, removed, undecided, partial: is_partial })
}
