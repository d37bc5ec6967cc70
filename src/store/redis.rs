//! Members in Redis: shared by all nodes that use it, and outliving none of them.
//!
//! Input: joins and leaves of this node's sockets, each of them one script and so atomic. Output: everyone in a channel,
//! whatever node they are connected to. Members live under the lease of their node: see `lease`. What Redis loses is
//! put back from what this node holds, what could not be taken out is taken out later: see `held`. Needs Redis 5.
//!
//! No script walks over the members of a channel; a join asks for the list in the same round trip.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::Pipeline;
use tracing::{debug, info, warn};

use super::{Joined, Left, Member, Members, PresenceStore, StoreError};
use crate::channel::ChannelName;
use crate::config::Config;
use crate::event::SocketId;
use crate::redis_client::{Link, QueryError, Redis, RedisConfigError, link};

mod held;
mod lease;
mod mirror;
mod scripts;

use held::Held;
use lease::{Lease, Renewal};
use mirror::Mirror;
use scripts::{Condition, Join, Keys, Listing, Mode};

/// Commands of one round trip when many members are put right.
const BATCH: usize = 200;

/// Time for the last words to Redis.
const GOODBYE: Duration = Duration::from_secs(2);

/// Members in Redis.
pub struct RedisStore {
    link: Arc<Link>,
    keys: Keys,
    lease: Lease,
    held: Held,
    mirror: Mirror,
    /// Channels with members of nodes that died.
    ghosts: Mutex<HashMap<ChannelName, Vec<String>>>,
    /// The connection that all members were last known to be written over.
    trusted: Mutex<u64>,
}

/// Undoes a join of which nobody hears the end.
struct Undo<'a> {
    held: &'a Held,
    channel: &'a ChannelName,
    socket: SocketId,
    before: Option<Member>,
    is_armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            self.held.undo(self.channel, self.socket, self.before.take());
        }
    }
}

type JoinAnswer = ((bool, u64, String), Listing);
type LeaveAnswer = (u8, String);

impl RedisStore {
    /// A store that connects when it is first asked.
    ///
    /// # Errors
    /// [`RedisConfigError`] when the settings cannot be used.
    pub fn new(config: &Config) -> Result<Self, RedisConfigError> {
        let database = &config.database_config;
        let link = Arc::new(Link::new(Redis::new(&database.redis)?, "presence members cannot be stored"));
        let keys = Keys::new(&database.redis.key_prefix, config.cluster.enabled.0);
        Ok(Self {
            mirror: Mirror::new(database, &link, &keys),
            link,
            keys,
            lease: Lease::new(config.presence.lease.0),
            held: Held::default(),
            ghosts: Mutex::default(),
            trusted: Mutex::new(0),
        })
    }

    /// With a new lease nothing that was written under the old one counts.
    fn note(&self, renewal: Renewal) {
        if renewal == Renewal::New {
            debug!(node = &*self.lease.node(), "a new lease");
            self.held.doubt(true);
        }
    }

    /// Before the first member of a channel is written: whoever takes this node's members out must find them.
    async fn index(&self, channel: &ChannelName) -> Result<(), QueryError> {
        self.note(self.lease.ensure(&self.link, &self.keys).await?);
        if self.held.needs_index(channel) {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SADD").arg(self.keys.index(&self.lease.node())).arg(channel.as_str());
            self.link.query::<()>(&pipeline).await?;
            self.held.indexed(channel);
        }
        Ok(())
    }

    async fn write(&self, channel: &ChannelName, socket: SocketId, member: &Member) -> Result<JoinAnswer, QueryError> {
        self.index(channel).await?;
        let node = self.lease.node();
        let attempt = async |mode| {
            let mut pipeline = redis::pipe();
            self.keys.join(&mut pipeline, &Join { channel, socket, member, node: &node, mode });
            self.keys.list(&mut pipeline, channel);
            self.link.query(&pipeline).await
        };
        match attempt(Mode::Join).await {
            Err(QueryError::Broken(_)) => attempt(Mode::Again).await,
            result => result,
        }
    }

