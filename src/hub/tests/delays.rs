//! An application and stores that take time to answer: the same time in every run of a test.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use crate::auth::{AuthRequest, Authorizer, Denied, Grant, SubscribeHeaders};
use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::store::memory::MemoryStore;
use crate::store::{Joined, Left, Member, Members, PresenceStore, StoreError};

/// An application whose answer is in the headers of the request.
pub(super) struct Told;

/// Headers that make [`Told`] answer after `delay`: with this user, or with 403 if there is none. `number` goes into the
/// `user_info`.
pub(super) fn told(user: Option<u32>, number: u64, delay: Duration) -> SubscribeHeaders {
    let header = |name: &str, value: String| (name.to_owned(), value);
    let mut headers = vec![header("number", number.to_string()), header("delay", delay.as_millis().to_string())];
    headers.extend(user.map(|user| header("user", user.to_string())));
    headers
}

#[async_trait]
impl Authorizer for Told {
    async fn authorize(&self, request: AuthRequest<'_>) -> Result<Grant, Denied> {
        let header = |name: &str| request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let delay = header("delay").unwrap().parse().unwrap();
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let user = header("user").ok_or(Denied::new(403))?;
        let data = format!(r#"{{"user_id":{user},"user_info":{}}}"#, header("number").unwrap());
        Ok(Grant { channel_data: Some(Arc::from(RawValue::from_string(data).unwrap())), ..Grant::default() })
    }
}

/// How long a store takes: up to three seconds before and after each operation, at random, but the same for the same seed.
pub(super) struct Pace {
    seed: u64,
    counts: Mutex<HashMap<u64, u32>>,
}

impl Pace {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, counts: Mutex::default() }
    }

    pub(super) async fn wait(&self, what: (&str, &str, Option<SocketId>)) {
        let mut hasher = DefaultHasher::new();
        (self.seed, what).hash(&mut hasher);
        let key = hasher.finish();
        // Counted for each key on its own, so that other operations at the same moment change nothing.
        let count = *self.counts.lock().entry(key).and_modify(|count| *count += 1).or_default();
        count.hash(&mut hasher);
        tokio::time::sleep(Duration::from_secs(hasher.finish() % 4)).await;
    }
}

/// A store of one node that takes time to answer.
pub(super) struct Slow {
    store: MemoryStore,
    pace: Pace,
}

impl Slow {
    pub(super) fn new(seed: u64) -> Self {
        Self { store: MemoryStore::default(), pace: Pace::new(seed) }
    }
}

#[async_trait]
impl PresenceStore for Slow {
    async fn join(&self, channel: &ChannelName, socket: SocketId, member: Member, is_listed: bool) -> Result<Joined, StoreError> {
        self.pace.wait(("join", channel.as_str(), Some(socket))).await;
        let joined = self.store.join(channel, socket, member, is_listed).await;
        self.pace.wait(("joined", channel.as_str(), Some(socket))).await;
        joined
    }

    async fn leave(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError> {
        self.pace.wait(("leave", channel.as_str(), Some(socket))).await;
        let left = self.store.leave(channel, socket).await;
        self.pace.wait(("left", channel.as_str(), Some(socket))).await;
        left
    }

    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError> {
        self.store.members(channel).await
    }
}
