//! Copies of the member lists for other programs: the original's key `<prefix><channel>:members`, and `publishPresence`.
//!
//! Input: channels that have changed. Output: a JSON list of the members, each with its `socketId`, in the order of
//! joining; `[]` for an empty channel, as the original wrote it (`src/channels/presence-channel.ts:100`).
//!
//! The key is written at once at the first change, and then at most once a second. A message is published for every
//! change; changes that happen while a message is being sent share the next one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::scripts::{self, Keys, Listing};
use crate::channel::ChannelName;
use crate::config::DatabaseConfig;
use crate::redis_client::ReconnectingClient;
use crate::store::StoreError;

/// Minimum time between two writes of a key.
const PAUSE: Duration = Duration::from_secs(1);

/// The original's channel for messages, which has no prefix.
const UPDATES: &str = "PresenceChannelUpdated";

pub(super) struct Mirror {
    writers: Vec<Arc<Writer>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// How members are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Key,
    Message,
}

struct Writer {
    target: Target,
    client: Arc<ReconnectingClient>,
    keys: Keys,
    /// Channels with a running task, and whether they have changed since it last read them.
    busy: Mutex<HashMap<ChannelName, bool>>,
}

/// `{"event":{"channel":"presence-room:members","members":[…]}}`
#[derive(Serialize)]
struct Message<'a> {
    event: Update<'a>,
}

#[derive(Serialize)]
struct Update<'a> {
    channel: String,
    members: &'a RawValue,
}

impl Mirror {
    pub(super) fn new(config: &DatabaseConfig, client: &Arc<ReconnectingClient>, keys: &Keys) -> Self {
        let targets = [(config.members_mirror, Target::Key), (config.publish_presence, Target::Message)];
        let wanted = targets.into_iter().filter(|(is_wanted, _)| *is_wanted);
        let writers =
            wanted.map(|(_, target)| Arc::new(Writer { target, client: Arc::clone(client), keys: keys.clone(), busy: Mutex::default() }));
        Self { writers: writers.collect(), tasks: TaskTracker::new(), closing: CancellationToken::new() }
    }

    /// The channel has changed.
    pub(super) fn changed(&self, channel: &ChannelName) {
        for writer in &self.writers {
            match writer.busy.lock().entry(channel.clone()) {
                Entry::Occupied(mut entry) => *entry.get_mut() = true,
                Entry::Vacant(entry) => {
                    entry.insert(false);
                    let (writer, closing) = (Arc::clone(writer), self.closing.clone());
                    let channel = channel.clone();
                    self.tasks.spawn(async move { writer.run(&channel, &closing).await });
                }
            }
        }
    }

    /// Writes pending changes and waits for them.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Writer {
    async fn run(&self, channel: &ChannelName, closing: &CancellationToken) {
        loop {
            match self.write(channel).await {
                // The channel changed during the write. If another node has written it meanwhile, this write replaced newer data.
                Ok(false) => drop(self.busy.lock().insert(channel.clone(), true)),
                Ok(true) => {}
                // If Redis is unreachable, no one can read the copy either. The next change or the repair after the outage writes it.
                Err(error) => debug!(%channel, %error, target = ?self.target, "could not mirror the members"),
            }
            if self.target == Target::Key {
                closing.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
            let mut busy = self.busy.lock();
            if busy.get(channel) != Some(&true) {
                busy.remove(channel);
                return;
            }
            busy.insert(channel.clone(), false);
        }
    }

    /// Returns whether the written list is still current.
    async fn write(&self, channel: &ChannelName) -> Result<bool, StoreError> {
        let listing = self.list(channel).await?;
        let list = json_list(&listing)?;
        let mut pipeline = redis::pipe();
        match self.target {
            Target::Key => {
                pipeline.cmd("SET").arg(self.keys.mirror(channel)).arg(list.get());
                self.client.query::<()>(&pipeline).await?;
                // Two queries, because the keys may live on different servers of a Redis Cluster.
                let mut pipeline = redis::pipe();
                self.keys.version(&mut pipeline, channel);
                let (version,): (Option<u64>,) = self.client.query(&pipeline).await?;
                Ok(version.unwrap_or_default() == scripts::version(&listing))
            }
            Target::Message => {
                let message = Message { event: Update { channel: format!("{channel}:members"), members: &list } };
                let message = serde_json::to_string(&message).expect("texts and JSON serialize");
                pipeline.cmd("PUBLISH").arg(UPDATES).arg(message);
                self.client.query::<()>(&pipeline).await?;
                Ok(true)
            }
        }
    }

    async fn list(&self, channel: &ChannelName) -> Result<Listing, StoreError> {
        let mut pipeline = redis::pipe();
        self.keys.list(&mut pipeline, channel);
        let (listing,) = self.client.query(&pipeline).await?;
        Ok(listing)
    }
}

fn json_list(listing: &Listing) -> Result<Box<RawValue>, StoreError> {
    let mut json = String::from("[");
    for (socket, member) in scripts::members(listing) {
        if json.len() > 1 {
            json.push(',');
        }
        member.push_json(&mut json, Some(socket));
    }
    json.push(']');
    RawValue::from_string(json).map_err(|error| StoreError(error.into()))
}
