//! Actions of the page with `dashboard.actions`: send an event, unsubscribe or disconnect clients, recheck a channel.
//!
//! Input: requests of the page's own script. Output: calls to the hub, each of which is logged.

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::Dashboard;
use super::access::{Act, read};
use crate::api::{ApiError, events, moderation};
use crate::channel::ChannelName;
use crate::event::SocketId;

/// Sends an event, as `POST /apps/:id/events` does: `{"channel":"news","name":"sent","data":{}}`.
pub(super) async fn event(_: Act, State(dashboard): State<Dashboard>, request: Request) -> Result<Json<Value>, ApiError> {
    let api = dashboard.settings.load_full().api.clone();
    let body = axum::body::to_bytes(request.into_body(), api.body_limit).await.map_err(|_| ApiError::too_large(api.body_limit))?;
    events::send(&api, &body).await?;
    info!("an event was sent from the dashboard");
    Ok(Json(json!({})))
}

/// An action on a user, socket or channel.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
enum Action {
    /// Unsubscribe a user from a channel, on all nodes.
    KickUser { user: String, channel: String },
    /// Unsubscribe a socket from a channel.
    KickSocket { socket: String, channel: String },
    /// Close all sockets of a user, on all nodes.
    CloseUser { user: String },
    /// Close a socket.
    CloseSocket { socket: String },
    /// Ask the application about every socket in a channel again.
    AskAgain { channel: String },
}

/// `{"do":"kickUser","user":"7","channel":"private-orders.1"}`; the response has the number of affected sockets.
pub(super) async fn act(_: Act, State(dashboard): State<Dashboard>, request: Request) -> Result<Json<Value>, ApiError> {
    let action: Action = read(request.into_body()).await?;
    let hub = std::sync::Arc::clone(&dashboard.settings.load().api.hub);
    let known = |socket: &str| SocketId::parse(socket).ok_or_else(|| ApiError::bad_request("socket: is not the id of a socket"));
    info!(?action, "action from the dashboard");
    let answer = match action {
        Action::KickUser { user, channel } => {
            let done = hub.unsubscribe_user_everywhere(&user, &ChannelName::from(channel)).await;
            json!({ "sockets": done.value, "partial": done.is_partial })
        }
        Action::KickSocket { socket, channel } => {
            json!({ "sockets": usize::from(hub.unsubscribe_socket(known(&socket)?, &ChannelName::from(channel))) })
        }
        Action::CloseUser { user } => {
            let done = hub.terminate_user_everywhere(&user).await;
            json!({ "sockets": done.value, "partial": done.is_partial })
        }
        Action::CloseSocket { socket } => json!({ "sockets": usize::from(hub.terminate_socket(known(&socket)?)) }),
        Action::AskAgain { channel } => {
            let api = dashboard.settings.load().api.clone();
            json!(moderation::recheck_channel(api, channel.into()).await?)
        }
    };
    Ok(Json(answer))
}
