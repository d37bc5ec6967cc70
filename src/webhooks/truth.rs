//! [`Truth`]: who is where now. Input: channels and users to look at. Output: what the hub, and the store, say at this moment.

use std::sync::Arc;

use async_trait::async_trait;

use crate::channel::ChannelName;
use crate::hub::{Hub, Socket};
use crate::store::{Members, StoreError};

/// Who is where now.
#[async_trait]
pub(super) trait Truth: Send + Sync + 'static {
    /// How many sockets are in a channel on this node.
    fn count(&self, channel: &str) -> usize;
    /// Every channel of this node with its count of sockets.
    fn counts(&self) -> Vec<(ChannelName, usize)>;
    /// Everyone in a presence channel, on all nodes.
    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError>;
    /// Which of these users are in a presence channel, on any node.
    async fn have_joined(&self, channel: &ChannelName, users: &[&str]) -> Result<Vec<bool>, StoreError>;
}

/// What the hub says.
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
