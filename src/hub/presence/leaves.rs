//! What one member of a large channel can cause: leaves that are told a moment later, unless the member is back.
//!
//! Input: leaves of channels with [`LARGE_CHANNEL`] sockets and more. Output: which of them is to be told, and who comes and
//! goes without end.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::channel::ChannelName;
use crate::event::SocketId;

/// A channel with so many sockets, or users on all nodes, is large: each join and leave is told to all of them.
pub(in crate::hub) const LARGE_CHANNEL: usize = 100;

/// A leave of a large channel is told so much later. Who is back by then has not been away.
pub(in crate::hub) const CALM: Duration = Duration::from_secs(1);

/// A socket that has left a large channel so many times of late is let in when that is over.
pub(super) const FLAPS: u32 = 2;

/// Leaves of large channels that are not told yet.
#[derive(Debug, Default)]
pub(in crate::hub) struct Leaves(Mutex<HashMap<(ChannelName, SocketId), u32>>);

impl Leaves {
    pub(super) fn begin(&self, channel: &ChannelName, id: SocketId) {
        *self.0.lock().entry((channel.clone(), id)).or_default() += 1;
    }

    /// Its time has come. Whether the socket has not left again since, which is then for the later one to tell.
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

    /// How many of a socket's are not told yet.
    pub(super) fn count(&self, channel: &ChannelName, id: SocketId) -> u32 {
        self.0.lock().get(&(channel.clone(), id)).copied().unwrap_or_default()
    }
}