    async fn take_out(&self, channel: &ChannelName, socket: SocketId, before: Option<&Member>) -> Result<Left, StoreError> {
        let attempt = async |condition: Condition<'_>| {
            let mut pipeline = redis::pipe();
            self.keys.leave(&mut pipeline, channel, socket, condition);
            self.link.query::<(LeaveAnswer,)>(&pipeline).await
        };
        let (answer,) = match (attempt(Condition::None).await, before) {
            (Err(QueryError::Broken(_)), Some(member)) => attempt(Condition::LostAnswer(member)).await?,
            (result, _) => result?,
        };
        left(answer, before)
    }

    async fn listing(&self, channel: &ChannelName) -> Result<Listing, StoreError> {
        let mut pipeline = redis::pipe();
        self.keys.list(&mut pipeline, channel);
        let (listing,) = self.link.query(&pipeline).await?;
        Ok(listing)
    }

    /// Writes members that Redis may have lost. Those that are there keep their place.
    async fn assert(&self, channel: &ChannelName, members: &[(SocketId, Member)]) -> Result<(), StoreError> {
        self.index(channel).await?;
        let node = self.lease.node();
        for batch in members.chunks(BATCH) {
            let mut pipeline = redis::pipe();
            for (socket, member) in batch {
                self.keys.join(&mut pipeline, &Join { channel, socket: *socket, member, node: &node, mode: Mode::Assert });
            }
            self.link.query::<redis::Value>(&pipeline).await?;
        }
        Ok(())
    }

    /// Takes sockets out, each if its condition holds. Returns the users who are gone by that.
    async fn take_all<'a>(
        &self,
        channel: &ChannelName,
        sockets: impl Iterator<Item = (SocketId, Condition<'a>)>,
    ) -> Result<Vec<Member>, StoreError> {
        let sockets: Vec<_> = sockets.collect();
        let mut gone = Vec::new();
        for batch in sockets.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            for (socket, condition) in batch {
                self.keys.leave(&mut pipeline, channel, *socket, *condition);
            }
            let answers: Vec<LeaveAnswer> = self.link.query(&pipeline).await?;
            for answer in answers {
                if let Left::Gone(member) = left(answer, None)? {
                    gone.push(member);
                }
            }
        }
        Ok(gone)
    }

    /// Takes out the members of nodes that died; of all the survivors, one does for each member.
    async fn take_ghosts(&self, channel: &ChannelName, nodes: &[String]) -> Result<Vec<Member>, StoreError> {
        let listing = self.listing(channel).await?;
        let ghosts = scripts::of_nodes(&listing, nodes)?;
        if !ghosts.is_empty() {
            info!(%channel, sockets = ghosts.len(), ?nodes, "members of a node that is gone are taken out");
        }
        let gone = self.take_all(channel, ghosts.into_iter().map(|(socket, entry)| (socket, Condition::Entry(entry)))).await?;
        for node in nodes {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SREM").arg(self.keys.index(node)).arg(channel.as_str());
            self.link.query::<()>(&pipeline).await?;
        }
        Ok(gone)
    }
}

impl From<QueryError> for StoreError {
    fn from(error: QueryError) -> Self {
        Self(error.full_text().into())
    }
}

fn left((state, json): LeaveAnswer, before: Option<&Member>) -> Result<Left, StoreError> {
    match (state, before) {
        (0, _) => Ok(Left::NotThere),
        (1, _) => Ok(Left::Remains),
        (_, Some(member)) if json.is_empty() => Ok(Left::Gone(member.clone())),
        _ => Ok(Left::Gone(Member::parse(&json).map_err(|error| StoreError(error.into()))?)),
    }
}

