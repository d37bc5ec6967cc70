//! Where presence members are kept: the trait [`PresenceStore`], its values, and the choice of a backend.
//!
//! Input: joins and leaves from the hub, which serialises those of one channel. Output: who is in the channel now. The backend
//! is responsible for atomicity: other nodes may change the same channel at the same moment.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::channel::ChannelName;
use crate::config::{Config, Database};
use crate::event::SocketId;
use crate::redis_client::RedisConfigError;

mod member;
pub(crate) mod memory;
pub(crate) mod redis;

pub use member::{Member, MemberError, MemberView};
use memory::MemoryStore;
use redis::RedisStore;

/// Members of a channel by socket, in the order of joining.
pub type Members = Vec<(SocketId, Member)>;

/// The users among members, each once.
pub(crate) fn users_of(members: &Members) -> HashSet<&str> {
    members.iter().map(|(_, member)| member.user()).collect()
}

/// The result of a join.
#[derive(Debug)]
pub struct Joined {
    /// Whether this is the user's first socket in the channel.
    pub is_first: bool,
    /// Another user, whose last socket this was until now: a different user has logged in on the same socket.
    pub replaced: Option<Member>,
    /// Everyone in the channel, the new member last, if the list was asked for or the store could not be reached.
    pub members: Option<Members>,
    /// The version of that list, or else of the channel after this join, if the store counts changes for other nodes. Otherwise 0; also
    /// 0 when the store could not be reached, and the list has only the members that this node knows.
    pub version: u64,
    /// Members that this node had written are missing: the store has lost data, and the list may lack other nodes' members too.
    pub has_lost: bool,
}

/// The result of a heartbeat.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Channels to [`PresenceStore::reconcile`].
    pub unreconciled: Vec<ChannelName>,
    /// The store has lost this node's lease or members, and maybe others': lists may lack members until every node has reconciled. Or
    /// somebody has left of whom the store has told no node.
    pub has_lost: bool,
}

/// The result of a leave.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// The socket was not a member.
    NotThere,
    /// The user remains in the channel with another socket.
    Remains,
    /// That was the user's last socket.
    Gone(Member),
}

/// A backend failed.
#[derive(Debug, thiserror::Error)]
#[error("presence store: {0}")]
pub struct StoreError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// The configured store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The Redis settings are invalid. An unreachable Redis is not an error: the store keeps trying to connect.
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
}

/// Opens the store that `database` names.
///
/// # Errors
/// [`OpenError`] when it cannot be opened.
pub async fn open(config: &Config) -> Result<Arc<dyn PresenceStore>, OpenError> {
    Ok(match config.database {
        // Compat: the original empties its SQLite table at every start, so memory behaves the same.
        Database::Memory | Database::Sqlite => Arc::new(MemoryStore::default()),
        Database::Redis => Arc::new(RedisStore::new(config)?),
    })
}

/// Keeps the members of presence channels.
#[async_trait]
pub trait PresenceStore: Send + Sync + 'static {
    /// Adds a socket to a channel. A socket that is already there becomes the newest, with its new data. `is_listed`: the caller
    /// wants the members, which may take as long as there are many of them.
    ///
    /// # Errors
    /// [`StoreError`] when the backend rejects the command. If it is unreachable, the result is based on this node's members.
    async fn join(&self, channel: &ChannelName, socket: SocketId, member: Member, is_listed: bool) -> Result<Joined, StoreError>;

    /// Removes a socket from a channel.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn leave(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError>;

    /// As [`Self::leave`], unless another node has taken the socket over; then it stays.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn release(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError> {
        self.leave(channel, socket).await
    }

    /// Everyone in a channel, one entry a socket, in the order of joining.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError>;

    /// Which of these users are in a channel.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn have_joined(&self, channel: &ChannelName, users: &[&str]) -> Result<Vec<bool>, StoreError> {
        let members = self.members(channel).await?;
        Ok(users.iter().map(|user| members.iter().any(|(_, member)| member.user() == *user)).collect())
    }

    /// As [`Self::members`], with the version of the list as in [`Joined::version`].
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn versioned(&self, channel: &ChannelName) -> Result<(u64, Members), StoreError> {
        Ok((0, self.members(channel).await?))
    }

    /// Waits until the store needs a [`Self::heartbeat`]. Never resolves for stores that need none.
    async fn next_maintenance(&self) {
        std::future::pending().await
    }

    /// Renews this node's lease in the backend. The returned channels must be reconciled, sequentially or concurrently,
    /// each while no join or leave of that channel is in progress on this node.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn heartbeat(&self) -> Result<Heartbeat, StoreError> {
        Ok(Heartbeat::default())
    }

    /// Repairs a channel: writes this node's members again, and removes those whose removal failed before and those of
    /// dead nodes. Returns the users who have left the channel by that.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn reconcile(&self, _channel: &ChannelName) -> Result<Vec<Member>, StoreError> {
        Ok(Vec::new())
    }

    /// The user is said to have left the channel. Returns whether a socket of the user is there on this node: then the store has lost it,
    /// and needs a [`Self::heartbeat`].
    fn doubt(&self, _channel: &ChannelName, _user: &str) -> bool {
        false
    }

    /// The number of other nodes, including dead ones whose members have not been removed yet.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn other_nodes(&self) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// Releases this node's state; all its sockets must have left before.
    async fn close(&self) {}
}
