//! The HTTP API: extract, ask the hub, shape JSON.
//!
//! Input: requests under `/apps/:appId`, with the key of that application. Output: the original's answers
//! (`src/api/http-api.ts`), and for everything that fails [`ApiError`].

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};

use crate::config::{ApiClient, Config};
use crate::egress::SocketIoSocket;
use crate::hub::Hub;
use crate::ingress::http::events;

pub mod auth;
pub mod channels;
pub mod cors;
pub mod error;
pub mod moderation;
pub mod status;

pub use error::ApiError;

/// What handlers share.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// Fields of [`Api`].
pub struct Inner {
    /// Who is in which channel.
    pub hub: Arc<Hub<SocketIoSocket>>,
    /// Applications and their keys.
    pub clients: Vec<ApiClient>,
    /// Largest body, in bytes (`limits.apiBody`).
    pub body_limit: usize,
    /// Most channels of one event (`limits.apiChannels`).
    pub channel_limit: usize,
    /// Longest channel name, in bytes (`limits.channelName`).
    pub channel_name_limit: usize,
    /// Longest event name, in bytes (`limits.eventName`).
    pub event_name_limit: usize,
    /// When the server started.
    pub started: Instant,
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Api {
    /// What handlers need of the settings.
    #[must_use]
    pub fn new(config: &Config, hub: Arc<Hub<SocketIoSocket>>) -> Self {
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        Self(Arc::new(Inner {
            hub,
            clients: config.clients.clone(),
            body_limit: bytes(config.limits.api_body.0),
            channel_limit: bytes(config.limits.api_channels),
            channel_name_limit: bytes(config.limits.channel_name.0),
            event_name_limit: bytes(config.limits.event_name.0),
            started: Instant::now(),
        }))
    }
}

/// All routes.
pub fn router(config: &Config, api: Api) -> Router {
    let mut router = Router::new()
        .route("/", get(async || Html("OK")))
        .route("/apps/{app_id}/status", get(status::status))
        .route("/apps/{app_id}/channels", get(channels::list))
        .route("/apps/{app_id}/channels/{channel}", get(channels::one))
        .route("/apps/{app_id}/channels/{channel}/users", get(channels::users))
        .merge(moderation::routes());
    if config.subscribers.http.0 {
        router = router.route("/apps/{app_id}/events", post(events));
    }
    router
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .fallback(async |State(_): State<Api>| ApiError::not_found().into_response())
        .layer(axum::middleware::from_fn_with_state(cors::Cors::new(config), cors::cors))
        .with_state(api)
}
