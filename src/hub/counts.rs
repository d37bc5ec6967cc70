//! `pusher.subscriptionCount`: tells a channel how many are subscribed.
//!
//! Input: sockets that come and go. Output: a push to the channel: at each change, in channels of more than 100 every five
//! seconds. Counted are the sockets of this node.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Hub, Message, Push, Socket};
use crate::channel::{ChannelKind, ChannelName};

/// Channels with more subscribers hear of changes at this pace.
const MANY: usize = 100;
const PACE: Duration = Duration::from_secs(5);

/// Channels that are to hear of their count soon.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<HashSet<ChannelName>>);

impl<S: Socket> Hub<S> {
    /// Somebody came or went. Presence channels have their members.
    pub(super) fn count_changed(self: &Arc<Self>, channel: &ChannelName) {
        let Some(counts) = self.counts.as_ref().filter(|_| channel.kind() != ChannelKind::Presence) else { return };
        if self.rooms.count(channel.as_str()) <= MANY {
            return self.tell_count(channel);
        }
        let is_new = counts.0.lock().unwrap_or_else(PoisonError::into_inner).insert(channel.clone());
        if is_new {
            let (hub, channel) = (Arc::clone(self), channel.clone());
            self.tasks.spawn(async move {
                hub.closing.run_until_cancelled(tokio::time::sleep(PACE)).await;
                if let Some(counts) = &hub.counts {
                    counts.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
                }
                hub.tell_count(&channel);
            });
        }
    }

    fn tell_count(self: &Arc<Self>, channel: &ChannelName) {
        let (name, count) = (channel.as_str(), self.rooms.count(channel.as_str()));
        if count > 0 {
            self.fan_out(name, &Push::new(Message::Count { channel: name, count }), None);
        }
    }
}
