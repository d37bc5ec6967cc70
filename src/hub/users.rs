//! What the hub does with users as a whole.
//!
//! Input: a user's id, as presence channels and tokens tell it. Output: calls of that user's sockets.

use super::{Hub, Socket};

impl<S: Socket> Hub<S> {
    /// Closes the sockets of this node that are known to be the user's, for good: their clients do not come back by
    /// themselves. Returns how many there were.
    pub fn terminate_user(&self, user: &str) -> usize {
        self.forget_removed(Some(user), None);
        let mut sockets = Vec::new();
        for shard in &self.sessions {
            let sessions = shard.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            sockets.extend(sessions.values().filter(|session| session.state().is_user(user)).map(|session| session.socket.clone()));
        }
        // Out of the locks: a socket that closes is taken out of its shard.
        for socket in &sockets {
            socket.terminate();
        }
        sockets.len()
    }
}
