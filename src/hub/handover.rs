//! Lets other nodes resume the sessions of this one: when it stops or dies, or when a client reconnects to another node.
//!
//! Input: changes of the sessions here, and clients of other nodes. Output: sessions in the [`SessionStore`], in batches, and
//! sessions that are resumed from there. All nodes count the messages of Redis in step (see [`super::history`]), and each keeps
//! all of them: so the offset of a client says what it missed, whichever node it was on.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::recovery::{Known, Saved, fresh};
use super::{Hub, Socket};
use crate::cluster::control::{Message, Question};
use crate::cluster::sessions::{SessionChange, SessionKey, SessionStore};
use crate::event::{CloseReason, SocketId};
use crate::metrics::Recovered;

mod order;
mod record;

use record::{Record, ban_name};

/// Delay between two batches, so that all channels that a client subscribes to when it connects become one write.
const PAUSE: Duration = Duration::from_millis(50);
/// Delay between two attempts while the store is unreachable, and between two checks whether all nodes count in step.
const RETRY: Duration = Duration::from_secs(1);
/// Limit for the last writes to the store, and for the wait of a client while this node fetches past events.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit for finding a session, which includes that wait.
const SEARCH: Duration = Duration::from_secs(4);

/// The sessions of this node, as other nodes may resume them.
pub(super) struct Handover {
    store: Arc<dyn SessionStore>,
    /// How long a session stays in the store unless it is written again.
    lasts: Duration,
    key: OnceLock<SessionKey>,
    /// Cancelled once the key is known.
    has_key: CancellationToken,
    table: Mutex<Table>,
    changed: Notify,
    /// The store failed or was too slow for the sessions of this node as it stops; it is not tried again.
    has_given_up: AtomicBool,
    /// Notified when this node is out of step with the others.
    pub(super) out_of_order: Notify,
}

#[derive(Debug)]
struct Table {
    /// Sessions to write.
    dirty: HashSet<SocketId>,
    /// Sessions that are in the store, and when they were last written.
    written: HashMap<SocketId, Instant>,
    /// Sessions that other nodes resumed while the last batch was written.
    taken: HashSet<SocketId>,
    /// When this node last connected to Redis.
    began: Instant,
}

/// A session that was taken from the store, and belongs to no node now.
pub struct Found {
    record: Record,
    json: String,
    removals: u64,
}

impl Handover {
    pub(super) fn new(store: Arc<dyn SessionStore>, window: Duration) -> Self {
        Self {
            store,
            lasts: window * 3,
            key: OnceLock::new(),
            has_key: CancellationToken::new(),
            table: Mutex::new(Table { dirty: HashSet::new(), written: HashMap::new(), taken: HashSet::new(), began: Instant::now() }),
            changed: Notify::new(),
            has_given_up: AtomicBool::new(false),
            out_of_order: Notify::new(),
        }
    }

    /// Forgets a session that belongs to another node now.
    fn forget(&self, id: SocketId) {
        let mut table = self.table.lock();
        table.dirty.remove(&id);
        table.written.remove(&id);
        table.taken.insert(id);
    }
}

impl<S: Socket> Hub<S> {
    /// The key that signs private ids, the same for all nodes, once it is known.
    pub fn session_key(&self) -> Option<&SessionKey> {
        self.handover.as_ref()?.key.get()
    }

    /// Cancelled once that key is known; `None` when other nodes cannot resume sessions.
    pub fn has_session_key(&self) -> Option<CancellationToken> {
        Some(self.handover.as_ref()?.has_key.clone())
    }

