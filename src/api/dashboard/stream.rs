//! `GET /dashboard/stream`: server-sent events for one open page.
//!
//! Input: the feed and the figures. Output: `hello` once, `figures` each second, `trace` four times a second when there is
//! something. The next message is made when the page has taken the one before, so that a slow page skips.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::Dashboard;
use super::access::Session;
use super::feed::{Filter, RATE, Watch};
use super::figures::COLUMNS;
use crate::api::ApiError;
use crate::api::params::Params;
use crate::hub::ClusterWide;
use crate::readiness::RedisState;

/// Time between two looks.
const PACE: Duration = Duration::from_millis(250);

/// Other nodes are asked how many clients they have once in this time.
const EVERYWHERE_LASTS: Duration = Duration::from_secs(5);

struct Page {
    dashboard: Dashboard,
    session: Session,
    watch: Watch,
    /// Of the last sample that was sent.
    sent: u64,
    everywhere: Option<(Instant, ClusterWide<usize>)>,
    is_new: bool,
}

/// `?groups=delivered,refusals&channel=orders&who=7`, see [`Filter::new`].
pub(super) async fn stream(session: Session, State(dashboard): State<Dashboard>, params: Params) -> Result<Response, ApiError> {
    let text = |name| params.get(name).unwrap_or_default();
    let filter = Filter::new(text("groups"), text("channel"), text("who"));
    let watch = dashboard.feed.watch(filter).ok_or_else(|| ApiError::slow_down("too many pages of the dashboard are open"))?;
    let draining = dashboard.settings.load().api.readiness.draining.clone();
    let page = Page { dashboard, session, watch, sent: 0, everywhere: None, is_new: true };
    let messages = futures_util::stream::unfold(page, move |mut page| {
        let draining = draining.clone();
        async move {
            let message = draining.run_until_cancelled(page.next()).await??;
            Some((Ok::<_, Infallible>(message), page))
        }
    });
    // nginx passes it on as it comes.
    let headers = [(CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, Body::from_stream(messages)).into_response())
}

fn message(into: &mut String, event: &str, data: &Value) {
    into.push_str("event: ");
    into.push_str(event);
    into.push_str("\ndata: ");
    into.push_str(&data.to_string());
    into.push_str("\n\n");
}

impl Page {
    /// The next message; `None` when the session is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = String::new();
        if std::mem::take(&mut self.is_new) {
            message(&mut text, "hello", &json!({ "columns": COLUMNS, "rate": RATE }));
        } else {
            tokio::time::sleep(PACE).await;
        }
        while text.is_empty() || self.sent == 0 {
            let first = self.sent == 0;
            self.look(&mut text).await?;
            if first || !text.is_empty() {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        Some(text.into())
    }

    /// Writes out what is new.
    async fn look(&mut self, text: &mut String) -> Option<()> {
        if !self.session.lasts(&self.dashboard) {
            return None;
        }
        let samples = self.dashboard.figures.after(self.sent);
        if let Some(last) = samples.last() {
            self.sent = last.at;
            self.watch.refresh();
            let figures = self.figures(json!(samples)).await;
            message(text, "figures", &figures);
        }
        let batch = self.watch.take();
        if batch.seen > 0 || !batch.entries.is_empty() {
            let entries: Vec<_> = batch.entries.iter().map(AsRef::as_ref).collect();
            message(text, "trace", &json!({ "seen": batch.seen, "missed": batch.missed, "entries": entries }));
        }
        Some(())
    }

    async fn figures(&mut self, samples: Value) -> Value {
        let settings = self.dashboard.settings.load_full();
        let hub = &settings.api.hub;
        let everywhere = if hub.is_clustered() {
            match self.everywhere.take().filter(|(when, _)| when.elapsed() < EVERYWHERE_LASTS) {
                Some(known) => Some(known),
                None => Some((Instant::now(), hub.connections_everywhere().await)),
            }
        } else {
            None
        };
        self.everywhere = everywhere;
        let redis = match &*settings.api.readiness.redis.borrow() {
            RedisState::Off => "off",
            RedisState::Connecting => "connecting",
            RedisState::Up => "up",
            RedisState::Lost(_) => "lost",
        };
        json!({
            "samples": samples,
            "by": self.dashboard.figures.breakdown(hub),
            "everywhere": self.everywhere.as_ref().map(|(_, found)| json!({ "connections": found.value, "partial": found.is_partial })),
            "redis": redis,
            "redisServer": settings.has_redis_server,
            "totals": totals(&hub.metrics().totals()),
        })
    }
}

/// Those since the start that the page shows as they are.
fn totals(totals: &crate::metrics::Totals) -> Value {
    json!({
        "malformed": totals.malformed_events,
        "slow": totals.slow_clients,
        "redisLosses": totals.redis_losses,
        "connects": totals.connects,
    })
}
