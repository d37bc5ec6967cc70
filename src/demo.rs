//! The page behind `start --demo`: a visitor with nothing else on the machine sees an event arrive.
//!
//! Input: the settings, which get an API client of its own. Output: routes for the server. The page speaks Socket.IO
//! by hand over a websocket, since the client library may not be at hand.

use axum::Router;
use axum::response::Html;
use axum::routing::get;

use crate::config::value::{Secret, Toggle};
use crate::config::{ApiClient, Config};

const PAGE: &str = include_str!("demo/page.html");

/// Application id, and the channel that the page listens to.
const NAME: &str = "demo";

/// The demo of one server.
#[derive(Debug, Clone)]
pub struct Demo {
    key: String,
}

impl Demo {
    /// Adds an API client with a key of this run to the settings.
    #[must_use]
    pub fn add_to(config: &mut Config) -> Self {
        let key = format!("{:032x}", rand::random::<u128>());
        config.clients.push(ApiClient {
            app_id: NAME.into(),
            key: Secret(key.clone()),
            secret: None,
            require_signature: Toggle(false),
            jwt: None,
        });
        Self { key }
    }

    /// `GET /demo`.
    pub fn routes(&self) -> Router {
        let page = PAGE.replace("%DEMO_KEY%", &self.key);
        Router::new().route("/demo", get(async move || Html(page)))
    }

    /// A command that sends an event to the page.
    #[must_use]
    pub fn command(&self, port: u16) -> String {
        format!(
            "curl -X POST 'http://localhost:{port}/apps/{NAME}/events?auth_key={}' -d '{{\"channel\":\"{NAME}\",\"name\":\"hello\",\"data\":{{\"text\":\"Hi\"}}}}'",
            self.key
        )
    }
}
