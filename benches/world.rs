//! A hub with clients in memory, and the messages that Laravel and Echo send.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up is over")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use http::HeaderMap;
use laravel_echo_server::Config;
use laravel_echo_server::auth::{AuthRequest, Authorizer, Denied, Grant};
use laravel_echo_server::config::Limits;
use laravel_echo_server::event::{Event, SocketId};
use laravel_echo_server::hub::{Allowance, Dialect, Hub, Push, PushError, Socket};
use laravel_echo_server::metrics::Metrics;
use laravel_echo_server::socket_io;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

pub(crate) const SUBSCRIBE: &str = r#"["subscribe",{"channel":"orders"}]"#;
pub(crate) const UNSUBSCRIBE: &str = r#"["unsubscribe",{"channel":"orders"}]"#;
pub(crate) const WHISPER: &str = r#"["client event",{"channel":"private-room","event":"client-typing","data":{"name":"somebody"}}]"#;

/// A client that accepts everything, like one that keeps up.
#[derive(Clone)]
pub(crate) struct Sink(Arc<Inner>);

struct Inner {
    id: SocketId,
    headers: HeaderMap,
    allowance: Allowance,
    taken: AtomicUsize,
}

impl Sink {
    pub(crate) fn new(n: usize) -> Self {
        let id = SocketId::parse(&format!("1.{n}")).unwrap();
        Self(Arc::new(Inner { id, headers: HeaderMap::new(), allowance: Allowance::new(&Limits::default()), taken: AtomicUsize::new(0) }))
    }

    pub(crate) fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }
}

impl Socket for Sink {
    fn id(&self) -> SocketId {
        self.0.id
    }

    fn handshake(&self) -> &HeaderMap {
        &self.0.headers
    }

    fn peer(&self) -> Option<IpAddr> {
        None
    }

    fn allowance(&self) -> &Allowance {
        &self.0.allowance
    }

    fn push(&self, push: &Push<'_>) -> Result<(), PushError> {
        std::hint::black_box(push.encoded(Dialect::SocketIo, socket_io::encode).cloned());
        self.0.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn close(&self) {}

    fn terminate(&self) {}
}

/// Authorizes everyone, in the order of the callbacks.
#[derive(Default)]
struct Everybody(AtomicUsize);

#[async_trait]
impl Authorizer for Everybody {
    async fn authorize(&self, _: AuthRequest<'_>) -> Result<Grant, Denied> {
        let user = self.0.fetch_add(1, Ordering::Relaxed);
        let data = format!(r#"{{"user_id":{user},"user_info":{{"name":"User {user}","email":"user-{user}@example.com"}}}}"#);
        Ok(Grant { channel_data: Some(RawValue::from_string(data).unwrap().into()), ..Grant::default() })
    }
}

pub(crate) fn hub(runtime: &Runtime) -> Arc<Hub<Sink>> {
    let config = Config::default();
    let store = runtime.block_on(laravel_echo_server::store::open(&config)).unwrap();
    Hub::new(&config, Arc::new(Everybody::default()), store, None, Arc::new(Metrics::new()))
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Connects a client and waits until it has subscribed and received `expected` messages.
pub(crate) async fn join(hub: &Arc<Hub<Sink>>, n: usize, channel: &str, expected: usize) -> Sink {
    let sink = Sink::new(n);
    hub.connect(sink.clone());
    let before = hub.subscription_count(channel);
    hub.subscribe(sink.id(), channel, Vec::new());
    while hub.subscription_count(channel) == before || sink.taken() < expected {
        tokio::task::yield_now().await;
    }
    sink
}

/// A message of Laravel's RedisBroadcaster with `bytes` of text in its data.
pub(crate) fn envelope(bytes: usize) -> String {
    let text = "a word or \\\"two\\\" ".repeat(bytes / 16);
    format!(r#"{{"event":"App\\Events\\OrderShipped","data":{{"order":{{"id":1,"note":"{text}"}}}},"socket":"123.456"}}"#)
}

/// A hub with this many clients in a channel.
pub(crate) fn room(runtime: &Runtime, channel: &str, count: usize) -> Arc<Hub<Sink>> {
    let hub = hub(runtime);
    for n in 0..count {
        runtime.block_on(join(&hub, n, channel, 0));
    }
    hub
}

/// The data of an event, 200 bytes and more.
pub(crate) fn data() -> Box<RawValue> {
    RawValue::from_string(format!(r#"{{"note":"{}"}}"#, "x".repeat(200))).unwrap()
}

/// An event for a public channel.
pub(crate) fn event(data: &RawValue) -> Event<'_> {
    Event { channel: "orders", name: "App\\Events\\OrderShipped".into(), data, except: None, user: None }
}
