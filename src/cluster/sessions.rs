//! [`SessionStore`]: sessions of clients that may reconnect to another node, and the state that nodes share for that.
//!
//! Input: sessions as their node sees them, in batches. Output: each session, to the first node that asks for it. In Redis
//! a session is a key with an expiry, so the sessions of a killed node need no cleanup.

use std::time::Duration;

use async_trait::async_trait;
use data_encoding::HEXLOWER;

use crate::clock::milliseconds;
use crate::event::SocketId;
use crate::redis_client::{QueryError, ReconnectingClient};

/// Commands sent in one round trip.
const BATCH: usize = 500;

/// How long past events are offered to a node that has just started or reconnected to Redis.
const OFFERED: Duration = Duration::from_secs(10);

/// Bytes of the key that signs private ids.
pub(crate) type SessionKey = [u8; 32];

/// A change of a stored session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionChange {
    /// Store this session, to expire after this time.
    Put(String, Duration),
    /// Delete the session: no client can resume it any more.
    Delete,
}

/// The session store cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SessionError(String);

impl From<QueryError> for SessionError {
    fn from(error: QueryError) -> Self {
        Self(error.full_text())
    }
}

/// Stores sessions for all nodes.
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// The key that signs private ids: `fresh`, unless the nodes share one already.
    ///
    /// # Errors
    /// [`SessionError`] when the store cannot be reached.
    async fn key(&self, fresh: SessionKey) -> Result<SessionKey, SessionError>;

    /// Writes changes of sessions.
    ///
    /// # Errors
    /// [`SessionError`] when the store cannot be reached; some of the changes may have been written.
    async fn write(&self, changes: Vec<(SocketId, SessionChange)>) -> Result<(), SessionError>;

    /// Removes and returns a session. When several nodes ask for it, only one gets it.
    ///
    /// # Errors
    /// [`SessionError`] when the store cannot be reached.
    async fn take(&self, id: SocketId) -> Result<Option<String>, SessionError>;

    /// Whether this node should offer the events from before the epoch `name`. Only one of the nodes that ask is told yes.
    ///
    /// # Errors
    /// [`SessionError`] when the store cannot be reached.
    async fn may_offer(&self, name: u64) -> Result<bool, SessionError>;

    /// Offers the events from before the epoch `name`, in parts, for a limited time.
    ///
    /// # Errors
    /// [`SessionError`] when the store cannot be reached.
    async fn offer(&self, name: u64, past: Vec<Vec<u8>>) -> Result<(), SessionError>;

    /// The past events offered for the epoch `name`; empty when no node has offered any.
    ///
    /// # Errors
    /// [`SessionError`] when the store cannot be reached.
    async fn past(&self, name: u64) -> Result<Vec<Vec<u8>>, SessionError>;

    /// Prevents sessions with this name from being resumed for `lasts`, because a user was removed.
    ///
    /// # Errors
    /// [`SessionError`] when the store cannot be reached.
    async fn ban(&self, name: String, lasts: Duration) -> Result<(), SessionError>;

    /// Whether any of these names is banned.
    ///
    /// # Errors
    /// [`SessionError`] when the store cannot be reached.
    async fn is_banned(&self, names: Vec<String>) -> Result<bool, SessionError>;
}

/// Sessions in Redis.
pub(super) struct RedisSessions {
    client: ReconnectingClient,
    prefix: String,
}

impl RedisSessions {
    pub(super) fn new(client: ReconnectingClient, key_prefix: &str) -> Self {
        Self { client, prefix: format!("{key_prefix}laravel-echo:") }
    }

    fn session(&self, id: SocketId) -> String {
        format!("{}session:{id}", self.prefix)
    }

    fn removed(&self, name: &str) -> String {
        format!("{}removed:{name}", self.prefix)
    }
}

/// The argument of `PX`, which must be greater than 0.
fn px(time: Duration) -> u64 {
    milliseconds(time).max(1)
}

#[async_trait]
impl SessionStore for RedisSessions {
    async fn key(&self, fresh: SessionKey) -> Result<SessionKey, SessionError> {
        let name = format!("{}recovery-key", self.prefix);
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(&name).arg(HEXLOWER.encode(&fresh)).arg("NX").ignore().get(&name);
        let (text,): (String,) = self.client.query(&pipeline).await?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| SessionError(format!("`{name}` is not 64 hexadecimal digits")))
    }

    async fn write(&self, changes: Vec<(SocketId, SessionChange)>) -> Result<(), SessionError> {
        for batch in changes.chunks(BATCH) {
            let mut pipeline = redis::pipe();
            for (id, change) in batch {
                match change {
                    SessionChange::Put(session, lasts) => {
                        pipeline.cmd("SET").arg(self.session(*id)).arg(session).arg("PX").arg(px(*lasts)).ignore()
                    }
                    SessionChange::Delete => pipeline.del(self.session(*id)).ignore(),
                };
            }
            self.client.query::<()>(&pipeline).await?;
        }
        Ok(())
    }

    async fn take(&self, id: SocketId) -> Result<Option<String>, SessionError> {
        // GETDEL would do the same, but needs Redis 6.2.
        let mut pipeline = redis::pipe();
        pipeline.atomic().get(self.session(id)).del(self.session(id)).ignore();
        let (session,) = self.client.query(&pipeline).await?;
        Ok(session)
    }

    async fn may_offer(&self, name: u64) -> Result<bool, SessionError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(format!("{}past:{name}:offered", self.prefix)).arg(1).arg("NX").arg("PX").arg(px(OFFERED));
        let (set,): (Option<String>,) = self.client.query(&pipeline).await?;
        Ok(set.is_some())
    }

    async fn offer(&self, name: u64, past: Vec<Vec<u8>>) -> Result<(), SessionError> {
        let key = format!("{}past:{name}", self.prefix);
        for batch in past.chunks(BATCH) {
            let mut pipeline = redis::pipe();
            pipeline.rpush(&key, batch).ignore().cmd("PEXPIRE").arg(&key).arg(px(OFFERED)).ignore();
            self.client.query::<()>(&pipeline).await?;
        }
        Ok(())
    }

    async fn past(&self, name: u64) -> Result<Vec<Vec<u8>>, SessionError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("LRANGE").arg(format!("{}past:{name}", self.prefix)).arg(0).arg(-1);
        let (past,) = self.client.query(&pipeline).await?;
        Ok(past)
    }

    async fn ban(&self, name: String, lasts: Duration) -> Result<(), SessionError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(self.removed(&name)).arg(1).arg("PX").arg(px(lasts)).ignore();
        Ok(self.client.query::<()>(&pipeline).await?)
    }

    async fn is_banned(&self, names: Vec<String>) -> Result<bool, SessionError> {
        if names.is_empty() {
            return Ok(false);
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("EXISTS").arg(names.iter().map(|name| self.removed(name)).collect::<Vec<_>>());
        let (count,): (u64,) = self.client.query(&pipeline).await?;
        Ok(count > 0)
    }
}
