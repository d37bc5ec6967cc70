//! [`Feed`]: the hub's observations, for open pages. It observes the hub only while there is one.
//!
//! Input: [`Observation`]s, in the middle of the hub's work. Output: [`Entry`]s in a bounded queue per page. Entries over a
//! page's rate are counted but left out, and those that a slow page does not fetch are dropped; the hub never waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::entry::{Entry, Group, Near, about};
use crate::client::Client;
use crate::hub::{Hub, Observation, Observer};

mod filter;
mod queue;

use queue::{Entries, Kept, Waiting};

pub(super) use filter::Filter;
pub(super) use queue::{Batch, RATE};

/// How long entries are kept without a page: changing a filter or reloading closes the page for a moment.
const LINGER: Duration = Duration::from_secs(10);

/// Maximum number of pages of this node, and of other nodes. The latter have a separate limit, so they cannot displace the former.
const MAX_WATCHERS: usize = 20;
const MAX_REMOTE_WATCHERS: usize = 40;

/// Events without a subscriber that are recorded per second, besides those of a channel that a page filters for by its full name.
const UNHEARD_RATE: u64 = 200;

/// Channels per batch that are compared with all others, to find one with a similar name that has subscribers.
const MAX_LOOKS: usize = 3;
/// How long the result of such a comparison is valid.
const LOOK_LASTS: Duration = Duration::from_secs(5);
const MAX_REMEMBERED_LOOKS: usize = 1000;

/// Whether a page is on this node or on another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Here,
    AnotherNode,
}

impl Place {
    const fn most(self) -> usize {
        match self {
            Self::Here => MAX_WATCHERS,
            Self::AnotherNode => MAX_REMOTE_WATCHERS,
        }
    }
}

/// An open page.
#[derive(Debug)]
struct Watcher {
    place: Place,
    filter: Filter,
    waiting: Mutex<Waiting>,
}

/// Whether the hub is observed.
enum Attached {
    /// By this feed, under this handle.
    Yes(Arc<dyn Observer>),
    /// Not since the last page was closed at this time, but entries are still kept.
    Lingering(Instant),
    /// Not observed, and nothing is kept.
    No,
}

/// The hub's observations, for open pages.
pub(super) struct Feed {
    hub: Arc<Hub<Client>>,
    started: Instant,
    next: AtomicU64,
    watchers: ArcSwap<Vec<Arc<Watcher>>>,
    attached: Mutex<Attached>,
    kept: Mutex<Kept>,
    /// The current second, and the number of events without a subscriber that were recorded in it.
    unheard: AtomicU64,
    looks: Mutex<HashMap<String, (Instant, Option<Near>)>>,
}

/// A page's registration in the feed; ends on drop.
pub(super) struct Watch {
    feed: Arc<Feed>,
    watcher: Arc<Watcher>,
}

impl Feed {
    pub(super) fn new(hub: Arc<Hub<Client>>) -> Arc<Self> {
        Arc::new(Self {
            hub,
            started: Instant::now(),
            next: AtomicU64::new(1),
            watchers: ArcSwap::default(),
            attached: Mutex::new(Attached::No),
            kept: Mutex::default(),
            unheard: AtomicU64::new(0),
            looks: Mutex::default(),
        })
    }

    /// Drops all entries once the last page has been closed for [`LINGER`].
    pub(super) fn forget(&self, now: Instant) {
        let mut attached = self.attached.lock();
        if matches!(*attached, Attached::Lingering(since) if now.duration_since(since) >= LINGER) {
            *attached = Attached::No;
            *self.kept.lock() = Kept::default();
            *self.looks.lock() = HashMap::new();
        }
    }

