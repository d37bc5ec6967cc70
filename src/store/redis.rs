//! Presence members in Redis, shared by all nodes. No member outlives its node.
//!
//! Input: joins and leaves of this node's sockets; each is one script, and so atomic. Output: everyone in a channel,
//! whichever node they are connected to. Members belong to the lease of their node: see `lease`. What Redis loses is
//! written again from this node's copy, and removals that failed are retried: see `local_members`. Needs Redis 5.
//!
//! No script iterates over the members of a channel. Nor does a join ask Redis for them if its caller knows who is there, or if all
//! are this node's: with 10,000 members it would take Redis and the node milliseconds each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{Heartbeat, Joined, Left, Member, Members, PresenceStore, StoreError};
use crate::channel::ChannelName;
use crate::config::Config;
use crate::event::SocketId;
use crate::redis_client::{QueryError, REMINDER_INTERVAL, ReconnectingClient, Redis, RedisConfigError, reconnecting};
use crate::telemetry::reminders::Reminders;
use crate::warn_throttled;

mod changes;
mod lease;
mod local_members;
mod mirror;
mod scripts;

use changes::{Written, gone};
use lease::{Lease, Renewal};
use local_members::LocalMembers;
use mirror::Mirror;
use scripts::{Condition, Keys, Listing};

/// How long a join waits for Redis. After this, or when Redis is known to be unreachable or refuses, the join is answered from this
/// node's own members, and the member is written once Redis takes it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);
/// What to do without a Redis. Needed by files of the original, where `database` is `redis` unless they say otherwise.
const WITHOUT_REDIS: &str =
    "one node needs no Redis for presence: `\"database\": \"memory\"` in laravel-echo-server.json, `database = \"memory\"` in TOML";
/// How long shutdown waits for pending removals to be written and the lease to be released.
const GOODBYE: Duration = Duration::from_secs(2);

/// Keeps members in Redis.
pub(crate) struct RedisStore {
    client: Arc<ReconnectingClient>,
    keys: Keys,
    lease: Lease,
    local: LocalMembers,
    mirror: Mirror,
    /// Channels that may have members of dead nodes, with the ids of those nodes.
    orphans: Mutex<HashMap<ChannelName, Vec<String>>>,
    /// The connection and node id as of the last heartbeat.
    trusted: Mutex<WriteEpoch>,
    /// Notified when Redis turns out to lack members of this node.
    lost: Notify,
    /// Since the last heartbeat Redis has turned out to lack members, or somebody has left whom it never had: the nodes' lists may be wrong.
    is_behind: AtomicBool,
    /// Why Redis refuses members.
    refusals: Mutex<Reminders<String>>,
    is_clustered: bool,
}

/// An error of Redis with its whole text.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.full_text())]
struct Failure(QueryError);

/// Written members count as stored as long as neither of these changes.
#[derive(Debug, PartialEq, Eq)]
struct WriteEpoch {
    /// The generation of the connection.
    generation: u64,
    /// The id of this node.
    node: Arc<str>,
}

/// Undoes a join whose future is dropped, or that fails, before its result is known.
struct Undo<'a> {
    local: &'a LocalMembers,
    channel: &'a ChannelName,
    socket: SocketId,
    before: Option<Member>,
    is_armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            self.local.undo(self.channel, self.socket, self.before.take());
        }
    }
}

impl RedisStore {
    /// A store that connects on first use.
    ///
    /// # Errors
    /// [`RedisConfigError`] when the Redis settings are invalid.
    pub(crate) fn new(config: &Config) -> Result<Self, RedisConfigError> {
        let database = &config.database_config;
        let client = ReconnectingClient::new(
            Redis::new(&database.redis)?,
            "presence",
            "presence lists show only this node's members, which are not shared",
        );
        let client = Arc::new(client.or_instead((!config.cluster.enabled).then_some(WITHOUT_REDIS)));
        let keys = Keys::new(&database.redis.key_prefix, config.cluster.enabled);
        let lease = Lease::new(&config.presence);
        Ok(Self {
            mirror: Mirror::new(database, &client, &keys),
            client,
            keys,
            trusted: Mutex::new(WriteEpoch { generation: 0, node: lease.node() }),
            lease,
            local: LocalMembers::default(),
            orphans: Mutex::default(),
            lost: Notify::new(),
            is_behind: AtomicBool::new(false),
            refusals: Mutex::new(Reminders::every(REMINDER_INTERVAL)),
            is_clustered: config.cluster.enabled,
        })
    }

    /// With a new lease, everything that was written under the old one must be written again.
    fn note(&self, renewal: Renewal) {
        if renewal == Renewal::New {
            let node = &*self.lease.node();
            if self.is_clustered {
                info!(node, "this node's id, by which other nodes name it in their logs");
            } else {
                debug!(node, "a new lease");
            }
            self.local.invalidate();
        }
    }

