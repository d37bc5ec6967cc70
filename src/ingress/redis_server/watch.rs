//! `SUBSCRIBE` and `PSUBSCRIBE`, so that `redis-cli` can watch what is published here.
//!
//! Input: every message published to this endpoint. Output: the same to those who watch, with a queue of their own;
//! one that does not keep up is closed, as Redis does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::reply::Reply;
use crate::channel::Pattern;

/// Messages a watcher may be behind.
const QUEUE: usize = 1024;
/// A longer payload is not shown: the queue holds many.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// Channels and patterns one connection may watch.
const MOST: usize = 1000;

/// A message as it was published.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) channel: Bytes,
    pub(super) payload: Bytes,
}

/// Where messages go for those who watch.
pub(super) struct Watchers {
    messages: broadcast::Sender<Message>,
    /// How many listen. The queue knows, too, but asking it takes a lock.
    count: Arc<AtomicUsize>,
}

/// The messages of one who watches.
pub(super) struct Listener {
    messages: broadcast::Receiver<Message>,
    count: Arc<AtomicUsize>,
}

impl Default for Watchers {
    fn default() -> Self {
        Self { messages: broadcast::Sender::new(QUEUE), count: Arc::default() }
    }
}

impl Watchers {
    pub(super) fn tell(&self, channel: &[u8], payload: &[u8]) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let copy = |bytes: &[u8]| match bytes.len() {
                0..=MAX_PAYLOAD_BYTES => Bytes::copy_from_slice(bytes),
                length => format!("({length} bytes, too long to be watched)").into(),
            };
            let _ = self.messages.send(Message { channel: copy(channel), payload: copy(payload) });
        }
    }

    pub(super) fn listen(&self) -> Listener {
        self.count.fetch_add(1, Ordering::Relaxed);
        Listener { messages: self.messages.subscribe(), count: Arc::clone(&self.count) }
    }
}

impl Listener {
    /// The next message.
    ///
    /// # Errors
    /// When it is too far behind, or there will be no more.
    pub(super) async fn next(&mut self) -> Result<Message, RecvError> {
        self.messages.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
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
