//! Events on their way out: which sockets they reach, and what happens to slow clients.
//!
//! Input: events of every ingress, and messages from Redis that may not be events. Output: [`Push`]es to the sockets in the
//! channel, counts, and a warning when a channel with nearly the same name has subscribers.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use tracing::info;

use super::Hub;
use super::hints::Hints;
use super::recovery::Recovery;
use super::rooms::Snapshot;
use super::rules::Rule;
use super::whisper::is_whisper;
use super::{Dialect, Message, Observation, Push, PushError, Socket};
use crate::channel::{ChannelKind, ChannelName};
use crate::config::Deliver;
use crate::event::{CloseReason, Event, Origin, SocketId};
use crate::metrics::{Outcome, Source};
use crate::warn_throttled;

/// Maximum number of names that are compared to find a hint.
const MAX_COMPARED: usize = 10_000;

/// Up to this many sockets are written to at once: a task would cost more than their system calls.
const FLUSHED_AT_ONCE: usize = 4;

/// Maximum number of sockets that one task writes to, so that it yields after some 500 microseconds.
const FLUSHED_TOGETHER: usize = 128;

/// How many sockets an event reached.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reached {
    /// Those that it was queued for.
    pub(super) delivered: usize,
    /// Those that it was dropped for, because they do not keep up.
    pub(super) dropped: usize,
}

/// The outcome of queueing an event for many sockets.
pub(super) struct FanOut<S> {
    reached: Reached,
    /// Those of them that need [`Socket::flush`].
    deferred: Vec<S>,
    /// Sockets whose queue is full.
    slow: Vec<S>,
}

impl<S> Default for FanOut<S> {
    fn default() -> Self {
        Self { reached: Reached::default(), deferred: Vec::new(), slow: Vec::new() }
    }
}

impl<S: Socket> FanOut<S> {
    /// Queues a push for these sockets but `except`.
    fn push(&mut self, receivers: &Snapshot<S>, push: &Push<'_>, except: Option<SocketId>) {
        for (id, socket) in receivers.iter() {
            if Some(id) == except {
                continue;
            }
            let outcome = socket.defer(push);
            self.reached.delivered += usize::from(outcome.is_ok());
            self.reached.dropped += usize::from(matches!(outcome, Err(PushError::Full | PushError::Dropped)));
            self.queued(socket, outcome);
        }
    }

    /// Queues several pushes for one socket. They do not count as delivered.
    pub(super) fn push_all(&mut self, socket: &S, pushes: &[&Push<'_>]) {
        if !pushes.is_empty() {
            self.queued(socket, socket.defer_all(pushes));
        }
    }

    /// Notes what is left to do for a socket.
    fn queued(&mut self, socket: &S, outcome: Result<bool, PushError>) {
        match outcome {
            Ok(true) => self.deferred.push(socket.clone()),
            Err(PushError::Full) => self.slow.push(socket.clone()),
            Ok(false) | Err(PushError::Closed | PushError::Dropped) => {}
        }
    }
}

/// Writes to these sockets: at once if they are few, else in tasks of their own, so that no publisher waits for the kernel.
fn flush<S: Socket>(mut sockets: Vec<S>) {
    if sockets.len() <= FLUSHED_AT_ONCE {
        return sockets.iter().for_each(S::flush);
    }
    while !sockets.is_empty() {
        let rest = sockets.split_off(sockets.len().min(FLUSHED_TOGETHER));
        let some = std::mem::replace(&mut sockets, rest);
        tokio::spawn(async move { some.iter().for_each(S::flush) });
    }
}

impl<S: Socket> Hub<S> {
    /// Sends an event to the subscribers of its channel. Returns how many sockets it was queued for.
    ///
    /// Events of one channel arrive in the order of these calls; it never waits for a client.
    pub fn publish<'a>(self: &Arc<Self>, event: &Event<'a>, source: Source) -> usize {
        let Ok(delivered) = self.receive(event.channel, source, || Ok::<_, Infallible>((event, Origin::Application)));
        delivered
    }

