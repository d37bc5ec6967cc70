//! Presence members in this process: the default, for a single node. They are lost when it ends, as are its connections.

use std::collections::HashMap;

use async_trait::async_trait;
use indexmap::IndexMap;
use parking_lot::Mutex;

use super::{Joined, Left, Member, Members, PresenceStore, StoreError};
use crate::channel::ChannelName;
use crate::event::SocketId;

/// Keeps members in this process.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Mutex<HashMap<ChannelName, Channel>>);

#[derive(Debug, Default)]
struct Channel {
    /// In the order of joining.
    members: IndexMap<SocketId, Member>,
    /// How many sockets each user has in the channel.
    sockets: HashMap<Box<str>, usize>,
}

impl Channel {
    fn remove(&mut self, socket: SocketId) -> Option<(Member, usize)> {
        let member = self.members.shift_remove(&socket)?;
        let left = self.sockets.get_mut(member.user()).expect("every member's user is counted");
        *left -= 1;
        let left = *left;
        if left == 0 {
            self.sockets.remove(member.user());
        }
        Some((member, left))
    }

    fn snapshot(&self) -> Members {
        self.members.iter().map(|(&socket, member)| (socket, member.clone())).collect()
    }
}

#[async_trait]
impl PresenceStore for MemoryStore {
    async fn join(&self, name: &ChannelName, socket: SocketId, member: Member, is_listed: bool) -> Result<Joined, StoreError> {
        let mut channels = self.0.lock();
        let channel = channels.entry(name.clone()).or_default();
        // A socket that joins again for the same user is not a first join, so check before the old entry is removed.
        let is_first = !channel.sockets.contains_key(member.user());
        let replaced = match channel.remove(socket) {
            Some((old, 0)) if old.user() != member.user() => Some(old),
            _ => None,
        };
        *channel.sockets.entry(member.user().into()).or_default() += 1;
        channel.members.insert(socket, member);
        Ok(Joined { is_first, replaced, members: is_listed.then(|| channel.snapshot()), version: 0, has_lost: false })
    }

    async fn leave(&self, name: &ChannelName, socket: SocketId) -> Result<Left, StoreError> {
        let mut channels = self.0.lock();
        let Some((member, left)) = channels.get_mut(name).and_then(|channel| channel.remove(socket)) else {
            return Ok(Left::NotThere);
        };
        if channels.get(name).is_some_and(|channel| channel.members.is_empty()) {
            channels.remove(name);
        }
        Ok(if left == 0 { Left::Gone(member) } else { Left::Remains })
    }

    async fn have_joined(&self, name: &ChannelName, users: &[&str]) -> Result<Vec<bool>, StoreError> {
        let channels = self.0.lock();
        let channel = channels.get(name);
        Ok(users.iter().map(|&user| channel.is_some_and(|channel| channel.sockets.contains_key(user))).collect())
    }

    async fn members(&self, name: &ChannelName) -> Result<Members, StoreError> {
        Ok(self.0.lock().get(name).map(Channel::snapshot).unwrap_or_default())
    }
}
