//! The nodes, the stream of messages that they receive, and the clients of the walks.
//!
//! Input: what happens to them. Output: a panic in [`World::check`] when a client has received something else than it should have.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;

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
pub(super) const CHANNELS: [&str; 3] = ["a", "b", "private-c"];
pub(super) const NODES: usize = 3;
pub(super) const CLIENTS: usize = 4;

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
pub(super) struct Sessions(Mutex<HashMap<SocketId, String>>, Mutex<BTreeMap<u64, Vec<Vec<u8>>>>);

impl Sessions {
    /// The names before which a node has offered its past events.
    pub(super) fn offered(&self) -> Vec<u64> {
        self.1.lock().keys().copied().collect()
    }
}

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
pub(super) type Phone = FakeSocket<Frames>;

#[derive(Default)]
pub(super) struct Frames(Mutex<VecDeque<Bytes>>);

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

pub(super) fn phone(id: SocketId) -> Phone {
    Phone::new(id, Frames::default())
}

/// A message of the stream from Redis.
pub(super) enum Heard {
    Event {
        channel: &'static str,
        number: u64,
        except: Option<SocketId>,
    },
    /// A message that is not an event, which all nodes count.
    Noise,
    Order(u64),
}

pub(super) struct Node {
    pub(super) hub: Arc<Hub<Phone>>,
    /// How far it has received the stream; `None` while it is cut off.
    pub(super) heard: Option<usize>,
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) node: usize,
    /// The id of its session; `None` before the first one.
    pub(super) id: Option<SocketId>,
    pub(super) phone: Option<Phone>,
    pub(super) offset: Option<String>,
    /// Events of its current session.
    received: Vec<(String, u64)>,
    /// Channels that it is in, with how far its node had received the stream when it joined.
    stays: BTreeMap<&'static str, usize>,
    /// Positions in the stream that its node missed while the client was connected: no one can tell the client.
    pub(super) holes: HashSet<usize>,
    /// Events of its earlier sessions.
    before: HashSet<u64>,
}

pub(super) struct World {
    config: Config,
    pub(super) sessions: Arc<Sessions>,
    pub(super) stream: Vec<Heard>,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Client>,
    count: u64,
    /// How often a client resumed its session, and how often it did so on another node.
    pub(super) back: usize,
    pub(super) elsewhere: usize,
}

impl World {
    pub(super) fn new() -> Self {
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
    pub(super) fn node(&self) -> Node {
        let bus = Bus::open(&self.config).unwrap().unwrap().with_sessions(Arc::clone(&self.sessions) as Arc<dyn SessionStore>);
        let hub = Hub::new(&self.config, Arc::new(Yes), Arc::new(MemoryStore::default()), Some(bus), Arc::new(Metrics::new()));
        hub.listens_again();
        Node { hub, heard: Some(self.stream.len()) }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(super) fn hear(&mut self, node: usize, count: usize) {
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

    pub(super) fn tick_order(&mut self) {
        self.count += 1;
        let out = self.nodes.iter().filter(|node| node.heard.is_some()).find_map(|node| {
            let history = node.hub.recovery.as_ref().unwrap().history();
            (!history.epochs.is_in_order()).then(|| history.epochs.next_name(1 << 40 | self.count))
        });
        if let Some(name) = out {
            self.stream.push(Heard::Order(name));
        }
    }

    pub(super) async fn write(&self) {
        for node in &self.nodes {
            node.hub.write_sessions(node.hub.handover.as_ref().unwrap()).await;
        }
    }

    /// Lets the tasks run.
    pub(super) async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    pub(super) async fn join(&mut self, client: usize, channel: usize) {
        let (client, channel) = (&mut self.clients[client], CHANNELS[channel]);
        let node = &self.nodes[client.node];
        let (Some(id), Some(_), Some(heard)) = (client.id, &client.phone, node.heard) else { return };
        node.hub.subscribe(id, channel, Vec::<(String, String)>::new());
        Self::settle().await;
        client.stays.entry(channel).or_insert(heard);
    }

    pub(super) fn leave(&mut self, client: usize, channel: usize) {
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

    pub(super) fn drop(&mut self, client: usize, lost: usize, is_known: bool) {
        let client = &mut self.clients[client];
        client.read(lost);
        if let (Some(phone), true) = (client.phone.take(), is_known) {
            self.nodes[client.node].hub.end(&phone, CloseReason::TransportClose);
        }
    }

    pub(super) async fn come(&mut self, at: usize, to: usize) {
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
    pub(super) fn leave_node(&mut self, node: usize) {
        let theirs: Vec<_> = (0..CLIENTS).filter(|&client| self.clients[client].node == node).collect();
        for client in theirs {
            let lost = client % 3;
            self.clients[client].read(lost);
            self.clients[client].phone = None;
        }
        self.nodes[node] = self.node();
    }

    /// What connected clients have received is what was published.
    pub(super) fn check(&mut self) {
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
    pub(super) fn read(&mut self, lost: usize) {
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
