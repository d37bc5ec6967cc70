//! [`Books`]: the state of webhooks in Redis, which survives restarts and is shared by nodes.
//!
//! Input: reports of nodes about their channels, and what the leader has sent. Output: marks, counts and the state sent last. All
//! keys are in one slot, so that each step is one atomic script.
//!
//! | key, under `<prefix>laravel-echo:{webhooks}:` | |
//! |---|---|
//! | `leader` | the token of the leading node; it expires |
//! | `nodes`, `node:<id>` | nodes by the time when their lease ends; their channels with counts of sockets |
//! | `marks`, `events`, `events:bytes` | channels and users to check; client events, to be sent as they happened; their size |
//! | `told`, `users:<channel>` | channels sent as occupied, with the count sent last; their members |
//! | `seq`, `batches` | the last event number; the number of each node's last report |
//! | `out:<target>`, `out:<target>:clients`, `out:<target>:bytes` | a target's queue: a stream; ids of client events; size of its JSON |

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::feed::{MAX_EVENT_BYTES, MAX_EVENTS, Marks};
use super::happening::Happening;
use super::outbox::Waiting;
use super::target::Target;
use crate::channel::ChannelName;
use crate::clock::milliseconds;
use crate::config::{Config, WebhookEvent};
use crate::redis_client::{QueryError, ReconnectingClient, Redis, RedisConfigError};

const REPORT: &str = include_str!("report.lua");
const COMMIT: &str = include_str!("commit.lua");
const DONE: &str = include_str!("done.lua");
const PULL: &str = include_str!("pull.lua");
const RENEW: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) else return 0 end";
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end";
/// Writes as the others do, and takes it away again.
const TRY: &str = "redis.call('TIME') redis.call('XADD', KEYS[1], '*', 't', '') redis.call('DEL', KEYS[1])";

/// Maximum number of marks queued for the leader. Beyond it, the leader checks everything.
const MAX_MARKS: usize = 100_000;
/// Maximum number of marks that are checked together.
const MARKS: usize = 5_000;
/// The mark for everything.
pub(super) const EVERYTHING: &str = "[]";
/// Channels queried, events pulled, and events committed in one command.
const AT_ONCE: usize = 1_000;

/// The state of webhooks in Redis.
pub(super) struct Books {
    client: ReconnectingClient,
    prefix: String,
    /// The id of this process.
    pub(super) node: String,
    pub(super) lease: Duration,
    targets: Arc<[Target]>,
    max_events: u64,
    max_bytes: u64,
}

/// Events dropped from a full outbox for newer ones: the index of the target, and the JSON.
pub(super) type Dropped = Vec<(usize, String)>;

/// A report of a node. It is idempotent: sent twice, it counts once.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) number: u64,
    /// It replaces all earlier reports of the node.
    pub(super) is_anew: bool,
    pub(super) counts: Vec<(ChannelName, usize)>,
    pub(super) marks: Vec<String>,
    pub(super) events: Vec<Happening>,
}

/// The work that the leader pulls.
#[derive(Debug, Default)]
pub(super) struct Pulled {
    pub(super) marks: Vec<String>,
    pub(super) events: Vec<String>,
    pub(super) live: Vec<String>,
    pub(super) dead: Vec<String>,
}

/// The state sent last of an occupied channel.
pub(super) struct Known {
    pub(super) channel: ChannelName,
    pub(super) count: usize,
    pub(super) users: HashSet<Box<str>>,
}