    fn second(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Registers a page, which first gets the kept entries; `None` when there are too many pages at that place.
    pub(super) fn watch(self: &Arc<Self>, filter: Filter, place: Place) -> Option<Watch> {
        filter.refresh(&self.hub);
        let mut attached = self.attached.lock();
        let mut watchers = Vec::clone(&self.watchers.load());
        if watchers.iter().filter(|watcher| watcher.place == place).count() >= place.most() {
            return None;
        }
        let mut waiting = Waiting::default();
        for (group, entry) in self.kept.lock().entries.list.iter().filter(|(group, entry)| filter.takes(*group, entry.about())) {
            waiting.entries.push(*group, Arc::clone(entry));
        }
        let waiting = Mutex::new(waiting);
        let watcher = Arc::new(Watcher { place, filter, waiting });
        watchers.push(Arc::clone(&watcher));
        self.watchers.store(Arc::new(watchers));
        if !matches!(*attached, Attached::Yes(_)) {
            let observer: Arc<dyn Observer> = Arc::clone(self) as Arc<dyn Observer>;
            self.hub.attach(&observer);
            *attached = Attached::Yes(observer);
        }
        Some(Watch { feed: Arc::clone(self), watcher })
    }

    /// The kept entries of a channel, or of all channels, oldest first.
    pub(super) fn recent(&self, channel: Option<&str>) -> Vec<Arc<Entry>> {
        let kept = self.kept.lock();
        let is_it = |entry: &Arc<Entry>| channel.is_none() || entry.channel.as_deref() == channel;
        kept.entries.list.iter().map(|(_, entry)| entry).filter(|entry| is_it(entry)).cloned().collect()
    }

    /// Whether a page is open, so that entries are recorded.
    pub(super) fn is_watching(&self) -> bool {
        !self.watchers.load().is_empty()
    }

    /// Looks for channels with names similar to those of events without subscribers.
    fn look(&self, entries: &[Arc<Entry>]) {
        let mut looks = self.looks.lock();
        let mut left = MAX_LOOKS;
        for entry in entries.iter().filter(|entry| entry.delivered == Some(0) && entry.dropped.is_none() && !entry.has_left_out) {
            let Some(channel) = entry.channel.as_deref().filter(|_| entry.near.get().is_none()) else { continue };
            let known = looks.get(channel).filter(|(when, _)| when.elapsed() < LOOK_LASTS).map(|(_, near)| near.clone());
            let near = match known {
                Some(near) => near,
                None if left == 0 => continue,
                None => {
                    left -= 1;
                    let near = self.hub.nearest(channel).map(Near::from);
                    if looks.len() >= MAX_REMEMBERED_LOOKS {
                        looks.clear();
                    }
                    looks.insert(channel.to_owned(), (Instant::now(), near.clone()));
                    near
                }
            };
            let _ = entry.near.set(near);
        }
    }
}

impl Feed {
    fn observe_at(&self, second: u64, observation: &Observation<'_>) {
        let (group, about) = (Group::of(observation), about(observation));
        let mut made: Option<Arc<Entry>> = None;
        let make = || Arc::new(Entry::new(self.next.fetch_add(1, Ordering::Relaxed), observation));
        for watcher in self.watchers.load().iter() {
            if !watcher.filter.takes(group, about) {
                continue;
            }
            let mut waiting = watcher.waiting.lock();
            waiting.seen += 1;
            if !waiting.pace.takes(second, group) {
                continue;
            }
            if waiting.entries.is_full() {
                waiting.missed += 1;
                continue;
            }
            waiting.entries.push(group, Arc::clone(made.get_or_insert_with(make)));
        }
        let mut kept = self.kept.lock();
        if kept.pace.takes(second, group) {
            kept.entries.push(group, made.unwrap_or_else(make));
            kept.entries.trim();
        }
    }
}

impl Observer for Feed {
    fn observe(&self, observation: &Observation<'_>) {
        self.observe_at(self.second(), observation);
    }

    fn wants_unheard(&self) -> bool {
        true
    }

    fn wants_unheard_in(&self, channel: &str) -> bool {
        const COUNT: u64 = 1 << 20;
        let second = self.second() * COUNT;
        let before = self.unheard.fetch_max(second, Ordering::Relaxed).max(second);
        if before - second < UNHEARD_RATE {
            self.unheard.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.watchers.load().iter().any(|watcher| watcher.filter.is_for(channel))
    }
}

impl Watch {
    /// Takes the entries that the page has not seen yet.
    pub(super) fn take(&self) -> Batch {
        let mut waiting = self.watcher.waiting.lock();
        let Entries { list, .. } = std::mem::take(&mut waiting.entries);
        let batch = Batch {
            seen: std::mem::take(&mut waiting.seen),
            missed: std::mem::take(&mut waiting.missed),
            entries: list.into_iter().map(|(_, entry)| entry).collect(),
        };
        drop(waiting);
        self.feed.look(&batch.entries);
        batch
    }