    /// Renews the lease, and finds the members of dead nodes.
    async fn beat(&self) -> Result<Heartbeat, QueryError> {
        self.note(self.lease.renew(&self.client, &self.keys).await?);
        let epoch = WriteEpoch { generation: self.client.generation(), node: self.lease.node() };
        // A join may have taken the new id.
        let (is_new_connection, is_new_id) = {
            let mut trusted = self.trusted.lock();
            let changed = (trusted.generation != epoch.generation, trusted.node != epoch.node);
            *trusted = epoch;
            changed
        };
        if is_new_connection {
            self.local.invalidate();
            let mut ask = redis::pipe();
            ask.cmd("SMEMBERS").arg(self.keys.index(&self.lease.node()));
            let (indexed,): (Vec<String>,) = self.client.query(&ask).await?;
            self.local.doubt_all(indexed.into_iter().map(ChannelName::from));
        }
        self.look_for_losses().await?;
        let dead = self.lease.dead(&self.client, &self.keys).await?;
        let mut orphans: HashMap<ChannelName, Vec<String>> = HashMap::new();
        for (node, channels) in dead {
            for channel in channels {
                orphans.entry(channel.into()).or_default().push(node.clone());
            }
        }
        let mut unreconciled = self.local.unreconciled();
        unreconciled.extend(orphans.keys().cloned());
        unreconciled.sort_unstable();
        unreconciled.dedup();
        *self.orphans.lock() = orphans;
        Ok(Heartbeat { unreconciled, has_lost: self.is_behind.swap(false, Ordering::AcqRel) || is_new_id })
    }

    /// Redis has lost members that were written (it was flushed, for example): write everything again at once.
    fn note_loss(&self) {
        self.local.invalidate();
        self.fall_behind();
    }

    /// Has the nodes' lists read again.
    fn fall_behind(&self) {
        self.is_behind.store(true, Ordering::Release);
        self.lost.notify_one();
    }

    async fn end(&self, channel: &ChannelName, socket: SocketId, condition: Condition<'_>) -> Result<Left, StoreError> {
        // First, so that the removal is retried later if this call fails or is dropped.
        let before = self.local.mark_removed(channel, socket);
        let left = self.take_out(channel, socket, before.as_ref(), condition).await?;
        self.local.confirm_removed(channel, socket);
        if left == Left::NotThere && before.is_some() {
            self.note_loss();
        }
        let left = self.make_up(channel, left, before);
        if left != Left::NotThere {
            self.mirror.changed(channel);
        }
        Ok(left)
    }

    async fn listing(&self, channel: &ChannelName) -> Result<Listing, QueryError> {
        let mut pipeline = redis::pipe();
        self.keys.list(&mut pipeline, channel);
        let (listing,) = self.client.query(&pipeline).await?;
        Ok(listing)
    }

    /// The members of a channel, with the version of the list.
    async fn list(&self, channel: &ChannelName) -> Result<(u64, Members), QueryError> {
        let listing = self.listing(channel).await?;
        Ok((scripts::version(&listing), scripts::members(&listing)))
    }

    /// As [`Self::list`], after a join: Redis is not asked if all members are this node's.
    async fn list_after(&self, channel: &ChannelName, join: &Written) -> Result<(u64, Members), QueryError> {
        let local = if join.missing.is_none() { self.local.all(channel, join.sockets) } else { None };
        match local {
            Some(members) => Ok((join.version, members)),
            None => self.list(channel).await,
        }
    }

    /// Logs that Redis refuses members, as it does when it is full. The client logs a lost connection.
    fn note_refusal(&self, error: &QueryError) {
        let (reason, hint) = (error.full_text(), self.client.hint(error));
        if matches!(error, QueryError::Refused(_)) && self.refusals.lock().is_due(reason.clone()) {
            let redis = self.client.address();
            warn!(redis, reason, hint, "presence lists show only this node's members, which are not shared; retrying");
        }
    }

    /// Redis has taken what it may have refused before.
    fn note_success(&self) {
        if self.refusals.lock().clear() {
            info!(redis = self.client.address(), "Redis takes presence members again");
        }
    }

    /// Writes again what Redis lacks of a channel, and removes what it has too much.
    async fn repair(&self, channel: &ChannelName) -> Result<Vec<Member>, StoreError> {
        let repairs = self.local.repairs(channel);
        let mut has_changed = repairs.is_doubtful || !repairs.owed.is_empty();
        if !repairs.members.is_empty() {
            let node = self.assert(channel, &repairs.members).await?;
            self.local.reconciled(channel, &node);
            self.note_success();
        }
        let mut all_gone = if repairs.is_doubtful { self.take_strays(channel).await? } else { Vec::new() };
        let left = self.take_all(channel, repairs.owed.iter().map(|(socket, _)| (*socket, Condition::None))).await?;
        for ((socket, member), left) in repairs.owed.into_iter().zip(left) {
            self.local.confirm_removed(channel, socket);
            all_gone.extend(gone(self.make_up(channel, left, member)));
        }
        let nodes = self.orphans.lock().remove(channel);
        if let Some(nodes) = nodes {
            all_gone.extend(self.take_orphans(channel, &nodes).await?);
            has_changed = true;
        }
        if has_changed {
            self.mirror.changed(channel);
        }
        if self.local.take_untold(channel) {
            self.fall_behind();
        }
        if self.local.forget(channel) {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SREM").arg(self.keys.index(&self.lease.node())).arg(channel.as_str());
            self.client.query::<()>(&pipeline).await?;
        }
        Ok(all_gone)
    }
}