impl Books {
    pub(super) fn open(config: &Config, targets: Arc<[Target]>) -> Result<Self, RedisConfigError> {
        /// Another node takes over from a dead leader within this time, or sooner if `presence.lease` is shorter.
        const LEASE: Duration = Duration::from_secs(10);
        let redis = &config.database_config.redis;
        Ok(Self {
            client: ReconnectingClient::new(Redis::new(redis)?, "webhooks", "webhooks are not sent"),
            prefix: format!("{}laravel-echo:{{webhooks}}:", redis.key_prefix),
            node: format!("{:016x}", rand::random::<u64>()),
            lease: config.presence.lease.min(LEASE),
            targets,
            max_events: config.webhooks_delivery.queue,
            max_bytes: config.webhooks_delivery.queue_bytes,
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn node_key(&self, node: &str) -> String {
        format!("{}node:{node}", self.prefix)
    }

    fn outbox(&self, index: usize) -> String {
        format!("{}out:{}", self.prefix, self.targets[index].id)
    }

    fn millis(&self) -> u64 {
        milliseconds(self.lease)
    }

    /// The numbers of the targets that receive the event, in the format of the scripts.
    fn places(&self, happening: &Happening) -> String {
        let wants = |target: &Target| target.wants(happening.event, &happening.channel);
        let places = self.targets.iter().zip(1..).filter(|(target, _)| wants(target)).map(|(_, place)| place.to_string());
        places.collect::<Vec<_>>().join(",")
    }

    /// What to do about an error of the other methods.
    pub(super) fn hint(&self, error: &QueryError) -> String {
        self.client.hint(error)
    }

    /// Whether it can write to Redis; nothing is left there.
    pub(super) async fn try_it(&self) -> Result<(), QueryError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(TRY).arg(1).arg(self.key("trial"));
        self.client.query::<redis::Value>(&pipeline).await.map(drop)
    }

    /// Writes a report. Returns whether this node was known, and how many events were dropped for lack of room.
    pub(super) async fn report(&self, report: &Report) -> Result<(bool, u64), QueryError> {
        let mut pipeline = redis::pipe();
        let keys = [self.key("nodes"), self.node_key(&self.node), self.key("marks"), self.key("batches"), self.key("events")];
        pipeline.cmd("EVAL").arg(REPORT).arg(keys.len()).arg(&keys).arg(&self.node).arg(self.millis()).arg(report.number);
        pipeline.arg(u8::from(report.is_anew)).arg(MAX_MARKS).arg(MAX_EVENTS).arg(MAX_EVENT_BYTES);
        pipeline.arg(report.counts.len()).arg(report.marks.len());
        for (channel, count) in &report.counts {
            pipeline.arg(channel.as_str()).arg(*count);
        }
        pipeline.arg(&report.marks);
        for event in &report.events {
            let written = serde_json::to_string(&(event.event, &event.channel, event.time_ms, &event.json));
            pipeline.arg(written.expect("texts and numbers serialize"));
        }
        let (answer,) = self.client.query(&pipeline).await?;
        Ok(answer)
    }

    /// Removes the state of a node.
    pub(super) async fn forget(&self, node: &str) -> Result<(), QueryError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZREM").arg(self.key("nodes")).arg(node);
        pipeline.cmd("DEL").arg(self.node_key(node));
        pipeline.cmd("HDEL").arg(self.key("batches")).arg(node);
        self.client.query::<redis::Value>(&pipeline).await.map(drop)
    }

    /// Keeps the lead, or takes it if no node has it, and pulls work. `None` if another node leads.
    pub(super) async fn pull(&self, token: &str, is_leading: bool) -> Result<Option<Pulled>, QueryError> {
        let mut pipeline = redis::pipe();
        let keys = [self.key("leader"), self.key("nodes"), self.key("marks"), self.key("events")];
        pipeline.cmd("EVAL").arg(PULL).arg(keys.len()).arg(&keys);
        pipeline.arg(token).arg(self.millis()).arg(MARKS).arg(AT_ONCE).arg(u8::from(is_leading));
        type Found = (Vec<String>, Vec<String>, Vec<String>, Vec<String>);
        let (found,): (Option<Found>,) = self.client.query(&pipeline).await?;
        Ok(found.map(|(marks, events, live, dead)| Pulled { marks, events, live, dead }))
    }

    /// Renews the lease, and returns whether this node still leads.
    pub(super) async fn renew(&self, token: &str) -> Result<bool, QueryError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(RENEW).arg(1).arg(self.key("leader")).arg(token).arg(self.millis());
        let (leads,) = self.client.query(&pipeline).await?;
        Ok(leads)
    }

