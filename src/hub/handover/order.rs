//! Keeps the nodes in step: all count the messages of Redis from the same one on, and a node that has just started is given what
//! the others received before.
//!
//! Input: this node's [`History`](crate::hub::history::History), and names and past events of other nodes. Output: the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::{HANDOVER_TIMEOUT, Handover, RETRY};
use crate::clock::{milliseconds, since_1970};
use crate::cluster::control::Message;
use crate::hub::recovery::Recovery;
use crate::hub::{Hub, Socket};

/// Polling interval while waiting for another node's past events, or for this node to catch up.
const LOOK: Duration = Duration::from_millis(20);
/// Maximum bytes of past events that a node gives to one that has just started.
const MAX_PAST_BYTES: usize = 16_000_000;
/// How long a client waits for a node that is behind its offset: Redis does not deliver to all nodes at the same moment.
const BEHIND: Duration = Duration::from_millis(500);

impl<S: Socket> Hub<S> {
    /// Whenever this node is out of step with the others, makes all of them begin a new epoch at the same message.
    pub(super) async fn keep_order(&self, handover: &Handover, recovery: &Recovery) {
        loop {
            let name = Some(recovery.history())
                .filter(|history| !history.epochs.is_in_order())
                .map(|history| history.epochs.next_name(milliseconds(since_1970()) << 16 | u64::from(rand::random::<u16>())));
            if let Some(name) = name {
                self.tell_others(|_| Message::Order(name));
            }
            tokio::select! { () = tokio::time::sleep(RETRY) => {}, () = handover.out_of_order.notified() => {} }
        }
    }

    /// All nodes that receive this begin a new epoch here. One of those that were in step gives the others its past events.
    pub(in crate::hub) fn enter_order(self: &Arc<Self>, name: u64) {
        let (Some(_), Some(recovery)) = (&self.handover, &self.recovery) else { return };
        let mut history = recovery.history();
        let was_in_order = history.epochs.is_in_order();
        history.epochs.enter_order(name);
        drop(history);
        if was_in_order {
            let hub = Arc::clone(self);
            self.tasks.spawn(async move { hub.closing.run_until_cancelled(hub.offer_past(name)).await });
        }
    }

    async fn offer_past(&self, name: u64) {
        let (Some(handover), Some(recovery)) = (&self.handover, &self.recovery) else { return };
        if !handover.store.may_offer(name).await.unwrap_or(false) {
            return;
        }
        let Some(past) = recovery.history().past(name, MAX_PAST_BYTES) else { return };
        match handover.store.offer(name, past).await {
            Ok(()) => self.tell_others(|_| Message::Past(name)),
            Err(error) => debug!(%error, "could not give past events to a node that has started"),
        }
    }

    /// Another node offers what it received before all adopted this name.
    pub(in crate::hub) fn apply_past(self: &Arc<Self>, name: u64) {
        let is_wanted = self.recovery.as_ref().is_some_and(|recovery| recovery.history().wants_past(name));
        if self.handover.is_some() && is_wanted {
            let hub = Arc::clone(self);
            self.tasks.spawn(async move { hub.closing.run_until_cancelled(hub.fetch_past(name)).await });
        }
    }

    pub(in crate::hub) async fn fetch_past(&self, name: u64) {
        let (Some(handover), Some(recovery)) = (&self.handover, &self.recovery) else { return };
        match handover.store.past(name).await {
            Ok(past) => {
                let is_taken = recovery.history().take_up(name, &past);
                debug!(events = past.len().saturating_sub(1), is_taken, "received past events from another node");
            }
            Err(error) => debug!(%error, "could not read the past events of another node"),
        }
    }

    /// A node that has just started is given the past events, if another node has them. Waits for that, but not long.
    pub(super) async fn has_past(&self, handover: &Handover, recovery: &Recovery) {
        let began = handover.table.lock().began;
        while began.elapsed() < HANDOVER_TIMEOUT && recovery.history().lacks_past() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A client or its session is ahead of this node: waits until this node has caught up, but not long.
    pub(super) async fn has_heard(&self, recovery: &Recovery, places: &[&str]) {
        let end = Instant::now() + BEHIND;
        let is_behind = || {
            let history = recovery.history();
            places.iter().any(|place| history.epochs.is_ahead(place))
        };
        while is_behind() && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
    }
}