    /// Like [`Self::publish`], for a message from which `read` makes an event and its origin. A message that no client here
    /// needs is not parsed, except for a sample: most are meant for other nodes.
    ///
    /// # Errors
    /// The error of `read`, for a message that is not an event.
    pub fn receive<'a, T: Borrow<Event<'a>>, E>(
        self: &Arc<Self>,
        channel: &str,
        source: Source,
        read: impl FnOnce() -> Result<(T, Origin), E>,
    ) -> Result<usize, E> {
        let mut is_counted = false;
        let received = self.take_up(channel, source, read, &mut is_counted);
        // Whatever the outcome: the other nodes count it too.
        if let Some(recovery) = self.recovery.as_ref().filter(|_| source == Source::Redis && !is_counted && self.shares_sessions()) {
            recovery.history().epochs.count();
        }
        received
    }

    fn take_up<'a, T: Borrow<Event<'a>>, E>(
        self: &Arc<Self>,
        channel: &str,
        source: Source,
        read: impl FnOnce() -> Result<(T, Origin), E>,
        is_counted: &mut bool,
    ) -> Result<usize, E> {
        let rules = self.rules.load();
        let rule = rules.of(channel);
        let (has_audience, is_waited_for) = self.wanted_by(&rule, channel);
        let is_sample = !has_audience && self.hints.is_due(channel);
        let is_kept = self.cache.keeps(channel);
        let is_wanted = has_audience || is_waited_for || rule.has_last();
        let is_watched = || self.options.dev_mode || self.observers.want_unheard_in(channel);
        if !is_wanted && !is_sample && !is_kept && !is_watched() && !self.follows(channel) {
            self.metrics.event(source, Outcome::NoSubscribers);
            return Ok(0);
        }
        let (event, origin) = read()?;
        let event = event.borrow();
        if matches!(origin, Origin::Presence(version) if self.apply_change(event, version)) {
            return Ok(0);
        }
        if is_sample {
            self.hint(channel);
        }
        if !is_whisper(&event.name) {
            self.twice.see(event, source == Source::Http || origin == Origin::Http);
        }
        if is_kept && !is_whisper(&event.name) {
            self.cache.put(channel, &event.name, event.data);
        }
        if self.options.dev_mode {
            info!("Channel: {channel}");
            info!("Event: {}", event.name);
        }
        *is_counted = is_wanted;
        let Reached { delivered, dropped } = if is_wanted { self.send(event, &rule, source == Source::Redis) } else { Reached::default() };
        if delivered > 0 {
            self.metrics.deliveries.inc_by(delivered as u64);
        }
        self.metrics.event(source, if delivered + dropped == 0 { Outcome::NoSubscribers } else { Outcome::Delivered });
        self.observers.tell(|| {
            let is_in = |except| self.session(except).is_some_and(|session| session.is_in(channel));
            Observation::Published { event, source, delivered, dropped, has_left_out: event.except.is_some_and(is_in) }
        });
        Ok(delivered)
    }

    /// Sends an event to the sockets in its channel, and in flat mode to all sockets, and keeps it for clients that resume.
    /// `is_heard_by_all`: other nodes receive it at the same position.
    pub(super) fn send(self: &Arc<Self>, event: &Event<'_>, rule: &Rule<'_>, is_heard_by_all: bool) -> Reached {
        let channel = event.channel;
        let is_stamped = rule.stamps() && is_whisper(&event.name);
        let mut fan_out = FanOut::default();
        {
            let mut last = self.last_for(rule, &event.name);
            let mut history = self.recovery.as_ref().map(Recovery::history);
            // The history has one order for all channels.
            let _order = history.is_none().then(|| self.rooms.order(channel));
            if rule.kind() == ChannelKind::Presence {
                // Joins and leaves before the event are told before it.
                self.queue_batch(channel, &mut fan_out);
            }
            if let Some(history) = &mut history {
                if !is_heard_by_all {
                    history.epochs.go_alone();
                }
                history.epochs.count();
            }
            // Under the lock: a client that resumes meanwhile is in this audience, or finds the event in the history.
            let in_channel = self.rooms.snapshot(channel);
            let everyone = rule.is_flat.then(|| self.everyone.read().snapshot());
            let audiences = [(in_channel, false)].into_iter().chain(everyone.map(|everyone| (Some(everyone), true)));
            for (receivers, is_flat) in audiences {
                let (name, user) = (&*event.name, event.user.as_deref());
                let mut push = Push::new(Message::Event { channel, name, data: event.data, user, is_stamped, is_flat });
                push.keep = rule.keep(|| self.hasher.hash_one((channel, name, is_flat)));
                if let Some(history) = &mut history {
                    push.offset = Some(history.epochs.place(is_flat));
                    // Only events that must all be delivered: those of which the newest counts, or none, would push them out.
                    if rule.behaviour.deliver == Deliver::All
                        && let Some(frame) = push.encoded(Dialect::Recoverable, S::recoverable)
                    {
                        history.keep(channel, is_flat, event.except, frame);
                    }
                }
                if let Some(last) = last.as_mut().filter(|_| !is_flat) {
                    last.put(event, rule, history.as_ref().map_or(0, |history| history.epochs.number() - 1));
                }
                if let Some(receivers) = receivers {
                    fan_out.push(&receivers, &push, event.except);
                }
            }
        }
        self.finish(fan_out)
    }