    /// Releases the lead.
    pub(super) async fn release(&self, token: &str) -> Result<(), QueryError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(RELEASE).arg(1).arg(self.key("leader")).arg(token);
        self.client.query::<redis::Value>(&pipeline).await.map(drop)
    }

    /// Removes the state of dead nodes. Returns their channels.
    pub(super) async fn forget_dead(&self, dead: &[String]) -> Result<HashSet<ChannelName>, QueryError> {
        let channels = self.channels(dead).await?;
        for node in dead {
            self.forget(node).await?;
        }
        Ok(channels)
    }

    /// The number of sockets in these channels, summed over these nodes.
    pub(super) async fn counts(
        &self,
        channels: &HashSet<ChannelName>,
        nodes: &[String],
    ) -> Result<HashMap<ChannelName, usize>, QueryError> {
        let channels: Vec<&ChannelName> = channels.iter().collect();
        let mut counts = HashMap::with_capacity(channels.len());
        for some in channels.chunks(AT_ONCE) {
            for node in nodes {
                let mut pipeline = redis::pipe();
                pipeline.cmd("HMGET").arg(self.node_key(node));
                for channel in some {
                    pipeline.arg(channel.as_str());
                }
                let (found,): (Vec<Option<usize>>,) = self.client.query(&pipeline).await?;
                for (channel, count) in some.iter().zip(found) {
                    *counts.entry((*channel).clone()).or_default() += count.unwrap_or_default();
                }
            }
        }
        Ok(counts)
    }

    /// Every channel of these nodes.
    pub(super) async fn channels(&self, nodes: &[String]) -> Result<HashSet<ChannelName>, QueryError> {
        let mut channels = HashSet::new();
        for node in nodes {
            let mut pipeline = redis::pipe();
            pipeline.cmd("HKEYS").arg(self.node_key(node));
            let (theirs,): (Vec<String>,) = self.client.query(&pipeline).await?;
            channels.extend(theirs.into_iter().map(ChannelName::from));
        }
        Ok(channels)
    }

    /// The complete state sent last.
    pub(super) async fn told(&self) -> Result<Vec<Known>, QueryError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(self.key("told"));
        let (told,): (HashMap<String, usize>,) = self.client.query(&pipeline).await?;
        let told: Vec<_> = told.into_iter().map(|(channel, count)| (ChannelName::from(channel), count)).collect();
        let mut known = Vec::with_capacity(told.len());
        for some in told.chunks(AT_ONCE) {
            let mut pipeline = redis::pipe();
            for (channel, _) in some {
                pipeline.cmd("SMEMBERS").arg(self.key(&format!("users:{channel}")));
            }
            let users: Vec<Vec<String>> = self.client.query(&pipeline).await?;
            known.extend(some.iter().zip(users).map(|((channel, count), users)| Known {
                channel: channel.clone(),
                count: *count,
                users: users.into_iter().map(Into::into).collect(),
            }));
        }
        Ok(known)
    }

    /// Records what is sent now, and puts it into outboxes: `told`, then client `events`. Removes that many of the pulled marks and
    /// events. `None` if another node leads: then nothing more was written.
    pub(super) async fn commit(
        &self,
        token: &str,
        told: &[Happening],
        events: &[Happening],
        (marks, events_done): (usize, usize),
    ) -> Result<Option<Dropped>, QueryError> {
        let keys: Vec<String> = ["leader", "seq", "told", "marks", "events"].iter().map(|name| self.key(name)).collect();
        let outboxes: Vec<String> = (0..self.targets.len()).map(|index| self.outbox(index)).collect();
        let mut all_dropped = Vec::new();
        // The last part removes the marks and events, even if there is nothing to send.
        let parts: Vec<&[Happening]> = told.chunks(AT_ONCE).chain([events]).collect();
        for (place, some) in parts.iter().enumerate() {
            let (marks, events) = if place + 1 == parts.len() { (marks, events_done) } else { (0, 0) };
            let mut pipeline = redis::pipe();
            pipeline.cmd("EVAL").arg(COMMIT).arg(keys.len() + outboxes.len()).arg(&keys).arg(&outboxes);
            pipeline.arg(token).arg(self.key("users:")).arg(self.max_events).arg(self.max_bytes).arg(marks).arg(events);
            for happening in *some {
                let change = match happening.event {
                    WebhookEvent::ChannelOccupied => "occupied",
                    WebhookEvent::ChannelVacated => "vacated",
                    WebhookEvent::MemberAdded => "added",
                    WebhookEvent::MemberRemoved => "removed",
                    WebhookEvent::SubscriptionCount => "count",
                    _ => "",
                };
                pipeline.arg(change).arg(&*happening.channel).arg(&*happening.what).arg(happening.time_ms);
                pipeline.arg(&happening.json).arg(self.places(happening)).arg(u8::from(happening.is_of_clients()));
            }
            let (dropped,): (Option<Vec<(usize, String)>>,) = self.client.query(&pipeline).await?;
            let Some(dropped) = dropped else { return Ok(None) };
            // Scripts count targets from 1.
            all_dropped.extend(dropped.into_iter().map(|(place, json)| (place.saturating_sub(1).min(self.targets.len() - 1), json)));
        }
        Ok(Some(all_dropped))
    }

    /// The first events queued for a target, and the length of the queue.
    pub(super) async fn first(&self, index: usize, count: usize) -> Result<(Vec<Waiting>, usize), QueryError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("XRANGE").arg(self.outbox(index)).arg("-").arg("+").arg("COUNT").arg(count);
        pipeline.cmd("XLEN").arg(self.outbox(index));
        type Entry = (String, (String, u64, String, String, String, u8));
        let (entries, len): (Vec<Entry>, usize) = self.client.query(&pipeline).await?;
        let waiting = entries.into_iter().map(|(id, (_, time_ms, _, json, _, is_of_clients))| Waiting {
            id,
            time_ms,
            is_of_clients: is_of_clients == 1,
            json: json.into(),
        });
        Ok((waiting.collect(), len))
    }

    /// Removes these events from a target's outbox.
    pub(super) async fn done(&self, index: usize, events: &[Waiting]) -> Result<(), QueryError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(DONE).arg(1).arg(self.outbox(index));
        for event in events {
            pipeline.arg(&event.id);
        }
        self.client.query::<redis::Value>(&pipeline).await.map(drop)
    }
}

