//! `pusher.subscriptionCount`: tells a channel's subscribers how many of them there are.
//!
//! Input: sockets that join and leave. Output: a push to the channel: after each change, or every five seconds in channels with more
//! than 100 subscribers. With several nodes, the node that sees a change sums over all nodes a second later, and tells all nodes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Hub, Message, Push, Socket};
use crate::channel::{ChannelKind, ChannelName};
use crate::cluster::control;

/// Channels with more subscribers are told of changes at this interval.
const MANY: usize = 100;
const PACE: Duration = Duration::from_secs(5);
/// Delay with several nodes, which have to be asked.
const PACE_AMONG_NODES: Duration = Duration::from_secs(1);

/// Channels whose count will be sent soon.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<HashSet<ChannelName>>);

impl<S: Socket> Hub<S> {
    /// A socket joined or left. Presence channels have their members instead.
    pub(super) fn count_changed(self: &Arc<Self>, channel: &ChannelName) {
        let Some(counts) = self.counts.as_ref().filter(|_| channel.kind() != ChannelKind::Presence) else { return };
        let count = self.rooms.count(channel.as_str());
        let pace = match &self.nodes {
            _ if count > MANY => PACE,
            Some(_) => PACE_AMONG_NODES,
            None => return self.show_count(channel.as_str(), count),
        };
        let is_new = counts.0.lock().insert(channel.clone());
        if is_new {
            let (hub, channel) = (Arc::clone(self), channel.clone());
            self.tasks.spawn(async move {
                let counting = async {
                    tokio::time::sleep(pace).await;
                    if let Some(counts) = &hub.counts {
                        counts.0.lock().remove(&channel);
                    }
                    hub.tell_count(&channel).await;
                };
                hub.closing.run_until_cancelled(counting).await
            });
        }
    }

    async fn tell_count(self: &Arc<Self>, name: &ChannelName) {
        let channel = name.as_str();
        let count = self.subscription_count_everywhere(name).await.value;
        self.tell_all(|| control::Message::Count { channel: channel.to_owned(), count }, || self.show_count(channel, count));
    }

    /// Tells the channel's sockets on this node.
    pub(super) fn show_count(self: &Arc<Self>, channel: &str, count: usize) {
        if count > 0 {
            self.fan_out(channel, &Push::new(Message::Count { channel, count }), None);
        }
    }
}
