//! Writes of the store: adding and removing members, one by one or in batches.
//!
//! Input: members of this node, and ids of dead nodes. Output: the parsed replies of the scripts.

use std::sync::Arc;

use futures_util::{TryStreamExt as _, stream};
use redis::Pipeline;
use tracing::info;

use super::RedisStore;
use super::lease::Renewal;
use super::scripts::{self, Condition, Join, Mode};
use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::redis_client::{Loss, QueryError};
use crate::store::{Left, Member, StoreError};

/// How many leases in a row may expire while a channel is indexed before the write fails.
const LEASES: usize = 3;

/// Commands sent in one round trip when many members are repaired or looked for.
const BATCH: usize = 200;

/// Round trips at once when members are looked for.
const AT_ONCE: usize = 16;

/// As `join.lua` returns it.
type JoinAnswer = (bool, u64, String, usize, bool, bool);

/// A join that Redis has taken.
pub(super) struct Written {
    /// Whether this is the user's first socket.
    pub(super) is_first: bool,
    /// The version of the channel after it.
    pub(super) version: u64,
    /// JSON of the member whose last socket this was, or empty.
    pub(super) replaced: String,
    /// How many sockets are in the channel now.
    pub(super) sockets: usize,
    /// Another socket of this node that should be in the channel, and is not.
    pub(super) missing: Option<SocketId>,
    /// Something of another program was in the way.
    pub(super) met_foreign: bool,
}

type LeaveAnswer = (u8, String);

impl RedisStore {
    /// Corrects a leave whose member Redis has lost: only this node can tell then whether the user has left.
    pub(super) fn make_up(&self, channel: &ChannelName, left: Left, before: Option<Member>) -> Left {
        match (left, before) {
            (Left::NotThere, Some(member)) if self.local.has_user(channel, member.user()) => Left::Remains,
            (Left::NotThere, Some(member)) => Left::Gone(member),
            (left, _) => left,
        }
    }

    /// Indexes the channel before its first member is written, so that other nodes find this node's members if it dies.
    /// Returns the node id to write them under.
    async fn index(&self, channel: &ChannelName) -> Result<Arc<str>, QueryError> {
        self.note(self.lease.ensure(&self.client, &self.keys).await?);
        for _ in 0..LEASES {
            let node = self.lease.node();
            if self.local.is_indexed(channel, &node) {
                return Ok(node);
            }
            let mut pipeline = redis::pipe();
            self.keys.add_to_index(&mut pipeline, &node, channel);
            let (lives,): (bool,) = self.client.query(&pipeline).await?;
            if lives {
                self.local.indexed(channel, &node);
                // From here on a new id marks all members as unconfirmed, including those that are being written.
                if self.lease.node() == node {
                    return Ok(node);
                }
            } else if self.lease.replace(&node, &self.client, &self.keys).await? == Renewal::New {
                self.note_loss();
            }
        }
        Err(QueryError::Away(Loss::unreachable(format!("it lost this node's lease {LEASES} times in a row; see its maxmemory-policy"))))
    }

    pub(super) async fn write(
        &self,
        channel: &ChannelName,
        socket: SocketId,
        member: &Member,
        witness: Option<SocketId>,
    ) -> Result<Written, QueryError> {
        let node = self.index(channel).await?;
        let attempt = async |mode| {
            let mut pipeline = redis::pipe();
            self.keys.join(&mut pipeline, &Join { channel, socket, member, node: &node, mode, witness });
            self.client.query::<(JoinAnswer,)>(&pipeline).await
        };
        let ((is_first, version, replaced, sockets, has_witness, met_foreign),) = match attempt(Mode::Join).await {
            Err(QueryError::Broken(_)) => attempt(Mode::Again).await?,
            result => result?,
        };
        Ok(Written { is_first, version, replaced, sockets, missing: witness.filter(|_| !has_witness), met_foreign })
    }