    /// A message is not sent to anyone: it is not an event, or its name cannot be one. Its channel is known, unless that cannot be read.
    pub fn drop_message(&self, channel: Option<&str>, source: Source, why: &dyn std::fmt::Display) {
        self.metrics.event(source, Outcome::Malformed);
        self.tell_dropped(channel, source, why);
    }

    /// Tells the observers why a message is not sent to anyone.
    pub fn tell_dropped(&self, channel: Option<&str>, source: Source, why: &dyn std::fmt::Display) {
        if self.observers.has_any() {
            let why = why.to_string();
            self.observers.tell(|| Observation::Dropped { channel, source, why: &why });
        }
    }

    /// Whether events of a channel are sent to any socket, and otherwise whether a client may resume that needs them.
    fn wanted_by(&self, rule: &Rule<'_>, channel: &str) -> (bool, bool) {
        if self.has_audience(rule, channel) {
            return (true, false);
        }
        let Some(recovery) = &self.recovery else { return (false, false) };
        // Again, under the lock: no client resumes between the two checks, and a session that disconnects is saved before it leaves.
        let _history = recovery.history();
        let has_audience = self.has_audience(rule, channel);
        (has_audience, !has_audience && recovery.is_waited_for())
    }

    /// Whether events of a channel are sent to any socket.
    fn has_audience(&self, rule: &Rule<'_>, channel: &str) -> bool {
        self.rooms.count(channel) > 0 || rule.is_flat && self.everyone.read().len() > 0
    }

    /// An event found no subscriber: warns when a channel with nearly the same name has some.
    fn hint(&self, channel: &str) {
        self.hints.say(channel, self.near(channel).iter().map(ChannelName::as_str));
    }

    /// Channels with subscribers that have nearly the same name.
    pub(super) fn near(&self, channel: &str) -> Vec<ChannelName> {
        // Clients may make up any number of names, and a hint is not worth delaying events.
        let mut left = MAX_COMPARED;
        let near = self.rooms.channels(|name| {
            left = left.saturating_sub(1);
            left > 0 && Hints::is_near(channel, name.as_str())
        });
        near.into_iter().map(|(name, _)| name).collect()
    }

    /// Queues a push for all sockets in a channel but `except`.
    pub(super) fn fan_out(self: &Arc<Self>, channel: &str, push: &Push<'_>, except: Option<SocketId>) {
        let Some(snapshot) = self.rooms.snapshot(channel) else { return };
        let mut fan_out = FanOut::default();
        fan_out.push(&snapshot, push, except);
        self.finish(fan_out);
    }

    /// Writes what was queued, and closes clients whose queue is full. Returns how many sockets the event reached.
    pub(super) fn finish(self: &Arc<Self>, fan_out: FanOut<S>) -> Reached {
        let FanOut { reached, deferred, slow } = fan_out;
        flush(deferred);
        for socket in slow {
            self.evict(socket.id(), &socket);
        }
        reached
    }

    /// Queues a push for one socket.
    pub(super) fn emit(self: &Arc<Self>, socket: &S, push: &Push<'_>) {
        if socket.push(push) == Err(PushError::Full) {
            self.evict(socket.id(), socket);
        }
    }

    /// Closes a client that has missed something, so that it reconnects and starts a new session.
    pub(super) fn evict(self: &Arc<Self>, id: SocketId, socket: &S) {
        self.metrics.slow_clients.inc();
        let limits = self.limits.load();
        let (queue, bytes) = (limits.client_queue, limits.client_queue_bytes);
        warn_throttled!(class = 0, key = &id, socket_id = %id, queue, bytes, "closed a client that does not keep up; it will reconnect");
        self.end(socket, CloseReason::TooSlow);
        socket.close();
    }
}
