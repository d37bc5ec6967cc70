//! The last events of channels whose rule says `last`, for new subscribers; and of those with `deliver = "latest"`, for clients
//! that resume.
//!
//! Input: events as they are sent. Output: the same, oldest first. Whispers are not kept: what a client says is for those who
//! are there. With several nodes each keeps what it receives.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::MutexGuard;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::history::History;
use super::rules::Rule;
use super::session::Session;
use super::whisper::is_whisper;
use super::{Hub, Message, Push, Socket};
use crate::channel::ChannelName;
use crate::config::Deliver;
use crate::event::{Event, SocketId};

/// Maximum bytes of all events that are kept; beyond this, the oldest are dropped.
const MAX_BYTES: usize = 64_000_000;

/// Estimated bytes of an event besides its name and data, including its share of its channel.
const EVENT_BYTES: usize = 256;

/// Maximum number of names whose newest event is kept, per channel with `deliver = "latest"`.
const MAX_NAMES: usize = 100;

/// How often expired events are searched in all channels: a channel that receives nothing any more would keep them.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// An event that is kept.
#[derive(Debug, Clone)]
struct Kept {
    /// Its position among all that are kept.
    serial: u64,
    /// Its number in the history.
    number: u64,
    name: Arc<str>,
    data: Arc<RawValue>,
    user: Option<Arc<str>>,
    except: Option<SocketId>,
    ends: Instant,
}

impl Kept {
    fn bytes(&self) -> usize {
        EVENT_BYTES + self.name.len() + self.data.get().len()
    }

    fn message<'a>(&'a self, channel: &'a str, is_stamped: bool) -> Message<'a> {
        let user = self.user.as_deref();
        Message::Event { channel, name: &self.name, data: &self.data, user, is_stamped, is_flat: false }
    }
}

/// The last events of all channels. Locked while one is sent and while a socket enters, so that no socket misses an event
/// between those that are kept and those that are sent.
#[derive(Debug)]
pub(super) struct LastEvents {
    channels: HashMap<ChannelName, VecDeque<Kept>>,
    /// The channel of each event, oldest first.
    order: BTreeMap<u64, ChannelName>,
    serial: u64,
    bytes: usize,
    max_bytes: usize,
    sweep_at: Instant,
}

impl Default for LastEvents {
    fn default() -> Self {
        Self {
            channels: HashMap::new(),
            order: BTreeMap::new(),
            serial: 0,
            bytes: 0,
            max_bytes: MAX_BYTES,
            sweep_at: Instant::now() + SWEEP_EVERY,
        }
    }
}

impl LastEvents {
    /// Keeps an event, as its rule says; `number` is its number in the history.
    pub(super) fn put(&mut self, event: &Event<'_>, rule: &Rule<'_>, number: u64) {
        let now = Instant::now();
        let is_latest = rule.behaviour.deliver == Deliver::Latest;
        if is_latest {
            self.take_out(event.channel, |kept| *kept.name == *event.name);
        }
        self.serial += 1;
        let kept = Kept {
            serial: self.serial,
            number,
            name: (&*event.name).into(),
            data: event.data.to_owned().into(),
            user: event.user.as_deref().map(Arc::from),
            except: event.except,
            ends: now + rule.behaviour.last_for,
        };
        self.bytes += kept.bytes();
        self.order.insert(kept.serial, event.channel.into());
        let events = self.channels.entry(event.channel.into()).or_default();
        events.push_back(kept);
        let most = if is_latest { rule.behaviour.last.max(MAX_NAMES) } else { rule.behaviour.last };
        let surplus = events.len().saturating_sub(most);
        for _ in 0..surplus {
            let oldest = self.channels.get(event.channel).and_then(|events| events.front()).map(|oldest| oldest.serial);
            self.take_out(event.channel, |kept| Some(kept.serial) == oldest);
        }
        while self.bytes > self.max_bytes {
            let Some((serial, channel)) = self.order.pop_first() else { break };
            self.take_out(channel.as_str(), |kept| kept.serial == serial);
        }
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP_EVERY;
            let over: Vec<_> = self.channels.iter().flat_map(|(name, events)| events.iter().map(move |kept| (name, kept))).collect();
            let over: Vec<_> =
                over.into_iter().filter(|(_, kept)| kept.ends <= now).map(|(name, kept)| (name.clone(), kept.serial)).collect();
            for (channel, serial) in over {
                self.take_out(channel.as_str(), |kept| kept.serial == serial);
            }
        }
    }

    /// Drops the first event of a channel for which `is_it` is true.
    fn take_out(&mut self, channel: &str, is_it: impl FnMut(&Kept) -> bool) {
        let Some(events) = self.channels.get_mut(channel) else { return };
        if let Some(kept) = events.iter().position(is_it).and_then(|at| events.remove(at)) {
            self.bytes -= kept.bytes();
            self.order.remove(&kept.serial);
        }
        if events.is_empty() {
            self.channels.remove(channel);
        }
    }

    /// Drops channels for which `is_kept` is false.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        let gone: Vec<_> = self.channels.keys().filter(|channel| !is_kept(channel.as_str())).cloned().collect();
        for channel in gone {
            while self.channels.contains_key(channel.as_str()) {
                self.take_out(channel.as_str(), |_| true);
            }
        }
    }

    fn of(&self, channel: &str) -> impl DoubleEndedIterator<Item = &Kept> {
        let now = Instant::now();
        self.channels.get(channel).into_iter().flatten().filter(move |kept| kept.ends > now)
    }
}

