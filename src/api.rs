//! The HTTP API: handlers parse requests, call the hub, and build JSON.
//!
//! Input: requests under `/apps/:appId` with the key of that application, and those of probes and dashboards. Output:
//! responses as in the original (`src/api/http-api.ts`), or as at Pusher where the original has none; errors are
//! [`ApiError`].

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderValue, Uri};
use axum::response::{Html, Response};
use axum::routing::{MethodRouter, get, post};

use crate::client::Client;
use crate::config::Config;
use crate::hub::Hub;

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod channels;
pub(crate) mod cors;
pub(crate) mod dashboard;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod moderation;
mod not_found;
pub(crate) mod openapi;
pub(crate) mod params;
pub(crate) mod signature;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod users;

pub(crate) use crate::readiness::Readiness;
pub(crate) use error::ApiError;

use events::{batch, events};
use token::TokenKeyError;

/// State shared by all handlers.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// Fields of [`Api`].
pub struct Inner {
    /// Channels and their subscribers.
    pub hub: Arc<Hub<Client>>,
    /// Applications and their keys.
    pub clients: Vec<auth::Client>,
    /// Whether the server is ready.
    pub readiness: Readiness,
    /// Largest body, in bytes (`limits.apiBody`).
    pub body_limit: usize,
    /// Maximum number of channels per event, and of events per batch (`limits.apiChannels`).
    pub channel_limit: usize,
    /// Longest channel name, in bytes (`limits.channelName`).
    pub channel_name_limit: usize,
    /// Longest event name, in bytes (`limits.eventName`).
    pub event_name_limit: usize,
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl FromRef<Api> for Readiness {
    fn from_ref(api: &Api) -> Self {
        api.readiness.clone()
    }
}

impl Api {
    /// Reads the settings of the API.
    ///
    /// # Errors
    /// [`TokenKeyError`] when a client's `jwt` is not a usable key.
    pub fn new(config: &Config, hub: Arc<Hub<Client>>, readiness: Readiness) -> Result<Self, TokenKeyError> {
        let limits = &config.limits;
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let clients = config.clients.iter().map(|client| auth::Client::new(client, limits.api_requests_per_second));
        Ok(Self(Arc::new(Inner {
            hub,
            clients: clients.collect::<Result<_, _>>()?,
            readiness,
            body_limit: bytes(limits.api_body),
            channel_limit: bytes(limits.api_channels),
            channel_name_limit: bytes(limits.channel_name),
            event_name_limit: bytes(limits.event_name),
        })))
    }
}

/// All routes.
pub(crate) fn router(config: &Config, api: Api) -> Router {
    let mut routes = vec![
        ("/health", reads(get(health::health))),
        ("/ready", reads(get(health::ready))),
        ("/openapi.json", reads(get(openapi::openapi))),
        ("/apps/{app_id}/status", reads(get(status::status))),
        ("/apps/{app_id}/channels", reads(get(channels::list))),
        ("/apps/{app_id}/channels/{channel}", reads(get(channels::one))),
        ("/apps/{app_id}/channels/{channel}/users", reads(get(channels::users))),
        ("/apps/{app_id}/users/{user}/terminate_connections", writes(post(users::terminate))),
    ];
    if config.subscribers.http {
        routes.push(("/apps/{app_id}/events", writes(post(events))));
        routes.push(("/apps/{app_id}/batch_events", writes(post(batch))));
    }
    if config.metrics.enabled && config.metrics.port.is_none() {
        routes.push(("/metrics", reads(get(metrics::with_key))));
    }
    let mut router = Router::new().route("/", reads(get(async || Html("OK")))).merge(moderation::routes());
    // Equals `path` in the options of Pusher's and Laravel's libraries.
    let (prefix, paths) = (config.pusher.prefix(), not_found::Paths::new(config));
    for (path, route) in routes {
        if !prefix.is_empty() && config.serves_pusher() && path.starts_with("/apps/") {
            router = router.route(&format!("{prefix}{path}"), route.clone());
        }
        // Express also accepts a trailing slash.
        router = router.route(&format!("{path}/"), route.clone()).route(path, route);
    }
    router
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .fallback(move |uri: Uri| {
            paths.warn_of(&uri);
            async { ApiError::not_found() }
        })
        .layer(axum::middleware::from_fn(params::checked_path))
        .layer(axum::middleware::from_fn_with_state(cors::Cors::new(config), cors::cors))
        .layer(axum::middleware::map_response(with_charset))
        .with_state(api)
}

/// JSON as Express names it, with its charset: callers compare the header.
async fn with_charset(mut response: Response) -> Response {
    if response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json") {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    }
    response
}

fn reads(route: MethodRouter<Api>) -> MethodRouter<Api> {
    options(route, "GET,HEAD")
}

fn writes(route: MethodRouter<Api>) -> MethodRouter<Api> {
    options(route, "POST")
}

/// Answers OPTIONS like Express: with the methods of the route, and without requiring a key.
fn options(route: MethodRouter<Api>, methods: &'static str) -> MethodRouter<Api> {
    route.options(async move || ([(ALLOW, methods)], Html(methods)))
}
