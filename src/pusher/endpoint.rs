//! `POST {pusher.path}/broadcasting/auth`: signs channel authorizations for applications whose broadcaster (`redis`) cannot
//! sign them.
//!
//! Input: what pusher-js sends to `authEndpoint`, `socket_id=…&channel_name=…` (or the same as JSON), with the page's cookie or
//! token. Output: the application's answer, signed: `{"auth":"key:…","channel_data":"…"}`, or the status with which it refused.

use std::net::IpAddr;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse as _;
use serde_json::json;

use super::gate::Gate;
use super::signature::signable;
use crate::auth::{AuthRequest, Grant};
use crate::channel::{ChannelKind, ChannelName, user_of};
use crate::config::ChannelAuth;
use crate::event::SocketId;
use crate::net::answer::Answer;
use crate::net::connection::ConnectionHandle;
use crate::store::Member;

/// Far larger than any such request.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Request headers that are forwarded to the application, which uses them to identify the user.
const PASSED_ON: [&str; 4] = ["authorization", "x-csrf-token", "x-xsrf-token", "accept"];

pub(super) fn answer(gate: &Gate, request: Request<Body>, connection: &ConnectionHandle) -> Answer {
    let origin = request.headers().get(header::ORIGIN).cloned();
    if origin.as_ref().is_some_and(|origin| !gate.origins().allow(origin)) {
        return Answer::Ready(refused(StatusCode::FORBIDDEN, "the origin of the page is not in allowedOrigins"));
    }
    let answer = if request.method() == Method::OPTIONS {
        let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        Answer::Ready(preflight(asked))
    } else if request.method() == Method::POST {
        let (gate, peer) = (gate.clone(), connection.peer().ip());
        Answer::Later(Box::pin(async move { Ok(sign(&gate, request, peer).await) }))
    } else {
        let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, "POST socket_id and channel_name");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST,OPTIONS"));
        Answer::Ready(response)
    };
    answer.map(move |response| allow_origin(response.headers_mut(), origin))
}

async fn sign(gate: &Gate, request: Request<Body>, peer: IpAddr) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    };
    let json: serde_json::Value = if is_json(&parts.headers) { serde_json::from_slice(&body).unwrap_or_default() } else { json!(null) };
    let field = |name: &str| {
        let of_form = || form_urlencoded::parse(&body).find_map(|(key, value)| (key == name).then(|| value.into_owned()));
        json.get(name).and_then(serde_json::Value::as_str).map(str::to_owned).or_else(of_form)
    };
    let (Some(socket), Some(channel)) = (field("socket_id").and_then(|id| SocketId::parse(&id)), field("channel_name")) else {
        return refused(StatusCode::BAD_REQUEST, "socket_id and channel_name are needed");
    };
    if channel.contains(':') {
        return refused(StatusCode::BAD_REQUEST, "a channel name with `:` cannot be signed: the parts of a signature are joined with it");
    }
    let channel = ChannelName::from(channel);
    let shared = &gate.pusher().0;
    if !channel.kind().is_guarded() || user_of(channel.as_str()).is_some() || shared.hub.socket(socket).is_none() {
        return refused(StatusCode::FORBIDDEN, "no such socket on this node, or the channel needs no signature");
    }
    // A client accepts only what is signed with the key that it has connected with.
    let own = shared.apps.lock().get(&socket).cloned();
    let Some(app) = own.as_ref().or_else(|| gate.app()) else {
        return refused(StatusCode::NOT_FOUND, "no entry of `clients` has a key and a secret");
    };
    let passed = |name: &&str| Some(((*name).to_owned(), parts.headers.get(*name)?.to_str().ok()?.to_owned()));
    let headers: Vec<_> = PASSED_ON.iter().filter_map(passed).collect();
    let handshake = shared.connections.kept(&parts.headers);
    let rule = shared.hub.auth_of(channel.as_str());
    let asked =
        AuthRequest { socket, channel: &channel, headers: &headers, handshake: &handshake, peer: Some(peer), by: rule, is_again: false };
    let answer = if rule == Some(ChannelAuth::None) { Ok(Grant::default()) } else { shared.authorizer.authorize(asked).await };
    let grant = match answer {
        Ok(grant) => grant,
        Err(denied) => {
            let status = StatusCode::from_u16(denied.status).ok().filter(|status| status.as_u16() >= 400);
            return refused(status.unwrap_or(StatusCode::BAD_GATEWAY), "the application did not grant the channel");
        }
    };
    shared.hub.promise(socket, &channel, &grant);
    let id = socket.to_string();
    if channel.kind() != ChannelKind::Presence {
        return Json(json!({ "auth": app.auth(&signable(&[&id, channel.as_str()])) })).into_response();
    }
    match grant.channel_data.as_ref().map(|data| Member::parse(data.get())) {
        Some(Ok(member)) => {
            // As in Laravel's `pusher` driver: the id as a string.
            let data = match member.view().user_info {
                Some(info) => json!({ "user_id": member.user(), "user_info": info }),
                None => json!({ "user_id": member.user() }),
            };
            let data = data.to_string();
            let auth = app.auth(&signable(&[&id, channel.as_str(), &data]));
            Json(json!({ "auth": auth, "channel_data": data })).into_response()
        }
        _ => refused(StatusCode::INTERNAL_SERVER_ERROR, "the application's answer does not name the user"),
    }
}

/// Authorizers of one's own, as in Laravel's documentation, send JSON with axios.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("application/json")
}

fn refused(status: StatusCode, message: &str) -> Response<Body> {
    (status, Json(json!({ "error": message }))).into_response()
}

fn preflight(asked: Option<HeaderValue>) -> Response<Body> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(HeaderValue::from_static("Content-Type")));
    response
}

/// Allows credentials, since the page's cookie identifies the user.
fn allow_origin(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    let Some(origin) = origin else { return };
    let values: [(HeaderName, HeaderValue); 3] = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
        (header::VARY, HeaderValue::from_static("Origin")),
    ];
    headers.extend(values);
}
