//! Keeps the presence store correct over time: this node's lease, members that Redis lost, members of nodes that died.
//!
//! Input: the store says when maintenance is due, and which channels to reconcile. Output: `presence:leaving` for users who
//! turn out to be gone.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tracing::debug;

use super::super::{Hub, Socket};
use crate::channel::ChannelName;

/// Channels that are reconciled at once: enough to fill a connection, few enough to leave room for joins.
const AT_ONCE: usize = 16;

impl<S: Socket> Hub<S> {
    /// Starts the maintenance of the store and the expiry of saved sessions; both end when the hub closes.
    pub fn keep_store(self: &Arc<Self>) {
        self.forget_in_time();
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            let keep = async {
                loop {
                    hub.maintain().await;
                    hub.store.next_maintenance().await;
                }
            };
            hub.closing.run_until_cancelled(keep).await
        });
    }

    pub(super) async fn maintain(self: &Arc<Self>) {
        match self.store.heartbeat().await {
            Ok(beat) => {
                if beat.has_lost {
                    self.catch_up();
                }
                let reconciling = futures_util::stream::iter(beat.unreconciled).map(|channel| self.reconcile(channel));
                reconciling.buffer_unordered(AT_ONCE).for_each(std::future::ready).await;
            }
            // The store has logged the cause, and decides when to retry.
            Err(error) => debug!(%error, "the presence store's heartbeat failed"),
        }
    }

    async fn reconcile(self: &Arc<Self>, channel: ChannelName) {
        let _order = self.presence_locks.lock(&channel).await;
        match self.store.reconcile(&channel).await {
            Ok(gone) => gone.iter().for_each(|member| self.announce_leaving(&channel, member, None)),
            // The store has logged the cause, and retries.
            Err(error) => debug!(%channel, %error, "could not repair presence members; retrying"),
        }
    }
}
