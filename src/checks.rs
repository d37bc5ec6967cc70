//! Checks of the environment around the server: Laravel's configuration, Redis, the application.
//!
//! Input: the settings. Output: [`Finding`]s. The checks themselves belong to `doctor`, which hands the running server those
//! that can be made while it runs; the dashboard shows their findings.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::config::Config;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The check could not be completed.
    Unknown,
    /// May be wrong, or a risk.
    Warning,
    /// Wrong.
    Problem,
}

/// One finding, such as `{"check":"redis","status":"ok","message":"127.0.0.1:6379 answers"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked, in a word.
    pub check: &'static str,
    /// The result.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// How to fix it: what to type or write. Empty when there is nothing to fix.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

/// Runs the checks against these settings, which takes seconds.
pub type Checks = Arc<dyn Fn(Config) -> BoxFuture<'static, Vec<Finding>> + Send + Sync>;
