//! Settings: how the server shuts down: `[shutdown]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{As, Seconds};

/// How the server shuts down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShutdownConfig {
    /// Time over which clients are disconnected in small groups.
    #[serde(with = "As::<Seconds>")]
    pub drain: Duration,
    /// Time after which the process exits in any case.
    #[serde(with = "As::<Seconds>")]
    pub timeout: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { drain: Duration::from_secs(5), timeout: Duration::from_secs(15) }
    }
}
