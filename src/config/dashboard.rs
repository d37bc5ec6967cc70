//! Settings: the page that shows what happens: `[dashboard]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::value::{self, As, Secret, Toggle};

/// The page that shows what happens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DashboardConfig {
    /// Whether `/dashboard` answers.
    #[serde(with = "As::<Toggle>")]
    pub enabled: bool,
    /// What opens it, besides what opens the HTTP API.
    #[serde(deserialize_with = "value::secret")]
    pub password: Option<Secret>,
    /// Whether it may do more than look: send events, take clients out, ask the application again.
    #[serde(with = "As::<Toggle>")]
    pub actions: bool,
}
