//! Settings: presence members: `[presence]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{As, Seconds, Toggle};

/// Presence members: what clients see, and leases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PresenceConfig {
    /// Send `socketId` in member data to clients, as the original does.
    #[serde(with = "As::<Toggle>")]
    pub expose_socket_id: bool,
    /// Delay before `presence:leaving`, to hide page reloads.
    #[serde(with = "As::<Seconds>")]
    pub leave_grace: Duration,
    /// How long the members of a dead node remain.
    #[serde(with = "As::<Seconds>")]
    pub lease: Duration,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self { expose_socket_id: false, leave_grace: Duration::ZERO, lease: Duration::from_secs(30) }
    }
}

impl PresenceConfig {
    /// How often a node renews its lease in Redis and looks for expired ones: four times per lease, but at least every 10
    /// seconds, so that members that Redis has lost are restored soon even with a long lease.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        (self.lease / 4).min(Duration::from_secs(10))
    }
}
