//! Random walks of clients that reconnect: each has received what was published while it was in a channel, once and in order,
//! or was told that it starts a new session.
//!
//! Input: steps of the walk. Output: a panic when a client unknowingly misses an event, or receives one twice, out of order, or
//! from before it joined. All nodes receive one stream of messages, each at its own pace.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::value::RawValue;

use super::walk::{in_paused_time, walks};
use crate::auth::{AuthRequest, Authorizer, Denied, Grant};
use crate::cluster::Bus;
use crate::cluster::control::Message as Control;
use crate::cluster::sessions::{SessionChange, SessionError, SessionKey, SessionStore};
use crate::config::Config;
use crate::event::{CloseReason, Event, Origin, SocketId};
use crate::hub::fake_socket::{FakeSocket, Receiver};
use crate::hub::{Dialect, Hub, Message, Offset, Push, PushError, Return};
use crate::metrics::{Metrics, Source};
use crate::store::memory::MemoryStore;

/// Only the last one is guarded.
const CHANNELS: [&str; 3] = ["a", "b", "private-c"];
const NODES: usize = 3;
const CLIENTS: usize = 4;

/// Grants everything.
struct Yes;

#[async_trait]
impl Authorizer for Yes {
    async fn authorize(&self, _: AuthRequest<'_>) -> Result<Grant, Denied> {
        Ok(Grant::default())
    }
}

/// The store that all nodes share.
#[derive(Default)]
struct Sessions(Mutex<HashMap<SocketId, String>>, Mutex<BTreeMap<u64, Vec<Vec<u8>>>>);

#[async_trait]
impl SessionStore for Sessions {
    async fn key(&self, fresh: SessionKey) -> Result<SessionKey, SessionError> {
        Ok(fresh)
    }

    async fn write(&self, changes: Vec<(SocketId, SessionChange)>) -> Result<(), SessionError> {
        let mut sessions = self.0.lock();
        for (id, change) in changes {
            match change {
                SessionChange::Put(session, _) => sessions.insert(id, session),
                SessionChange::Delete => sessions.remove(&id),
            };
        }
        Ok(())
    }

    async fn take(&self, id: SocketId) -> Result<Option<String>, SessionError> {
        Ok(self.0.lock().remove(&id))
    }

    async fn may_offer(&self, name: u64) -> Result<bool, SessionError> {
        Ok(!self.1.lock().contains_key(&name))
    }

    async fn offer(&self, name: u64, past: Vec<Vec<u8>>) -> Result<(), SessionError> {
        self.1.lock().insert(name, past);
        Ok(())
    }

    async fn past(&self, name: u64) -> Result<Vec<Vec<u8>>, SessionError> {
        Ok(self.1.lock().get(&name).cloned().unwrap_or_default())
    }

    async fn ban(&self, _: String, _: Duration) -> Result<(), SessionError> {
        Ok(())
    }

    async fn is_banned(&self, _: Vec<String>) -> Result<bool, SessionError> {
        Ok(false)
    }
}

/// A connection of a client; frames are `<channel> <number> <offset>`, or `- - <offset>`.
type Phone = FakeSocket<Frames>;

#[derive(Default)]
struct Frames(Mutex<VecDeque<Bytes>>);

impl Receiver for Frames {
    const CAN_RECOVER: bool = true;

    fn push(&self, push: &Push<'_>) -> Result<(), PushError> {
        if let Some(frame) = push.encoded(Dialect::Recoverable, Self::recoverable) {
            self.push_frame(frame.clone());
        }
        Ok(())
    }

    fn push_frame(&self, frame: Bytes) {
        self.0.lock().push_back(frame);
    }

    fn recoverable(message: &Message<'_>, offset: Option<Offset>) -> Option<Bytes> {
        let offset = offset?;
        match message {
            Message::Event { channel, data, .. } => Some(format!("{channel} {data} {offset}").into()),
            Message::Position => Some(format!("- - {offset}").into()),
            _ => None,
        }
    }
}

fn phone(id: SocketId) -> Phone {
    Phone::new(id, Frames::default())
}

/// A message of the stream from Redis.
enum Heard {
    Event {
        channel: &'static str,
        number: u64,
        except: Option<SocketId>,
    },
    /// A message that is not an event, which all nodes count.
    Noise,
    Order(u64),
}

struct Node {
    hub: Arc<Hub<Phone>>,
    /// How far it has received the stream; `None` while it is cut off.
    heard: Option<usize>,
}