impl<S: Socket> Hub<S> {
    pub(super) fn last(&self) -> MutexGuard<'_, LastEvents> {
        self.last.lock()
    }

    /// Locked while an event of the channel is sent, if it is kept for new subscribers or for clients that resume.
    pub(super) fn last_for(&self, rule: &Rule<'_>, event: &str) -> Option<MutexGuard<'_, LastEvents>> {
        // Not whispers: with them, clients could push out the application's events.
        let is_kept = rule.has_last() || self.recovery.is_some() && rule.behaviour.deliver == Deliver::Latest;
        (is_kept && !is_whisper(event)).then(|| self.last())
    }

    /// Sends the last events of a channel to a socket that has just joined: as many of the newest as the rule says, and as fit
    /// in a quarter of the client's queue. Returns whether there was one.
    pub(super) fn show_last(self: &Arc<Self>, session: &Session<S>, rule: &Rule<'_>, channel: &str, last: &LastEvents) -> bool {
        let limits = self.limits.load();
        let most = rule.behaviour.last.min(usize::try_from(limits.client_queue / 4).unwrap_or(usize::MAX));
        let mut room = limits.client_queue_bytes / 4;
        let own = session.socket.id();
        let newest = last.of(channel).rev().filter(|kept| kept.except != Some(own));
        let fits = |kept: &&Kept| {
            let bytes = kept.bytes() as u64;
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        let events: Vec<&Kept> = newest.take(most).take_while(fits).collect();
        let history = self.recovery.as_ref().map(super::recovery::Recovery::history);
        for kept in events.iter().rev() {
            let mut push = Push::new(kept.message(channel, false));
            // With an offset, as all events have: that of the newest event, since events from before the subscribe do not count as missed.
            push.offset = history.as_ref().map(|history| history.epochs.newest());
            self.emit(&session.socket, &push);
        }
        !events.is_empty()
    }

    /// What a client that resumes gets of a channel with `deliver = "latest"`: the newest event of each name, if it is newer
    /// than `position`.
    pub(super) fn latest_since(&self, last: &LastEvents, history: &History, channel: &str, position: u64, socket: SocketId) -> Vec<Bytes> {
        let rules = self.rules.load();
        let rule = rules.of(channel);
        if rule.behaviour.deliver != Deliver::Latest {
            return Vec::new();
        }
        let missed = last.of(channel).filter(|kept| kept.number > position && kept.except != Some(socket));
        let frame =
            |kept: &Kept| S::recoverable(&kept.message(channel, rule.stamps() && is_whisper(&kept.name)), Some(history.epochs.newest()));
        missed.filter_map(frame).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::rules::Rules;
    use super::*;

    fn rules() -> Rules {
        let channels = json!([{ "pattern": "tick.*", "deliver": "latest", "last": 2 }, { "pattern": "*", "last": 3, "lastFor": "1m" }]);
        Rules::new(&serde_json::from_value(json!({ "channels": channels })).unwrap())
    }

    fn put(last: &mut LastEvents, rules: &Rules, channel: &str, name: &str, data: &str) {
        let data = RawValue::from_string(data.to_owned()).unwrap();
        let event = Event { channel, name: name.into(), data: &data, except: None, user: None };
        last.put(&event, &rules.of(channel), 0);
    }

    fn kept(last: &LastEvents, channel: &str) -> Vec<String> {
        last.of(channel).map(|kept| format!("{}={}", kept.name, kept.data.get())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_are_kept_for_their_time() {
        let (mut last, rules) = (LastEvents::default(), rules());
        for n in 0..5 {
            put(&mut last, &rules, "a", "sent", &n.to_string());
        }
        assert_eq!(kept(&last, "a"), ["sent=2", "sent=3", "sent=4"]);
        tokio::time::advance(Duration::from_secs(59)).await;
        put(&mut last, &rules, "a", "sent", "5");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(kept(&last, "a"), ["sent=5"]);
        tokio::time::advance(Duration::from_secs(60)).await;
        put(&mut last, &rules, "b", "sent", "1");
        assert_eq!((last.channels.len(), last.order.len(), last.bytes), (1, 1, EVENT_BYTES + 5), "what is over is forgotten");
        last.retain(|channel| channel != "b");
        assert_eq!((last.channels.len(), last.order.len(), last.bytes), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn of_each_name_one_where_the_newest_counts() {
        let (mut last, rules) = (LastEvents::default(), rules());
        for (name, data) in [("x", "1"), ("y", "2"), ("x", "3")] {
            put(&mut last, &rules, "tick.1", name, data);
        }
        assert_eq!(kept(&last, "tick.1"), ["y=2", "x=3"]);
        for n in 0..2 * MAX_NAMES {
            put(&mut last, &rules, "tick.1", &n.to_string(), "0");
        }
        assert_eq!(last.channels["tick.1"].len(), MAX_NAMES);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_its_bytes_the_oldest_go_whatever_their_channel() {
        let (mut last, rules) = (LastEvents { max_bytes: 10 * (EVENT_BYTES + 5), ..LastEvents::default() }, rules());
        for n in 0..9 {
            put(&mut last, &rules, &n.to_string(), "sent", "0");
        }
        put(&mut last, &rules, "0", "sent", "1");
        put(&mut last, &rules, "last", "sent", "0");
        assert_eq!((kept(&last, "0"), kept(&last, "1").len(), last.order.len()), (vec!["sent=1".to_owned()], 1, 10));
        put(&mut last, &rules, "large", "sent", &"1".repeat(20 * EVENT_BYTES));
        assert_eq!((last.channels.len(), last.bytes), (0, 0), "not even one that is too large by itself");
    }
}
