//! [`Hub`]: who is in which channel, and every rule about it.
//!
//! Input: clients' requests from [`crate::socket_io`] and [`crate::pusher`], events from [`crate::ingress`], all through the
//! methods here. Output: [`Push`]es to [`Socket`]s, independent of the protocol. The hub asks an [`Authorizer`] before a socket
//! joins a guarded channel, and keeps members in a [`PresenceStore`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authorizer;
use crate::channel::{CACHED_PREFIXES, ChannelName, Pattern};
use crate::cluster::Bus;
use crate::config::{Config, Database, Limits, RedisMode};
use crate::event::{CloseReason, SocketId};
use crate::metrics::Metrics;
use crate::store::{Members, PresenceStore, StoreError};

mod allowance;
mod cache;
mod cluster_wide;
mod counts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fake_socket;
mod grants;
mod handover;
mod hints;
mod history;
mod inspect;
mod interest;
mod last;
mod nodes;
mod observer;
mod presence;
mod publish;
mod push;
mod recovery;
mod removals;
mod rooms;
mod rules;
mod session;
mod subscribe;
mod twice;
mod users;
mod watchlist;
mod whisper;

use hints::Hints;
use nodes::Nodes;
use observer::Observers;
use presence::{Batches, ChannelLocks, Leaves, SharedPresence};
use rooms::{Room, Rooms};
use session::Session;
use subscribe::Grace;

pub use allowance::Allowance;
pub use cluster_wide::ClusterWide;
pub use grants::Recheck;
pub use handover::Found;
pub use history::Offset;
pub use inspect::{SocketView, StayView, near_miss};
pub use interest::{Change, InterestSet};
pub use observer::{Observation, Observer};
pub use push::{Dialect, Keep, Message, Push, PushError, Socket};
pub use recovery::Return;
pub(crate) use rules::Rules;
pub use rules::{Behaviour, Rule};
pub use subscribe::Right;
pub(crate) use subscribe::USERS;
pub use whisper::Whisper;

/// Maximum bytes of an offset's text: 16 hexadecimal digits, a dash and 20 digits fit.
const MAX_OFFSET_BYTES: usize = 40;

/// Number of locks that the sessions are spread over.
const SHARDS: usize = 64;

type Shard<S> = RwLock<HashMap<SocketId, Arc<Session<S>>>>;

/// The hub's settings, resolved.
#[derive(Debug)]
struct Options {
    expose_socket_id: bool,
    leave_grace: Duration,
    dev_mode: bool,
}

/// Who is in which channel, and every rule about it.
pub struct Hub<S> {
    sessions: Vec<Shard<S>>,
    hasher: RandomState,
    rooms: Rooms<S>,
    /// All connected sockets, for flat mode; empty when that is off.
    everyone: RwLock<Room<S>>,
    authorizer: Arc<dyn Authorizer>,
    store: Arc<dyn PresenceStore>,
    presence_locks: ChannelLocks,
    leaves: Leaves,
    batches: Batches,
    /// What clients have been told of members that Redis keeps; `None` if this process keeps them.
    shared: Option<SharedPresence>,
    /// With other nodes: the bus to them. `None` for a single node.
    nodes: Option<Nodes>,
    /// The channels that this node subscribes to in Redis; `None` if it subscribes by pattern, or not at all.
    interests: Option<Arc<InterestSet>>,
    /// Requests to the application, leaves and upkeep in progress.
    tasks: TaskTracker,
    /// Cancelled at shutdown: no socket joins any more, and no answer is awaited.
    closing: CancellationToken,
    hints: Hints,
    observers: Observers,
    removals: removals::Removals,
    /// Set by `recovery.enabled`.
    recovery: Option<recovery::Recovery>,
    /// Set when other nodes can resume the sessions of this one.
    handover: Option<handover::Handover>,
    cache: cache::EventCache,
    /// Detects events that arrive over both Redis and HTTP.
    twice: twice::Twice,
    watchlists: watchlist::Watchlists,
    /// How channels behave, by their names.
    rules: Arc<ArcSwap<Rules>>,
    /// Locked before `recovery` where both are locked.
    last: Mutex<last::LastEvents>,
    /// Set by `pusher.subscriptionCount`.
    counts: Option<counts::Counts>,
    options: Options,
    limits: ArcSwap<Limits>,
    metrics: Arc<Metrics>,
}

