//! Several nodes on one Redis: what happens on one is PUBLISHed, and reaches all of them, this one too, by the way that
//! Laravel's events take.
//!
//! Input: events of the HTTP API and whispers. Output: messages of Laravel's form on Laravel's channels, in the order
//! they were given; while Redis is away they are given back, for the clients of this node. The presence store PUBLISHes
//! its changes itself, together with each change.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Pipeline;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::config::{Config, RedisMode};
use crate::event::{Event, SocketId};
use crate::redis_client::{QueryError, ReconnectingClient, Redis, RedisConfigError};
use crate::warn_throttled;

pub(crate) mod questions;
pub(crate) mod sessions;

use questions::{Answer, Asked, Question, TOPIC};
use sessions::{RedisSessions, SessionStore};

/// Messages that wait for Redis; beyond, whispers are dropped and HTTP requests wait.
const QUEUE: usize = 4096;
/// Bytes of them.
const QUEUE_BYTES: u32 = 32 * 1024 * 1024;
/// Messages of one round trip.
const BATCH: usize = 128;

/// A connection that was not used for longer may be gone.
const IDLE: Duration = Duration::from_millis(100);

/// PUBLISHes on the server that owns the channel's slot, so that a channel's messages keep their order.
const PUBLISH_BY_SLOT: &str = "return redis.call('PUBLISH', ARGV[1], ARGV[2])";

/// The way to the other nodes.
pub struct Bus {
    link: ReconnectingClient,
    key_prefix: String,
    queue: mpsc::Sender<Message>,
    /// Taken by [`Bus::run`].
    waiting: Mutex<mpsc::Receiver<Message>>,
    /// Bytes that the queue has room for.
    room: Arc<Semaphore>,
    /// Tells this process from the other nodes.
    number: u64,
    asked: Asked,
    /// Where all nodes hear the same in one order, and so can go on with each other's sessions.
    sessions: Option<Arc<dyn SessionStore>>,
}

struct Message {
    channel: String,
    payload: String,
    content: Content,
    done: Option<oneshot::Sender<Result<Reach, BusError>>>,
    /// What the message takes up of the queue, until it is done with.
    room: Option<OwnedSemaphorePermit>,
}

/// What is in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Event,
    /// Something for the nodes themselves.
    Control,
}

/// How far an event went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// To this node alone, since Redis is away.
    Here,
    /// To all nodes.
    Everywhere,
}

impl Message {
    const fn new(channel: String, payload: String, content: Content) -> Self {
        Self { channel, payload, content, done: None, room: None }
    }

    /// Its part of the queue's bytes; one that is larger than the queue takes all of it.
    fn bytes(&self) -> u32 {
        u32::try_from(self.payload.len()).unwrap_or(u32::MAX).min(QUEUE_BYTES)
    }
}

/// An event could not be PUBLISHed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the event could not be published to the nodes: {0}")]
pub struct BusError(String);

/// The form of Laravel's `RedisBroadcaster`.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    socket: Option<SocketId>,
    /// Of a whisper in a presence channel.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    user_id: Option<Cow<'a, str>>,
    /// Of an event that came by HTTP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    http: bool,
}

impl Bus {
    /// A bus that [`Bus::run`] has to move. `None` for a single node.
    ///
    /// # Errors
    /// [`RedisConfigError`] when the settings of Redis cannot be used.
    pub fn open(config: &Config) -> Result<Option<Self>, RedisConfigError> {
        if !config.cluster.enabled.0 {
            return Ok(None);
        }
        let redis = &config.database_config.redis;
        // With a Redis Cluster each node hears another order, and with single channels only a part.
        let is_one_order = redis.cluster.is_empty() && config.subscribers.redis_mode == RedisMode::Pattern;
        let sessions: Option<Arc<dyn SessionStore>> = if is_one_order && config.recovery.enabled.0 {
            let link = ReconnectingClient::new(Redis::new(redis)?, "clients cannot come back to other nodes");
            Some(Arc::new(RedisSessions::new(link, &redis.key_prefix)))
        } else {
            None
        };
        let (queue, waiting) = mpsc::channel(QUEUE);
        Ok(Some(Self {
            link: ReconnectingClient::new(Redis::new(redis)?, "events of this node cannot be published"),
            key_prefix: redis.key_prefix.clone(),
            queue,
            waiting: Mutex::new(waiting),
            room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            number: rand::random(),
            asked: Asked::default(),
            sessions,
        }))
    }

    /// Where sessions are kept for other nodes, if they can go on with them.
    #[must_use]
    pub fn sessions(&self) -> Option<Arc<dyn SessionStore>> {
        self.sessions.clone()
    }

    /// The same with another place for sessions.
    #[cfg(test)]
    pub(crate) fn with_sessions(self, sessions: Arc<dyn SessionStore>) -> Self {
        Self { sessions: Some(sessions), ..self }
    }

