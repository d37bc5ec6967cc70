//! The dashboard: a web page that shows live what happens in the server.
//!
//! Input: requests under `/dashboard` from signed-in users, and the hub's observations while a page is open. Output: the page
//! with its own script and style, a live event stream, and details about one channel, socket or user. None of them contains
//! cookies, tokens or `Authorization` headers.
//!
//! ```text
//!   hub ─▶ Feed ─▶ a bounded queue for each open page ─▶ stream (server-sent events)
//!   Metrics ─▶ Figures: a sample each second, ten minutes of them ─┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{self, HeaderName};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::api::ApiError;
use crate::checks::Checks;
use crate::config::Config;
use crate::proxies::TrustedProxies;

mod access;
mod actions;
mod entry;
mod feed;
mod figures;
mod inspect;
mod nodes;
mod set_up;
mod stream;
mod why;

use access::{Credentials, Sessions, Throttle};
use feed::Feed;
use figures::Figures;
use nodes::Pages;
use set_up::SetUp;

/// The path prefix of the dashboard.
pub(crate) const PATH: &str = "/dashboard";

/// Only the page's own script and style files may run: injected markup in event data would have no effect.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The dashboard of one server. Clones share their state.
#[derive(Clone)]
pub(crate) struct Dashboard(Arc<Inner>);

/// Fields of [`Dashboard`].
pub(crate) struct Inner {
    settings: ArcSwap<Settings>,
    feed: Arc<Feed>,
    figures: Figures,
    sessions: Sessions,
    throttle: Throttle,
    proxies: TrustedProxies,
    set_up: SetUp,
    /// Open pages that show all nodes.
    pages: Pages,
    /// Identifies this node: an id for programs, and a name for people.
    node: (String, String),
}

/// The parts that a reload replaces.
struct Settings {
    api: Api,
    credentials: Credentials,
    allows_actions: bool,
    config: Config,
}

impl Settings {
    fn new(config: &Config, api: Api) -> Self {
        Self { api, credentials: Credentials::new(config), allows_actions: config.dashboard.actions, config: config.clone() }
    }
}

impl std::ops::Deref for Dashboard {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Dashboard {
    /// A dashboard without open pages; `None` if it is disabled.
    #[must_use]
    pub(crate) fn new(config: &Config, api: Api, proxies: TrustedProxies) -> Option<Self> {
        config.dashboard.enabled.then(|| {
            let feed = Feed::new(Arc::clone(&api.hub));
            Self(Arc::new(Inner {
                settings: ArcSwap::from_pointee(Settings::new(config, api)),
                feed,
                figures: Figures::default(),
                sessions: Sessions::default(),
                throttle: Throttle::default(),
                proxies,
                set_up: SetUp::default(),
                pages: Pages::default(),
                node: (format!("{:x}", rand::random::<u64>()), format!("{}:{}", host_name(), config.port)),
            }))
        })
    }

    /// Adds the checks of `doctor`.
    pub(crate) fn with_checks(&self, checks: Checks) {
        let _ = self.set_up.checks.set(checks);
    }

    /// Applies reloaded settings. Sessions end if the credentials that they were opened with are no longer valid.
    pub(crate) fn take(&self, config: &Config, api: Api) {
        self.settings.store(Arc::new(Settings::new(config, api)));
    }

    /// Records figures every second, and drops data that no page needs, until `stop`.
    pub(crate) async fn keep_figures(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.figures.sample(&self.settings.load().api.hub);
            self.feed.forget(Instant::now());
        }
    }

    /// The routes of the dashboard, complete on their own.
    pub(crate) fn routes(&self) -> Router {
        Router::new()
            .route(PATH, get(async || asset("text/html; charset=utf-8", include_str!("dashboard/page/index.html"))))
            .route("/dashboard/", get(async || Redirect::permanent(PATH)))
            .route("/dashboard/app.js", get(async || asset("text/javascript; charset=utf-8", include_str!("dashboard/page/app.js"))))
            .route("/dashboard/style.css", get(async || asset("text/css; charset=utf-8", include_str!("dashboard/page/style.css"))))
            .route("/dashboard/session", get(access::who).post(access::sign_in).delete(access::sign_out))
            .route("/dashboard/stream", get(stream::stream))
            .route("/dashboard/api/channels", get(inspect::channels))
            .route("/dashboard/api/channel", get(inspect::channel))
            .route("/dashboard/api/socket", get(inspect::socket))
            .route("/dashboard/api/user", get(inspect::user))
            .route("/dashboard/api/why", get(why::why))
            .route("/dashboard/api/checks", get(set_up::checks))
            .route("/dashboard/api/event", post(actions::event))
            .route("/dashboard/api/act", post(actions::act))
            .method_not_allowed_fallback(async || ApiError::method_not_allowed())
            .layer(axum::middleware::map_response(protected))
            .with_state(self.clone())
    }
}

/// The host name of this machine.
fn host_name() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    crate::config::env::computer_name().unwrap_or_else(|| "node".to_owned())
}

/// Replaces [`Dashboard::routes`] when the dashboard is disabled; the response says how to enable it.
pub(crate) fn off() -> Router {
    Router::new().route(PATH, get(async || ApiError::no_dashboard()))
}

/// A file of the page. It is not cached: it is small, and differs between server versions.
fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// Sets headers that prevent caching, framing, and foreign scripts.
async fn protected(mut response: Response) -> Response {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
