//! `SUBSCRIBE` and `PSUBSCRIBE`, so that `redis-cli` can watch what is published here.
//!
//! Input: every message published to this endpoint. Output: the same to those who watch, with a queue of their own;
//! one that does not keep up is closed, as Redis does.

use std::collections::BTreeSet;

use bytes::Bytes;
use tokio::sync::broadcast;

use super::reply::Reply;
use crate::channel::Pattern;

/// Messages a watcher may be behind.
const QUEUE: usize = 1024;
/// A longer payload is not shown: the queue holds many.
const LONGEST_PAYLOAD: usize = 64 * 1024;
/// Channels and patterns one connection may watch.
const MOST: usize = 1000;

/// A message as it was published.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) channel: Bytes,
    pub(super) payload: Bytes,
}

/// Where messages go for those who watch.
pub(super) struct Watchers(broadcast::Sender<Message>);

impl Default for Watchers {
    fn default() -> Self {
        Self(broadcast::Sender::new(QUEUE))
    }
}

impl Watchers {
    pub(super) fn tell(&self, channel: &Bytes, payload: &Bytes) {
        if self.0.receiver_count() > 0 {
            // Copies: a slice would keep alive all the bytes it arrived with.
            let copy = |bytes: &Bytes| match bytes.len() {
                0..=LONGEST_PAYLOAD => Bytes::copy_from_slice(bytes),
                length => format!("({length} bytes, too long to be watched)").into(),
            };
            let _ = self.0.send(Message { channel: copy(channel), payload: copy(payload) });
        }
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<Message> {
        self.0.subscribe()
    }
}

/// What one connection watches.
#[derive(Debug, Default)]
pub(super) struct Watch {
    channels: BTreeSet<Bytes>,
    patterns: BTreeSet<Bytes>,
}

/// Whether names are channels or patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Channel,
    Pattern,
}

impl Kind {
    const fn word(self, subscribe: &'static str, psubscribe: &'static str) -> &'static str {
        match self {
            Self::Channel => subscribe,
            Self::Pattern => psubscribe,
        }
    }
}

impl Watch {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    fn set(&mut self, kind: Kind) -> &mut BTreeSet<Bytes> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    /// Watches names; `None` when they are too many.
    pub(super) fn add(&mut self, kind: Kind, names: &[Bytes]) -> Option<Reply> {
        if self.len() + names.len() > MOST {
            return None;
        }
        let reply = names.iter().map(|name| {
            self.set(kind).insert(Bytes::copy_from_slice(name));
            Reply::Push(vec![Reply::text(kind.word("subscribe", "psubscribe")), Reply::Bulk(name.clone()), Reply::count(self.len())])
        });
        Some(Reply::Many(reply.collect()))
    }

    /// Watches names no more; all of them when none is given.
    pub(super) fn remove(&mut self, kind: Kind, names: &[Bytes]) -> Reply {
        let word = kind.word("unsubscribe", "punsubscribe");
        let names: Vec<Bytes> = if names.is_empty() { self.set(kind).iter().cloned().collect() } else { names.to_vec() };
        if names.is_empty() {
            return Reply::Push(vec![Reply::text(word), Reply::Null, Reply::count(self.len())]);
        }
        let reply = names.into_iter().map(|name| {
            self.set(kind).remove(&name);
            Reply::Push(vec![Reply::text(word), Reply::Bulk(name), Reply::count(self.len())])
        });
        Reply::Many(reply.collect())
    }

    /// What a connection hears of a message: once for its channel, once for each pattern.
    pub(super) fn hears(&self, message: &Message) -> Reply {
        let mut replies = Vec::new();
        if self.channels.contains(&message.channel) {
            let parts = vec![Reply::text("message"), Reply::Bulk(message.channel.clone()), Reply::Bulk(message.payload.clone())];
            replies.push(Reply::Push(parts));
        }
        let channel = String::from_utf8_lossy(&message.channel);
        for pattern in &self.patterns {
            if Pattern::new(&String::from_utf8_lossy(pattern)).matches(&channel) {
                let names = [Reply::text("pmessage"), Reply::Bulk(pattern.clone()), Reply::Bulk(message.channel.clone())];
                replies.push(Reply::Push([&names[..], &[Reply::Bulk(message.payload.clone())]].concat()));
            }
        }
        Reply::Many(replies)
    }
}
