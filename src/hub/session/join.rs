//! [`Join`]: one subscribe of a socket, on its way and once it has succeeded.
//!
//! Input: a session, a channel and a ticket. Output: whether the subscribe still counts.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Session, State, Ticket};
use crate::channel::ChannelName;

/// A socket that joins a channel, or is in it: by the subscribe that the ticket stands for.
pub(in crate::hub) struct Join<S> {
    pub(in crate::hub) session: Arc<Session<S>>,
    pub(in crate::hub) channel: ChannelName,
    pub(in crate::hub) ticket: Ticket,
}

impl<S> Clone for Join<S> {
    fn clone(&self) -> Self {
        Self { session: Arc::clone(&self.session), channel: self.channel.clone(), ticket: self.ticket }
    }
}

impl<S> Join<S> {
    /// See [`Session::state`].
    pub(in crate::hub) fn state(&self) -> MutexGuard<'_, State> {
        self.session.state()
    }

    /// Whether the socket has neither unsubscribed nor disconnected since the subscribe.
    pub(in crate::hub) fn is_current(&self) -> bool {
        self.state().is_current(&self.channel, self.ticket)
    }

    /// The subscribe is refused; `false`: its ticket is void.
    pub(in crate::hub) fn refuse(&self) -> bool {
        self.state().refuse(&self.channel, self.ticket)
    }
}