impl From<QueryError> for StoreError {
    fn from(error: QueryError) -> Self {
        Self(Box::new(Failure(error)))
    }
}

#[async_trait]
impl PresenceStore for RedisStore {
    async fn join(&self, channel: &ChannelName, socket: SocketId, member: Member, is_listed: bool) -> Result<Joined, StoreError> {
        let (before, witness) = self.local.hold(channel, socket, member.clone());
        let mut undo = Undo { local: &self.local, channel, socket, before, is_armed: true };
        let writing = async {
            let written = self.write(channel, socket, &member, witness).await?;
            // Without `cluster.enabled` no node tells of its members.
            let is_listed = is_listed || !self.is_clustered && !self.local.are_all(channel, written.sockets);
            let list = if is_listed { Some(self.list_after(channel, &written).await?) } else { None };
            Ok::<_, QueryError>((written, list))
        };
        // The next heartbeat, or the reconciliation after it, logs why Redis refuses, as it does when it is full.
        let written = tokio::time::timeout(JOIN_TIMEOUT, writing).await.ok().and_then(Result::ok);
        undo.is_armed = false;
        let Some((Written { is_first, version, replaced, missing, met_foreign, .. }, list)) = written else {
            let kept = self.local.keep_here(channel, socket, &member);
            let replaced = undo.before.take().filter(|before| !kept.iter().any(|(_, member)| member.user() == before.user()));
            let is_first = !kept.iter().any(|(other, known)| *other != socket && known.user() == member.user());
            self.lost.notify_one();
            return Ok(Joined { is_first, replaced, members: Some(kept), version: 0, has_lost: false });
        };
        if met_foreign {
            scripts::warn_of_foreign(channel);
        }
        let has_lost = self.local.wrote(channel, missing);
        if has_lost {
            self.note_loss();
        }
        self.mirror.changed(channel);
        let replaced = match replaced.as_str() {
            "" => None,
            json => Some(Member::parse(json).map_err(|error| StoreError(error.into()))?),
        };
        let (version, members) = list.map_or((version, None), |(version, members)| (version, Some(members)));
        Ok(Joined { is_first, replaced, members, version, has_lost })
    }

    async fn leave(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError> {
        self.end(channel, socket, Condition::None).await
    }

    async fn release(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError> {
        self.end(channel, socket, Condition::Node(&self.lease.node())).await
    }

    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError> {
        Ok(scripts::members(&self.listing(channel).await?))
    }

    async fn have_joined(&self, channel: &ChannelName, users: &[&str]) -> Result<Vec<bool>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        self.keys.users(&mut pipeline, channel, users);
        let (counts,): (Vec<Option<u64>>,) = self.client.query(&pipeline).await?;
        Ok(counts.iter().map(Option::is_some).collect())
    }

    async fn versioned(&self, channel: &ChannelName) -> Result<(u64, Members), StoreError> {
        Ok(self.list(channel).await?)
    }

    async fn next_maintenance(&self) {
        let wait = if self.client.is_down().await { reconnecting::RETRY } else { self.lease.interval() };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.client.broken.notified() => {}
            () = self.lost.notified() => {}
        }
    }

    async fn heartbeat(&self) -> Result<Heartbeat, StoreError> {
        match self.beat().await {
            Ok(beat) => {
                if beat.unreconciled.is_empty() {
                    self.note_success();
                }
                Ok(beat)
            }
            Err(error) => {
                self.note_refusal(&error);
                Err(error.into())
            }
        }
    }

    async fn reconcile(&self, channel: &ChannelName) -> Result<Vec<Member>, StoreError> {
        let outcome = self.repair(channel).await;
        if let Err(error) = &outcome {
            match error.0.downcast_ref() {
                Some(Failure(error)) => self.note_refusal(error),
                None => warn_throttled!(class = 0, key = channel.as_str(), %channel, %error, "could not repair presence members; retrying"),
            }
        }
        outcome
    }

    fn doubt(&self, channel: &ChannelName, user: &str) -> bool {
        let is_there = self.local.doubt_user(channel, user);
        if is_there {
            self.lost.notify_one();
        }
        is_there
    }

    async fn other_nodes(&self) -> Result<usize, StoreError> {
        Ok(self.lease.others(&self.client, &self.keys).await?.len())
    }

    async fn close(&self) {
        if !self.lease.was_taken() {
            // Redis was never reached, or refused: nothing of this node is there.
            return;
        }
        let goodbye = async {
            for channel in self.local.unreconciled() {
                self.reconcile(&channel).await?;
            }
            self.mirror.close().await;
            self.lease.end(&self.client, &self.keys).await?;
            Ok::<_, StoreError>(())
        };
        match tokio::time::timeout(GOODBYE, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "could not release this node's lease; it expires by itself"),
            Err(_) => warn!("timed out releasing this node's lease; it expires by itself"),
        }
    }
}
