//! What can be found out about the set-up around the server: Laravel's configuration, Redis, the application.
//!
//! Input: the settings. Output: [`Finding`]s. The looking itself is `doctor`'s; it gives the running server the part that can
//! be looked at meanwhile, and the dashboard shows it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::config::Config;

/// How well it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It could not be found out.
    Unknown,
    /// May be wrong, or a risk.
    Warning,
    /// Wrong.
    Problem,
}

/// One thing that was looked at, as in `{"check":"redis","status":"ok","message":"127.0.0.1:6379 answers"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word.
    pub check: &'static str,
    /// How well it is.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to type or write.
    #[serde(rename = "fix", skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

/// Looks at the set-up by these settings, which takes seconds.
pub type Checks = Arc<dyn Fn(Config) -> BoxFuture<'static, Vec<Finding>> + Send + Sync>;
