//! [`Feed`]: what happens in the hub, for open pages. It watches the hub only while there is one.
//!
//! Input: [`Observation`]s, in the middle of the hub's work. Output: [`Entry`]s in a bounded queue for each page; what is
//! over a page's rate is counted and left out, and what a slow page does not fetch is dropped, never waited for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

use super::entry::{Entry, Group, Near};
use crate::channel::ChannelName;
use crate::client::Client;
use crate::event::SocketId;
use crate::hub::{Hub, Observation, Observer};

/// Entries of one group that a page gets in a second; the rest is counted.
pub(super) const RATE: u32 = 50;

/// Entries that wait for a page.
const MAX_QUEUE: usize = 1000;

/// Entries that are kept for pages that are opened later, and for questions.
const MAX_KEPT: usize = 1000;

/// Pages at once.
const MAX_WATCHERS: usize = 20;

/// Events without a subscriber that are read in a second, on top of those that a page looks for by the channel's whole name.
const UNHEARD_RATE: u64 = 200;

/// Channels that are compared with all others in one go, for the hint that one of nearly the same name has subscribers.
const MAX_LOOKS: usize = 3;
/// How long such a look counts.
const LOOK_LASTS: Duration = Duration::from_secs(5);
const MAX_REMEMBERED_LOOKS: usize = 1000;

/// What a page wants to see.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Bits of [`Group`]; 0: all.
    groups: u16,
    channel: Option<NameFilter>,
    who: Option<Who>,
}

#[derive(Debug)]
enum NameFilter {
    Whole(String),
    Part(String),
}

/// A user or a socket, with what belongs to it now.
#[derive(Debug)]
struct Who {
    text: String,
    now: ArcSwap<(Vec<SocketId>, Vec<ChannelName>)>,
}

impl Filter {
    /// `groups` is a list such as `delivered,refusals`, empty for all; `channel` a part of a name, or a whole name after `=`;
    /// `who` the id of a user or of a socket.
    pub(super) fn new(groups: &str, channel: &str, who: &str) -> Self {
        let wanted = Group::ALL.iter().filter(|(name, _)| groups.split(',').any(|group| group == *name));
        let name = match channel.strip_prefix('=') {
            Some(whole) => Some(NameFilter::Whole(whole.to_owned())),
            None if channel.is_empty() => None,
            None => Some(NameFilter::Part(channel.to_lowercase())),
        };
        Self {
            groups: wanted.fold(0, |bits, (_, group)| bits | 1 << *group as u16),
            channel: name,
            who: (!who.is_empty()).then(|| Who { text: who.to_owned(), now: ArcSwap::default() }),
        }
    }

    /// Looks up what belongs to the user or socket.
    fn refresh(&self, hub: &Hub<Client>) {
        let Some(who) = &self.who else { return };
        let ids = SocketId::parse(&who.text).map_or_else(|| hub.sockets_of(&who.text, MAX_KEPT), |id| vec![id]);
        let mut channels = Vec::new();
        for stay in ids.iter().filter_map(|id| hub.inspect(*id)).flat_map(|view| view.channels) {
            if stay.is_joined && !channels.contains(&stay.channel) {
                channels.push(stay.channel);
            }
        }
        who.now.store(Arc::new((ids, channels)));
    }

    fn takes(&self, observation: &Observation<'_>, group: Group) -> bool {
        if self.groups != 0 && self.groups & 1 << group as u16 == 0 {
            return false;
        }
        let (channel, socket, user) = parts(observation);
        let fits = match &self.channel {
            None => true,
            Some(NameFilter::Whole(name)) => channel == Some(name),
            Some(NameFilter::Part(part)) => channel.is_some_and(|channel| channel.to_lowercase().contains(part)),
        };
        fits && self.who.as_ref().is_none_or(|who| {
            let now = who.now.load();
            let (sockets, channels) = &**now;
            user == Some(&who.text)
                || socket.is_some_and(|socket| sockets.contains(&socket))
                || socket.is_none() && channel.is_some_and(|channel| channels.iter().any(|known| known.as_str() == channel))
        })
    }