    /// Starts to write what other nodes need to know; ends when the hub closes.
    pub(super) fn run_handover(self: &Arc<Self>) {
        if self.handover.is_none() {
            return;
        }
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            let (Some(handover), Some(recovery)) = (&hub.handover, &hub.recovery) else { return };
            let keep = async { tokio::join!(hub.keep_order(handover, recovery), hub.keep_sessions(handover)) };
            hub.closing.run_until_cancelled(keep).await;
        });
    }

    async fn keep_sessions(&self, handover: &Handover) {
        while handover.key.get().is_none() {
            match handover.store.key(rand::random()).await {
                Ok(key) => {
                    // Only this task sets it.
                    let _ = handover.key.set(key);
                    handover.has_key.cancel();
                }
                Err(error) => {
                    debug!(%error, "could not read the key of private ids; retrying");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        loop {
            self.touch_old(handover);
            let is_done = self.write_sessions(handover).await;
            tokio::time::sleep(if is_done { PAUSE } else { RETRY }).await;
            if is_done {
                tokio::select! { () = tokio::time::sleep(RETRY) => {}, () = handover.changed.notified() => {} }
            }
        }
    }

    /// Marks a session as changed, so that it is written or deleted.
    pub(super) fn touch(&self, id: SocketId) {
        if let Some(handover) = &self.handover {
            handover.table.lock().dirty.insert(id);
            handover.changed.notify_one();
        }
    }

    /// Marks the sessions that were written long ago, so that they are written again before they expire.
    fn touch_old(&self, handover: &Handover) {
        let mut table = handover.table.lock();
        let Table { dirty, written, .. } = &mut *table;
        let now = Instant::now();
        dirty.extend(written.iter().filter(|(_, at)| now - **at > handover.lasts / 3).map(|(id, _)| *id));
    }

    /// Marks all of them, for a Redis that may have lost its data.
    pub(super) fn touch_all(&self) {
        if let Some(handover) = &self.handover {
            let ids = self.ids();
            let mut table = handover.table.lock();
            table.dirty.extend(ids);
            table.began = Instant::now();
            drop(table);
            handover.out_of_order.notify_one();
        }
    }

    /// Writes the marked sessions. `false`: some of them have to be retried later.
    pub(super) async fn write_sessions(&self, handover: &Handover) -> bool {
        let ids = {
            let mut table = handover.table.lock();
            table.taken.clear();
            std::mem::take(&mut table.dirty)
        };
        let mut changes = Vec::with_capacity(ids.len());
        let mut later = Vec::new();
        for id in ids {
            match self.session_change(id, handover.lasts) {
                Some(SessionChange::Delete) if !handover.table.lock().written.contains_key(&id) => {}
                Some(change) => changes.push((id, change)),
                None => {
                    // What is in the store is outdated.
                    changes.extend(handover.table.lock().written.contains_key(&id).then_some((id, SessionChange::Delete)));
                    later.push(id);
                }
            }
        }
        if changes.is_empty() && later.is_empty() {
            return true;
        }
        let is_written = handover.store.write(changes.clone()).await;
        let mut table = handover.table.lock();
        let is_all = later.is_empty() && is_written.is_ok();
        table.dirty.extend(later);
        match is_written {
            Ok(()) => {
                let now = Instant::now();
                for (id, change) in changes {
                    match change {
                        SessionChange::Put(..) if !table.taken.contains(&id) => table.written.insert(id, now),
                        SessionChange::Put(..) | SessionChange::Delete => table.written.remove(&id),
                    };
                }
            }
            Err(error) => {
                debug!(%error, "could not write sessions for other nodes; retrying");
                table.dirty.extend(changes.into_iter().map(|(id, _)| id));
            }
        }
        is_all
    }

    /// What to write about a session; `None` while other nodes would not understand it.
    fn session_change(&self, id: SocketId, lasts: Duration) -> Option<SessionChange> {
        let Some(recovery) = &self.recovery else { return Some(SessionChange::Delete) };
        let live = self.session(id).filter(|session| session.socket.can_recover());
        let known = match live {
            Some(session) => {
                let state = session.state();
                let known = || Known { since: session.since, stale: session.stale.clone(), stays: state.stays(), lasts };
                (!state.is_over()).then(known)
            }
            None => recovery.kept(id),
        };
        let Some(known) = known.filter(|known| !known.stays.is_empty()) else {
            return Some(SessionChange::Delete);
        };
        let Known { since, stale, stays, lasts } = known;
        let record = Record::new(&recovery.history(), since, stale, &stays)?;
        Some(SessionChange::Put(serde_json::to_string(&record).expect("records serialize"), lasts))
    }

    /// The connections of these sockets are about to be closed by this server: lets other nodes resume their sessions.
    pub async fn hand_over(self: &Arc<Self>, sockets: &[S]) {
        let (Some(handover), Some(recovery)) = (&self.handover, &self.recovery) else { return };
        for socket in sockets {
            self.tell_position(socket, &mut 0);
        }
        // A session that has ended here may be another node's by now, and so is its entry in the store.
        let is_put = |change: &SessionChange| matches!(change, SessionChange::Put(..));
        let change = |socket: &S| Some((socket.id(), self.session_change(socket.id(), recovery.window()).filter(is_put)?));
        if handover.has_given_up.load(Ordering::Relaxed) {
            return;
        }
        let changes: Vec<_> = sockets.iter().filter(|socket| socket.can_recover()).filter_map(change).collect();
        // First the sessions that have ended already.
        let writing = async {
            self.write_sessions(handover).await;
            handover.store.write(changes).await
        };
        match tokio::time::timeout(HANDOVER_TIMEOUT, writing).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => warn!(%error, "could not hand over sessions to other nodes; their clients start afresh"),
            Err(_) => warn!("could not hand over sessions to other nodes: Redis timed out; their clients start afresh"),
        }
        handover.has_given_up.store(true, Ordering::Relaxed);
    }

    /// Takes a session of another node from the store, for a client with this offset. It belongs to no node then:
    /// [`Self::adopt`] or [`Self::put_back`] it.
    pub async fn find(&self, id: SocketId, offset: Option<&str>) -> Option<Found> {
        let found = async {
            let (handover, recovery) = (self.handover.as_ref()?, self.recovery.as_ref()?);
            self.has_past(handover, recovery).await;
            let removals = recovery.removals()?;
            let json = handover.store.take(id).await.ok()??;
            let record: Record = serde_json::from_str(&json).ok()?;
            let places: Vec<_> = offset.into_iter().chain(record.places()).collect();
            self.has_heard(recovery, &places).await;
            let is_banned = handover.store.is_banned(record.ban_names()).await.unwrap_or(true);
            if is_banned {
                self.tell_taken(id);
            }
            (!is_banned).then_some(Found { record, json, removals })
        };
        let found = tokio::time::timeout(SEARCH, found).await.ok().flatten();
        if found.is_none() {
            self.metrics.recovered(Recovered::Unknown);
        }
        found
    }

    /// The client that a session was found for has disconnected, and may reconnect.
    pub async fn put_back(&self, id: SocketId, found: Found) {
        if let Some(handover) = &self.handover {
            let change = SessionChange::Put(found.json, handover.lasts / 3);
            // If it cannot be put back, the client starts a new session.
            let _ = handover.store.write(vec![(id, change)]).await;
        }
    }

    /// Like [`Self::recover`], with a session of another node.
    pub fn adopt(self: &Arc<Self>, id: SocketId, found: Found, offset: Option<&str>, connect: impl FnOnce() -> S) -> bool {
        let Some(recovery) = &self.recovery else { return false };
        let last = self.last();
        let history = recovery.history();
        let mut stale = found.record.stale.clone();
        let since = found.record.since.as_deref().and_then(|since| history.epochs.since(since));
        let is_before = |stale: &str| since.is_some_and(|since| history.epochs.is_before(stale, since));
        let read = fresh(&mut stale, offset, is_before).and_then(|fresh| found.record.read(&history, fresh));
        let Some((position, stays)) = read else {
            drop((history, last));
            self.tell_gap(id);
            self.tell_taken(id);
            return false;
        };
        let saved = Saved::adopted(position, stale, stays);
        let Some(entering) = self.restore(recovery, (last, history), id, (saved, found.removals), position, connect) else {
            self.tell_taken(id);
            return false;
        };
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            // It becomes a member here first, so that no one sees it leave there.
            for task in entering {
                let _ = task.await;
            }
            hub.tell_taken(id);
        });
        true
    }

    /// Tells all nodes that no other node may resume this session.
    fn tell_taken(&self, id: SocketId) {
        self.tell_others(|from| Message::Taken { from, id });
    }

    /// Another node has resumed a session.
    pub(super) fn let_go(self: &Arc<Self>, id: SocketId) {
        let (Some(handover), Some(recovery)) = (&self.handover, &self.recovery) else { return };
        // Also before ending it: the entry in the store is the other node's by now, and must not be deleted when the session ends here.
        handover.forget(id);
        if let Some(live) = self.session(id) {
            self.end(&live.socket, CloseReason::ServerLeft);
            live.socket.close();
        }
        recovery.let_go(id);
        handover.forget(id);
    }

    /// Before all nodes remove a user or recheck a channel: bans affected sessions that belong to no node from being resumed.
    pub(super) async fn ban(&self, question: &Question) {
        let Some(handover) = &self.handover else { return };
        let name = match question {
            Question::Terminate(user) => ban_name(Some(user), None),
            Question::Unsubscribe(user, channel) => ban_name(Some(user), Some(channel)),
            Question::Recheck(channel) => ban_name(None, Some(channel)),
            _ => return,
        };
        match tokio::time::timeout(HANDOVER_TIMEOUT, handover.store.ban(name, handover.lasts)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "could not end the sessions of nodes that are gone"),
            Err(_) => warn!("could not end the sessions of nodes that are gone: Redis timed out"),
        }
    }

    /// Whether a member may belong to another node by now.
    pub(super) const fn shares_sessions(&self) -> bool {
        self.handover.is_some()
    }
}
