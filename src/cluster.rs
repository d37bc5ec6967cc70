//! Several nodes on one Redis: each node PUBLISHes its own events, and every node (the sender too) receives them through
//! the same subscription as Laravel's broadcasts.
//!
//! Input: events of the HTTP API and of the built-in Redis endpoint, whispers, and messages between nodes. Output: messages
//! in Laravel's [format](envelope) on Laravel's channels. The presence store PUBLISHes its changes itself, in the script that
//! makes each change. Only `hub::nodes` decides whether something goes this way, or stays on a node that is alone.
//!
//! The contract, for a node alone as well:
//! - **Order**: what a node submits goes out in that order, whatever its kind. A channel has one order on all nodes: that in
//!   which Redis takes its messages.
//! - **At most once**: nothing is sent again after the connection broke under it, since Redis may have taken it.
//! - **Several events** of one call are taken all or none. After an error it is unknown whether Redis took them. With a Redis
//!   Cluster, where they belong to several servers, and when they are larger than [`MAX_TRANSACTION_BYTES`] together, [`BusError::sent`]
//!   of them went out before the one that failed.
//! - **While Redis is unreachable** events go to this node's clients ([`Reach::Here`]), messages between nodes go nowhere, and
//!   [`Bus::forward`] fails, since its caller can try again.
//! - **A full queue** drops whispers and messages between nodes, and makes the others wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::Pipeline;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::config::{Config, RedisMode};
use crate::event::Event;
use crate::redis_client::{QueryError, ReconnectingClient, Redis, RedisConfigError};
use crate::warn_throttled;

pub(crate) mod control;
pub mod envelope;
pub(crate) mod sessions;

use control::{Answer, Asked, CONTROL_CHANNEL, Question};
use sessions::{RedisSessions, SessionStore};

/// Messages queued for Redis. When the queue is full, whispers are dropped and HTTP requests wait.
const QUEUE: usize = 4096;
/// Payload bytes of the queued messages; the same applies when this is reached.
const QUEUE_BYTES: u32 = 32 * 1024 * 1024;
/// Redis sends nothing to its subscribers before a transaction has ended, and disconnects those for whom more than 32 MB wait
/// (`client-output-buffer-limit pubsub`). So a message with more bytes than this goes out in several transactions.
const MAX_TRANSACTION_BYTES: usize = 4 * 1024 * 1024;
/// Messages sent in one round trip.
const BATCH: usize = 128;

/// A connection that was idle for longer than this is checked with a PING before use.
const IDLE: Duration = Duration::from_millis(100);

/// PUBLISHes on the cluster server that owns the channel's slot, so that a channel's messages keep their order.
const PUBLISH_BY_SLOT: &str = "return redis.call('PUBLISH', ARGV[1], ARGV[2])";

/// Sends messages to the other nodes through Redis.
pub struct Bus {
    client: ReconnectingClient,
    key_prefix: String,
    queue: mpsc::Sender<Message>,
    /// Locked by [`Bus::run`] while it runs.
    waiting: Mutex<mpsc::Receiver<Message>>,
    /// Bytes that the queue still has room for.
    room: Arc<Semaphore>,
    /// Identifies this process among the nodes.
    node_id: u64,
    asked: Asked,
    /// Set where all nodes receive the same messages in the same order, so that each can resume the others' sessions.
    sessions: Option<Arc<dyn SessionStore>>,
}

struct Message {
    parts: Vec<Part>,
    content: Content,
    done: Option<oneshot::Sender<Result<Sent, BusError>>>,
    /// The bytes that the message occupies in the queue, released when it has been handled.
    room: Option<OwnedSemaphorePermit>,
}

struct Part {
    channel: String,
    /// Shared by all parts with the same payload.
    payload: Bytes,
}

/// How many parts fit into a transaction, at least one.
fn fitting(parts: &[Part]) -> usize {
    let mut bytes = 0;
    let fits = |part: &&Part| {
        bytes += part.payload.len();
        bytes <= MAX_TRANSACTION_BYTES
    };
    parts.iter().take_while(fits).count().max(1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Event,
    /// An event as a client of the built-in Redis endpoint wrote it.
    Forwarded,
    /// A message for the nodes themselves, never for clients.
    Control,
}

/// Which nodes an event was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// To this node alone, because Redis is unreachable.
    Here,
    /// To all nodes.
    Everywhere,
}

/// What became of a message.
#[derive(Clone, Copy)]
struct Sent {
    reach: Reach,
    /// What Redis answered: how many of its clients received it, over all parts.
    receivers: usize,
}

impl Message {
    const fn new(parts: Vec<Part>, content: Content) -> Self {
        Self { parts, content, done: None, room: None }
    }

