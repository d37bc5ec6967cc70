//! Settings: Prometheus metrics: `[metrics]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use serde::{Deserialize, Serialize};

use super::value::{As, Port, Toggle};

/// Prometheus metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsConfig {
    /// Whether `/metrics` answers.
    #[serde(with = "As::<Toggle>")]
    pub enabled: bool,
    /// Address of the separate listener.
    pub host: String,
    /// Port of a separate listener that requires no key; none means the main port, with a client's key.
    #[serde(with = "As::<Option<Port>>")]
    pub port: Option<u16>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { enabled: true, host: "127.0.0.1".into(), port: None }
    }
}
