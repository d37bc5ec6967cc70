//! `GET /dashboard/api/checks`: what `doctor` finds while the server runs.
//!
//! Input: the checks that the command line brings along. Output: their findings. They ask Redis, Laravel and the application,
//! so one look at a time is taken, and it counts for a while, whoever asks.

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

/// How long a look counts.
const LASTS: Duration = Duration::from_secs(10);

/// When somebody looked, and what was found.
type Look = (Instant, Vec<Finding>);

/// The checks, and what they found last.
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
    // To its end, also when the page is closed meanwhile: the next one waits for this look, and takes none of its own.
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
