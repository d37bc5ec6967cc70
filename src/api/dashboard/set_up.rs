//! `GET /dashboard/api/checks`: the checks of `doctor` while the server runs.
//!
//! Input: the checks, provided by the command line. Output: their findings. They contact Redis, Laravel and the application, so
//! they run one at a time, and all requests share the result for a while.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Dashboard;
use super::access::Session;
use crate::api::ApiError;
use crate::checks::{Checks, Finding};

/// How long a result is valid.
const LASTS: Duration = Duration::from_secs(10);

/// When the checks ran, and their findings.
type Look = (Instant, Vec<Finding>);

/// The checks, and their last result.
#[derive(Default)]
pub(super) struct SetUp {
    pub(super) checks: OnceLock<Checks>,
    last: Arc<Mutex<Option<Look>>>,
}

/// `{"findings":[{"check":"redis","status":"ok","message":"…"}]}`
pub(super) async fn checks(_: Session, State(dashboard): State<Dashboard>) -> Result<Json<Value>, ApiError> {
    let checks = dashboard.set_up.checks.get().ok_or_else(ApiError::not_found)?;
    let (checks, last) = (Arc::clone(checks), Arc::clone(&dashboard.set_up.last));
    let config = dashboard.settings.load().config.clone();
    // Runs to its end even if the page is closed: the next request then uses this result instead of its own run.
    let looking = tokio::spawn(async move {
        let mut last = last.lock().await;
        if let Some((_, known)) = last.as_ref().filter(|(when, _)| when.elapsed() < LASTS) {
            return known.clone();
        }
        let found = checks(config).await;
        *last = Some((Instant::now(), found.clone()));
        found
    });
    Ok(Json(json!({ "findings": looking.await.unwrap_or_default() })))
}
