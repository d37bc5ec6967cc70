//! The channels that sockets of this node want, for `subscribers.redisMode = "exact"`, where this node subscribes to single
//! channels in Redis.
//!
//! Input: a socket wants a channel from its subscribe until it leaves. Output: [`Change`]s for the Redis ingress, in batches. A
//! socket that joins can wait until Redis has confirmed the subscription. A channel that no socket wants any more is kept for a
//! while, so that loading the next page costs nothing.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::channel::{ChannelName, Pattern};
use crate::cluster::control::CONTROL_CHANNEL;

/// Channels per command: enough that round trips do not matter, few enough that Redis serves others in between.
const BATCH: usize = 1000;

/// How long a channel that no socket wants is kept: a page with all its scripts loads faster.
const KEEP: Duration = Duration::from_secs(10);

/// The channels that are wanted, and their state in Redis.
#[derive(Debug)]
pub struct InterestSet {
    flat: Vec<Pattern>,
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// While disconnected, no socket waits, nothing is requested and no idle channel is kept.
    is_connected: bool,
    channels: HashMap<ChannelName, Topic>,
    queue: VecDeque<ChannelName>,
    /// Channels that no socket wants, and when they are given up; in the order of time.
    idle: VecDeque<(Instant, ChannelName)>,
}

#[derive(Debug)]
struct Topic {
    interest: Weak<Interest>,
    state: TopicState,
    /// Told when the subscription is confirmed.
    waiting: Vec<oneshot::Sender<()>>,
    idle_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TopicState {
    /// To be subscribed to.
    Queued,
    /// Requested from Redis.
    Asked,
    /// Confirmed by Redis.
    Heard,
}

/// Keeps a channel wanted for as long as it lives; shared by all sockets that want the channel.
#[derive(Debug)]
pub(super) struct Interest {
    channel: ChannelName,
    interests: Arc<InterestSet>,
}

/// What to request from Redis next: first what is given up, then what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// To be unsubscribed from.
    pub given_up: Vec<ChannelName>,
    /// To be subscribed to. Call [`InterestSet::heard`] when Redis has confirmed it.
    pub wanted: Vec<ChannelName>,
}

impl Change {
    /// Whether there is nothing to request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.given_up.is_empty() && self.wanted.is_empty()
    }
}

impl InterestSet {
    /// No channel is wanted yet. Channels that match `flat` are always subscribed to, and so is the [`CONTROL_CHANNEL`] of the nodes.
    #[must_use]
    pub fn new(flat: Vec<Pattern>) -> Arc<Self> {
        Arc::new(Self { flat, table: Mutex::default(), changed: Notify::new() })
    }

    /// Patterns of channels that are always subscribed to: their events go to all sockets, or are kept.
    #[must_use]
    pub fn flat(&self) -> &[Pattern] {
        &self.flat
    }

    /// The index of the first pattern in [`Self::flat`] that the channel matches.
    #[must_use]
    pub fn flat_of(&self, channel: &str) -> Option<usize> {
        self.flat.iter().position(|pattern| pattern.matches(channel))
    }

    /// A socket wants the channel; `None` when it is always subscribed to.
    pub(super) fn declare(self: &Arc<Self>, channel: &ChannelName) -> Option<Arc<Interest>> {
        if channel.as_str() == CONTROL_CHANNEL || self.flat_of(channel.as_str()).is_some() {
            return None;
        }
        let mut table = self.table.lock();
        let Table { is_connected, channels, queue, .. } = &mut *table;
        let fresh = || Arc::new(Interest { channel: channel.clone(), interests: Arc::clone(self) });
        match channels.entry(channel.clone()) {
            Entry::Occupied(mut entry) => {
                let topic = entry.get_mut();
                Some(topic.interest.upgrade().unwrap_or_else(|| {
                    let interest = fresh();
                    (topic.interest, topic.idle_until) = (Arc::downgrade(&interest), None);
                    interest
                }))
            }
            Entry::Vacant(entry) => {
                let interest = fresh();
                let interest_by = Arc::downgrade(&interest);
                entry.insert(Topic { interest: interest_by, state: TopicState::Queued, waiting: Vec::new(), idle_until: None });
                if *is_connected {
                    queue.push_back(channel.clone());
                    self.changed.notify_one();
                }
                Some(interest)
            }
        }
    }

