//! Details of one channel, socket or user, and the list of channels.
//!
//! Input: names and ids from the page. Output: the hub's data about them. Of a client's handshake, only its address and its
//! browser's name are shown: no cookies or tokens.

use axum::Json;
use axum::extract::State;
use axum::http::header::{ORIGIN, USER_AGENT};
use serde_json::{Value, json};

use super::Dashboard;
use super::access::Session;
use crate::api::ApiError;
use crate::api::params::Params;
use crate::auth::GrantedBy;
use crate::channel::{ChannelKind, ChannelName};
use crate::client::Client;
use crate::event::SocketId;
use crate::hub::{ClusterWide, Hub, Socket as _, SocketView};
use crate::proxies::TrustedProxies;

/// Maximum number of channels in a response, largest first.
const MAX_CHANNELS: usize = 20_000;

/// Maximum number of sockets in a response.
const MAX_SOCKETS: usize = 500;

/// Maximum number of users in a response.
const MAX_MEMBERS: usize = 500;

/// Maximum number of trace entries shown for a channel.
const MAX_RECENT: usize = 50;

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, ApiError> {
    params.get(name).filter(|value| !value.is_empty()).ok_or_else(|| ApiError::bad_request(format!("{name}: is missing")))
}

/// `{"total":3,"channels":[["news",12],…]}` of all nodes, largest first; `q` is a part of the name.
pub(super) async fn channels(_: Session, State(dashboard): State<Dashboard>, params: Params) -> Json<Value> {
    let part = params.get("q").unwrap_or_default().to_lowercase();
    let found = dashboard.settings.load_full().api.hub.channels_everywhere("").await;
    let mut channels: Vec<_> = found.value.into_iter().filter(|(name, _)| name.to_lowercase().contains(&part)).collect();
    let total = channels.len();
    channels.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    channels.truncate(MAX_CHANNELS);
    Json(json!({ "total": total, "partial": found.is_partial, "channels": channels }))
}

/// A channel with its sockets on this node, its members, and its recent trace entries. `?name=presence-room`
pub(super) async fn channel(_: Session, State(dashboard): State<Dashboard>, params: Params) -> Result<Json<Value>, ApiError> {
    let name = ChannelName::from(required(&params, "name")?);
    let hub = &dashboard.settings.load_full().api.hub;
    let ClusterWide { value: everywhere, is_partial } = hub.subscription_count_everywhere(&name).await;
    let sockets: Vec<_> = hub.sockets_in(name.as_str(), MAX_SOCKETS).into_iter().filter_map(|id| hub.inspect(id)).collect();
    let sockets: Vec<_> = sockets.iter().map(|view| row(view, &dashboard.proxies)).collect();
    let (members, users) = members(hub, &name).await?;
    let recent = dashboard.feed.recent(Some(name.as_str()));
    let recent: Vec<_> = recent.iter().rev().take(MAX_RECENT).map(AsRef::as_ref).collect();
    Ok(Json(json!({
        "name": name.as_str(),
        "kind": name.kind().as_str(),
        "here": hub.subscription_count(name.as_str()),
        "everywhere": everywhere,
        "partial": is_partial,
        "sockets": sockets,
        "members": members,
        "users": users,
        "near": hub.nearest(name.as_str()).map(|(channel, hint)| json!({ "channel": channel, "hint": hint })),
        "recent": recent,
    })))
}

/// Users of a presence channel, each with the number of its sockets, and the total number of users.
async fn members(hub: &Hub<Client>, name: &ChannelName) -> Result<(Value, usize), ApiError> {
    if name.kind() != ChannelKind::Presence {
        return Ok((Value::Null, 0));
    }
    let mut users = indexmap::IndexMap::<String, (Value, usize)>::new();
    for (_, member) in hub.members(name).await?.iter() {
        let info = || member.view().user_info.and_then(|info| serde_json::from_str(info.get()).ok()).unwrap_or_default();
        users.entry(member.user().to_owned()).or_insert_with(|| (info(), 0)).1 += 1;
    }
    let count = users.len();
    let rows = users.into_iter().take(MAX_MEMBERS).map(|(id, (info, sockets))| json!({ "id": id, "info": info, "sockets": sockets }));
    Ok((rows.collect(), count))
}

/// A socket as a table row.
fn row(view: &SocketView<Client>, proxies: &TrustedProxies) -> Value {
    let socket = &view.socket;
    let labels = socket.labels();
    let peer = socket.peer();
    json!({
        "id": socket.id(),
        "user": view.user.as_deref(),
        "address": peer.map(|peer| proxies.client(peer, socket.handshake()).to_string()),
        "engine": labels.engine,
        "transport": labels.transport,
        "age": view.age.as_secs(),
    })
}

/// A socket on this node, with its channels. `?id=123.456`
pub(super) async fn socket(_: Session, State(dashboard): State<Dashboard>, params: Params) -> Result<Json<Value>, ApiError> {
    let id = SocketId::parse(required(&params, "id")?).ok_or_else(|| ApiError::bad_request("id: is not that of a socket"))?;
    let hub = &dashboard.settings.load_full().api.hub;
    let view = hub.inspect(id).ok_or_else(ApiError::not_found)?;
    let mut found = row(&view, &dashboard.proxies);
    let stays = view.channels.iter().map(|stay| {
        json!({
            "channel": stay.channel.as_str(),
            "joined": stay.is_joined,
            "user": stay.user.as_deref(),
            "by": stay.by.map(GrantedBy::as_str),
            "endsIn": stay.ends_in.map(|time| time.as_secs()),
        })
    });
    found["channels"] = stays.collect();
    let header = |name| view.socket.handshake().get(name).and_then(|value| value.to_str().ok());
    found["browser"] = json!(header(USER_AGENT));
    found["origin"] = json!(header(ORIGIN));
    let (frames, bytes) = view.socket.outbox().backlog();
    found["waiting"] = json!({ "messages": frames, "bytes": bytes });
    Ok(Json(found))
}

/// The sockets of a user on this node. `?id=7`
pub(super) async fn user(_: Session, State(dashboard): State<Dashboard>, params: Params) -> Result<Json<Value>, ApiError> {
    let id = required(&params, "id")?;
    let hub = &dashboard.settings.load_full().api.hub;
    let sockets: Vec<_> = hub.sockets_of(id, MAX_SOCKETS).into_iter().filter_map(|id| hub.inspect(id)).collect();
    let sockets: Vec<_> = sockets.iter().map(|view| row(view, &dashboard.proxies)).collect();
    Ok(Json(json!({ "id": id, "sockets": sockets })))
}
