//! The last event of each cache channel (`cache-…`, `private-cache-…`, `presence-cache-…`, `private-encrypted-cache-…`).
//!
//! Input: events of the application; whispers are not kept. Output: the event for new subscribers, for `pusher.cacheTtl`. With
//! several nodes each keeps what it receives, and asks the others for what it has not received: it may have started later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::recovery::Recovery;
use super::{Hub, Message, Observation, Push, Socket};
use crate::channel::{ChannelName, is_cached};
use crate::clock::milliseconds;
use crate::cluster::control::{KeptEvent, Question};

/// Channels that are remembered; beyond this, expired ones are dropped, and new ones are not kept.
const MAX_CHANNELS: usize = 10_000;

/// An event that new subscribers receive.
#[derive(Debug, Clone)]
pub(super) struct Cached {
    /// The event's name.
    pub(super) name: Arc<str>,
    /// The event's data.
    pub(super) data: Arc<RawValue>,
    /// When it expires.
    pub(super) ends: Instant,
    /// When this node received it; `None` if another node did.
    heard: Option<Instant>,
}

/// The last events of cache channels.
#[derive(Debug)]
pub(super) struct EventCache {
    ttl: Duration,
    events: Mutex<HashMap<ChannelName, Cached>>,
}

impl EventCache {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, events: Mutex::default() }
    }

    /// Whether events of the channel are kept, even without subscribers.
    pub(super) fn keeps(&self, channel: &str) -> bool {
        is_cached(channel) && !self.ttl.is_zero()
    }

    pub(super) fn put(&self, channel: &str, name: &str, data: &RawValue) {
        let now = Instant::now();
        let event = Cached { name: name.into(), data: data.to_owned().into(), ends: now + self.ttl, heard: Some(now) };
        self.insert(channel, event, now);
    }

    /// Stores what another node has kept, unless this node has kept an event itself, which is newer.
    fn take_up(&self, channel: &str, event: &KeptEvent) {
        let Ok(data) = RawValue::from_string(event.data.clone()) else { return };
        let now = Instant::now();
        let ends = now + Duration::from_millis(event.left).min(self.ttl);
        if self.get(channel).is_none() {
            self.insert(channel, Cached { name: event.name.as_str().into(), data: data.into(), ends, heard: None }, now);
        }
    }

    /// The event as it is sent to other nodes.
    pub(super) fn kept(&self, channel: &str) -> Option<KeptEvent> {
        let event = self.get(channel)?;
        let left = event.ends.saturating_duration_since(Instant::now());
        Some(KeptEvent { name: (*event.name).to_owned(), data: event.data.get().to_owned(), left: milliseconds(left) })
    }

    fn insert(&self, channel: &str, event: Cached, now: Instant) {
        let mut events = self.events.lock();
        if events.len() >= MAX_CHANNELS && !events.contains_key(channel) {
            events.retain(|_, event| event.ends > now);
            if events.len() >= MAX_CHANNELS {
                return;
            }
        }
        events.insert(channel.into(), event);
    }

    pub(super) fn get(&self, channel: &str) -> Option<Cached> {
        let events = self.events.lock();
        events.get(channel).filter(|event| event.ends > Instant::now()).cloned()
    }
}

impl<S: Socket> Hub<S> {
    /// The last event of a cache channel on any node.
    pub async fn cached_everywhere(self: &Arc<Self>, channel: &ChannelName) -> Option<KeptEvent> {
        let name = channel.as_str();
        if !self.cache.keeps(name) {
            return None;
        }
        if let Some(event) = self.cache.kept(name) {
            return Some(event);
        }
        let (answers, _) = self.ask_others(&Question::Cached(name.to_owned())).await;
        if let Some(event) = answers.into_iter().filter_map(|answer| answer.event).max_by_key(|event| event.left) {
            self.cache.take_up(name, &event);
        }
        self.cache.kept(name)
    }

    /// Sends a new subscriber the last event of a cache channel, or that there is none.
    pub(super) fn show_cached(self: &Arc<Self>, socket: &S, channel: &ChannelName) {
        if !self.cache.keeps(channel.as_str()) {
            return;
        }
        let cached = self.cache.get(channel.as_str());
        if cached.is_some() || self.nodes.is_none() {
            return self.emit_cached(socket, channel.as_str(), cached.as_ref());
        }
        let (hub, socket, channel, since) = (Arc::clone(self), socket.clone(), channel.clone(), Instant::now());
        self.tasks.spawn(async move {
            hub.closing.run_until_cancelled(hub.cached_everywhere(&channel)).await;
            let cached = hub.cache.get(channel.as_str());
            // An event that arrived meanwhile has been sent to it already.
            let is_new = cached.as_ref().is_none_or(|event| event.heard.is_none_or(|heard| heard < since));
            if is_new && hub.session(socket.id()).is_some_and(|session| session.is_in(channel.as_str())) {
                hub.emit_cached(&socket, channel.as_str(), cached.as_ref());
            }
        });
    }

    fn emit_cached(self: &Arc<Self>, socket: &S, channel: &str, cached: Option<&Cached>) {
        let message = match cached {
            Some(event) => Message::Event { channel, name: &event.name, data: &event.data, user: None, is_stamped: false, is_flat: false },
            None => {
                self.observers.tell(|| Observation::CacheMiss { channel });
                Message::CacheMiss { channel }
            }
        };
        let mut push = Push::new(message);
        let history = self.recovery.as_ref().map(Recovery::history);
        // With an offset, as all events have: a client takes a text at the end of an event for its offset. Under the lock, so
        // that nothing newer is sent before it.
        push.offset = history.as_ref().map(|history| history.epochs.newest());
        self.emit(socket, &push);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_event_is_kept_for_its_time() {
        let cache = EventCache::new(Duration::from_secs(60));
        assert!(cache.keeps("cache-a") && cache.keeps("private-cache-a") && !cache.keeps("news") && !cache.keeps("cached"));
        for name in ["first", "second"] {
            cache.put("cache-a", name, RawValue::NULL);
        }
        assert_eq!(&*cache.get("cache-a").unwrap().name, "second");
        assert!(cache.get("cache-b").is_none());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(cache.get("cache-a").is_none());
    }
}
