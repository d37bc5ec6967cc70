//! The lease of this node: a key that Redis lets expire when the node does not renew it.
//!
//! Input: the store's connection. Output: the node's id, and the channels that nodes without a lease left behind.
//!
//! A node whose lease ran out takes a new id and puts its members back under that. An id is dead once and for ever,
//! so whoever takes a dead node's members out cannot meet new ones under the same id.
//!
//! All ids are in one list. A Redis Cluster can lose that list and keep the leases: a node that misses itself in it puts
//! back what it knows of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::RwLock;

use super::scripts::Keys;
use crate::config::PresenceConfig;
use crate::redis_client::{QueryError, ReconnectingClient};

/// Nodes that are asked after at a time.
const AT_ONCE: usize = 32;

#[derive(Debug)]
pub(super) struct Lease {
    /// How long the key lasts: shorter than the lease by the time that the others may take to see that it is gone.
    duration: Duration,
    interval: Duration,
    state: RwLock<State>,
    /// Two renewals at once would make two leases.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    node: Arc<str>,
    /// When it was renewed last; `None` before the first time.
    renewed: Option<Instant>,
    /// The list of nodes as it was last. This node is in it once it has begun.
    known: BTreeSet<String>,
}

/// What a renewal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The lease had not run out.
    Kept,
    /// It is a new one, under a new id.
    New,
}

impl Lease {
    pub(super) fn new(config: &PresenceConfig) -> Self {
        let interval = config.heartbeat();
        let state = RwLock::new(State { node: new_id(), renewed: None, known: BTreeSet::new() });
        Self { duration: config.lease.0 - interval, interval, state, renewing: tokio::sync::Mutex::default() }
    }

    /// The id that members are written under now.
    pub(super) fn node(&self) -> Arc<str> {
        Arc::clone(&self.state.read().node)
    }

    /// Between two renewals; two have failed when it runs out.
    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// Whether it may have run out without this node's knowing, as after a long stop of the process.
    fn is_doubtful(&self) -> bool {
        let renewed = self.state.read().renewed;
        renewed.is_none_or(|renewed| renewed.elapsed() >= self.duration)
    }

    /// Renews it if it may have run out.
    pub(super) async fn ensure(&self, client: &ReconnectingClient, keys: &Keys) -> Result<Renewal, QueryError> {
        if !self.is_doubtful() {
            return Ok(Renewal::Kept);
        }
        let _turn = self.renewing.lock().await;
        // Whoever had the turn before may have done it.
        if self.is_doubtful() { self.renew_in_turn(client, keys).await } else { Ok(Renewal::Kept) }
    }

    pub(super) async fn renew(&self, client: &ReconnectingClient, keys: &Keys) -> Result<Renewal, QueryError> {
        let _turn = self.renewing.lock().await;
        self.renew_in_turn(client, keys).await
    }

    /// Takes a new id if this one, which is known to be dead, is this node's still.
    pub(super) async fn replace(&self, dead: &Arc<str>, client: &ReconnectingClient, keys: &Keys) -> Result<Renewal, QueryError> {
        let _turn = self.renewing.lock().await;
        if self.node() == *dead { self.renew_in_turn(client, keys).await } else { Ok(Renewal::Kept) }
    }

    async fn renew_in_turn(&self, client: &ReconnectingClient, keys: &Keys) -> Result<Renewal, QueryError> {
        let started = Instant::now();
        let node = self.node();
        let duration = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        let mut renew = redis::pipe();
        renew.cmd("PEXPIRE").arg(keys.lease(&node)).arg(duration);
        let (is_kept,): (bool,) = client.query(&renew).await?;
        if is_kept {
            self.state.write().renewed = Some(started);
            return Ok(Renewal::Kept);
        }
        let node = new_id();
        let mut begin = redis::pipe();
        begin.cmd("SET").arg(keys.lease(&node)).arg(std::process::id()).arg("PX").arg(duration);
        client.query::<()>(&begin).await?;
        // With all it knows: what stands under the id before is to be found also when the list was lost.
        let mut known = self.known();
        known.insert(node.as_ref().to_owned());
        enter(&known, client, keys).await?;
        *self.state.write() = State { node, renewed: Some(started), known };
        Ok(Renewal::New)
    }

    fn known(&self) -> BTreeSet<String> {
        self.state.read().known.clone()
    }

    /// All other nodes, put back where they were lost. Some may be dead, and some may just be late to renew their lease.
    pub(super) async fn others(&self, client: &ReconnectingClient, keys: &Keys) -> Result<BTreeSet<String>, QueryError> {
        let mut ask = redis::pipe();
        ask.cmd("SMEMBERS").arg(keys.nodes());
        let (mut nodes,): (BTreeSet<String>,) = client.query(&ask).await?;
        let this = self.node();
        let mut known = self.known();
        if known.contains(&*this) && !nodes.contains(&*this) {
            nodes.append(&mut known);
            enter(&nodes, client, keys).await?;
        }
        let mut state = self.state.write();
        // Not if there is a new id meanwhile, which this list lacks.
        if state.node == this {
            state.known.clone_from(&nodes);
        }
        nodes.remove(&*this);
        Ok(nodes)
    }

    /// Nodes whose lease ran out, each with the channels it may have members in.
    pub(super) async fn dead(&self, client: &ReconnectingClient, keys: &Keys) -> Result<Vec<(String, Vec<String>)>, QueryError> {
        let others = stream::iter(self.others(client, keys).await?);
        let looks = others.map(|node| left_behind(node, client, keys)).buffer_unordered(AT_ONCE);
        looks.try_filter_map(async |dead| Ok(dead)).try_collect().await
    }

    /// Gives the lease up.
    pub(super) async fn end(&self, client: &ReconnectingClient, keys: &Keys) -> Result<(), QueryError> {
        let node = self.node();
        let mut end = redis::pipe();
        end.cmd("DEL").arg(keys.lease(&node)).arg(keys.index(&node));
        client.query::<()>(&end).await?;
        let mut leave = redis::pipe();
        leave.cmd("SREM").arg(keys.nodes()).arg(&*node);
        client.query::<()>(&leave).await
    }
}

/// A node whose lease ran out, with the channels it may have members in. One that has none is forgotten.
async fn left_behind(node: String, client: &ReconnectingClient, keys: &Keys) -> Result<Option<(String, Vec<String>)>, QueryError> {
    let mut ask = redis::pipe();
    ask.cmd("EXISTS").arg(keys.lease(&node));
    let (lives,): (bool,) = client.query(&ask).await?;
    if lives {
        return Ok(None);
    }
    let mut ask = redis::pipe();
    ask.cmd("SMEMBERS").arg(keys.index(&node));
    let (channels,): (Vec<String>,) = client.query(&ask).await?;
    if channels.is_empty() {
        let mut bury = redis::pipe();
        bury.cmd("SREM").arg(keys.nodes()).arg(&node);
        client.query::<()>(&bury).await?;
        return Ok(None);
    }
    Ok(Some((node, channels)))
}

/// Puts nodes into the list of all.
async fn enter(nodes: &BTreeSet<String>, client: &ReconnectingClient, keys: &Keys) -> Result<(), QueryError> {
    let mut enter = redis::pipe();
    enter.cmd("SADD").arg(keys.nodes()).arg(nodes);
    client.query(&enter).await
}

fn new_id() -> Arc<str> {
    format!("{:016x}", rand::random::<u64>()).into()
}
