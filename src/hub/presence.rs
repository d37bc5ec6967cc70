//! Member lists as clients see them, and the lock that keeps the joins and leaves of one channel in order.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::RawValue;

use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::store::Member;

/// A member as clients see it: `{"user_id":1,"user_info":{…}}`, with `socketId` when that is to be exposed.
pub(super) fn member_json(member: &Member, expose: Option<SocketId>) -> Box<RawValue> {
    let mut json = String::with_capacity(member.json().len() + 40);
    member.push_json(&mut json, expose);
    RawValue::from_string(json).expect("made from valid JSON")
}

/// The list of `presence:subscribed`: newest first, one entry a user, that of its newest socket.
pub(super) fn list_json(members: &[(SocketId, Member)], expose_socket_id: bool) -> Box<RawValue> {
    let mut json = String::from("[");
    let mut seen = HashSet::with_capacity(members.len());
    for (socket, member) in members.iter().rev() {
        if seen.insert(member.user()) {
            if json.len() > 1 {
                json.push(',');
            }
            member.push_json(&mut json, expose_socket_id.then_some(*socket));
        }
    }
    json.push(']');
    RawValue::from_string(json).expect("made from valid JSON")
}

/// One lock a channel. What a store answers and what clients are told must come in the same order.
#[derive(Debug, Default)]
pub(super) struct ChannelLocks(Mutex<HashMap<ChannelName, Arc<tokio::sync::Mutex<()>>>>);

/// Held while a channel's members change.
pub(super) struct ChannelLock<'a> {
    locks: &'a ChannelLocks,
    channel: &'a ChannelName,
    /// `None` only while dropping.
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl ChannelLocks {
    pub(super) async fn lock<'a>(&'a self, channel: &'a ChannelName) -> ChannelLock<'a> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.entry(channel.clone()).or_default().clone()
        };
        ChannelLock { locks: self, channel, held: Some(lock.lock_owned().await) }
    }
}

impl Drop for ChannelLock<'_> {
    fn drop(&mut self) {
        let mut locks = self.locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.held = None;
        // Whoever waits holds the lock's `Arc` too.
        if locks.get(self.channel).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(self.channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> SocketId {
        SocketId::parse(&format!("{n:016}")).unwrap()
    }

    fn member(json: &str) -> Member {
        Member::parse(json).unwrap()
    }

    #[test]
    fn the_newest_comes_first_and_each_user_once() {
        let members = [
            (id(1), member(r#"{"user_id":1,"user_info":"old tab"}"#)),
            (id(2), member(r#"{"user_id":2}"#)),
            (id(3), member(r#"{"user_id":"1","user_info":"new tab"}"#)),
        ];
        assert_eq!(list_json(&members, false).get(), r#"[{"user_id":"1","user_info":"new tab"},{"user_id":2}]"#);
        assert_eq!(list_json(&members[..1], true).get(), r#"[{"user_id":1,"user_info":"old tab","socketId":"0000000000000001"}]"#);
    }

    #[tokio::test]
    async fn locks_of_channels_that_nobody_uses_are_gone() {
        let locks = ChannelLocks::default();
        let (a, b) = ("presence-a".into(), "presence-b".into());
        let first = locks.lock(&a).await;
        let other = locks.lock(&b).await;
        drop(other);
        assert_eq!(locks.0.lock().unwrap().len(), 1);
        let waits = locks.lock(&a);
        tokio::pin!(waits);
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        drop(first);
        drop(waits.await);
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