    /// Sends the result to the caller, if there is one and it still waits.
    fn report(self, result: Result<Sent, BusError>) {
        if let Some(done) = self.done {
            let _ = done.send(result);
        }
    }

    /// Whether Redis can take it in one transaction: alone, or not too large.
    fn is_atomic(&self) -> bool {
        fitting(&self.parts) == self.parts.len()
    }

    /// The bytes to reserve in the queue; a message larger than the whole queue reserves all of it.
    fn bytes(&self) -> u32 {
        let own = self.parts.chunk_by(|one, next| one.payload.as_ptr() == next.payload.as_ptr()).map(|parts| parts[0].payload.len());
        let bytes = own.chain(self.parts.iter().map(|part| part.channel.len())).sum::<usize>();
        u32::try_from(bytes).unwrap_or(u32::MAX).min(QUEUE_BYTES)
    }
}

/// An event could not be PUBLISHed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the event could not be published to the nodes: {cause}")]
pub struct BusError {
    cause: String,
    /// How many of the events, counted from the first, were sent before the failure.
    pub(crate) sent: usize,
}

impl From<String> for BusError {
    fn from(cause: String) -> Self {
        Self { cause, sent: 0 }
    }
}

impl Bus {
    /// A bus, which sends nothing until [`Bus::run`] is polled. `None` when `cluster.enabled` is off.
    ///
    /// # Errors
    /// [`RedisConfigError`] when the Redis settings are invalid.
    pub fn open(config: &Config) -> Result<Option<Self>, RedisConfigError> {
        if !config.cluster.enabled {
            return Ok(None);
        }
        let redis = &config.database_config.redis;
        // With a Redis Cluster nodes receive messages in different orders; with single-channel subscriptions, only some of them.
        let is_one_order = redis.cluster.is_empty() && config.subscribers.redis_mode == RedisMode::Pattern;
        let sessions: Option<Arc<dyn SessionStore>> = if is_one_order && config.recovery.enabled {
            let client = ReconnectingClient::new(Redis::new(redis)?, "sessions", "clients cannot resume their sessions on other nodes");
            Some(Arc::new(RedisSessions::new(client, &redis.key_prefix)))
        } else {
            None
        };
        let (queue, waiting) = mpsc::channel(QUEUE);
        Ok(Some(Self {
            client: ReconnectingClient::new(Redis::new(redis)?, "publishing", "events of this node cannot be published"),
            key_prefix: redis.key_prefix.clone(),
            queue,
            waiting: Mutex::new(waiting),
            room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            node_id: rand::random(),
            asked: Asked::default(),
            sessions,
        }))
    }

    /// The store of sessions that other nodes can resume, where that is possible.
    #[must_use]
    pub fn sessions(&self) -> Option<Arc<dyn SessionStore>> {
        self.sessions.clone()
    }

    /// The same bus with another session store.
    #[cfg(test)]
    pub(crate) fn with_sessions(self, sessions: Arc<dyn SessionStore>) -> Self {
        Self { sessions: Some(sessions), ..self }
    }

