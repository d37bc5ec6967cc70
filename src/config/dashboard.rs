//! Settings: the page that shows what happens: `[dashboard]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::value::{self, Secret, Toggle};

/// The page that shows what happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DashboardConfig {
    /// Whether `/dashboard` answers.
    pub enabled: Toggle,
    /// What opens it, besides what opens the HTTP API.
    #[serde(deserialize_with = "value::secret")]
    pub password: Option<Secret>,
    /// Whether it may do more than look: send events, take clients out, ask the application again.
    pub actions: Toggle,
}

impl Default for DashboardConfig {
    fn default() -> Self {
        Self { enabled: Toggle(false), password: None, actions: Toggle(false) }
    }
}