#[derive(Default)]
struct Client {
    node: usize,
    /// The id of its session; `None` before the first one.
    id: Option<SocketId>,
    phone: Option<Phone>,
    offset: Option<String>,
    /// Events of its current session.
    received: Vec<(String, u64)>,
    /// Channels that it is in, with how far its node had received the stream when it joined.
    stays: BTreeMap<&'static str, usize>,
    /// Positions in the stream that its node missed while the client was connected: no one can tell the client.
    holes: HashSet<usize>,
    /// Events of its earlier sessions.
    before: HashSet<u64>,
}

struct World {
    config: Config,
    sessions: Arc<Sessions>,
    stream: Vec<Heard>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    count: u64,
    /// How often a client resumed its session, and how often it did so on another node.
    back: usize,
    elsewhere: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish {
        channel: usize,
        except: Option<usize>,
    },
    Noise,
    /// A node receives this many more messages.
    Hear {
        node: usize,
        count: usize,
    },
    /// An event that only one node receives.
    Local {
        node: usize,
        channel: usize,
    },
    Join {
        client: usize,
        channel: usize,
    },
    Leave {
        client: usize,
        channel: usize,
    },
    Beat {
        client: usize,
    },
    /// The connection ends; this many frames at its end are lost. The node may not notice.
    Drop {
        client: usize,
        lost: usize,
        is_known: bool,
    },
    Return {
        client: usize,
        node: usize,
    },
    Stop {
        node: usize,
    },
    Kill {
        node: usize,
    },
    Cut {
        node: usize,
    },
    Repair {
        node: usize,
    },
    /// A node is given past events of other nodes, if they have offered them.
    Fetch {
        node: usize,
    },
    /// All nodes begin a new epoch if one of them is out of step, and write what has changed.
    Tick,
    Seconds(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let (node, client, channel) = (0..NODES, 0..CLIENTS, 0..CHANNELS.len());
    prop_oneof![
        10 => (channel.clone(), prop::option::weighted(0.2, client.clone())).prop_map(|(channel, except)| Step::Publish { channel, except }),
        1 => Just(Step::Noise),
        10 => (node.clone(), 1..8_usize).prop_map(|(node, count)| Step::Hear { node, count }),
        1 => (node.clone(), channel.clone()).prop_map(|(node, channel)| Step::Local { node, channel }),
        5 => (client.clone(), channel.clone()).prop_map(|(client, channel)| Step::Join { client, channel }),
        1 => (client.clone(), channel).prop_map(|(client, channel)| Step::Leave { client, channel }),
        2 => client.clone().prop_map(|client| Step::Beat { client }),
        4 => (client.clone(), 0..4_usize, any::<bool>()).prop_map(|(client, lost, is_known)| Step::Drop { client, lost, is_known }),
        6 => (client, node.clone()).prop_map(|(client, node)| Step::Return { client, node }),
        1 => node.clone().prop_map(|node| Step::Stop { node }),
        1 => node.clone().prop_map(|node| Step::Kill { node }),
        1 => node.clone().prop_map(|node| Step::Cut { node }),
        2 => node.prop_map(|node| Step::Repair { node }),
        4 => Just(Step::Tick),
        3 => (0..NODES).prop_map(|node| Step::Fetch { node }),
        1 => (1..40_u64).prop_map(Step::Seconds),
    ]
}

impl World {
    fn new() -> Self {
        let mut config = Config::default();
        config.cluster.enabled = true;
        config.limits.subscribes_per_second = 0;
        // So few that some are dropped.
        config.recovery.events = 12;
        let mut world = Self {
            config,
            sessions: Arc::default(),
            stream: Vec::new(),
            nodes: Vec::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            count: 0,
            back: 0,
            elsewhere: 0,
        };
        world.nodes = (0..NODES).map(|_| world.node()).collect();
        world
    }