    /// Resolves when the subscription is confirmed, or Redis is lost. `None`: there is nothing to wait for.
    pub(super) fn pending(&self, channel: &str) -> Option<oneshot::Receiver<()>> {
        let mut table = self.table.lock();
        if !table.is_connected {
            return None;
        }
        let topic = table.channels.get_mut(channel).filter(|topic| topic.state != TopicState::Heard)?;
        let (heard, waiting) = oneshot::channel();
        topic.waiting.push(heard);
        Some(waiting)
    }

    /// The last socket that wanted the channel is gone.
    fn give_up(&self, channel: &ChannelName) {
        let mut table = self.table.lock();
        let Table { is_connected, channels, idle, .. } = &mut *table;
        let Some(topic) = channels.get_mut(channel).filter(|topic| topic.interest.strong_count() == 0) else {
            // A socket wants it again, or the table was reset.
            return;
        };
        if !*is_connected {
            channels.remove(channel);
            return;
        }
        let until = Instant::now() + KEEP;
        topic.idle_until = Some(until);
        if idle.is_empty() {
            self.changed.notify_one();
        }
        idle.push_back((until, channel.clone()));
    }

    /// There is a new connection to Redis, which has no subscriptions.
    pub fn connected(&self) {
        let mut table = self.table.lock();
        table.forget();
        table.is_connected = true;
        table.queue = table.channels.keys().cloned().collect();
    }

    /// The connection is lost. No socket waits any more: one that joins meanwhile receives events when Redis is back.
    pub fn lost(&self) {
        let mut table = self.table.lock();
        table.forget();
        table.is_connected = false;
    }

    /// What to request from Redis now.
    #[must_use]
    pub fn take(&self) -> Change {
        self.table.lock().take()
    }

    /// Waits until there is something to request.
    pub async fn next(&self) -> Change {
        loop {
            let next_idle = {
                let mut table = self.table.lock();
                let change = table.take();
                if !change.is_empty() {
                    return change;
                }
                table.idle.front().map(|(until, _)| *until)
            };
            match next_idle {
                Some(until) => tokio::select! { () = sleep_until(until) => {}, () = self.changed.notified() => {} },
                None => self.changed.notified().await,
            }
        }
    }

    /// Redis has confirmed the subscriptions to these channels.
    pub fn heard(&self, channels: &[ChannelName]) {
        let mut table = self.table.lock();
        for channel in channels {
            if let Some(topic) = table.channels.get_mut(channel) {
                topic.state = TopicState::Heard;
                for waiting in std::mem::take(&mut topic.waiting) {
                    // The socket that waited may be gone.
                    let _ = waiting.send(());
                }
            }
        }
    }
}

impl Table {
    /// Resets to the channels that are wanted, none of which is subscribed to.
    fn forget(&mut self) {
        self.channels.retain(|_, topic| topic.interest.strong_count() > 0);
        for topic in self.channels.values_mut() {
            topic.state = TopicState::Queued;
            topic.waiting = Vec::new();
            topic.idle_until = None;
        }
        self.queue.clear();
        self.idle.clear();
    }