    /// As [`Self::takes`], for what was kept.
    fn takes_kept(&self, (group, entry): &(Group, Arc<Entry>)) -> bool {
        let fits = match &self.channel {
            None => true,
            Some(NameFilter::Whole(name)) => entry.channel.as_ref() == Some(name),
            Some(NameFilter::Part(part)) => entry.channel.as_ref().is_some_and(|channel| channel.to_lowercase().contains(part)),
        };
        fits && (self.groups == 0 || self.groups & 1 << *group as u16 != 0)
            && self.who.as_ref().is_none_or(|who| {
                let now = who.now.load();
                entry.user() == Some(&who.text) || entry.socket.is_some_and(|socket| now.0.contains(&socket))
            })
    }
}

/// Channel, socket and user of what has happened.
fn parts<'a>(observation: &Observation<'a>) -> (Option<&'a str>, Option<SocketId>, Option<&'a str>) {
    match *observation {
        Observation::TurnedAway { .. } => (None, None, None),
        Observation::Connected { socket } | Observation::Disconnected { socket, .. } => (None, Some(socket), None),
        Observation::Subscribed { channel, socket, .. }
        | Observation::Unsubscribed { channel, socket, .. }
        | Observation::Refused { channel, socket, .. } => (Some(channel), Some(socket), None),
        Observation::Granted { channel, socket, user, .. } | Observation::Whispered { channel, socket, user, .. } => {
            (Some(channel), Some(socket), user)
        }
        Observation::Joined { channel, member } | Observation::Left { channel, member } => (Some(channel), None, Some(member.user())),
        Observation::Published { event, .. } => (Some(event.channel), None, None),
        Observation::CacheMiss { channel } => (Some(channel), None, None),
    }
}

/// How many entries of each group there were in the present second.
#[derive(Debug, Default)]
struct Pace {
    second: u64,
    used: [u32; Group::ALL.len()],
}

impl Pace {
    fn takes(&mut self, second: u64, group: Group) -> bool {
        if self.second != second {
            *self = Self { second, used: [0; Group::ALL.len()] };
        }
        let used = &mut self.used[group as usize];
        *used += 1;
        *used <= RATE
    }
}

/// What waits for a page.
#[derive(Debug, Default)]
struct Waiting {
    pace: Pace,
    entries: VecDeque<Arc<Entry>>,
    seen: u64,
    missed: u64,
}

/// An open page.
#[derive(Debug)]
struct Watcher {
    filter: Filter,
    waiting: Mutex<Waiting>,
}

impl Watcher {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }
}

/// What was kept for pages that come later.
#[derive(Debug, Default)]
struct Kept {
    pace: Pace,
    entries: VecDeque<(Group, Arc<Entry>)>,
}

/// What a page has not seen yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// All that fits its filter.
    pub(super) seen: u64,
    /// What of it was dropped because the page did not fetch it.
    pub(super) missed: u64,
    pub(super) entries: Vec<Arc<Entry>>,
}

/// What happens in the hub, for open pages.
pub(super) struct Feed {
    hub: Arc<Hub<Client>>,
    started: Instant,
    next: AtomicU64,
    watchers: ArcSwap<Vec<Arc<Watcher>>>,
    /// This very feed, as the hub knows it while there is a page.
    attached: Mutex<Option<Arc<dyn Observer>>>,
    kept: Mutex<Kept>,
    /// The present second, and the events without a subscriber that were read in it.
    unheard: AtomicU64,
    looks: Mutex<HashMap<String, (Instant, Option<Near>)>>,
}

