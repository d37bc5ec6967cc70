//! The lease of this node: a key that expires in Redis unless the node renews it.
//!
//! Input: the store's connection. Output: the node's id, and the channels that nodes without a lease left behind.
//!
//! A node whose lease has expired takes a new id and writes its members again under it. A dead id is never used again,
//! so a node that removes the members of a dead id cannot hit new ones. The ids of one node differ in what follows the `-`.
//!
//! All ids are in one set. A Redis Cluster can lose that set and keep the leases: a node that does not find itself in the
//! set writes back all ids it knows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::RwLock;

use super::scripts::Keys;
use crate::clock::milliseconds;
use crate::config::PresenceConfig;
use crate::redis_client::{QueryError, ReconnectingClient};

/// Nodes whose leases are checked concurrently.
const AT_ONCE: usize = 32;

#[derive(Debug)]
pub(super) struct Lease {
    /// The key's expiry: shorter than the configured lease by one interval, which other nodes may need to notice that it expired.
    duration: Duration,
    interval: Duration,
    state: RwLock<State>,
    /// Serialises renewals, because two at once would create two leases.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    node: Arc<str>,
    /// When the lease was last renewed; `None` before the first time.
    renewed: Option<Instant>,
    /// The set of nodes as last read. It includes this node once its lease exists.
    known: BTreeSet<String>,
}

/// The result of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The lease had not expired.
    Kept,
    /// The lease had expired; there is a new one under a new id.
    New,
}

impl Lease {
    pub(super) fn new(config: &PresenceConfig) -> Self {
        let interval = config.heartbeat();
        let node = format!("{:016x}-1", rand::random::<u64>()).into();
        let state = RwLock::new(State { node, renewed: None, known: BTreeSet::new() });
        Self { duration: config.lease - interval, interval, state, renewing: tokio::sync::Mutex::default() }
    }

    /// The id that members are currently written under.
    pub(super) fn node(&self) -> Arc<str> {
        Arc::clone(&self.state.read().node)
    }

    /// The time between two renewals; the lease expires after two have failed.
    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// Whether Redis has ever had this node's lease.
    pub(super) fn was_taken(&self) -> bool {
        self.state.read().renewed.is_some()
    }

    /// Whether the lease may have expired unnoticed, for example while the process was suspended.
    fn is_doubtful(&self) -> bool {
        let renewed = self.state.read().renewed;
        renewed.is_none_or(|renewed| renewed.elapsed() >= self.duration)
    }

    /// Renews the lease if it may have expired.
    pub(super) async fn ensure(&self, client: &ReconnectingClient, keys: &Keys) -> Result<Renewal, QueryError> {
        if !self.is_doubtful() {
            return Ok(Renewal::Kept);
        }
        let _turn = self.renewing.lock().await;
        // Another task may have renewed it while this one waited.
        if self.is_doubtful() { self.renew_in_turn(client, keys).await } else { Ok(Renewal::Kept) }
    }

    pub(super) async fn renew(&self, client: &ReconnectingClient, keys: &Keys) -> Result<Renewal, QueryError> {
        let _turn = self.renewing.lock().await;
        self.renew_in_turn(client, keys).await
    }

    /// Takes a new id if `dead`, whose lease has expired, is still this node's id.
    pub(super) async fn replace(&self, dead: &Arc<str>, client: &ReconnectingClient, keys: &Keys) -> Result<Renewal, QueryError> {
        let _turn = self.renewing.lock().await;
        if self.node() == *dead { self.renew_in_turn(client, keys).await } else { Ok(Renewal::Kept) }
    }

    async fn renew_in_turn(&self, client: &ReconnectingClient, keys: &Keys) -> Result<Renewal, QueryError> {
        let started = Instant::now();
        let node = self.node();
        let duration = milliseconds(self.duration);
        let mut renew = redis::pipe();
        renew.cmd("PEXPIRE").arg(keys.lease(&node)).arg(duration);
        let (lives,): (bool,) = client.query(&renew).await?;
        // Before the first time nothing is lost, also where the answer to an attempt was.
        let is_first = !self.was_taken();
        if lives && !is_first {
            self.state.write().renewed = Some(started);
            return Ok(Renewal::Kept);
        }
        let node = if is_first { node } else { next_id(&node) };
        let mut begin = redis::pipe();
        begin.cmd("SET").arg(keys.lease(&node)).arg(std::process::id()).arg("PX").arg(duration);
        client.query::<()>(&begin).await?;
        // Add all known ids: if the set was lost, the members under this node's previous id must still be found.
        let mut known = self.known();
        known.insert(node.as_ref().to_owned());
        enter(&known, client, keys).await?;
        *self.state.write() = State { node, renewed: Some(started), known };
        Ok(Renewal::New)
    }

    fn known(&self) -> BTreeSet<String> {
        self.state.read().known.clone()
    }

    /// All other nodes; restores the set if Redis lost it. Some may be dead, and some merely late to renew their lease.
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
        // Not if this node has taken a new id in the meantime, which this list lacks.
        if state.node == this {
            state.known.clone_from(&nodes);
        }
        nodes.remove(&*this);
        Ok(nodes)
    }

    /// Nodes whose lease has expired, each with the channels it may have members in.
    pub(super) async fn dead(&self, client: &ReconnectingClient, keys: &Keys) -> Result<Vec<(String, Vec<String>)>, QueryError> {
        let others = stream::iter(self.others(client, keys).await?);
        let looks = others.map(|node| left_behind(node, client, keys)).buffer_unordered(AT_ONCE);
        looks.try_filter_map(async |dead| Ok(dead)).try_collect().await
    }

    /// Releases the lease.
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

/// The node with the channels it may have members in, if its lease has expired. A dead node without channels is forgotten.
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

/// Adds nodes to the set of all nodes.
async fn enter(nodes: &BTreeSet<String>, client: &ReconnectingClient, keys: &Keys) -> Result<(), QueryError> {
    let mut enter = redis::pipe();
    enter.cmd("SADD").arg(keys.nodes()).arg(nodes);
    client.query(&enter).await
}

fn next_id(id: &str) -> Arc<str> {
    let (node, lease) = id.split_once('-').unwrap_or((id, ""));
    format!("{node}-{}", lease.parse::<u64>().unwrap_or_default() + 1).into()
}
