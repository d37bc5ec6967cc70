//! Limits what one member can cause in a large channel: leaves are announced with a delay, unless the member is back by then.
//!
//! Input: leaves from channels with at least [`LARGE_CHANNEL`] sockets. Output: which of them to announce, and which sockets
//! keep joining and leaving.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::channel::ChannelName;
use crate::event::SocketId;

/// A channel with this many sockets, or users on all nodes, is large: each join and leave is sent to all of them.
pub(in crate::hub) const LARGE_CHANNEL: usize = 100;

/// Delay before a leave from a large channel is announced. A socket that is back by then has not been away.
pub(in crate::hub) const CALM: Duration = Duration::from_secs(1);

/// With this many pending leaves from a large channel, a socket waits for [`CALM`] before it may join again.
pub(super) const FLAPS: u32 = 2;

/// Leaves from large channels that are not announced yet.
#[derive(Debug, Default)]
pub(in crate::hub) struct Leaves(Mutex<HashMap<(ChannelName, SocketId), u32>>);

impl Leaves {
    pub(super) fn begin(&self, channel: &ChannelName, id: SocketId) {
        *self.0.lock().entry((channel.clone(), id)).or_default() += 1;
    }

    /// The delay of a leave is over. Returns whether to announce it: if the socket has left again since, the later leave will.
    pub(super) fn end(&self, channel: &ChannelName, id: SocketId) -> bool {
        let mut leaves = self.0.lock();
        let key = (channel.clone(), id);
        let Some(count) = leaves.get_mut(&key) else { return true };
        *count -= 1;
        if *count == 0 {
            leaves.remove(&key);
            return true;
        }
        false
    }

    /// How many leaves of a socket are not announced yet.
    pub(super) fn count(&self, channel: &ChannelName, id: SocketId) -> u32 {
        self.0.lock().get(&(channel.clone(), id)).copied().unwrap_or_default()
    }
}