    pub(super) async fn take_out(
        &self,
        channel: &ChannelName,
        socket: SocketId,
        before: Option<&Member>,
        condition: Condition<'_>,
    ) -> Result<Left, StoreError> {
        let attempt = async |condition: Condition<'_>| {
            let mut pipeline = redis::pipe();
            self.keys.leave(&mut pipeline, channel, socket, condition);
            self.client.query::<(LeaveAnswer,)>(&pipeline).await
        };
        let (answer,) = match (attempt(condition).await, before) {
            (Err(QueryError::Broken(_)), Some(member)) => attempt(Condition::LostAnswer(member)).await?,
            (result, _) => result?,
        };
        left(answer, before)
    }

    /// Writes members that Redis may have lost. Those still there keep their place. Returns the node id they are stored under.
    pub(super) async fn assert(&self, channel: &ChannelName, members: &[(SocketId, Member)]) -> Result<Arc<str>, StoreError> {
        let node = self.index(channel).await?;
        for batch in members.chunks(BATCH) {
            let mut pipeline = redis::pipe();
            for (socket, member) in batch {
                self.keys.join(&mut pipeline, &Join { channel, socket: *socket, member, node: &node, mode: Mode::Assert, witness: None });
            }
            self.client.query::<redis::Value>(&pipeline).await?;
        }
        Ok(node)
    }

    /// Removes sockets, each if its condition holds. Returns the result of each.
    pub(super) async fn take_all<'a>(
        &self,
        channel: &ChannelName,
        sockets: impl Iterator<Item = (SocketId, Condition<'a>)>,
    ) -> Result<Vec<Left>, StoreError> {
        let sockets: Vec<_> = sockets.collect();
        let mut all = Vec::with_capacity(sockets.len());
        for batch in sockets.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            for (socket, condition) in batch {
                self.keys.leave(&mut pipeline, channel, *socket, *condition);
            }
            let answers: Vec<LeaveAnswer> = self.client.query(&pipeline).await?;
            for answer in answers {
                all.push(left(answer, None)?);
            }
        }
        Ok(all)
    }

    /// Looks whether Redis still has the members of this node: one of each channel, for what it loses of a channel is the channel.
    pub(super) async fn look_for_losses(&self) -> Result<(), QueryError> {
        let witnesses = self.local.witnesses();
        // Channels may live on different servers of a Redis Cluster.
        let batches = witnesses.chunks(if self.client.is_cluster() { 1 } else { BATCH });
        stream::iter(batches.map(Ok)).try_for_each_concurrent(AT_ONCE, |batch| self.look_for(batch)).await
    }

    async fn look_for(&self, witnesses: &[(ChannelName, SocketId)]) -> Result<(), QueryError> {
        let mut pipeline = redis::pipe();
        witnesses.iter().for_each(|(channel, socket)| self.keys.has(&mut pipeline, channel, *socket));
        let found: Vec<bool> = match self.client.query(&pipeline).await {
            // Something foreign is in the place of one of them: writing the members again puts it aside.
            Err(QueryError::Refused(_)) => vec![false; witnesses.len()],
            found => found?,
        };
        for ((channel, socket), is_there) in witnesses.iter().zip(found) {
            if !is_there && self.local.is_missing(channel, *socket) {
                self.fall_behind();
            }
        }
        Ok(())
    }

    /// Removes what Redis has of this node in a channel though it has left, as when Redis has gone back to older data.
    pub(super) async fn take_strays(&self, channel: &ChannelName) -> Result<Vec<Member>, StoreError> {
        let listing = self.listing(channel).await?;
        let mut strays = scripts::of_nodes(&listing, &[self.lease.node().to_string()])?;
        strays.retain(|(socket, _)| !self.local.has(channel, *socket));
        let left = self.take_all(channel, strays.into_iter().map(|(socket, entry)| (socket, Condition::Entry(entry)))).await?;
        Ok(left.into_iter().filter_map(gone).collect())
    }

    /// Removes the members of dead nodes. All surviving nodes try; the script lets only one succeed for each member.
    pub(super) async fn take_orphans(&self, channel: &ChannelName, nodes: &[String]) -> Result<Vec<Member>, StoreError> {
        let listing = self.listing(channel).await?;
        let orphans = scripts::of_nodes(&listing, nodes)?;
        if !orphans.is_empty() {
            info!(%channel, sockets = orphans.len(), ?nodes, "removed the members of dead nodes");
        }
        let left = self.take_all(channel, orphans.into_iter().map(|(socket, entry)| (socket, Condition::Entry(entry)))).await?;
        for node in nodes {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SREM").arg(self.keys.index(node)).arg(channel.as_str());
            self.client.query::<()>(&pipeline).await?;
        }
        Ok(left.into_iter().filter_map(gone).collect())
    }
}

pub(super) fn gone(left: Left) -> Option<Member> {
    match left {
        Left::Gone(member) => Some(member),
        Left::NotThere | Left::Remains => None,
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
