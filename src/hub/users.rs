//! What the hub does with all sockets of a user.
//!
//! Input: a user's id, as presence channels and tokens name it. Output: calls to that user's sockets.

use super::{Hub, Socket};

impl<S: Socket> Hub<S> {
    /// Closes this node's sockets that are known to be the user's, for good: their clients do not reconnect by themselves.
    /// Returns how many there were.
    pub fn terminate_user(&self, user: &str) -> usize {
        let _removal = self.begin_removal(Some(user), None);
        let mut sockets = Vec::new();
        for shard in &self.sessions {
            let sessions = shard.read();
            for session in sessions.values() {
                let mut state = session.state();
                if state.is_user(user) {
                    state.end_for_good();
                    sockets.push((session.socket.clone(), state.stays()));
                }
            }
        }
        // Without the locks: closing a socket removes it from its shard.
        for (socket, stays) in &sockets {
            for stay in stays {
                if let Some(terms) = &stay.terms {
                    self.void(terms, &stay.channel, None);
                }
            }
            socket.terminate();
        }
        sockets.len()
    }
}
