//! On this node, or through Redis to all nodes? The one place that decides it; [`crate::cluster`] has the contract.
//!
//! Input: events of the HTTP API and of the built-in Redis endpoint, whispers, and messages between nodes. Output: the same events
//! to the clients of every node, each once. Presence channels among nodes are in [`presence`](super::presence).

use std::sync::{Arc, OnceLock};

use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::rules::Rule;
use super::{Hub, Socket};
use crate::cluster::control::{DashboardNote, Message};
use crate::cluster::{Bus, BusError, Reach};
use crate::event::Event;
use crate::metrics::Source;

/// What a hub has in addition when there are other nodes.
pub(super) struct Nodes {
    pub(super) bus: Bus,
    /// Receives the notes of other dashboards, if there is a dashboard here.
    dashboard: OnceLock<mpsc::Sender<DashboardNote>>,
}

/// Notes of other dashboards that may wait; further ones are dropped.
const MAX_NOTES: usize = 256;

impl Nodes {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, dashboard: OnceLock::new() }
    }

    pub(super) fn hear_dashboard(&self, to: Option<u64>, note: DashboardNote) {
        let own = self.bus.node_id();
        if note.from != own
            && to.is_none_or(|to| to == own)
            && let Some(dashboard) = self.dashboard.get()
        {
            let _ = dashboard.try_send(note);
        }
    }
}

impl<S: Socket> Hub<S> {
    /// Starts to send to the other nodes; ends when the hub closes. A single node has no one to send to.
    pub fn run_bus(self: &Arc<Self>) {
        self.run_handover();
        if self.nodes.is_some() {
            let hub = Arc::clone(self);
            self.tasks.spawn(async move {
                if let Some(nodes) = &hub.nodes {
                    let run = nodes.bus.run(|event, is_whisper| hub.deliver_here(event, is_whisper));
                    hub.closing.run_until_cancelled(run).await;
                }
            });
            let hub = Arc::clone(self);
            self.tasks.spawn(async move { hub.closing.run_until_cancelled(hub.keep_watch()).await });
        }
    }

    /// The notes of other nodes' dashboards from now on; for one listener, and `None` for a single node.
    #[must_use]
    pub fn hear_dashboards(&self) -> Option<mpsc::Receiver<DashboardNote>> {
        let (sender, notes) = mpsc::channel(MAX_NOTES);
        self.nodes.as_ref()?.dashboard.set(sender).ok()?;
        Some(notes)
    }

    /// Sends a note to the dashboards of all other nodes, or to that of one.
    pub fn tell_dashboards(&self, to: Option<u64>, note: Box<RawValue>) {
        self.tell_others(|from| Message::Dashboard { to, note: DashboardNote { from, note } });
    }

    /// Sends the other nodes a message, made with the number of this one. A node that is alone has no one to tell.
    pub(super) fn tell_others(&self, message: impl FnOnce(u64) -> Message) {
        if let Some(nodes) = &self.nodes {
            nodes.bus.send_control(&message(nodes.bus.node_id()));
        }
    }

    /// Sends all nodes a message, which this one receives as the others do. A node that is alone acts on it at once, by `here`.
    pub(super) fn tell_all(&self, message: impl FnOnce() -> Message, here: impl FnOnce()) {
        match &self.nodes {
            Some(nodes) => nodes.bus.send_control(&message()),
            None => here(),
        }
    }

    /// Sends a whisper to the others in its channel, on every node. Returns `false` if it is dropped, because Redis does not keep up.
    pub(super) fn relay(self: &Arc<Self>, whisper: &Event<'_>, rule: &Rule<'_>) -> bool {
        match &self.nodes {
            Some(nodes) => nodes.bus.try_publish(whisper),
            None => {
                self.send(whisper, rule, false);
                true
            }
        }
    }

    /// Publishes a payload on channels (without prefix) as it came: a node that is alone receives it at once, by `here`. Returns
    /// how many received it: sockets, or in a cluster clients of its Redis.
    ///
    /// # Errors
    /// [`BusError`] when the Redis of the cluster did not take it, or it is unknown whether it did.
    pub async fn forward(&self, channels: &[&str], payload: &[u8], here: impl Fn(&str) -> usize) -> Result<usize, BusError> {
        match &self.nodes {
            // Boxed, so that connections of single servers, which are most of them, do not carry this future.
            Some(nodes) => Box::pin(nodes.bus.forward(channels, payload)).await,
            None => Ok(channels.iter().map(|channel| here(channel)).sum()),
        }
    }

    /// Sends events to the subscribers of their channels on every node, or only on this one while Redis is unreachable: all of
    /// them or none, as far as [`Bus::publish`] can.
    ///
    /// # Errors
    /// [`BusError`] when Redis was lost meanwhile, so that it is unknown whether they were sent.
    pub async fn publish_everywhere(self: &Arc<Self>, events: &[Event<'_>], source: Source) -> Result<Reach, BusError> {
        match &self.nodes {
            Some(nodes) => nodes.bus.publish(events).await,
            None => {
                for event in events {
                    self.publish(event, source);
                }
                Ok(Reach::Everywhere)
            }
        }
    }

    /// Sends this node's clients an event that Redis could not take.
    fn deliver_here(self: &Arc<Self>, event: &Event<'_>, is_whisper: bool) {
        if is_whisper {
            self.send(event, &self.rules.load().of(event.channel), false);
        } else {
            self.publish(event, Source::Http);
        }
    }
}
