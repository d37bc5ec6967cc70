//! `start --demo`: shows an event arriving in the dashboard, with nothing else installed on the machine.
//!
//! Input: the settings, to which it adds an API client and the dashboard. Output: routes for the server. The page subscribes to
//! its channel with hand-written Socket.IO over a websocket, since the client library may not be installed.

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::api::dashboard;
use crate::config::value::Secret;
use crate::config::{ApiClient, Config};

/// Application id of the demo, and the channel that its page subscribes to.
const NAME: &str = "demo";

/// The demo of one server.
#[derive(Debug, Clone)]
pub struct Demo {
    key: String,
    /// Port of the built-in Redis endpoint, if that is enabled.
    redis_server: Option<u16>,
}

impl Demo {
    /// Adds an API client to the settings, with a key that is only valid for this run.
    #[must_use]
    pub fn add_to(config: &mut Config) -> Self {
        let key = format!("{:032x}", rand::random::<u128>());
        config.clients.push(ApiClient {
            app_id: NAME.into(),
            key: Secret(key.clone()),
            secret: None,
            require_signature: false,
            jwt: None,
            webhooks: Vec::new(),
        });
        // The demo gives full access, so by default only this machine can open it.
        config.host.get_or_insert_with(|| "127.0.0.1".to_owned());
        config.dashboard.enabled = true;
        config.dashboard.actions = true;
        let redis_server = config.redis_server.enabled.then_some(config.redis_server.port);
        Self { key, redis_server }
    }

    /// `GET /demo`: the signed-in dashboard. `GET /demo/next`: the data for its section on next steps.
    pub fn routes(&self) -> Router {
        // In the fragment, so that only the page's script sees the key.
        let open = format!("{}#demo={}", dashboard::PATH, self.key);
        let next = json!({ "channel": NAME, "key": self.key, "tinker": self.tinker(), "hasRedisServer": self.redis_server.is_some() });
        Router::new()
            .route("/demo", get(async move || Redirect::temporary(&open)))
            .route("/demo/next", get(async move || Json(next)))
            .layer(from_fn(by_address))
    }

    /// A command that makes Laravel broadcast an event to the page, whatever its configured driver. The Redis settings apply only to
    /// this command.
    #[must_use]
    pub fn tinker(&self) -> String {
        let redis = self
            .redis_server
            .map(|port| format!("REDIS_URL= REDIS_HOST=127.0.0.1 REDIS_PORT={port} REDIS_PASSWORD=null REDIS_PREFIX= "))
            .unwrap_or_default();
        format!(
            "{redis}php artisan tinker --execute=\"config(['broadcasting.connections.{NAME}' => ['driver' => 'redis']]); \
             Broadcast::connection('{NAME}')->broadcast(['{NAME}'], 'hello', ['text' => 'Hi from Laravel']);\""
        )
    }

    /// A command that sends an event to the page, in the words of the system's shell.
    #[must_use]
    pub fn command(&self, port: u16) -> String {
        let url = format!("http://localhost:{port}/apps/{NAME}/events?auth_key={}", self.key);
        let body = format!("{{\"channel\":\"{NAME}\",\"name\":\"hello\",\"data\":{{\"text\":\"Hi\"}}}}");
        if cfg!(windows) {
            return format!("curl -X POST \"{url}\" -d \"{}\"", body.replace('"', "\\\""));
        }
        format!("curl -X POST '{url}' -d '{body}'")
    }
}

/// Rejects host names except `localhost`: by DNS rebinding, another site could point its own name here and read the key.
async fn by_address(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
    if is_address || name.eq_ignore_ascii_case("localhost") {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "open the demo at http://localhost or an IP address, not a host name\n").into_response()
}
