//! Where presence members are kept: the trait [`PresenceStore`], its values, and the choice of a backend.
//!
//! Input: joins and leaves from the hub, which serialises those of one channel. Output: who is here now. A backend
//! owns atomicity: other nodes may join and leave the same channel at the same moment.

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

/// What a join came to.
#[derive(Debug)]
pub struct Joined {
    /// Whether this is the user's first socket in the channel.
    pub is_first: bool,
    /// Another user whose last socket this was until now: somebody else has logged in on it.
    pub replaced: Option<Member>,
    /// Everyone in the channel, the new one last.
    pub members: Members,
    /// The version of that list, where the store counts changes for other nodes; else 0, as when the store could not be
    /// reached and the list is what this node knows.
    pub version: u64,
    /// Members that this node had put there are missing: the store has lost some, and the list may lack others, too.
    pub has_lost: bool,
}

/// What a renewal came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Channels to [`PresenceStore::reconcile`].
    pub unreconciled: Vec<ChannelName>,
    /// The store has forgotten this node, and maybe others: lists may lack members until every node has settled.
    pub has_lost: bool,
}

/// What a leave came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// The socket was no member.
    NotThere,
    /// The user is still here with another socket.
    Remains,
    /// That was the user's last socket.
    Gone(Member),
}

/// A backend failed.
#[derive(Debug, thiserror::Error)]
#[error("presence store: {0}")]
pub struct StoreError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// The store of the settings cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Settings of Redis. A Redis that is down is no reason: it is looked for until it is there.
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
}

/// Opens the store that `database` names.
///
/// # Errors
/// [`OpenError`] when it cannot be opened.
pub async fn open(config: &Config) -> Result<Arc<dyn PresenceStore>, OpenError> {
    Ok(match config.database {
        // Compat: the original's SQLite table. A file that is emptied at the start is memory.
        Database::Memory | Database::Sqlite => Arc::new(MemoryStore::default()),
        Database::Redis => Arc::new(RedisStore::new(config)?),
    })
}

/// Keeps the members of presence channels.
#[async_trait]
pub trait PresenceStore: Send + Sync + 'static {
    /// Adds a socket to a channel. A socket that is there already becomes the newest, with its new data.
    ///
    /// # Errors
    /// [`StoreError`] when the backend refuses. One that is away is answered for by what this node knows.
    async fn join(&self, channel: &ChannelName, socket: SocketId, member: Member) -> Result<Joined, StoreError>;

    /// Takes a socket out of a channel.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn leave(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError>;

    /// As [`Self::leave`], but the socket may be another node's by now, and stays then.
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

    /// Waits until the store wants [`Self::heartbeat`] to be called. For ever when it lasts by itself.
    async fn next_maintenance(&self) {
        std::future::pending().await
    }

    /// Tells the backend that this node lives. The channels it returns are to be settled one after the other or at
    /// once, each while no join or leave of it is under way on this node.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn heartbeat(&self) -> Result<Heartbeat, StoreError> {
        Ok(Heartbeat::default())
    }

    /// Puts a channel right: what this node holds is there, what it could not take out is taken out now, and so are
    /// the members of nodes that died. Returns the users who are gone by that.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn reconcile(&self, _channel: &ChannelName) -> Result<Vec<Member>, StoreError> {
        Ok(Vec::new())
    }

    /// How many other nodes there are, those that died and are not settled yet included.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be reached.
    async fn other_nodes(&self) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// Ends this node's part; all its sockets have left before.
    async fn close(&self) {}
}