#[async_trait]
impl PresenceStore for RedisStore {
    async fn join(&self, channel: &ChannelName, socket: SocketId, member: Member) -> Result<Joined, StoreError> {
        let before = self.held.hold(channel, socket, member.clone());
        let mut undo = Undo { held: &self.held, channel, socket, before, is_armed: true };
        let ((is_first, _, replaced), listing) = self.write(channel, socket, &member).await?;
        undo.is_armed = false;
        self.mirror.changed(channel);
        let replaced = match replaced.as_str() {
            "" => None,
            json => Some(Member::parse(json).map_err(|error| StoreError(error.into()))?),
        };
        Ok(Joined { is_first, replaced, members: scripts::members(&listing)?, version: scripts::version(&listing) })
    }

    async fn leave(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError> {
        // First, so that it is made up for whatever comes between.
        let before = self.held.owe(channel, socket);
        let left = self.take_out(channel, socket, before.as_ref()).await?;
        self.held.paid(channel, socket);
        if left != Left::NotThere {
            self.mirror.changed(channel);
        }
        Ok(left)
    }

    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError> {
        scripts::members(&self.listing(channel).await?)
    }

    async fn versioned(&self, channel: &ChannelName) -> Result<(u64, Members), StoreError> {
        let listing = self.listing(channel).await?;
        Ok((scripts::version(&listing), scripts::members(&listing)?))
    }

    async fn due(&self) {
        let wait = if self.link.is_down().await { link::RETRY } else { self.lease.interval() };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.link.broken.notified() => {}
        }
    }

    async fn renew(&self) -> Result<Vec<ChannelName>, StoreError> {
        self.note(self.lease.renew(&self.link, &self.keys).await?);
        let generation = self.link.generation();
        {
            let mut trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut *trusted, generation) != generation {
                self.held.doubt(false);
            }
        }
        let dead = self.lease.dead(&self.link, &self.keys).await?;
        let mut ghosts: HashMap<ChannelName, Vec<String>> = HashMap::new();
        for (node, channels) in dead {
            for channel in channels {
                ghosts.entry(channel.into()).or_default().push(node.clone());
            }
        }
        let mut unsettled = self.held.unsettled();
        unsettled.extend(ghosts.keys().cloned());
        unsettled.sort_unstable();
        unsettled.dedup();
        *self.ghosts.lock().unwrap_or_else(PoisonError::into_inner) = ghosts;
        Ok(unsettled)
    }

    async fn settle(&self, channel: &ChannelName) -> Result<Vec<Member>, StoreError> {
        let chores = self.held.chores(channel);
        let mut has_changed = !chores.members.is_empty() || !chores.owed.is_empty();
        if !chores.members.is_empty() {
            self.assert(channel, &chores.members).await?;
            self.held.settled(channel);
        }
        let mut gone = self.take_all(channel, chores.owed.iter().map(|&socket| (socket, Condition::None))).await?;
        for socket in chores.owed {
            self.held.paid(channel, socket);
        }
        let nodes = self.ghosts.lock().unwrap_or_else(PoisonError::into_inner).remove(channel);
        if let Some(nodes) = nodes {
            gone.extend(self.take_ghosts(channel, &nodes).await?);
            has_changed = true;
        }
        if has_changed {
            self.mirror.changed(channel);
        }
        if self.held.forget(channel) {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SREM").arg(self.keys.index(&self.lease.node())).arg(channel.as_str());
            self.link.query::<()>(&pipeline).await?;
        }
        Ok(gone)
    }

    async fn other_nodes(&self) -> Result<usize, StoreError> {
        Ok(self.lease.others(&self.link, &self.keys).await?.into_iter().filter(|(_, lives)| *lives).count())
    }

    async fn close(&self) {
        let goodbye = async {
            for channel in self.held.unsettled() {
                self.settle(&channel).await?;
            }
            self.mirror.close().await;
            self.lease.end(&self.link, &self.keys).await?;
            Ok::<_, StoreError>(())
        };
        match tokio::time::timeout(GOODBYE, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "this node's lease could not be given up; it runs out by itself"),
            Err(_) => warn!("no time to give this node's lease up; it runs out by itself"),
        }
    }
}