impl<S: Socket> Hub<S> {
    /// An empty hub.
    #[must_use]
    pub fn new(
        config: &Config,
        authorizer: Arc<dyn Authorizer>,
        store: Arc<dyn PresenceStore>,
        bus: Option<Bus>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let rules = Rules::new(config);
        let subscribers = &config.subscribers;
        let sessions = bus.as_ref().and_then(Bus::sessions);
        // Compat: unless Pusher's clients are served, a channel with such a name is an ordinary channel.
        let cache = cache::EventCache::new(if config.serves_pusher() { config.pusher.cache_ttl } else { Duration::ZERO });
        // The events of cache channels are kept even without subscribers.
        let cached = CACHED_PREFIXES.iter().filter(|prefix| cache.keeps(prefix)).map(|prefix| Pattern::new(&format!("{prefix}*")));
        let heard = rules.heard_always().into_iter().chain(cached).collect();
        let is_exact = subscribers.redis && subscribers.redis_mode == RedisMode::Exact;
        Arc::new(Self {
            sessions: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            rooms: Rooms::new(),
            everyone: RwLock::new(Room::new()),
            authorizer,
            store,
            presence_locks: ChannelLocks::default(),
            leaves: Leaves::default(),
            batches: Batches::default(),
            shared: (bus.is_some() || config.database == Database::Redis).then(|| SharedPresence::new(&config.presence)),
            nodes: bus.map(Nodes::new),
            interests: is_exact.then(|| InterestSet::new(heard)),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            hints: Hints::default(),
            observers: Observers::new(),
            removals: removals::Removals::default(),
            recovery: config.recovery.enabled.then(|| recovery::Recovery::new(&config.recovery, sessions.is_some())),
            handover: sessions.map(|sessions| handover::Handover::new(sessions, config.recovery.window)),
            cache,
            twice: twice::Twice::default(),
            watchlists: watchlist::Watchlists::default(),
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            last: Mutex::default(),
            counts: config.pusher.subscription_count.then(counts::Counts::default),
            options: Options {
                expose_socket_id: config.presence.expose_socket_id,
                leave_grace: config.presence.leave_grace,
                dev_mode: config.dev_mode,
            },
            limits: ArcSwap::from_pointee(config.limits.clone()),
            metrics,
        })
    }

    /// Applies new limits. Limits on what a socket may do per second apply to sockets that connect from now on.
    pub fn set_limits(&self, limits: &Limits) {
        self.limits.store(Arc::new(limits.clone()));
    }

    fn shard(&self, id: SocketId) -> &Shard<S> {
        &self.sessions[self.hasher.hash_one(id) as usize % SHARDS]
    }

    fn session(&self, id: SocketId) -> Option<Arc<Session<S>>> {
        self.shard(id).read().get(&id).cloned()
    }

