//! Hubs as nodes, pages that connect to them, and the truth about who is in which channel.
//!
//! Input: the steps of [`super::walk`]. Output: a panic when a page was told something wrong, or believes something wrong once
//! everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Recorder;
use super::delays::{Pace, Slow, Told, told};
use super::fake_store::{Change, LEASE, NodeStore, Shared};
use super::page::{Gone, Page};
use crate::cluster::Bus;
use crate::config::{Config, Database};
use crate::event::Event;
use crate::hub::{Hub, Socket as _};
use crate::metrics::Metrics;
use crate::store::PresenceStore;

/// The presence channels of the world.
pub(super) const ROOMS: [&str; 2] = ["presence-a", "presence-b"];

/// Far longer than leases, graces and everything in progress take.
const REST: Duration = Duration::from_secs(300);

/// A node: its hub, and how it receives the changes of the others.
struct Node {
    hub: Arc<Hub<Recorder>>,
    /// With several nodes.
    store: Option<Arc<NodeStore>>,
    hearing: Option<JoinHandle<()>>,
}

/// The nodes, the pages, and what is between them.
pub(super) struct World {
    config: Config,
    seed: u64,
    /// With several nodes.
    shared: Arc<Shared>,
    nodes: Vec<Node>,
    pages: Vec<Page>,
    /// Sockets of pages that have disconnected.
    gone: Vec<Recorder>,
    /// Users whose sockets have disconnected and who are still in their channel: node, channel, user, end.
    lingering: Vec<(usize, &'static str, u32, Instant)>,
    /// Changes are gathered even where few pages are told.
    is_gathering: bool,
    /// Whether the network was cut since the last rest.
    was_cut: bool,
    /// Numbers pages and subscribes.
    count: u64,
}

/// The settings of a hub without rate limits.
pub(super) fn config(leave_grace: Duration) -> Config {
    let mut config = Config::default();
    config.limits.subscribes_per_second = 0;
    config.presence.leave_grace = leave_grace;
    config.presence.lease = LEASE;
    config
}

impl World {
    /// This many nodes without any pages.
    pub(super) fn new(nodes: usize, leave_grace: Duration, seed: u64) -> Self {
        let mut config = config(leave_grace);
        config.cluster.enabled = nodes > 1;
        let mut world = Self {
            config,
            seed,
            shared: Arc::default(),
            nodes: Vec::new(),
            pages: Vec::new(),
            gone: Vec::new(),
            lingering: Vec::new(),
            is_gathering: false,
            was_cut: false,
            count: 0,
        };
        world.nodes = (0..nodes).map(|node| world.node(node)).collect();
        world
    }

    /// The same, with members that a store outside the nodes keeps, even if there is one node.
    pub(super) fn with_redis(mut self) -> Self {
        self.config.database = Database::Redis;
        self.nodes = (0..self.nodes.len()).map(|node| self.node(node)).collect();
        self
    }

    /// The same, with nodes that gather changes of any channel for up to a second.
    pub(super) fn gathering(mut self) -> Self {
        self.is_gathering = true;
        self.nodes = (0..self.nodes.len()).map(|node| self.node(node)).collect();
        self
    }

    fn node(&self, number: usize) -> Node {
        let bus = Bus::open(&self.config).unwrap();
        let is_shared = bus.is_some() || self.config.database == Database::Redis;
        let store = is_shared.then(|| Arc::new(NodeStore::new(&self.shared, self.seed)));
        let dynamic: Arc<dyn PresenceStore> = match &store {
            Some(store) => Arc::clone(store) as Arc<dyn PresenceStore>,
            None => Arc::new(Slow::new(self.seed)),
        };
        let mut hub = Hub::new(&self.config, Arc::new(Told), dynamic, bus, Arc::new(Metrics::new()));
        if self.is_gathering {
            Arc::get_mut(&mut hub).unwrap().batches.gather_all();
        }
        hub.keep_store();
        let mut node = Node { hub, store, hearing: None };
        self.listen(number, &mut node);
        node
    }

    /// Starts to receive changes of the other nodes, as the ingress does when it has connected.
    fn listen(&self, number: usize, node: &mut Node) {
        if self.config.cluster.enabled {
            let (hub, pace, mut wire) = (Arc::clone(&node.hub), Pace::new(self.seed), self.shared.wire(number));
            node.hearing = Some(tokio::spawn(async move {
                while let Some(change) = wire.recv().await {
                    pace.wait(("hear", change.channel.as_str(), Some(change.socket))).await;
                    hear(&hub, &change);
                }
            }));
            node.hub.catch_up();
        }
    }

    fn page(&mut self, page: usize) -> Option<&mut Page> {
        let count = self.pages.len();
        self.pages.get_mut(page.checked_rem(count)?)
    }

    fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(super) fn connect(&mut self, node: usize, user: u32) {
        let page = Page::new(node % self.nodes.len(), user, self.number());
        self.nodes[page.node].hub.connect(page.socket.clone());
        self.pages.push(page);
    }

    /// A page subscribes; after `seconds` the application answers that this is another user, or the page's own, or refuses.
    pub(super) fn subscribe(&mut self, page: usize, room: usize, answer: super::walk::Answer, seconds: u64) {
        let (room, number) = (ROOMS[room], self.number());
        let Some(page) = self.page(page) else { return };
        // No two answers arrive at the same moment.
        let delay = Duration::from_secs(seconds) + Duration::from_millis(number);
        let user = answer.user(page.user);
        page.asks(room, user, number, delay);
        let (node, id) = (page.node, page.id());
        self.nodes[node].hub.subscribe(id, room, told(user, number, delay));
    }