    /// PUBLISHes an event that came by HTTP, once, or has it delivered here while Redis is away.
    ///
    /// # Errors
    /// [`BusError`] when Redis was lost meanwhile, or the server shuts down.
    pub async fn publish(&self, event: &Event<'_>) -> Result<Reach, BusError> {
        let (done, answer) = oneshot::channel();
        let mut message = Message { done: Some(done), ..self.message(event, true) };
        let closed = || BusError("the server is shutting down".into());
        message.room = Arc::clone(&self.room).acquire_many_owned(message.bytes()).await.ok();
        self.queue.send(message).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// PUBLISHes an event if there is room for it; nobody is told what becomes of it then. Whether there was room.
    pub fn toss(&self, event: &Event<'_>) -> bool {
        let has_room = self.try_send(self.message(event, false));
        if !has_room {
            warn_throttled!(class = 0, key = "", queue = QUEUE, bytes = QUEUE_BYTES, "whispers are dropped until Redis keeps up");
        }
        has_room
    }

    fn try_send(&self, mut message: Message) -> bool {
        message.room = Arc::clone(&self.room).try_acquire_many_owned(message.bytes()).ok();
        message.room.is_some() && self.queue.try_send(message).is_ok()
    }

    /// The number that tells this process from the other nodes.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Asks the other nodes, of which there are so many. Returns what came in time, and whether that is not all.
    pub async fn ask(&self, question: Question, others: usize) -> (Vec<Answer>, bool) {
        let (mut asked, patience) = (self.asked.begin(), question.patience());
        self.say(&questions::Message::Ask { from: self.number, id: asked.id, question });
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

    /// PUBLISHes a message between nodes, if there is room for it.
    pub fn say(&self, message: &questions::Message) {
        let payload = serde_json::to_string(message).expect("texts and numbers serialize");
        if !self.try_send(Message::new(format!("{}{TOPIC}", self.key_prefix), payload, Content::Control)) {
            warn_throttled!(class = 0, key = "", queue = QUEUE, bytes = QUEUE_BYTES, "a message to the other nodes was dropped");
        }
    }

    /// Another node has answered.
    pub fn answered(&self, id: u64, answer: Answer) {
        self.asked.answered(id, answer);
    }

    fn message(&self, event: &Event<'_>, http: bool) -> Message {
        let user_id = event.user.as_deref().map(Cow::Borrowed);
        let envelope = Envelope { event: Cow::Borrowed(&event.name), data: event.data, socket: event.except, user_id, http };
        let payload = serde_json::to_string(&envelope).expect("texts and JSON serialize");
        Message::new(format!("{}{}", self.key_prefix, event.channel), payload, Content::Event)
    }

    /// Moves messages until dropped. First it asks whether a connection that was idle is there still, since nobody would know what
    /// became of a message that it was lost with. While Redis is away events go `here`, which is told whether each is a whisper.
    pub async fn run(&self, here: impl Fn(&Event<'_>, bool)) {
        let mut waiting = self.waiting.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        let mut used = Instant::now();
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            if used.elapsed() > IDLE && !self.link.is_cluster() {
                let mut ping = redis::pipe();
                ping.cmd("PING").ignore();
                // A loss is found again below, with a connection that takes nothing.
                let _ = self.link.query::<()>(&ping).await;
            }
            used = Instant::now();
            if self.link.is_cluster() {
                // One at a time: a pipeline would have to stay on one server.
                for message in batch.drain(..) {
                    let mut pipeline = redis::pipe();
                    pipeline.cmd("EVAL").arg(PUBLISH_BY_SLOT).arg(1).arg(self.slot_of(&message.channel));
                    pipeline.arg(&message.channel).arg(&message.payload);
                    self.send(&pipeline, std::iter::once(message), &here).await;
                }
            } else {
                let mut pipeline = redis::pipe();
                for message in &batch {
                    pipeline.publish(&message.channel, &message.payload);
                }
                self.send(&pipeline, batch.drain(..), &here).await;
            }
        }
    }

    /// A key in the slot of the store's keys of the channel.
    fn slot_of(&self, channel: &str) -> String {
        let name = channel.strip_prefix(&self.key_prefix).unwrap_or(channel);
        format!("{}laravel-echo:{{{name}}}:order", self.key_prefix)
    }

    async fn send(&self, pipeline: &Pipeline, messages: impl Iterator<Item = Message>, here: &impl Fn(&Event<'_>, bool)) {
        // Never tried again after a break: some of it may have been done, and nothing is to come twice.
        let result = match self.link.query::<redis::Value>(pipeline).await {
            Ok(_) => Ok(Reach::Everywhere),
            Err(QueryError::Away(_)) => Ok(Reach::Here),
            Err(error) => Err(BusError(error.full_text())),
        };
        for message in messages {
            if result.as_ref().is_ok_and(|reach| *reach == Reach::Here) && message.content == Content::Event {
                self.give_back(&message, here);
            }
            if let Some(done) = message.done {
                // Whoever asked may have gone.
                let _ = done.send(result.clone());
            }
        }
    }

    fn give_back(&self, message: &Message, here: &impl Fn(&Event<'_>, bool)) {
        let envelope: Envelope<'_> = serde_json::from_str(&message.payload).expect("it was written here");
        let Envelope { event, data, socket, user_id, http: _ } = envelope;
        let channel = message.channel.strip_prefix(&self.key_prefix).unwrap_or(&message.channel);
        // Nobody waits for what becomes of a whisper.
        here(&Event { channel, name: event, data, except: socket, user: user_id }, message.done.is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> Bus {
        let mut config = Config::default();
        config.cluster.enabled.0 = true;
        Bus::open(&config).unwrap().unwrap()
    }

    /// How many whispers with so many bytes of data wait while Redis is away.
    fn tossed(bus: &Bus, bytes: usize) -> usize {
        let data = serde_json::value::to_raw_value(&"x".repeat(bytes)).unwrap();
        let event = Event { channel: "private-a", name: "client-a".into(), data: &data, except: None, user: None };
        std::iter::repeat_with(|| bus.toss(&event)).take(2 * QUEUE).take_while(|has_room| *has_room).count()
    }

    #[test]
    fn whispers_that_wait_for_redis_are_bounded_in_number_and_in_bytes() {
        assert_eq!(tossed(&bus(), 10), QUEUE);
        let bus = bus();
        let large = tossed(&bus, 100_000);
        assert!((300..=335).contains(&large), "{large}");
        // What is done with makes room.
        bus.waiting.try_lock().unwrap().try_recv().unwrap();
        assert_eq!(tossed(&bus, 100_000), 1);
    }
}