    /// PUBLISHes events of the HTTP API at most once, or delivers them on this node while Redis is unreachable. Redis takes
    /// all of them or none, except a Redis Cluster: there they belong to several servers and are sent one after the other.
    ///
    /// # Errors
    /// [`BusError`] when the connection to Redis broke while sending, or the server is shutting down.
    pub async fn publish(&self, events: &[Event<'_>]) -> Result<Reach, BusError> {
        if events.is_empty() {
            return Ok(Reach::Everywhere);
        }
        Ok(self.submit(self.message(events, true)).await?.reach)
    }

    /// PUBLISHes a payload as it came, at most once, on channels without prefix: on all of them or none, as far as
    /// [`Bus::publish`] can. Returns the answer of Redis: how many of its clients received it, over all channels.
    ///
    /// # Errors
    /// [`BusError`] when Redis is unreachable, the connection broke while sending, or the server is shutting down.
    pub async fn forward(&self, channels: &[&str], payload: &[u8]) -> Result<usize, BusError> {
        if channels.is_empty() {
            return Ok(0);
        }
        let payload = Bytes::copy_from_slice(payload);
        let part = |channel: &&str| self.part(channel, payload.clone());
        let sent = self.submit(Message::new(channels.iter().map(part).collect(), Content::Forwarded)).await?;
        match sent.reach {
            Reach::Everywhere => Ok(sent.receivers),
            Reach::Here => Err(BusError::from("cluster.enabled is true, and the Redis of the cluster does not answer".to_owned())),
        }
    }

    /// Queues a message when the queue has room, and waits for the result.
    async fn submit(&self, mut message: Message) -> Result<Sent, BusError> {
        let (done, answer) = oneshot::channel();
        message.done = Some(done);
        let closed = || BusError::from("the server is shutting down".to_owned());
        message.room = Arc::clone(&self.room).acquire_many_owned(message.bytes()).await.ok();
        self.queue.send(message).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Queues an event for PUBLISH if the queue has room, and returns whether it had. The outcome is not reported.
    pub fn try_publish(&self, event: &Event<'_>) -> bool {
        let has_room = self.try_send(self.message(std::slice::from_ref(event), false));
        if !has_room {
            warn_throttled!(class = 0, key = "", queue = QUEUE, bytes = QUEUE_BYTES, "whispers are dropped until Redis keeps up");
        }
        has_room
    }

    fn try_send(&self, mut message: Message) -> bool {
        message.room = Arc::clone(&self.room).try_acquire_many_owned(message.bytes()).ok();
        message.room.is_some() && self.queue.try_send(message).is_ok()
    }

    /// The number that identifies this process among the nodes.
    #[must_use]
    pub const fn node_id(&self) -> u64 {
        self.node_id
    }

    /// Asks the other nodes, of which there are `others`. Returns the answers that arrived in time, and whether some are missing.
    pub async fn ask(&self, question: Question, others: usize) -> (Vec<Answer>, bool) {
        let (mut asked, patience) = (self.asked.begin(), question.patience());
        self.send_control(&control::Message::Ask { from: self.node_id, id: asked.id, question });
        let mut answers = Vec::with_capacity(others);
        let collecting = async {
            while answers.len() < others {
                match asked.answers.recv().await {
                    Some(answer) => answers.push(answer),
                    None => return,
                }
            }
        };
        let is_late = tokio::time::timeout(patience, collecting).await.is_err();
        (answers, is_late)
    }

    /// Queues a control message for the other nodes if the queue has room.
    pub fn send_control(&self, message: &control::Message) {
        let payload = serde_json::to_vec(message).expect("texts and numbers serialize");
        if !self.try_send(Message::new(vec![self.part(CONTROL_CHANNEL, payload.into())], Content::Control)) {
            warn_throttled!(class = 0, key = "", queue = QUEUE, bytes = QUEUE_BYTES, "a message to the other nodes was dropped");
        }
    }

    /// Hands an answer of another node to the question it belongs to.
    pub fn answered(&self, id: u64, answer: Answer) {
        self.asked.answered(id, answer);
    }

    /// A payload for a channel that has no prefix yet.
    fn part(&self, channel: &str, payload: Bytes) -> Part {
        Part { channel: format!("{}{channel}", self.key_prefix), payload }
    }

    fn message(&self, events: &[Event<'_>], http: bool) -> Message {
        let is_same = |one: &Event<'_>, next: &Event<'_>| {
            std::ptr::eq(one.data, next.data) && one.name == next.name && one.except == next.except && one.user == next.user
        };
        // An event for many channels is encoded once.
        let parts = events.chunk_by(is_same).flat_map(|events| {
            let payload = Bytes::from(envelope::payload_of(&events[0], http));
            events.iter().map(move |event| self.part(event.channel, payload.clone()))
        });
        Message::new(parts.collect(), Content::Event)
    }

    /// Sends queued messages until dropped. A connection that was idle is checked with a PING first: if it broke under a message,
    /// its fate would be unknown. While Redis is unreachable, events go to `here`, with whether each is a whisper.
    pub async fn run(&self, here: impl Fn(&Event<'_>, bool)) {
        let mut waiting = self.waiting.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        let mut used = Instant::now();
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            if used.elapsed() > IDLE && !self.client.is_cluster() {
                let mut ping = redis::pipe();
                ping.cmd("PING").ignore();
                // The error can be ignored: a PING that fails drops the connection, and the query below makes a new one.
                let _ = self.client.query::<()>(&ping).await;
            }
            used = Instant::now();
            let mut messages = batch.drain(..).peekable();
            while let Some(message) = messages.next() {
                if self.client.is_cluster() || !message.is_atomic() {
                    let result = self.publish_in_parts(&message, &here).await;
                    message.report(result);
                } else if message.parts.len() > 1 {
                    self.publish_together(vec![message], &here).await;
                } else {
                    let mut together = vec![message];
                    together.extend(std::iter::from_fn(|| messages.next_if(|next| next.parts.len() == 1)));
                    self.publish_together(together, &here).await;
                }
            }
        }
    }

    /// Sends messages in one round trip: several with one part each, or one, whose parts are a transaction.
    async fn publish_together(&self, messages: Vec<Message>, here: &impl Fn(&Event<'_>, bool)) {
        let mut pipeline = redis::pipe();
        if messages.iter().any(|message| message.parts.len() > 1) {
            pipeline.atomic();
        }
        for part in messages.iter().flat_map(|message| &message.parts) {
            pipeline.publish(&part.channel, &part.payload[..]);
        }
        let mut answers = self.query(&pipeline).await.map(|answers| answers.map(Vec::into_iter));
        for message in messages {
            let result = match &mut answers {
                Ok(Some(answers)) => {
                    let receivers = answers.by_ref().take(message.parts.len()).sum();
                    Ok(Sent { reach: Reach::Everywhere, receivers })
                }
                Ok(None) => {
                    message.parts.iter().for_each(|part| self.give_back(&message, part, here));
                    Ok(Sent { reach: Reach::Here, receivers: 0 })
                }
                Err(error) => Err(error.clone()),
            };
            message.report(result);
        }
    }

    /// Sends parts in several transactions: in a Redis Cluster they belong to several servers, elsewhere they are too large for one.
    async fn publish_in_parts(&self, message: &Message, here: &impl Fn(&Event<'_>, bool)) -> Result<Sent, BusError> {
        let mut total = Sent { reach: Reach::Everywhere, receivers: 0 };
        let mut left = &message.parts[..];
        while !left.is_empty() {
            let (next, rest) = left.split_at(if self.client.is_cluster() { 1 } else { fitting(left) });
            let mut pipeline = redis::pipe();
            if let [part] = next
                && self.client.is_cluster()
            {
                pipeline.cmd("EVAL").arg(PUBLISH_BY_SLOT).arg(1).arg(self.slot_of(&part.channel)).arg(&part.channel).arg(&part.payload[..]);
            } else {
                pipeline.atomic();
                for part in next {
                    pipeline.publish(&part.channel, &part.payload[..]);
                }
            }
            match self.query(&pipeline).await {
                Ok(Some(answers)) => total.receivers += answers.iter().sum::<usize>(),
                Ok(None) => {
                    next.iter().for_each(|part| self.give_back(message, part, here));
                    total.reach = Reach::Here;
                }
                Err(error) => return Err(BusError { sent: message.parts.len() - left.len(), ..error }),
            }
            left = rest;
        }
        Ok(total)
    }

    /// A key in the same slot as the channel's keys in the presence store.
    fn slot_of(&self, channel: &str) -> String {
        let name = channel.strip_prefix(&self.key_prefix).unwrap_or(channel);
        format!("{}laravel-echo:{{{name}}}:order", self.key_prefix)
    }

    /// The answers to PUBLISHes; `None` while Redis is unreachable.
    async fn query(&self, pipeline: &Pipeline) -> Result<Option<Vec<usize>>, BusError> {
        // Never retried after the connection broke: Redis may have executed it, and no event may be delivered twice.
        match self.client.query(pipeline).await {
            Ok(answers) => Ok(Some(answers)),
            Err(QueryError::Away(_)) => Ok(None),
            Err(error) => Err(error.full_text().into()),
        }
    }

    fn give_back(&self, message: &Message, part: &Part, here: &impl Fn(&Event<'_>, bool)) {
        if message.content != Content::Event {
            return;
        }
        let channel = part.channel.strip_prefix(&self.key_prefix).unwrap_or(&part.channel);
        let (event, _) = envelope::message_of(channel, &part.payload).expect("it was written here");
        // Only whispers have no caller that waits for the result.
        here(&event, message.done.is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> Bus {
        let mut config = Config::default();
        config.cluster.enabled = true;
        Bus::open(&config).unwrap().unwrap()
    }

    /// How many whispers with so many bytes of data wait while Redis is away.
    fn queued(bus: &Bus, bytes: usize) -> usize {
        let data = serde_json::value::to_raw_value(&"x".repeat(bytes)).unwrap();
        let event = Event { channel: "private-a", name: "client-a".into(), data: &data, except: None, user: None };
        std::iter::repeat_with(|| bus.try_publish(&event)).take(2 * QUEUE).take_while(|has_room| *has_room).count()
    }

    #[test]
    fn whispers_that_wait_for_redis_are_bounded_in_number_and_in_bytes() {
        assert_eq!(queued(&bus(), 10), QUEUE);
        let bus = bus();
        let large = queued(&bus, 100_000);
        assert!((300..=335).contains(&large), "{large}");
        // A message that has been taken from the queue makes room.
        bus.waiting.try_lock().unwrap().try_recv().unwrap();
        assert_eq!(queued(&bus, 100_000), 1);
    }
}
