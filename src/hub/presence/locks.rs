//! The lock that keeps the joins and leaves of one channel in order.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::channel::ChannelName;

/// One lock per channel. A store's answers and what clients are told must have the same order.
#[derive(Debug, Default)]
pub(in crate::hub) struct ChannelLocks(Mutex<HashMap<ChannelName, Arc<tokio::sync::Mutex<()>>>>);

/// Held while a channel's members change.
pub(in crate::hub) struct ChannelLock<'a> {
    locks: &'a ChannelLocks,
    channel: &'a ChannelName,
    /// `None` only during the drop.
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl ChannelLocks {
    pub(in crate::hub) async fn lock<'a>(&'a self, channel: &'a ChannelName) -> ChannelLock<'a> {
        let lock = {
            let mut locks = self.0.lock();
            locks.entry(channel.clone()).or_default().clone()
        };
        ChannelLock { locks: self, channel, held: Some(lock.lock_owned().await) }
    }
}

impl Drop for ChannelLock<'_> {
    fn drop(&mut self) {
        let mut locks = self.locks.0.lock();
        self.held = None;
        // A task that waits holds the lock's `Arc` too.
        if locks.get(self.channel).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(self.channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn locks_of_channels_that_nobody_uses_are_gone() {
        let locks = ChannelLocks::default();
        let (a, b) = ("presence-a".into(), "presence-b".into());
        let first = locks.lock(&a).await;
        let other = locks.lock(&b).await;
        drop(other);
        assert_eq!(locks.0.lock().len(), 1);
        let waits = locks.lock(&a);
        tokio::pin!(waits);
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        drop(first);
        drop(waits.await);
        assert!(locks.0.lock().is_empty());
    }
}
