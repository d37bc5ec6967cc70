//! What this node has, or should have, in Redis: enough to write everything again when Redis has lost it.
//!
//! Input: joins and leaves as they start and end. Output: the channels that have to be repaired in Redis.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::store::{Member, Members};

#[derive(Debug, Default)]
pub(super) struct LocalMembers(Mutex<HashMap<ChannelName, LocalChannel>>);

#[derive(Debug, Default)]
struct LocalChannel {
    /// In the order of joining.
    members: IndexMap<SocketId, Member>,
    /// Joins in progress.
    joins: usize,
    /// Sockets that must be removed from Redis and whose removal is not confirmed, each with its member if Redis had it.
    owed: HashMap<SocketId, Option<Member>>,
    /// Redis may have lost some of the members.
    is_doubtful: bool,
    /// Sockets that joined while Redis took no members, and have not been written yet.
    kept: HashSet<SocketId>,
    /// One of these has left: Redis never had it, so it does not tell the nodes.
    has_untold: bool,
    /// The id of this node whose index contains the channel.
    index: Option<Arc<str>>,
}

/// What has to be repaired in a channel.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Redis may lack members, or have some who have left.
    pub(super) is_doubtful: bool,
    /// Members to write again, in the order of joining.
    pub(super) members: Vec<(SocketId, Member)>,
    /// Sockets to remove.
    pub(super) owed: Vec<(SocketId, Option<Member>)>,
}

impl LocalChannel {
    fn are_all(&self, count: usize) -> bool {
        self.members.len() == count && self.owed.is_empty()
    }
}

impl LocalMembers {
    /// Whether the channel is in the index of this node's id.
    pub(super) fn is_indexed(&self, channel: &ChannelName, node: &Arc<str>) -> bool {
        self.0.lock().get(channel).is_some_and(|local| local.index.as_ref() == Some(node))
    }

    pub(super) fn indexed(&self, channel: &ChannelName, node: &Arc<str>) {
        self.0.lock().entry(channel.clone()).or_default().index = Some(Arc::clone(node));
    }

    /// Starts a join; ends with [`Self::wrote`], [`Self::keep_here`] or [`Self::undo`]. Returns the socket's previous member, and
    /// another socket of this node in the channel, if there is one.
    pub(super) fn hold(&self, channel: &ChannelName, socket: SocketId, member: Member) -> (Option<Member>, Option<SocketId>) {
        let mut channels = self.0.lock();
        let local = channels.entry(channel.clone()).or_default();
        local.owed.remove(&socket);
        local.joins += 1;
        let before = local.members.shift_remove(&socket);
        let witness = local.members.keys().next().copied();
        local.members.insert(socket, member);
        (before, witness)
    }

    /// The join failed, or its result is unknown: restores `before`.
    pub(super) fn undo(&self, channel: &ChannelName, socket: SocketId, before: Option<Member>) {
        let mut channels = self.0.lock();
        let local = channels.entry(channel.clone()).or_default();
        local.joins -= 1;
        match before {
            Some(member) => {
                local.members.insert(socket, member);
                local.is_doubtful = true;
            }
            None => {
                local.members.shift_remove(&socket);
                local.owed.insert(socket, None);
            }
        }
    }

    /// The join could not be written, but the socket counts as joined and is written once Redis is back. Returns this node's
    /// members of the channel, in the order of joining.
    pub(super) fn keep_here(&self, channel: &ChannelName, socket: SocketId, member: &Member) -> Members {
        let mut channels = self.0.lock();
        let local = channels.entry(channel.clone()).or_default();
        local.joins -= 1;
        local.is_doubtful = true;
        local.kept.insert(socket);
        // Another join of the same socket may have been undone in the meantime.
        local.members.entry(socket).or_insert_with(|| member.clone());
        local.owed.remove(&socket);
        local.members.iter().map(|(&socket, member)| (socket, member.clone())).collect()
    }

    /// Starts a removal: the socket must be removed from Redis. Returns its member.
    pub(super) fn mark_removed(&self, channel: &ChannelName, socket: SocketId) -> Option<Member> {
        let mut channels = self.0.lock();
        let local = channels.entry(channel.clone()).or_default();
        let member = local.members.shift_remove(&socket);
        local.has_untold |= local.kept.remove(&socket);
        let owed = local.owed.entry(socket).or_default();
        if owed.is_none() {
            owed.clone_from(&member);
        }
        member
    }

    /// The join was written, and `missing` is another socket of this node that Redis lacks. Returns whether Redis has lost it;
    /// always false while other joins are in progress, because theirs may not be written yet.
    pub(super) fn wrote(&self, channel: &ChannelName, missing: Option<SocketId>) -> bool {
        let mut channels = self.0.lock();
        let Some(local) = channels.get_mut(channel) else { return false };
        local.joins -= 1;
        local.joins == 0 && missing.is_some_and(|socket| local.members.contains_key(&socket))
    }

    /// Whether this node has so many members in the channel: nobody else is there then.
    pub(super) fn are_all(&self, channel: &ChannelName, count: usize) -> bool {
        self.0.lock().get(channel).is_some_and(|local| local.are_all(count))
    }

    /// This node's members of the channel, in the order of joining, if nobody else is there.
    pub(super) fn all(&self, channel: &ChannelName, count: usize) -> Option<Members> {
        let channels = self.0.lock();
        let local = channels.get(channel).filter(|local| local.are_all(count))?;
        Some(local.members.iter().map(|(&socket, member)| (socket, member.clone())).collect())
    }