/// Serialises marks for other nodes: `["channel"]`, `["channel","user"]`, `["channel",true]` for all of its members.
pub(super) fn written(marks: &Marks) -> Vec<String> {
    let text = |mark: serde_json::Value| mark.to_string();
    let channels = marks.channels.iter().map(|channel| text(serde_json::json!([channel.as_str()])));
    let whole = marks.whole.iter().map(|channel| text(serde_json::json!([channel.as_str(), true])));
    let users = marks
        .users
        .iter()
        .flat_map(|(channel, users)| users.iter().map(move |user| serde_json::json!([channel.as_str(), user]).to_string()));
    channels.chain(whole).chain(users).collect()
}

/// Parses marks of other nodes.
pub(super) fn read(written: &[String]) -> Marks {
    let mut marks = Marks::default();
    for mark in written {
        match serde_json::from_str::<Vec<serde_json::Value>>(mark).as_deref() {
            Ok([serde_json::Value::String(channel)]) => marks.channel(channel),
            Ok([serde_json::Value::String(channel), serde_json::Value::String(user)]) => marks.user(channel, user),
            Ok([serde_json::Value::String(channel), serde_json::Value::Bool(true)]) => drop(marks.whole.insert(channel.as_str().into())),
            Ok([]) => marks.everything = true,
            // Written by a later version.
            _ => {}
        }
    }
    marks
}

/// Parses an event of a node. `None` if a later version has written it.
pub(super) fn event(written: &str) -> Option<Happening> {
    let (event, channel, time_ms, json) = serde_json::from_str(written).ok()?;
    Some(Happening { event, channel, what: Box::default(), time_ms, json })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_were_written() {
        let mut marks = Marks::default();
        marks.channel("news");
        marks.user("presence-a", "7\"");
        marks.whole.insert("presence-b".into());
        let everything = read(&[EVERYTHING.to_owned()]);
        assert!(everything.everything);
        assert_eq!(read(&written(&marks)), marks);
        assert_eq!(read(&["{}".to_owned(), "x".to_owned()]), Marks::default());
    }
}
