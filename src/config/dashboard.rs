//! Settings: the dashboard page: `[dashboard]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::value::{self, As, Secret, Toggle};

/// The dashboard page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DashboardConfig {
    /// Whether `/dashboard` answers.
    #[serde(with = "As::<Toggle>")]
    pub enabled: bool,
    /// The password to sign in; the credentials of the HTTP API work as well.
    #[serde(deserialize_with = "value::secret")]
    pub password: Option<Secret>,
    /// Whether it may do more than show: send events, remove clients, recheck authorization.
    #[serde(with = "As::<Toggle>")]
    pub actions: bool,
}
