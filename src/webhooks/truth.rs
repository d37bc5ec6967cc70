//! [`Truth`]: the current state. Input: channels and users to check. Output: what the hub and the store know at this moment.

use std::sync::Arc;

use async_trait::async_trait;

use crate::channel::ChannelName;
use crate::hub::{Hub, Socket};
use crate::store::{Members, StoreError};

/// The current state of channels and members.
#[async_trait]
pub(super) trait Truth: Send + Sync + 'static {
    /// The number of sockets in a channel on this node.
    fn count(&self, channel: &str) -> usize;
    /// All channels of this node with their number of sockets.
    fn counts(&self) -> Vec<(ChannelName, usize)>;
    /// Everyone in a presence channel, on all nodes.
    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError>;
    /// Which of these users are in a presence channel, on any node.
    async fn have_joined(&self, channel: &ChannelName, users: &[&str]) -> Result<Vec<bool>, StoreError>;
}

/// The state according to the hub.
pub(super) struct Here<S>(pub(super) Arc<Hub<S>>);

#[async_trait]
impl<S: Socket> Truth for Here<S> {
    fn count(&self, channel: &str) -> usize {
        self.0.subscription_count(channel)
    }

    fn counts(&self) -> Vec<(ChannelName, usize)> {
        self.0.channels("")
    }

    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError> {
        self.0.members(channel).await
    }

    async fn have_joined(&self, channel: &ChannelName, users: &[&str]) -> Result<Vec<bool>, StoreError> {
        self.0.have_joined(channel, users).await
    }
}