    pub(super) fn unsubscribe(&mut self, page: usize, room: usize) {
        let Some(page) = self.page(page) else { return };
        page.stays.remove(ROOMS[room]);
        let (node, id) = (page.node, page.id());
        self.nodes[node].hub.unsubscribe(id, ROOMS[room]);
    }

    pub(super) fn disconnect(&mut self, page: usize) {
        if self.pages.is_empty() {
            return;
        }
        let page = self.pages.remove(page % self.pages.len());
        let until = Instant::now() + self.config.presence.leave_grace;
        let members = page.stays.iter().filter_map(|(&room, stay)| Some((room, stay, stay.member?)));
        let sure = members.filter(|(_, stay, user)| stay.is_surely(*user));
        self.lingering.extend(sure.map(|(room, _, user)| (page.node, room, user, until)));
        self.nodes[page.node].hub.disconnect(page.id(), crate::event::CloseReason::TransportClose);
        self.gone.push(page.socket);
    }

    /// A node stops as it should, and another one starts in its place.
    pub(super) async fn restart(&mut self, node: usize) {
        let node = node % self.nodes.len();
        self.lose(node);
        let hub = Arc::clone(&self.nodes[node].hub);
        hub.close().await;
        self.begin(node);
    }

    /// A node dies in the middle of what it does, and another one starts in its place.
    pub(super) fn crash(&mut self, node: usize) {
        let node = node % self.nodes.len();
        if let Some(store) = &self.nodes[node].store {
            store.die();
            self.lose(node);
            self.begin(node);
        }
    }

    fn lose(&mut self, node: usize) {
        self.pages.retain(|page| page.node != node);
        self.lingering.retain(|(on, ..)| *on != node);
    }

    fn begin(&mut self, node: usize) {
        if let Some(hearing) = &self.nodes[node].hearing {
            hearing.abort();
        }
        self.nodes[node] = self.node(node);
    }

    /// Cuts the network between a node and the others. What was on its way to the node is lost.
    pub(super) fn cut(&mut self, node: usize) {
        let number = node % self.nodes.len();
        let node = &mut self.nodes[number];
        if let Some(store) = &node.store {
            store.cut();
            self.shared.unwire(number);
            self.was_cut = true;
            if let Some(hearing) = node.hearing.take() {
                hearing.abort();
            }
        }
    }

    pub(super) fn repair(&mut self, node: usize) {
        let number = node % self.nodes.len();
        if let (Some(store), None) = (&self.nodes[number].store, &self.nodes[number].hearing) {
            store.repair();
            let (hub, store) = (Arc::clone(&self.nodes[number].hub), Some(Arc::clone(store)));
            let mut node = Node { hub, store, hearing: None };
            self.listen(number, &mut node);
            self.nodes[number] = node;
        }
    }

    /// Every node tells what it has gathered.
    pub(super) fn tell(&mut self) {
        for node in &self.nodes {
            ROOMS.iter().for_each(|room| node.hub.tell_batch(room));
        }
        self.read();
        self.compare();
    }

    /// Checks what the pages were told since the last look.
    pub(super) fn look(&mut self) {
        self.read();
        if !self.is_gathering {
            self.compare();
        }
    }

    fn read(&mut self) {
        let mut gone = Vec::new();
        for page in &mut self.pages {
            gone.extend(page.read());
        }
        for Gone { at, room, user } in gone {
            let is_here = self.pages.iter().any(|page| page.stays.get(room).is_some_and(|stay| stay.is_surely(user)));
            let lingers = self.lingering.iter().any(|&(_, other, name, until)| (other, name) == (room, user) && at < until);
            assert!(self.was_cut || !(is_here || lingers), "{user} was said to leave {room}, and is there");
        }
    }

    /// Pages of one node have been told the same.
    fn compare(&self) {
        let mut known = BTreeMap::new();
        for page in &self.pages {
            for (&room, stay) in &page.stays {
                if let Some(here) = &stay.here {
                    let first = known.entry((page.node, room)).or_insert(here);
                    assert_eq!(*first, here, "two pages of one node about {room}");
                }
            }
        }
    }

    /// Lets everything come to rest; then every page must know the truth.
    pub(super) async fn rest(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.repair(node));
        sleep(REST).await;
        self.look();
        for page in &mut self.pages {
            page.rest(self.was_cut);
        }
        for socket in &self.gone {
            assert_eq!(socket.take(), [], "{} is gone, and hears of others", socket.id());
        }
        for room in ROOMS {
            let inside: Vec<_> = self.pages.iter().filter_map(|page| Some((page, page.stays.get(room)?))).collect();
            let truth: BTreeSet<u32> = inside.iter().filter_map(|(_, stay)| stay.member).collect();
            for (page, stay) in &inside {
                assert_eq!(stay.here.as_ref(), Some(&truth), "{} believes something else about {room}", page.id());
            }
            let sockets: BTreeSet<_> = inside.iter().map(|(page, _)| page.id()).collect();
            let members = self.nodes[0].hub.members(&room.into()).await.unwrap();
            assert_eq!(members.iter().map(|(socket, _)| *socket).collect::<BTreeSet<_>>(), sockets, "what the store holds of {room}");
        }
        self.lingering.clear();
        self.was_cut = false;
    }
}

fn hear(hub: &Arc<Hub<Recorder>>, change: &Change) {
    let name = if change.is_joining { "presence:joining" } else { "presence:leaving" };
    let data = RawValue::from_string(change.member.json().to_owned()).unwrap();
    let event = Event { channel: change.channel.as_str(), name: name.into(), data: &data, except: Some(change.socket), user: None };
    assert!(hub.apply_change(&event, change.version), "a change of a presence channel");
}
