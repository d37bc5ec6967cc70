//! `GET /apps/:id/channels`, one channel, and the users of a presence channel.

use std::collections::{BTreeMap, HashSet};

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::auth::App;
use super::{Api, ApiError};
use crate::channel::{ChannelKind, ChannelName};

/// Query of the channel list.
#[derive(Debug, Deserialize)]
pub struct ListQuery {
    #[serde(default)]
    filter_by_prefix: String,
}

/// `{"channels":{"news":{"subscription_count":2,"occupied":true}}}`
#[derive(Debug, Serialize)]
pub struct ChannelList {
    channels: BTreeMap<String, ChannelInfo>,
}

/// `{"subscription_count":2,"occupied":true}`, and `user_count` for presence channels.
#[derive(Debug, Serialize)]
pub struct ChannelInfo {
    subscription_count: usize,
    occupied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<usize>,
}

/// `{"users":[{"id":1,"user_info":{"name":"Ann"}}]}`
#[derive(Debug, Serialize)]
pub struct UserList {
    users: Vec<User>,
}

#[derive(Debug, Serialize)]
struct User {
    id: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_info: Option<Box<RawValue>>,
}

/// Channels with at least one socket.
pub async fn list(_: App, State(api): State<Api>, Query(query): Query<ListQuery>) -> Json<ChannelList> {
    let channels = api.hub.channels(&query.filter_by_prefix).into_iter().map(|(name, count)| {
        let info = ChannelInfo { subscription_count: count, occupied: true, user_count: None };
        (name.as_str().to_owned(), info)
    });
    Json(ChannelList { channels: channels.collect() })
}

/// One channel. A channel nobody is in answers 200 with 0.
///
/// # Errors
/// [`ApiError`] when the members of a presence channel cannot be read.
pub async fn one(_: App, State(api): State<Api>, Path((_, channel)): Path<(String, String)>) -> Result<Json<ChannelInfo>, ApiError> {
    let channel = ChannelName::from(channel);
    let count = api.hub.subscription_count(channel.as_str());
    let user_count = match channel.kind() {
        ChannelKind::Presence => {
            let members = api.hub.members(&channel).await?;
            let users: HashSet<_> = members.iter().map(|(_, member)| member.user()).collect();
            Some(users.len())
        }
        ChannelKind::Public | ChannelKind::Private => None,
    };
    Ok(Json(ChannelInfo { subscription_count: count, occupied: count > 0, user_count }))
}

/// Users of a presence channel, each once, in the order of joining.
///
/// # Errors
/// 400 when the channel is none; [`ApiError`] when members cannot be read.
pub async fn users(_: App, State(api): State<Api>, Path((_, channel)): Path<(String, String)>) -> Result<Json<UserList>, ApiError> {
    let channel = ChannelName::from(channel);
    if channel.kind() != ChannelKind::Presence {
        return Err(ApiError::bad_request("User list is only possible for Presence Channels"));
    }
    let members = api.hub.members(&channel).await?;
    let mut seen = HashSet::new();
    let firsts = members.iter().filter(|(_, member)| seen.insert(member.user()));
    let users = firsts.map(|(_, member)| {
        let view = member.view();
        User { id: view.user_id.to_owned(), user_info: view.user_info.map(ToOwned::to_owned) }
    });
    Ok(Json(UserList { users: users.collect() }))
}
