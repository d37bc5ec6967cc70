//! Events over HTTP: `POST /apps/:appId/events`, and `batch_events` with several.
//!
//! Input: `{"channel":"news","name":"sent","data":{…},"socket_id":"…"}`, or `channels` with a list, as Pusher's
//! libraries send it. Output: events for the hub.

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::api::body::Posted;
use crate::api::channels::known_attributes;
use crate::api::{Api, ApiError};
use crate::channel::ChannelName;
use crate::cluster::Reach;
use crate::event::Event;
use crate::metrics::Source;

pub(crate) mod body;

use body::HttpEvent;

/// Publishes an event. With `info`, the response has the attributes of its channels.
///
/// # Errors
/// 400 for a body that is not an event, and the errors of [`Posted`].
pub(crate) async fn events(State(api): State<Api>, request: Request) -> Result<Json<Value>, ApiError> {
    let body = posted(&api, request).await?;
    let event = noted(&api, body::event(&body, &api))?;
    let reach = publish(&api, std::slice::from_ref(&event)).await?;
    let mut answer = json!({ "message": "ok" });
    if let Some(wanted) = event.info {
        let mut channels = Map::new();
        for channel in &event.channels {
            channels.insert(channel.clone(), known_attributes(&api, &ChannelName::from(channel.as_str()), wanted).await);
        }
        answer["channels"] = Value::Object(channels);
    }
    Ok(Json(with_reach(answer, reach)))
}

/// Publishes several events, or none if one of them is invalid.
///
/// # Errors
/// 400 for a body that is not a batch, and the errors of [`Posted`].
pub(crate) async fn batch(State(api): State<Api>, request: Request) -> Result<Json<Value>, ApiError> {
    let body = posted(&api, request).await?;
    let events = noted(&api, body::batch(&body, &api))?;
    let reach = publish(&api, &events).await?;
    if events.iter().all(|event| event.info.is_none()) {
        return Ok(Json(with_reach(json!({}), reach)));
    }
    let mut answers = Vec::with_capacity(events.len());
    for event in &events {
        let channel = ChannelName::from(event.channels[0].as_str());
        answers.push(known_attributes(&api, &channel, event.info.unwrap_or_default()).await);
    }
    Ok(Json(with_reach(json!({ "batch": answers }), reach)))
}

/// Notes in a response that an event did not reach all nodes.
fn with_reach(mut answer: Value, reach: Reach) -> Value {
    if reach == Reach::Here {
        answer["partial"] = json!(true);
    }
    answer
}

async fn posted(api: &Api, request: Request) -> Result<Bytes, ApiError> {
    noted(api, Posted::from_request(request, api).await).map(|Posted(body)| body)
}

/// Counts a request from which no event can be read, and tells the dashboard.
fn noted<T>(api: &Api, read: Result<T, ApiError>) -> Result<T, ApiError> {
    read.inspect_err(|error| {
        if error.is_about_credentials() {
            api.hub.tell_dropped(None, Source::Http, &error.message());
        } else {
            api.hub.drop_message(None, Source::Http, &error.message());
        }
    })
}

/// Publishes the event in a body, for a caller that is authorized already.
///
/// # Errors
/// 400 for a body that is not an event, 503 when it cannot be published.
pub(super) async fn send(api: &Api, body: &[u8]) -> Result<(), ApiError> {
    publish(api, &[body::event(body, api)?]).await.map(drop)
}

async fn publish(api: &Api, events: &[HttpEvent]) -> Result<Reach, ApiError> {
    let each = events.iter().flat_map(|event| {
        let HttpEvent { name, data, except, .. } = event;
        event.channels.iter().map(move |channel| Event { channel, name: name.as_str().into(), data, except: *except, user: None })
    });
    let sent = api.hub.publish_everywhere(&each.collect::<Vec<_>>(), Source::Http).await.map_err(ApiError::from);
    sent.inspect_err(|error| api.hub.tell_dropped(None, Source::Http, &error.message()))
}
