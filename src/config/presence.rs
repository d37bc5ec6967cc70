//! Settings: what presence members see and how long they last: `[presence]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{As, Seconds, Toggle};

/// What presence members see and how long they last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PresenceConfig {
    /// Send `socketId` in member data to clients, as the original did.
    #[serde(with = "As::<Toggle>")]
    pub expose_socket_id: bool,
    /// Wait before `presence:leaving`, to hide a page reload.
    #[serde(with = "As::<Seconds>")]
    pub leave_grace: Duration,
    /// How long the members of a dead node stay.
    #[serde(with = "As::<Seconds>")]
    pub lease: Duration,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self { expose_socket_id: false, leave_grace: Duration::ZERO, lease: Duration::from_secs(30) }
    }
}

impl PresenceConfig {
    /// How often a node renews its lease at Redis and looks for leases that have ended: four times a lease, and every 10
    /// seconds at the least, so that members Redis has lost are back soon with a long lease, too.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        (self.lease / 4).min(Duration::from_secs(10))
    }
}