    /// The rate limits of a client that connects now.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        Allowance::new(&self.limits.load())
    }

    /// A socket has connected.
    pub fn connect(&self, socket: S) {
        self.connect_afresh(socket, None);
    }

    /// Like [`Self::connect`], for a client that starts a new session and knows the offset of an event from an earlier one.
    pub fn connect_afresh(&self, socket: S, offset: Option<&str>) {
        let since = self.recovery.as_ref().map_or(0, |recovery| recovery.history().epochs.number());
        // Longer text cannot be an offset, so the client would not send it to resume either.
        let stale = offset.filter(|offset| offset.len() <= MAX_OFFSET_BYTES).map(Into::into);
        self.register(Session::new(socket, since, stale));
    }

    /// Registers a session.
    fn register(&self, session: Session<S>) -> Arc<Session<S>> {
        self.metrics.connects.inc();
        if self.rules.load().has_flat() {
            self.everyone.write().insert(session.socket.clone());
        }
        let id = session.socket.id();
        let session = Arc::new(session);
        self.shard(id).write().insert(id, Arc::clone(&session));
        self.observers.tell(|| Observation::Connected { socket: id });
        session
    }

    /// The connection of a socket has ended. Does nothing if the session has been resumed on another connection.
    pub fn end(self: &Arc<Self>, socket: &S, reason: CloseReason) {
        if self.session(socket.id()).is_some_and(|session| session.socket.is_same(socket)) {
            self.disconnect(socket.id(), reason);
        }
    }

    /// A socket has disconnected: it leaves all its channels. `reason` appears in the log.
    pub fn disconnect(self: &Arc<Self>, id: SocketId, reason: CloseReason) {
        let (session, kept) = {
            let mut shard = self.shard(id).write();
            let Some(session) = shard.get(&id).cloned() else { return };
            // First, and under the lock: a session is always either connected or saved, so every event either reaches the
            // client or is kept for it.
            let kept = self.save(&session, reason);
            shard.remove(&id);
            (session, kept)
        };
        self.touch(id);
        if self.rules.load().has_flat() {
            self.everyone.write().remove(id);
        }
        // Compat: in the original a member leaves when its connection breaks. Here a client that may resume its session stays a
        // member, unless its page is known to be gone.
        let kept = kept.filter(|_| reason != CloseReason::PageLeft);
        let (channels, signed_in) = {
            let mut state = session.state();
            (state.close(), state.sign_out())
        };
        if let Some(signed_in) = signed_in {
            self.signed_out(id, &signed_in);
        }
        for channel in channels {
            self.left_after(&channel, id, reason.as_str(), Grace { least: self.options.leave_grace, kept: kept.clone() });
        }
        self.observers.tell(|| Observation::Disconnected { socket: id, reason });
    }

    /// Makes every socket leave its channels, so that stores and other nodes learn of it. No socket joins any more.
    pub async fn close(self: &Arc<Self>) {
        self.closing.cancel();
        let ids: Vec<SocketId> = self.ids();
        let sockets: Vec<S> = ids.iter().filter_map(|id| self.socket(*id)).collect();
        self.hand_over(&sockets).await;
        // Empty the rooms first: sockets that leave at the same time need not be told of each other.
        let sessions: Vec<_> = ids.into_iter().filter_map(|id| Some((id, self.session(id)?))).collect();
        let mut left = Vec::new();
        for (id, session) in sessions {
            for channel in session.state().close() {
                self.rooms.leave(&channel, id);
                left.push((channel, id));
            }
        }
        for (channel, id) in left {
            self.left(&channel, id, CloseReason::ServerShutdown.as_str());
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
    }

    fn ids(&self) -> Vec<SocketId> {
        let ids = |shard: &Shard<S>| shard.read().keys().copied().collect::<Vec<_>>();
        self.sessions.iter().flat_map(ids).collect()
    }

    /// How many sockets are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.sessions.iter().map(|shard| shard.read().len()).sum()
    }

    /// Lets go of capacity for far more sockets than there are.
    pub fn shrink(&self) {
        for shard in &self.sessions {
            shard.write().shrink_to_fit();
        }
        self.rooms.shrink();
    }

    /// The handle of a connected socket.
    #[must_use]
    pub fn socket(&self, id: SocketId) -> Option<S> {
        self.session(id).map(|session| session.socket.clone())
    }

    /// Calls `visit` with every connected socket.
    pub fn each_socket(&self, mut visit: impl FnMut(&S)) {
        for shard in &self.sessions {
            for session in shard.read().values() {
                visit(&session.socket);
            }
        }
    }

    /// How many sockets are in a channel.
    #[must_use]
    pub fn subscription_count(&self, channel: &str) -> usize {
        self.rooms.count(channel)
    }

    /// Channels whose name starts with `prefix`, with their socket counts, sorted by name.
    #[must_use]
    pub fn channels(&self, prefix: &str) -> Vec<(ChannelName, usize)> {
        let mut channels = self.rooms.channels(|name| name.as_str().starts_with(prefix));
        channels.sort_unstable();
        channels
    }

    /// The members of a presence channel: one entry per socket, in the order of joining.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be reached.
    pub async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError> {
        self.store.members(channel).await
    }

    /// Which of these users are in a presence channel.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be reached.
    pub async fn have_joined(&self, channel: &ChannelName, users: &[&str]) -> Result<Vec<bool>, StoreError> {
        self.store.have_joined(channel, users).await
    }

    /// The channels to subscribe to in Redis; `None` if this node does not subscribe to single channels.
    #[must_use]
    pub fn interests(&self) -> Option<&Arc<InterestSet>> {
        self.interests.as_ref()
    }

    /// The metrics that this hub updates.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

#[cfg(test)]
pub(crate) mod tests;
