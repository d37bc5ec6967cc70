//! Settings: several nodes on one Redis: `[cluster]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::value::{As, Toggle};

/// Several nodes on one Redis.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterConfig {
    /// Whether this server is one of several nodes on the same Redis.
    #[serde(with = "As::<Toggle>")]
    pub enabled: bool,
}
