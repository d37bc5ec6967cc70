//! `GET /apps/:id/channels`, a single channel, and the users of a presence channel.
//!
//! Input: names, prefixes and `info` of requests. Output: responses as in the original; `info` adds `user_count` to lists,
//! and channel attributes to responses to events. Counts cover all nodes; if a node did not answer in time,
//! `"partial":true` is set.

use std::collections::HashSet;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::auth::App;
use super::params::Params;
use super::{Api, ApiError};
use crate::channel::{ChannelKind, ChannelName, is_cached};
use crate::hub::ClusterWide;
use crate::store::users_of;

/// Channel attributes that `info` requests, as at Pusher: `info=subscription_count,user_count`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    subscription_count: bool,
    user_count: bool,
    occupied: bool,
    cache: bool,
}

impl Attributes {
    /// Parses `info`. Unknown attributes are ignored, since callers may use those of any version of Pusher.
    #[must_use]
    pub(crate) fn parse(info: &str) -> Self {
        let has = |name: &str| info.split(',').any(|part| part.trim() == name);
        Self {
            subscription_count: has("subscription_count"),
            user_count: has("user_count"),
            occupied: has("occupied"),
            cache: has("cache"),
        }
    }
}

/// The requested attributes of a channel, such as `{"subscription_count":3,"user_count":2}`. Only presence channels have a
/// `user_count`.
///
/// # Errors
/// [`ApiError`] when the members of a presence channel cannot be read.
pub(crate) async fn attributes(api: &Api, channel: &ChannelName, wanted: Attributes) -> Result<Value, ApiError> {
    let mut found = Map::new();
    let ClusterWide { value: count, is_partial } = api.hub.subscription_count_everywhere(channel).await;
    if wanted.subscription_count {
        found.insert("subscription_count".into(), json!(count));
    }
    if wanted.occupied {
        found.insert("occupied".into(), json!(count > 0));
    }
    if wanted.user_count && channel.kind() == ChannelKind::Presence {
        found.insert("user_count".into(), json!(user_count(api, channel).await?));
    }
    if wanted.cache && is_cached(channel.as_str()) {
        let event = api.hub.cached_everywhere(channel).await;
        found.insert("cache".into(), event.map_or(Value::Null, |event| json!({ "data": event.data, "ttl": event.left.div_ceil(1000) })));
    }
    if is_partial {
        found.insert("partial".into(), json!(true));
    }
    Ok(Value::Object(found))
}

/// Like [`attributes`], for an event that is already published: after an error the caller would publish it again. Unknown
/// attributes are left out and `"partial":true` is set.
pub(crate) async fn known_attributes(api: &Api, channel: &ChannelName, wanted: Attributes) -> Value {
    match attributes(api, channel, wanted).await {
        Ok(found) => found,
        // The cause is already logged.
        Err(_) => {
            let others = Attributes { user_count: false, ..wanted };
            let mut found = attributes(api, channel, others).await.unwrap_or_else(|_| json!({}));
            found["partial"] = json!(true);
            found
        }
    }
}

async fn user_count(api: &Api, channel: &ChannelName) -> Result<usize, ApiError> {
    Ok(users_of(&api.hub.members(channel).await?).len())
}

/// `{"channels":{"news":{"subscription_count":2,"occupied":true}}}`: channels with at least one socket whose names start
/// with `filter_by_prefix`. `info=user_count` counts the users of presence channels.
///
/// # Errors
/// [`ApiError`] when the members of a presence channel cannot be read.
pub(crate) async fn list(_: App, State(api): State<Api>, params: Params) -> Result<Json<Value>, ApiError> {
    let counts_users = params.get("info").is_some_and(|info| Attributes::parse(info).user_count);
    let mut channels = Map::new();
    let found = api.hub.channels_everywhere(params.get("filter_by_prefix").unwrap_or_default()).await;
    for (name, count) in found.value {
        let name = ChannelName::from(name);
        let mut channel = json!({ "subscription_count": count, "occupied": true });
        if counts_users && name.kind() == ChannelKind::Presence {
            channel["user_count"] = json!(user_count(&api, &name).await?);
        }
        channels.insert(name.as_str().to_owned(), channel);
    }
    let mut answer = json!({ "channels": channels });
    if found.is_partial {
        answer["partial"] = json!(true);
    }
    Ok(Json(answer))
}

/// `{"subscription_count":2,"occupied":true}`, and `user_count` for presence channels. A channel without sockets answers
/// 200 with 0. Of `info` only `cache` matters, which adds the last event of a cache channel: `"cache":{"data":"…","ttl":60}`,
/// or null.
///
/// # Errors
/// [`ApiError`] when the members of a presence channel cannot be read.
pub(crate) async fn one(
    _: App,
    State(api): State<Api>,
    Path((_, channel)): Path<(String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let Attributes { cache, .. } = Attributes::parse(params.get("info").unwrap_or_default());
    let all = Attributes { subscription_count: true, user_count: true, occupied: true, cache };
    attributes(&api, &ChannelName::from(channel), all).await.map(Json)
}

/// `{"users":[{"id":1,"user_info":{"name":"Ann"}}]}`
#[derive(Debug, Serialize)]
pub(crate) struct UserList {
    users: Vec<User>,
}

#[derive(Debug, Serialize)]
struct User {
    id: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_info: Option<Box<RawValue>>,
}

/// Users of a presence channel, each once, in order of joining.
///
/// # Errors
/// 400 when it is not a presence channel; [`ApiError`] when members cannot be read.
pub(crate) async fn users(_: App, State(api): State<Api>, Path((_, channel)): Path<(String, String)>) -> Result<Json<UserList>, ApiError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_names_attributes_in_any_order() {
        let counts = Attributes { subscription_count: true, user_count: true, ..Attributes::default() };
        assert_eq!(Attributes::parse("user_count,subscription_count"), counts);
        assert_eq!(Attributes::parse("subscription_count, user_count,unknown"), counts);
        assert_eq!(Attributes::parse(""), Attributes::default());
    }
}
