//! Fuzz target for messages that other nodes publish. Input: bytes. Output: a panic if an assertion fails.
//!
//! A hub in a cluster receives the messages as if from Redis. It has one client, in a presence channel and in a public
//! channel with the name of the control channel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::{Msg, Value};
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::super::{RedisIngress, RedisState};
use crate::auth::{AuthRequest, Authorizer, Denied, Grant};
use crate::channel::ChannelName;
use crate::cluster::Bus;
use crate::cluster::control::{CONTROL_CHANNEL, Message};
use crate::cluster::envelope::message_of;
use crate::config::Config;
use crate::event::{Origin, SocketId};
use crate::fuzzing::block_on;
use crate::hub::fake_socket::{FakeSocket, Receiver};
use crate::hub::{Hub, Message as Told, Push, PushError};
use crate::metrics::Metrics;
use crate::redis_client::Redis;
use crate::store::memory::MemoryStore;
use crate::store::{Joined, Left, Member, Members, PresenceStore, StoreError};

const ROOM: &str = "presence-room";
const PREFIX: &str = "app_";
/// How long the work that messages started may take to finish.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of yields after which all tasks that messages started have run.
const TURNS: usize = 20;

/// The users in the channel, as the client was told. Panics if it is told that a present member joins or that an absent one leaves.
#[derive(Default)]
struct Page(Mutex<BTreeSet<String>>);

/// Authorizes every client as user 1.
struct LetIn;

#[async_trait]
impl Authorizer for LetIn {
    async fn authorize(&self, _: AuthRequest<'_>) -> Result<Grant, Denied> {
        let member = RawValue::from_string(r#"{"user_id":1,"user_info":{"name":"Ann"}}"#.to_owned()).expect("it is JSON");
        Ok(Grant { channel_data: Some(member.into()), ..Grant::default() })
    }
}

/// Memory store with versioned lists, like a store that nodes share.
#[derive(Default)]
struct Versioned(MemoryStore);

#[async_trait]
impl PresenceStore for Versioned {
    async fn join(&self, channel: &ChannelName, socket: SocketId, member: Member, is_listed: bool) -> Result<Joined, StoreError> {
        Ok(Joined { version: 1, ..self.0.join(channel, socket, member, is_listed).await? })
    }

    async fn leave(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError> {
        self.0.leave(channel, socket).await
    }

    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError> {
        self.0.members(channel).await
    }
}

impl Receiver for Page {
    fn push(&self, push: &Push<'_>) -> Result<(), PushError> {
        let mut here = self.0.lock();
        match push.message {
            Told::Event { channel, data, .. } => {
                assert!(channel != CONTROL_CHANNEL, "clients receive no control messages: {data}");
            }
            Told::Subscribed { channel: ROOM, members: Some(members), .. } => {
                *here = members.iter().map(|(_, member)| member.user().to_owned()).collect();
            }
            Told::Joined { channel: ROOM, member, .. } => assert!(here.insert(member.user().to_owned()), "{} joined twice", member.user()),
            Told::Left { channel: ROOM, member } => assert!(here.remove(member.user()), "{} was not here", member.user()),
            Told::Subscribed { .. }
            | Told::Joined { .. }
            | Told::Left { .. }
            | Told::Refused { .. }
            | Told::CacheMiss { .. }
            | Told::Count { .. }
            | Told::Watched { .. }
            | Told::Position => {}
        }
        Ok(())
    }
}

/// One message per line: a channel without prefix, a space, a payload. Control messages survive serializing and parsing;
/// membership changes are announced once; the hub closes without unfinished work.
pub fn node_messages(bytes: &[u8]) {
    let lines: Vec<(&str, &[u8])> = bytes.split(|byte| *byte == b'\n').filter_map(message).collect();
    block_on(async {
        let ingress = ingress();
        let id = SocketId::parse("123.456").expect("it has the form of an id");
        let (hub, page) = (&ingress.hub, FakeSocket::new(id, Page::default()));
        hub.connect(page);
        for channel in [CONTROL_CHANNEL, ROOM] {
            hub.subscribe(id, channel, Vec::new());
            until(|| hub.subscription_count(channel) == 1).await;
        }
        for (channel, payload) in lines {
            if channel == CONTROL_CHANNEL {
                again(payload);
            } else if is_imitation(channel, payload) {
                continue;
            }
            let name = format!("{PREFIX}{channel}");
            let parts = [b"pmessage", b"app_*".as_slice(), name.as_bytes(), payload].map(|part| Value::BulkString(part.to_vec()));
            ingress.take(&Msg::from_owned_value(Value::Array(parts.into())).expect("it is a valid pmessage"));
        }
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(SETTLE_TIMEOUT, hub.close()).await.expect("the hub closes in time");
        assert!(hub.channels("").is_empty());
    });
}

fn message(line: &[u8]) -> Option<(&str, &[u8])> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    Some((std::str::from_utf8(&line[..at]).ok()?, &line[at + 1..]))
}

/// A question or an answer is unchanged by serializing and parsing it again.
fn again(payload: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<Message>(payload) {
        let written = serde_json::to_string(&message).expect("texts and numbers serialise");
        assert_eq!(serde_json::from_str::<Message>(&written).expect("what was written can be read"), message);
    }
}

/// An application event with one of the server's own event names. Clients receive it, but it says nothing about members.
fn is_imitation(channel: &str, payload: &[u8]) -> bool {
    let Ok((event, origin)) = message_of(channel, payload) else { return false };
    let is_news = match &*event.name {
        "presence:joining" => event.except.is_some(),
        "presence:leaving" => true,
        name => return name.starts_with("presence:"),
    };
    !(is_news && matches!(origin, Origin::Presence(_)) && Member::parse(event.data.get()).is_ok())
}

/// An ingress that is fed by hand, with its hub.
fn ingress() -> RedisIngress<FakeSocket<Page>> {
    let mut config = Config::default();
    config.cluster.enabled = true;
    config.database_config.redis.key_prefix = PREFIX.to_owned();
    let bus = Bus::open(&config).expect("the settings can be used");
    let hub = Hub::new(&config, Arc::new(LetIn), Arc::new(Versioned::default()), bus, Arc::new(Metrics::new()));
    let redis = Redis::new(&config.database_config.redis).expect("the settings can be used");
    RedisIngress::new(redis, PREFIX, hub, watch::channel(RedisState::Up).0)
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SETTLE_TIMEOUT, waiting).await.expect("the client is subscribed in time");
}
