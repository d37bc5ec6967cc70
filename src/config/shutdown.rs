//! Settings: how the server ends: `[shutdown]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::Seconds;

/// How the server ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShutdownConfig {
    /// Time over which clients are moved off in small groups.
    pub drain: Seconds,
    /// Time after which the process ends in any case.
    pub timeout: Seconds,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { drain: Seconds(Duration::from_secs(5)), timeout: Seconds(Duration::from_secs(15)) }
    }
}