    fn take(&mut self) -> Change {
        let mut change = Change::default();
        let now = Instant::now();
        while change.given_up.len() < BATCH {
            let Some((until, channel)) = self.idle.pop_front_if(|(until, _)| *until <= now) else { break };
            // A channel that was wanted again meanwhile has another time, or none.
            if self.channels.get(&channel).is_some_and(|topic| topic.idle_until == Some(until)) {
                self.channels.remove(&channel);
                change.given_up.push(channel);
            }
        }
        while change.wanted.len() < BATCH {
            let Some(channel) = self.queue.pop_front() else { break };
            if let Some(topic) = self.channels.get_mut(&channel)
                && topic.state == TopicState::Queued
            {
                topic.state = TopicState::Asked;
                change.wanted.push(channel);
            }
        }
        change
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.interests.give_up(&self.channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> Arc<InterestSet> {
        let interests = InterestSet::new(vec![Pattern::new("flat.*")]);
        interests.connected();
        interests
    }

    fn names(names: &[&str]) -> Vec<ChannelName> {
        names.iter().map(|&name| name.into()).collect()
    }

    fn change(given_up: &[&str], wanted: &[&str]) -> Change {
        Change { given_up: names(given_up), wanted: names(wanted) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_is_asked_for_once_and_given_up_a_while_after_the_last() {
        let interests = connected();
        let (first, second) = (interests.declare(&"news".into()), interests.declare(&"news".into()));
        assert_eq!(interests.next().await, change(&[], &["news"]));
        interests.heard(&names(&["news"]));
        drop(first);
        assert_eq!(interests.take(), Change::default());
        drop(second);
        let started = Instant::now();
        assert_eq!(interests.next().await, change(&["news"], &[]));
        assert_eq!(started.elapsed().as_secs(), KEEP.as_secs());
        let _again = interests.declare(&"news".into());
        assert_eq!(interests.next().await, change(&[], &["news"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_change_costs_nothing() {
        let interests = connected();
        let other = interests.declare(&"other".into());
        for _ in 0..5 {
            let page = interests.declare(&"news".into());
            let _ = interests.take();
            tokio::time::advance(KEEP * 2).await;
            drop(page);
            tokio::time::advance(KEEP / 2).await;
            assert_eq!(interests.take(), Change::default());
        }
        drop(other);
        tokio::time::advance(KEEP / 2).await;
        assert_eq!(interests.take(), change(&["news"], &[]));
        tokio::time::advance(KEEP / 2).await;
        assert_eq!(interests.take(), change(&["other"], &[]));
    }

    #[tokio::test]
    async fn who_joins_waits_until_the_channel_is_heard() {
        let interests = connected();
        let _want = interests.declare(&"news".into());
        let mut waiting = interests.pending("news").expect("Redis was not asked yet");
        let change = interests.take();
        assert!(interests.pending("news").is_some());
        assert!(waiting.try_recv().is_err());
        interests.heard(&change.wanted);
        waiting.await.expect("it is heard");
        assert!(interests.pending("news").is_none());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_redis_that_is_away() {
        let interests = connected();
        let _want = interests.declare(&"news".into());
        let waiting = interests.pending("news").expect("it is not heard yet");
        interests.lost();
        assert!(waiting.await.is_err());
        assert!(interests.pending("news").is_none());
        // A channel that is no longer wanted meanwhile is not remembered.
        drop(interests.declare(&"short".into()));
        interests.connected();
        assert_eq!(interests.take(), change(&[], &["news"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_is_asked_for_everything_that_is_wanted() {
        let interests = connected();
        let _kept: Vec<_> = (0..BATCH * 2 + 1).map(|n| interests.declare(&n.to_string().into())).collect();
        drop(interests.declare(&"idle".into()));
        for _ in 0..2 {
            let mut asked = 0;
            loop {
                let change = interests.take();
                assert!(change.given_up.is_empty() && change.wanted.len() <= BATCH);
                if change.is_empty() {
                    break;
                }
                asked += change.wanted.iter().filter(|channel| channel.as_str() != "idle").count();
                interests.heard(&change.wanted);
            }
            assert_eq!(asked, BATCH * 2 + 1);
            interests.lost();
            interests.connected();
        }
    }

    #[tokio::test]
    async fn what_is_heard_in_any_case_is_not_asked_for() {
        let interests = connected();
        assert!(interests.declare(&"flat.news".into()).is_none());
        assert!(interests.declare(&CONTROL_CHANNEL.into()).is_none());
        assert!(interests.pending("flat.news").is_none());
        assert_eq!(interests.take(), Change::default());
    }
}