    /// Updates the sockets or user of the filter.
    pub(super) fn refresh(&self) {
        self.watcher.filter.refresh(&self.feed.hub);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut attached = self.feed.attached.lock();
        let mut watchers = Vec::clone(&self.feed.watchers.load());
        watchers.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        if watchers.is_empty()
            && let Attached::Yes(observer) = std::mem::replace(&mut *attached, Attached::Lingering(Instant::now()))
        {
            self.feed.hub.detach(&observer);
        }
        self.feed.watchers.store(Arc::new(watchers));
    }
}

#[cfg(test)]
mod tests {
    use super::queue::MAX_BYTES;
    use super::*;
    use crate::auth;
    use crate::config::Config;
    use crate::event::Event;
    use crate::metrics::{Metrics, Source};
    use crate::proxies::TrustedProxies;
    use crate::store::memory::MemoryStore;

    fn feed() -> Arc<Feed> {
        // For the client that asks the application.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (config, metrics) = (Config::default(), Arc::new(Metrics::new()));
        let authorizer = auth::open(&config, &TrustedProxies::new(&[]), &metrics).unwrap();
        Feed::new(Hub::new(&config, authorizer, Arc::new(MemoryStore::default()), None, metrics))
    }

    /// Publishes an event without a subscriber, whose texts are as large as a message may be.
    fn publish(feed: &Feed, second: u64) {
        let text = "x".repeat(1 << 12);
        let data = serde_json::value::to_raw_value(&text).unwrap();
        let event = Event { channel: &text, name: text.as_str().into(), data: &data, except: None, user: None };
        feed.observe_at(
            second,
            &Observation::Published { event: &event, source: Source::Redis, delivered: 0, dropped: 0, has_left_out: false },
        );
    }

    #[tokio::test]
    async fn kept_and_queued_entries_are_bounded_in_bytes() {
        let feed = feed();
        let watch = feed.watch(Filter::default(), Place::Here).unwrap();
        for second in 0..40 {
            (0..RATE).for_each(|_| publish(&feed, second));
        }
        let most = MAX_BYTES + 4096;
        let bytes = |entries: &Entries| entries.list.iter().map(|(_, entry)| entry.bytes()).sum::<usize>();
        let (kept, waiting) = (bytes(&feed.kept.lock().entries), bytes(&watch.watcher.waiting.lock().entries));
        assert!(kept > MAX_BYTES / 2 && kept <= most, "{kept} bytes are kept");
        assert!(waiting > MAX_BYTES / 2 && waiting <= most, "{waiting} bytes are queued");
        assert_eq!(feed.kept.lock().entries.bytes, kept);
        let batch = watch.take();
        assert_eq!(batch.seen, 40 * u64::from(RATE));
        assert_eq!(batch.entries.len() as u64 + batch.missed, batch.seen);
        assert_eq!(watch.watcher.waiting.lock().entries.bytes, 0);
    }

    #[tokio::test]
    async fn pages_of_other_nodes_do_not_displace_local_ones() {
        let feed = feed();
        let all: Vec<_> = std::iter::from_fn(|| feed.watch(Filter::default(), Place::AnotherNode)).collect();
        assert_eq!(all.len(), MAX_REMOTE_WATCHERS);
        let here: Vec<_> = std::iter::from_fn(|| feed.watch(Filter::default(), Place::Here)).collect();
        assert_eq!(here.len(), MAX_WATCHERS);
    }

    #[tokio::test]
    async fn nothing_is_kept_after_the_last_page_has_been_closed_for_a_while() {
        let feed = feed();
        let watch = feed.watch(Filter::default(), Place::Here).unwrap();
        publish(&feed, 0);
        let other = feed.watch(Filter::default(), Place::Here).unwrap();
        assert_eq!(other.take().entries.len(), 1, "a later page gets the kept entries");
        drop(watch);
        feed.forget(Instant::now() + LINGER);
        assert_eq!(feed.recent(None).len(), 1, "a page is open");
        drop(other);
        feed.forget(Instant::now());
        assert_eq!(feed.recent(None).len(), 1, "the page may just be reloading");
        assert_eq!(feed.watch(Filter::default(), Place::Here).unwrap().take().entries.len(), 1);
        feed.forget(Instant::now() + LINGER);
        assert_eq!(feed.recent(None).len(), 0);
        let kept = feed.kept.lock();
        assert_eq!((kept.entries.bytes, kept.entries.list.capacity()), (0, 0));
    }
}