    /// Whether a socket of the user is in the channel, or waits for its removal.
    pub(super) fn has_user(&self, channel: &ChannelName, user: &str) -> bool {
        self.0.lock().get(channel).is_some_and(|local| {
            let mut members = local.members.values().chain(local.owed.values().flatten());
            members.any(|member| member.user() == user)
        })
    }

    /// The socket was removed from Redis.
    pub(super) fn confirm_removed(&self, channel: &ChannelName, socket: SocketId) {
        if let Some(local) = self.0.lock().get_mut(channel) {
            local.owed.remove(&socket);
        }
    }

    /// The connection or the lease was lost: no member and no index entry counts as written any more.
    pub(super) fn invalidate(&self) {
        for local in self.0.lock().values_mut() {
            local.is_doubtful = true;
            local.index = None;
        }
    }

    /// Redis may have members of these channels who have left.
    pub(super) fn doubt_all(&self, channels: impl Iterator<Item = ChannelName>) {
        let mut local = self.0.lock();
        channels.for_each(|channel| local.entry(channel).or_default().is_doubtful = true);
    }

    /// One member of each channel whose members should all be in Redis.
    pub(super) fn witnesses(&self) -> Vec<(ChannelName, SocketId)> {
        let channels = self.0.lock();
        let settled = channels.iter().filter(|(_, local)| !local.is_doubtful && local.joins == 0);
        settled.filter_map(|(channel, local)| Some((channel.clone(), *local.members.keys().next()?))).collect()
    }

    /// Redis lacks a socket of the channel. Returns whether it has lost it, as in [`Self::wrote`].
    pub(super) fn is_missing(&self, channel: &ChannelName, socket: SocketId) -> bool {
        let mut channels = self.0.lock();
        let lost = channels.get_mut(channel).filter(|local| local.joins == 0 && local.members.contains_key(&socket));
        lost.map(|local| local.is_doubtful = true).is_some()
    }

    /// The user is said to have left: if a socket is in the channel, Redis has lost it. Returns whether that is so.
    pub(super) fn doubt_user(&self, channel: &ChannelName, user: &str) -> bool {
        let mut channels = self.0.lock();
        let lost = channels.get_mut(channel).filter(|local| local.members.values().any(|member| member.user() == user));
        lost.map(|local| local.is_doubtful = true).is_some()
    }

    /// Whether a socket is in the channel.
    pub(super) fn has(&self, channel: &ChannelName, socket: SocketId) -> bool {
        self.0.lock().get(channel).is_some_and(|local| local.members.contains_key(&socket))
    }

    /// Channels that have to be repaired, and empty ones that can be forgotten.
    pub(super) fn unreconciled(&self) -> Vec<ChannelName> {
        let channels = self.0.lock();
        let unsettled = channels.iter().filter(|(_, local)| local.is_doubtful || !local.owed.is_empty() || local.members.is_empty());
        unsettled.map(|(channel, _)| channel.clone()).collect()
    }

    pub(super) fn repairs(&self, channel: &ChannelName) -> Repairs {
        let channels = self.0.lock();
        let Some(local) = channels.get(channel) else { return Repairs::default() };
        let members = local.members.iter().filter(|_| local.is_doubtful);
        Repairs {
            is_doubtful: local.is_doubtful,
            members: members.map(|(&socket, member)| (socket, member.clone())).collect(),
            owed: local.owed.iter().map(|(&socket, member)| (socket, member.clone())).collect(),
        }
    }

    /// All members were written again under this node id. Has no effect if they were invalidated again in the meantime.
    pub(super) fn reconciled(&self, channel: &ChannelName, node: &Arc<str>) {
        if let Some(local) = self.0.lock().get_mut(channel)
            && local.index.as_ref() == Some(node)
        {
            local.is_doubtful = false;
            local.kept.clear();
        }
    }

    /// Whether somebody has left since the last call whom Redis never had.
    pub(super) fn take_untold(&self, channel: &ChannelName) -> bool {
        self.0.lock().get_mut(channel).is_some_and(|local| std::mem::take(&mut local.has_untold))
    }

    /// Forgets the channel if it is empty, and returns whether it was.
    pub(super) fn forget(&self, channel: &ChannelName) -> bool {
        let mut channels = self.0.lock();
        let is_empty = channels.get(channel).is_some_and(|local| local.members.is_empty() && local.owed.is_empty() && local.joins == 0);
        if is_empty {
            channels.remove(channel);
        }
        is_empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_while_it_is_put_back_stays_unsettled() {
        let (local, channel) = (LocalMembers::default(), ChannelName::from("presence-room"));
        let socket = SocketId::parse("1.1").unwrap();
        let nodes: [Arc<str>; 2] = ["one".into(), "two".into()];
        local.hold(&channel, socket, Member::parse(r#"{"user_id":1}"#).unwrap());
        local.invalidate();
        local.indexed(&channel, &nodes[0]);
        assert_eq!(local.repairs(&channel).members.len(), 1);
        local.invalidate();
        local.reconciled(&channel, &nodes[0]);
        assert_eq!(local.unreconciled(), std::slice::from_ref(&channel), "they went under an id that has ended");
        local.indexed(&channel, &nodes[1]);
        local.reconciled(&channel, &nodes[1]);
        assert_eq!(local.unreconciled(), []);
    }
}