/// A page's place in the feed; it ends with the value.
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
            attached: Mutex::default(),
            kept: Mutex::default(),
            unheard: AtomicU64::new(0),
            looks: Mutex::default(),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    fn second(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Opens a page, which first gets what was kept; `None` when there are too many.
    pub(super) fn watch(self: &Arc<Self>, filter: Filter) -> Option<Watch> {
        filter.refresh(&self.hub);
        let mut attached = self.attached.lock();
        let mut watchers = Vec::clone(&self.watchers.load());
        if watchers.len() >= MAX_WATCHERS {
            return None;
        }
        let kept: VecDeque<_> =
            self.kept().entries.iter().filter(|kept| filter.takes_kept(kept)).map(|(_, entry)| Arc::clone(entry)).collect();
        let waiting = Mutex::new(Waiting { entries: kept, ..Waiting::default() });
        let watcher = Arc::new(Watcher { filter, waiting });
        watchers.push(Arc::clone(&watcher));
        self.watchers.store(Arc::new(watchers));
        if attached.is_none() {
            let observer: Arc<dyn Observer> = Arc::clone(self) as Arc<dyn Observer>;
            self.hub.attach(&observer);
            *attached = Some(observer);
        }
        Some(Watch { feed: Arc::clone(self), watcher })
    }

    /// What was kept of a channel, or of all, oldest first.
    pub(super) fn recent(&self, channel: Option<&str>) -> Vec<Arc<Entry>> {
        let kept = self.kept();
        let is_it = |entry: &Arc<Entry>| channel.is_none() || entry.channel.as_deref() == channel;
        kept.entries.iter().map(|(_, entry)| entry).filter(|entry| is_it(entry)).cloned().collect()
    }

    /// Whether a page is open, so that entries are kept.
    pub(super) fn is_watching(&self) -> bool {
        !self.watchers.load().is_empty()
    }

    /// Looks for channels of nearly the same name as those of events that found nobody.
    fn look(&self, entries: &[Arc<Entry>]) {
        let mut looks = self.looks.lock();
        let mut left = MAX_LOOKS;
        for entry in entries.iter().filter(|entry| entry.delivered == Some(0) && !entry.has_left_out) {
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

impl Observer for Feed {
    fn observe(&self, observation: &Observation<'_>) {
        let (group, second) = (Group::of(observation), self.second());
        let mut made: Option<Arc<Entry>> = None;
        let make = || Arc::new(Entry::new(self.next.fetch_add(1, Ordering::Relaxed), observation));
        for watcher in self.watchers.load().iter() {
            if !watcher.filter.takes(observation, group) {
                continue;
            }
            let mut waiting = watcher.waiting();
            waiting.seen += 1;
            if !waiting.pace.takes(second, group) {
                continue;
            }
            if waiting.entries.len() >= MAX_QUEUE {
                waiting.missed += 1;
                continue;
            }
            waiting.entries.push_back(Arc::clone(made.get_or_insert_with(make)));
        }
        let mut kept = self.kept();
        if kept.pace.takes(second, group) {
            if kept.entries.len() >= MAX_KEPT {
                kept.entries.pop_front();
            }
            kept.entries.push_back((group, made.unwrap_or_else(make)));
        }
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
        let is_it = |watcher: &Arc<Watcher>| matches!(&watcher.filter.channel, Some(NameFilter::Whole(name)) if name == channel);
        self.watchers.load().iter().any(is_it)
    }
}

impl Watch {
    /// Takes what the page has not seen yet.
    pub(super) fn take(&self) -> Batch {
        let mut waiting = self.watcher.waiting();
        let batch = Batch {
            seen: std::mem::take(&mut waiting.seen),
            missed: std::mem::take(&mut waiting.missed),
            entries: std::mem::take(&mut waiting.entries).into(),
        };
        drop(waiting);
        self.feed.look(&batch.entries);
        batch
    }

    /// Looks up anew what belongs to the user or socket of the filter.
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
            && let Some(observer) = attached.take()
        {
            self.feed.hub.detach(&observer);
        }
        self.feed.watchers.store(Arc::new(watchers));
    }
}