    /// A node that starts to receive the stream now.
    fn node(&self) -> Node {
        let bus = Bus::open(&self.config).unwrap().unwrap().with_sessions(Arc::clone(&self.sessions) as Arc<dyn SessionStore>);
        let hub = Hub::new(&self.config, Arc::new(Yes), Arc::new(MemoryStore::default()), Some(bus), Arc::new(Metrics::new()));
        hub.listens_again();
        Node { hub, heard: Some(self.stream.len()) }
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn hear(&mut self, node: usize, count: usize) {
        let Node { hub, heard } = &mut self.nodes[node];
        let Some(heard) = heard else { return };
        for message in self.stream[*heard..].iter().take(count) {
            *heard += 1;
            match *message {
                Heard::Event { channel, number, except } => {
                    let data = RawValue::from_string(number.to_string()).unwrap();
                    let event = Event { channel, name: "sent".into(), data: &data, except, user: None };
                    hub.receive(channel, Source::Redis, || Ok::<_, ()>((&event, Origin::Application))).unwrap();
                }
                Heard::Noise => assert!(hub.receive("a", Source::Redis, || Err::<(Event<'static>, Origin), ()>(())).is_err()),
                Heard::Order(name) => assert!(hub.handle_control(&serde_json::to_vec(&Control::Order(name)).unwrap())),
            }
        }
    }

    fn tick_order(&mut self) {
        self.count += 1;
        let out = self.nodes.iter().filter(|node| node.heard.is_some()).find_map(|node| {
            let history = node.hub.recovery.as_ref().unwrap().history();
            (!history.is_in_order()).then(|| history.next_name(1 << 40 | self.count))
        });
        if let Some(name) = out {
            self.stream.push(Heard::Order(name));
        }
    }

    async fn write(&self) {
        for node in &self.nodes {
            node.hub.write_sessions(node.hub.handover.as_ref().unwrap()).await;
        }
    }

    /// Lets the tasks run.
    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn join(&mut self, client: usize, channel: usize) {
        let (client, channel) = (&mut self.clients[client], CHANNELS[channel]);
        let node = &self.nodes[client.node];
        let (Some(id), Some(_), Some(heard)) = (client.id, &client.phone, node.heard) else { return };
        node.hub.subscribe(id, channel, Vec::<(String, String)>::new());
        Self::settle().await;
        client.stays.entry(channel).or_insert(heard);
    }

    fn leave(&mut self, client: usize, channel: usize) {
        let client = &mut self.clients[client];
        let (Some(id), Some(_)) = (client.id, &client.phone) else { return };
        client.read(0);
        self.nodes[client.node].hub.unsubscribe(id, CHANNELS[channel]);
        self.check();
        let client = self.clients.iter_mut().find(|client| client.id == Some(id)).unwrap();
        // What it received from the channel has been checked; only what follows counts from now on.
        client.stays.remove(CHANNELS[channel]);
        client.received.retain(|(name, _)| name != CHANNELS[channel]);
    }

    fn drop(&mut self, client: usize, lost: usize, is_known: bool) {
        let client = &mut self.clients[client];
        client.read(lost);
        if let (Some(phone), true) = (client.phone.take(), is_known) {
            self.nodes[client.node].hub.end(&phone, CloseReason::TransportClose);
        }
    }

    async fn come(&mut self, at: usize, to: usize) {
        // In time, a node writes what has changed.
        self.write().await;
        let Self { nodes, clients, .. } = self;
        let (node, client) = (&nodes[to], &mut clients[at]);
        if client.phone.is_some() || node.heard.is_none() {
            return;
        }
        let hub = &node.hub;
        let offset = client.offset.clone();
        let mut resumed = None;
        let mut is_back = false;
        if let Some(id) = client.id {
            let connect = || resumed.insert(phone(id)).clone();
            is_back = match hub.recover(id, offset.as_deref(), connect) {
                Return::Back => true,
                Return::Afresh => false,
                Return::Elsewhere => {
                    let found = hub.find(id, offset.as_deref()).await;
                    let is_back = found.is_some_and(|found| hub.adopt(id, found, offset.as_deref(), || resumed.insert(phone(id)).clone()));
                    if is_back {
                        self.elsewhere += 1;
                        let from = hub.nodes.as_ref().unwrap().bus.node_id();
                        let taken = serde_json::to_vec(&Control::Taken { from, id }).unwrap();
                        for node in nodes.iter() {
                            assert!(node.hub.handle_control(&taken));
                        }
                    }
                    is_back
                }
            };
        }
        if is_back {
            self.back += 1;
            client.phone = resumed;
        } else {
            // It knows that its session ended: what it received before no longer counts. Its offset stays as it is.
            self.count += 1;
            let id = SocketId::new(1, self.count);
            let fresh = phone(id);
            hub.connect_afresh(fresh.clone(), offset.as_deref());
            let before = client.before.iter().copied().chain(client.received.iter().map(|(_, number)| *number)).collect();
            *client = Client { id: Some(id), phone: Some(fresh), offset, before, ..Client::default() };
        }
        client.node = to;
        Self::settle().await;
    }

    /// All clients of the node lose their connection.
    fn leave_node(&mut self, node: usize) {
        let theirs: Vec<_> = (0..CLIENTS).filter(|&client| self.clients[client].node == node).collect();
        for client in theirs {
            let lost = client % 3;
            self.clients[client].read(lost);
            self.clients[client].phone = None;
        }
        self.nodes[node] = self.node();
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Publish { channel, except } => {
                let number = self.next();
                let except = except.and_then(|client| self.clients[client].id);
                self.stream.push(Heard::Event { channel: CHANNELS[channel], number, except });
            }
            Step::Noise => self.stream.push(Heard::Noise),
            Step::Hear { node, count } => self.hear(node, count),
            Step::Local { node, channel } => {
                let data = RawValue::from_string("0".to_owned()).unwrap();
                let event = Event { channel: CHANNELS[channel], name: "sent".into(), data: &data, except: None, user: None };
                self.nodes[node].hub.publish(&event, Source::Http);
            }
            Step::Join { client, channel } => self.join(client, channel).await,
            Step::Leave { client, channel } => self.leave(client, channel),
            Step::Beat { client } => {
                let client = &self.clients[client];
                if let Some(phone) = &client.phone {
                    self.nodes[client.node].hub.tell_position(phone, &mut 0);
                }
            }
            Step::Drop { client, lost, is_known } => self.drop(client, lost, is_known),
            Step::Return { client, node } => self.come(client, node).await,
            Step::Stop { node } => {
                let mut sockets = Vec::new();
                self.nodes[node].hub.each_socket(|socket| sockets.push(socket.clone()));
                self.nodes[node].hub.hand_over(&sockets).await;
                self.leave_node(node);
            }
            Step::Kill { node } => {
                // In time, a node writes what has changed.
                self.write().await;
                self.leave_node(node);
            }
            Step::Cut { node } => self.nodes[node].heard = None,
            Step::Repair { node } => {
                let end = self.stream.len();
                let Node { hub, heard } = &mut self.nodes[node];
                if heard.is_none() {
                    *heard = Some(end);
                    hub.listens_again();
                    // It does not know where it missed them; its connected clients miss some, as without recovery.
                    for client in self.clients.iter_mut().filter(|client| client.node == node && client.phone.is_some()) {
                        client.holes.extend(0..end);
                    }
                }
            }
            Step::Fetch { node } => {
                Self::settle().await;
                let names: Vec<u64> = self.sessions.1.lock().keys().copied().collect();
                for name in names {
                    self.nodes[node].hub.fetch_past(name).await;
                }
            }
            Step::Tick => {
                self.tick_order();
                self.write().await;
            }
            Step::Seconds(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
        self.check();
    }

    /// What connected clients have received is what was published.
    fn check(&mut self) {
        let Self { clients, nodes, stream, .. } = self;
        for client in clients.iter_mut().filter(|client| client.phone.is_some()) {
            client.read(0);
            let heard = nodes[client.node].heard.unwrap_or(usize::MAX).min(stream.len());
            let numbers: Vec<u64> = client.received.iter().map(|(_, number)| *number).filter(|number| *number > 0).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "twice, or out of order: {numbers:?}");
            let (mut owed, mut optional) = (BTreeSet::new(), BTreeSet::new());
            for (at, message) in stream[..heard].iter().enumerate() {
                let Heard::Event { channel, number, except } = message else { continue };
                if *except != client.id && client.stays.get(channel).is_some_and(|since| at >= *since) {
                    if client.holes.contains(&at) || client.before.contains(number) {
                        optional.insert(*number)
                    } else {
                        owed.insert(*number)
                    };
                }
            }
            let received: BTreeSet<u64> = numbers.into_iter().collect();
            let is_cut = nodes[client.node].heard.is_none();
            let missing: Vec<_> = owed.difference(&received).filter(|_| !is_cut).collect();
            assert!(missing.is_empty(), "{:?} misses {missing:?} of {owed:?}", client.id);
            let foreign: Vec<_> = received.iter().filter(|number| !owed.contains(number) && !optional.contains(number)).collect();
            assert!(foreign.is_empty(), "{:?} got {foreign:?}, which is not its own", client.id);
        }
    }
}

impl Client {
    /// Reads the frames that have arrived, except this many at the end.
    fn read(&mut self, lost: usize) {
        let Some(phone) = &self.phone else { return };
        let mut frames = phone.0.lock();
        while frames.len() > lost {
            let frame = frames.pop_front().unwrap();
            let text = std::str::from_utf8(&frame).unwrap();
            let [channel, number, offset] = text.split(' ').collect::<Vec<_>>().try_into().unwrap();
            self.offset = Some(offset.to_owned());
            if let Ok(number) = number.parse() {
                self.received.push((channel.to_owned(), number));
            }
        }
    }
}

async fn walk(steps: Vec<Step>) -> (usize, usize) {
    let mut world = World::new();
    world.step(Step::Tick).await;
    for client in 0..CLIENTS {
        world.hear(client % NODES, usize::MAX);
        world.come(client, client % NODES).await;
        for channel in 0..CHANNELS.len() {
            world.join(client, channel).await;
        }
    }
    for step in steps {
        world.step(step).await;
    }
    for node in 0..NODES {
        world.step(Step::Repair { node }).await;
        world.hear(node, usize::MAX);
    }
    for client in 0..CLIENTS {
        world.come(client, client % NODES).await;
    }
    world.check();
    (world.back, world.elsewhere)
}

proptest! {
    #![proptest_config(walks())]

    #[test]
    fn who_comes_back_has_everything_or_knows(steps in prop::collection::vec(steps(), 1..120)) {
        in_paused_time(async {
            walk(steps).await;
        });
    }
}

/// A client is ahead of the node that it connects to, starts a new session there, and receives again what it had received, at
/// the same offset: when it reconnects with that offset, it may have received something of its new session, or nothing.
#[test]
fn what_is_heard_again_after_a_fresh_start_comes_once() {
    let steps = [
        Step::Publish { channel: 1, except: None },
        Step::Hear { node: 1, count: 1 },
        Step::Drop { client: 1, lost: 0, is_known: false },
        Step::Return { client: 1, node: 2 },
        Step::Join { client: 1, channel: 1 },
        Step::Hear { node: 2, count: 1 },
        Step::Drop { client: 1, lost: 0, is_known: false },
    ];
    in_paused_time(async {
        walk(steps.to_vec()).await;
    });
    // And on a third node, which has not received it yet.
    in_paused_time(async {
        walk([steps.as_slice(), &[Step::Return { client: 1, node: 0 }, Step::Join { client: 1, channel: 1 }]].concat()).await;
    });
}

/// Redis delivers an event to one node a moment before the other.
#[test]
fn a_client_that_is_ahead_of_the_node_waits_for_it() {
    in_paused_time(async {
        let mut world = World::new();
        world.step(Step::Tick).await;
        for node in 0..NODES {
            world.hear(node, usize::MAX);
        }
        world.come(1, 1).await;
        world.step(Step::Publish { channel: 0, except: None }).await;
        world.hear(1, usize::MAX);
        // Its subscription is ahead, too.
        world.join(1, 0).await;
        world.step(Step::Publish { channel: 0, except: None }).await;
        world.hear(1, usize::MAX);
        world.drop(1, 0, true);
        world.write().await;
        let (id, offset, hub) = (world.clients[1].id.unwrap(), world.clients[1].offset.clone(), Arc::clone(&world.nodes[2].hub));
        assert!(offset.is_some());
        let coming = tokio::spawn(async move {
            let found = hub.find(id, offset.as_deref()).await.unwrap();
            hub.adopt(id, found, offset.as_deref(), || phone(id))
        });
        World::settle().await;
        world.hear(2, usize::MAX);
        assert!(coming.await.unwrap());
    });
}

/// The walks reach the cases that they are for.
#[test]
fn walks_lead_back_and_elsewhere() {
    let mut runner = proptest::test_runner::TestRunner::new(walks());
    let (mut back, mut elsewhere) = (0, 0);
    for _ in 0..64 {
        let steps = prop::collection::vec(steps(), 60..120).new_tree(&mut runner).unwrap().current();
        in_paused_time(async {
            let came = walk(steps).await;
            (back, elsewhere) = (back + came.0, elsewhere + came.1);
        });
    }
    assert!(back > 64 && elsewhere > 16, "{back} came back, {elsewhere} of them to another node");
}
