//! What this node has, or should have, in Redis: enough to put everything back when Redis has lost it.
//!
//! Input: joins and leaves as they are tried and as they end. Output: which channels are not as they should be.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::{Mutex, MutexGuard};

use super::scripts::Listing;
use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::store::{Member, Members};

#[derive(Debug, Default)]
pub(super) struct LocalMembers(Mutex<HashMap<ChannelName, LocalChannel>>);

/// One channel.
#[derive(Debug, Default)]
struct LocalChannel {
    /// In the order of joining.
    members: IndexMap<SocketId, Member>,
    /// Joins that were begun and have not ended.
    joins: usize,
    /// Sockets that are to be taken out, and were not yet for all that is known; with the member, where Redis had it.
    owed: HashMap<SocketId, Option<Member>>,
    /// Redis may have lost some of the members.
    is_doubtful: bool,
    /// The id of this node under which the channel is in an index.
    index: Option<Arc<str>>,
}

/// What is to be done about a channel.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// To be asserted, in the order of joining.
    pub(super) members: Vec<(SocketId, Member)>,
    /// To be taken out.
    pub(super) owed: Vec<(SocketId, Option<Member>)>,
}

impl LocalMembers {
    fn channels(&self) -> MutexGuard<'_, HashMap<ChannelName, LocalChannel>> {
        self.0.lock()
    }

    /// Whether the channel is in the index of this node's id.
    pub(super) fn is_indexed(&self, channel: &ChannelName, node: &Arc<str>) -> bool {
        self.channels().get(channel).is_some_and(|local| local.index.as_ref() == Some(node))
    }

    pub(super) fn indexed(&self, channel: &ChannelName, node: &Arc<str>) {
        self.channels().entry(channel.clone()).or_default().index = Some(Arc::clone(node));
    }

    /// The socket is to be in the channel; ends with [`Self::wrote`] or [`Self::undo`]. Returns the member it was before.
    pub(super) fn hold(&self, channel: &ChannelName, socket: SocketId, member: Member) -> Option<Member> {
        let mut channels = self.channels();
        let local = channels.entry(channel.clone()).or_default();
        local.owed.remove(&socket);
        local.joins += 1;
        let before = local.members.shift_remove(&socket);
        local.members.insert(socket, member);
        before
    }

    /// The join came to nothing, or nobody knows what it came to: all is to be as `before`.
    pub(super) fn undo(&self, channel: &ChannelName, socket: SocketId, before: Option<Member>) {
        let mut channels = self.channels();
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

    /// The join is not written, but the socket is in the channel all the same: it is written when Redis is back. Returns who
    /// this node has there, in the order of joining.
    pub(super) fn keep_here(&self, channel: &ChannelName, socket: SocketId, member: &Member) -> Members {
        let mut channels = self.channels();
        let local = channels.entry(channel.clone()).or_default();
        local.joins -= 1;
        local.is_doubtful = true;
        // Another join of it may have been undone meanwhile.
        local.members.entry(socket).or_insert_with(|| member.clone());
        local.owed.remove(&socket);
        local.members.iter().map(|(&socket, member)| (socket, member.clone())).collect()
    }

    /// The socket is to be out of the channel. Returns the member it was.
    pub(super) fn mark_removed(&self, channel: &ChannelName, socket: SocketId) -> Option<Member> {
        let mut channels = self.channels();
        let local = channels.entry(channel.clone()).or_default();
        let member = local.members.shift_remove(&socket);
        let owed = local.owed.entry(socket).or_default();
        if owed.is_none() {
            owed.clone_from(&member);
        }
        member
    }

    /// The join is written, and this is the list after it. Whether the list lacks a member that was written before; not
    /// known while others join.
    pub(super) fn wrote(&self, channel: &ChannelName, listing: &Listing) -> bool {
        let mut channels = self.channels();
        let Some(local) = channels.get_mut(channel) else { return false };
        local.joins -= 1;
        if local.joins > 0 {
            return false;
        }
        let is_held = |field: &str| SocketId::parse(field).is_some_and(|socket| local.members.contains_key(&socket));
        listing.iter().filter(|(field, _)| is_held(field)).count() < local.members.len()
    }

    /// Whether a socket of the user is in the channel, or was not taken out yet.
    pub(super) fn has_user(&self, channel: &ChannelName, user: &str) -> bool {
        self.channels().get(channel).is_some_and(|local| {
            let mut members = local.members.values().chain(local.owed.values().flatten());
            members.any(|member| member.user() == user)
        })
    }

    /// The socket was taken out.
    pub(super) fn confirm_removed(&self, channel: &ChannelName, socket: SocketId) {
        if let Some(local) = self.channels().get_mut(channel) {
            local.owed.remove(&socket);
        }
    }

    /// The connection or the lease was lost: nothing is sure, the index neither.
    pub(super) fn invalidate(&self) {
        for local in self.channels().values_mut() {
            local.is_doubtful = true;
            local.index = None;
        }
    }

    /// Channels that are not as they should be, and those nobody is in any more.
    pub(super) fn unreconciled(&self) -> Vec<ChannelName> {
        let channels = self.channels();
        let unsettled = channels.iter().filter(|(_, local)| local.is_doubtful || !local.owed.is_empty() || local.members.is_empty());
        unsettled.map(|(channel, _)| channel.clone()).collect()
    }

    pub(super) fn repairs(&self, channel: &ChannelName) -> Repairs {
        let channels = self.channels();
        let Some(local) = channels.get(channel) else { return Repairs::default() };
        let members = local.members.iter().filter(|_| local.is_doubtful);
        Repairs {
            members: members.map(|(&socket, member)| (socket, member.clone())).collect(),
            owed: local.owed.iter().map(|(&socket, member)| (socket, member.clone())).collect(),
        }
    }

    /// All members were asserted under this id of the node. That counts unless there was doubt again meanwhile.
    pub(super) fn reconciled(&self, channel: &ChannelName, node: &Arc<str>) {
        if let Some(local) = self.channels().get_mut(channel)
            && local.index.as_ref() == Some(node)
        {
            local.is_doubtful = false;
        }
    }

    /// Forgets the channel when nothing of it is left. Whether it is forgotten.
    pub(super) fn forget(&self, channel: &ChannelName) -> bool {
        let mut channels = self.channels();
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
