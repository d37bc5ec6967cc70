//! `GET /apps/:id/status`: connections, uptime and memory.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Api;
use super::auth::App;

/// `{"subscription_count":3,"uptime":12.5,"memory_usage":{"rss":12345678,"heapTotal":12345678,"heapUsed":2345678}}`
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// Connected sockets of all nodes, whether or not they are subscribed to anything.
    subscription_count: usize,
    /// Present, and true, when a node did not answer in time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    /// Seconds since the server started.
    uptime: f64,
    memory_usage: MemoryUsage,
}

/// Compat: the original reports V8's heap, which does not exist here. Health checks read its keys, so they are present, with the
/// closest equivalents.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemoryUsage {
    /// Resident set size in bytes; 0 if the system does not report it.
    pub(super) rss: u64,
    /// Same as `rss`.
    heap_total: u64,
    /// Private resident memory, without pages of files.
    heap_used: u64,
}

/// Responds with the server's state.
pub(crate) async fn status(_: App, State(api): State<Api>) -> Json<Status> {
    let connections = api.hub.connections_everywhere().await;
    Json(Status {
        subscription_count: connections.value,
        partial: connections.is_partial,
        uptime: api.readiness.started.elapsed().as_secs_f64(),
        memory_usage: memory_usage().unwrap_or_default(),
    })
}

/// Reads `/proc/self/statm`: its second field counts resident pages, its third those of them that belong to files.
#[cfg(unix)]
pub(super) fn memory_usage() -> Option<MemoryUsage> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut fields = statm.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, of_files) = (fields.next()?.ok()?, fields.next()?.ok()?);
    let page = rustix::param::page_size() as u64;
    let (rss, heap_used) = (resident * page, resident.saturating_sub(of_files) * page);
    Some(MemoryUsage { rss, heap_total: rss, heap_used })
}

/// Windows has no `/proc`.
#[cfg(not(unix))]
pub(super) const fn memory_usage() -> Option<MemoryUsage> {
    None
}
