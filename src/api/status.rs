//! `GET /apps/:id/status`: connections, uptime and memory.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Api;
use super::auth::App;

/// `{"subscription_count":3,"uptime":12.5,"memory_usage":{"rss":12345678}}`
#[derive(Debug, Serialize)]
pub struct Status {
    /// Connected sockets of all nodes, whatever they are subscribed to.
    subscription_count: usize,
    /// There, and true, when a node did not answer in time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    /// Seconds since the start.
    uptime: f64,
    memory_usage: MemoryUsage,
}

/// Compat: the original also reports the parts of V8's heap, of which there is none here.
#[derive(Debug, Serialize)]
struct MemoryUsage {
    /// Resident set size in bytes; absent where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    rss: Option<u64>,
}

/// Answers with the server's state.
pub async fn status(_: App, State(api): State<Api>) -> Json<Status> {
    let connections = api.hub.connections_everywhere().await;
    Json(Status {
        subscription_count: connections.value,
        partial: connections.is_partial,
        uptime: api.readiness.started.elapsed().as_secs_f64(),
        memory_usage: MemoryUsage { rss: resident_bytes() },
    })
}

/// The second field of `/proc/self/statm` counts resident pages.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
