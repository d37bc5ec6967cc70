//! What operators see of the hub, one channel or socket at a time, and what they may do to one socket.
//!
//! Input: names and ids that an operator typed or clicked. Output: copies made for display, without headers, cookies or tokens.

use std::sync::Arc;
use std::time::Duration;

use super::hints::Hints;
use super::{Hub, Socket};
use crate::auth::GrantedBy;
use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::metrics::{Refusal, Source};

/// Status for a client that is removed from a channel.
const TAKEN_OUT: u16 = 403;

/// A socket, for display.
#[derive(Debug, Clone)]
pub struct SocketView<S> {
    /// Its handle.
    pub socket: S,
    /// How long it has been connected.
    pub age: Duration,
    /// Its user, if known.
    pub user: Option<Arc<str>>,
    /// Its channels, by name.
    pub channels: Vec<StayView>,
}

/// A channel that a socket is in or has asked to join, for display.
#[derive(Debug, Clone)]
pub struct StayView {
    /// The channel.
    pub channel: ChannelName,
    /// `false` while the application has not answered.
    pub is_joined: bool,
    /// The user that the grant names.
    pub user: Option<Arc<str>>,
    /// Who gave the grant, if the channel needs one.
    pub by: Option<GrantedBy>,
    /// When the grant expires, if it does.
    pub ends_in: Option<Duration>,
}

/// What is wrong when an event goes to `event` and clients are in `joined`. `None` for the same name, and for names that are
/// unrelated.
#[must_use]
pub fn near_miss(event: &str, joined: &str) -> Option<String> {
    Hints::nearest(event, std::iter::once(joined)).map(|(_, hint)| hint)
}

impl<S: Socket> Hub<S> {
    /// A socket of this node.
    #[must_use]
    pub fn inspect(&self, id: SocketId) -> Option<SocketView<S>> {
        let session = self.session(id)?;
        let state = session.state();
        Some(SocketView { socket: session.socket.clone(), age: session.began.elapsed(), user: state.known_user(), channels: state.views() })
    }

    /// At most `most` sockets of this node in a channel.
    #[must_use]
    pub fn sockets_in(&self, channel: &str, most: usize) -> Vec<SocketId> {
        let room = self.rooms.snapshot(channel);
        room.map_or_else(Vec::new, |room| room.iter().map(|(id, _)| id).take(most).collect())
    }

    /// At most `most` sockets of this node that are known to be the user's.
    #[must_use]
    pub fn sockets_of(&self, user: &str, most: usize) -> Vec<SocketId> {
        let mut ids = Vec::new();
        for shard in &self.sessions {
            let sessions = shard.read();
            ids.extend(sessions.iter().filter(|(_, session)| session.state().is_user(user)).map(|(id, _)| *id));
            if ids.len() >= most {
                break;
            }
        }
        ids.truncate(most);
        ids
    }

    /// The channel with subscribers here that an event to `channel` was most likely meant for, and what is wrong.
    #[must_use]
    pub fn nearest(&self, channel: &str) -> Option<(String, String)> {
        let near = self.near(channel);
        Hints::nearest(channel, near.iter().map(ChannelName::as_str)).map(|(joined, hint)| (joined.to_owned(), hint))
    }

    /// An event was published without the prefix `databaseConfig.redis.keyPrefix`, and reaches no client.
    pub fn saw_outside_prefix(&self, channel: &str) {
        self.hints.saw_outside(channel);
        self.tell_dropped(Some(channel), Source::Redis, &"outside of databaseConfig.redis.keyPrefix");
    }

    /// The Redis channel of an event that was published without the prefix, if one was seen.
    #[must_use]
    pub fn seen_outside_prefix(&self) -> Option<&str> {
        self.hints.outside()
    }

    /// Whether other nodes may have clients too.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        self.nodes.is_some()
    }

    /// Closes a socket of this node for good, as [`Hub::terminate_user`] does for a user. Returns whether it was connected.
    pub fn terminate_socket(&self, id: SocketId) -> bool {
        let Some(session) = self.session(id) else { return false };
        session.state().end_for_good();
        // Without the lock: closing a socket makes it leave its channels.
        session.socket.terminate();
        true
    }

    /// Removes a socket of this node from a channel. Returns whether it was in.
    pub fn unsubscribe_socket(self: &Arc<Self>, id: SocketId, channel: &ChannelName) -> bool {
        let Some(session) = self.session(id) else { return false };
        let user = session.state().user_in(channel.as_str()).flatten();
        let _removal = user.as_deref().map(|user| self.begin_removal(Some(user), Some(channel)));
        let terms = session.state().terms(channel.as_str());
        if let Some(terms) = terms {
            self.void(&terms, channel, user.as_deref());
        }
        let was_in = session.state().take_out(channel);
        if was_in {
            self.left(channel, id, "removed by the dashboard");
            self.refuse(&session, channel.as_str(), TAKEN_OUT, Refusal::Unauthorized);
        }
        was_in
    }
}
