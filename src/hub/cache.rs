//! The last event of each cache channel (`cache-…`, `private-cache-…`, `presence-cache-…`, `private-encrypted-cache-…`).
//!
//! Input: events of the application; whispers are not kept. Output: the event for who subscribes, for
//! `pusher.cacheTtl`. With several nodes each keeps what it hears.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::channel::{ChannelName, is_cached};

/// Channels that are remembered; beyond, those that are over are forgotten, and new ones not kept.
const MAX_CHANNELS: usize = 10_000;

/// An event that is given to who subscribes.
#[derive(Debug, Clone)]
pub(super) struct Cached {
    /// The event's name.
    pub(super) name: Arc<str>,
    /// The event's data.
    pub(super) data: Arc<RawValue>,
    /// When it is forgotten.
    pub(super) ends: Instant,
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

    /// Whether events of the channel are kept, also with nobody in it.
    pub(super) fn keeps(&self, channel: &str) -> bool {
        is_cached(channel) && !self.ttl.is_zero()
    }

    pub(super) fn put(&self, channel: &str, name: &str, data: &RawValue) {
        let now = Instant::now();
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= MAX_CHANNELS && !events.contains_key(channel) {
            events.retain(|_, event| event.ends > now);
            if events.len() >= MAX_CHANNELS {
                return;
            }
        }
        events.insert(channel.into(), Cached { name: name.into(), data: data.to_owned().into(), ends: now + self.ttl });
    }

    pub(super) fn get(&self, channel: &str) -> Option<Cached> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.get(channel).filter(|event| event.ends > Instant::now()).cloned()
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
