//! `GET /dashboard/stream`: server-sent events for one open page.
//!
//! Input: the feed and the figures. Output: `hello` once, `figures` every second, `trace` up to four times a second, and `node`
//! with messages of other nodes. The next message is built when the page has read the one before, so a slow page skips
//! some.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::Dashboard;
use super::access::Session;
use super::feed::{Place, RATE, Watch};
use super::figures::COLUMNS;
use super::nodes::{Chosen, Others};
use crate::api::ApiError;
use crate::api::params::Params;
use crate::hub::ClusterWide;
use crate::readiness::RedisState;

/// Interval between two messages.
pub(super) const PACE: Duration = Duration::from_millis(250);

/// How often other nodes are asked for their number of clients.
const EVERYWHERE_LASTS: Duration = Duration::from_secs(5);

struct Page {
    dashboard: Dashboard,
    session: Session,
    watch: Watch,
    /// Set in a cluster.
    others: Option<Others>,
    /// The time of the last sample that was sent.
    sent: u64,
    everywhere: Option<(Instant, ClusterWide<usize>)>,
    is_new: bool,
}

/// `?groups=delivered,refusals&channel=orders&who=7`, see [`super::feed::Filter::new`].
pub(super) async fn stream(session: Session, State(dashboard): State<Dashboard>, params: Params) -> Result<Response, ApiError> {
    let text = |name| params.get(name).unwrap_or_default().to_owned();
    let chosen = Chosen { groups: text("groups"), channel: text("channel"), who: text("who") };
    if !chosen.fits() {
        return Err(ApiError::bad_request("groups, channel and who are too long"));
    }
    let watch = dashboard.feed.watch(chosen.filter(), Place::Here);
    let watch = watch.ok_or_else(|| ApiError::slow_down("too many pages of the dashboard are open"))?;
    let draining = dashboard.settings.load().api.readiness.draining.clone();
    let others = Others::open(&dashboard, chosen);
    let page = Page { dashboard, session, watch, others, sent: 0, everywhere: None, is_new: true };
    let messages = futures_util::stream::unfold(page, move |mut page| {
        let draining = draining.clone();
        async move {
            let message = draining.run_until_cancelled(page.next()).await??;
            Some((Ok::<_, Infallible>(message), page))
        }
    });
    // Tells nginx not to buffer the response.
    let headers = [(CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, Body::from_stream(messages)).into_response())
}

fn message(into: &mut String, event: &str, data: &impl Serialize) {
    let mut data = serde_json::to_string(data).expect("texts and numbers serialize");
    // JSON of another node is forwarded unchanged. A line break in it, which JSON allows between values, would end the `data:` line.
    if data.contains(['\n', '\r']) {
        data = data.replace(['\n', '\r'], " ");
    }
    into.extend(["event: ", event, "\ndata: ", &data, "\n\n"]);
}

impl Page {
    /// The next message; `None` when the session has ended.
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = String::new();
        if std::mem::take(&mut self.is_new) {
            message(
                &mut text,
                "hello",
                &json!({ "columns": COLUMNS, "rate": RATE, "node": self.dashboard.node.0, "name": self.dashboard.node.1 }),
            );
        } else {
            tokio::time::sleep(PACE).await;
        }
        loop {
            self.look(&mut text).await?;
            if !text.is_empty() {
                return Some(text.into());
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Writes the data that is new.
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
            message(text, "trace", &batch);
        }
        for news in self.others.iter_mut().flat_map(Others::take) {
            message(text, "node", &news);
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
            "redisServer": settings.config.redis_server.enabled,
            "totals": totals(&hub.metrics().totals()),
            "log": hub.recovery_log().map(|(events, bytes, age)| json!({ "events": events, "bytes": bytes, "age": age.as_secs() })),
        })
    }
}

/// Totals since the start that the page shows unchanged.
fn totals(totals: &crate::metrics::Totals) -> Value {
    json!({
        "malformed": totals.malformed_events,
        "slow": totals.slow_clients,
        "redisLosses": totals.redis_losses,
        "connects": totals.connects,
        "recovered": totals.recovered,
        "gaps": totals.gaps,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn a_message_is_one_line_however_another_node_wrote_it() {
        let news = RawValue::from_string("{\n\"name\":\r\n\"a\\nb\"\n\n}".to_owned()).unwrap();
        let mut text = String::new();
        message(&mut text, "node", &news);
        let data = text.strip_prefix("event: node\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data:?}");
        assert_eq!(serde_json::from_str::<Value>(data).unwrap(), json!({ "name": "a\nb" }));
    }
}
