//! The cost of an event, a client's message and a join inside the server, without sockets: `cargo bench`.
//!
//! Input: messages as Laravel and Echo send them. Output: time and allocated memory for each. `bench/load` measures whole
//! servers with real connections.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up is over")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use http::HeaderMap;
use laravel_echo_server::Config;
use laravel_echo_server::auth::{AuthRequest, Authorizer, Denied, Grant};
use laravel_echo_server::cluster::envelope::message_of;
use laravel_echo_server::config::Limits;
use laravel_echo_server::event::{Event, SocketId};
use laravel_echo_server::hub::{Allowance, Dialect, Hub, Push, PushError, Socket};
use laravel_echo_server::metrics::{Metrics, Source};
use laravel_echo_server::socket_io;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// A client that accepts everything, like one that keeps up.
#[derive(Clone)]
struct Sink(Arc<Inner>);

struct Inner {
    id: SocketId,
    headers: HeaderMap,
    allowance: Allowance,
    taken: AtomicUsize,
}

impl Sink {
    fn new(n: usize) -> Self {
        let id = SocketId::parse(&format!("1.{n}")).unwrap();
        Self(Arc::new(Inner { id, headers: HeaderMap::new(), allowance: Allowance::new(&Limits::default()), taken: AtomicUsize::new(0) }))
    }

    fn taken(&self) -> usize {
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
        black_box(push.encoded(Dialect::SocketIo, socket_io::encode).cloned());
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

fn hub(runtime: &Runtime) -> Arc<Hub<Sink>> {
    let config = Config::default();
    let store = runtime.block_on(laravel_echo_server::store::open(&config)).unwrap();
    Hub::new(&config, Arc::new(Everybody::default()), store, None, Arc::new(Metrics::new()))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Connects a client and waits until it has subscribed and received `expected` messages.
async fn join(hub: &Arc<Hub<Sink>>, n: usize, channel: &str, expected: usize) -> Sink {
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
fn envelope(bytes: usize) -> String {
    let text = "a word or \\\"two\\\" ".repeat(bytes / 16);
    format!(r#"{{"event":"App\\Events\\OrderShipped","data":{{"order":{{"id":1,"note":"{text}"}}}},"socket":"123.456"}}"#)
}

#[divan::bench(args = [100, 1_000, 100_000])]
fn decode_message_of_redis(bencher: Bencher<'_, '_>, bytes: usize) {
    let payload = envelope(bytes);
    bencher.counter(BytesCount::of_str(&payload)).bench(|| message_of("private-orders.1", black_box(payload.as_bytes())).is_ok());
}

#[divan::bench(args = [0, 1, 100, 10_000])]
fn publish_to_sockets(bencher: Bencher<'_, '_>, sockets: usize) {
    let runtime = runtime();
    let hub = hub(&runtime);
    for n in 0..sockets {
        runtime.block_on(join(&hub, n, "orders", 0));
    }
    let data = RawValue::from_string(format!(r#"{{"note":"{}"}}"#, "x".repeat(200))).unwrap();
    let event = Event { channel: "orders", name: "App\\Events\\OrderShipped".into(), data: &data, except: None, user: None };
    bencher.counter(ItemsCount::new(sockets.max(1))).bench(|| hub.publish(black_box(&event), Source::Redis));
}

#[divan::bench]
fn whisper_to_100_sockets(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let hub = hub(&runtime);
    let _guard = runtime.enter();
    for n in 0..101 {
        runtime.block_on(join(&hub, n, "private-room", 0));
    }
    let from = Sink::new(0).id();
    let packet = r#"["client event",{"channel":"private-room","event":"client-typing","data":{"name":"somebody"}}]"#;
    bencher.counter(ItemsCount::new(100_usize)).bench(|| socket_io::take(&hub, from, "client event", black_box(packet)));
}

#[divan::bench]
fn subscribe_and_unsubscribe(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let hub = hub(&runtime);
    let _guard = runtime.enter();
    hub.connect(Sink::new(0));
    let id = Sink::new(0).id();
    bencher.bench(|| {
        socket_io::take(&hub, id, "subscribe", black_box(r#"["subscribe",{"channel":"orders"}]"#));
        socket_io::take(&hub, id, "unsubscribe", black_box(r#"["unsubscribe",{"channel":"orders"}]"#));
    });
}

/// A user joins a channel that has this many other users, and leaves: each time all others are told.
#[divan::bench(args = [1, 100, 1_000])]
fn presence_join_and_leave_among(bencher: Bencher<'_, '_>, others: usize) {
    let runtime = runtime();
    let hub = hub(&runtime);
    let mut first = None;
    for n in 0..others {
        let sink = runtime.block_on(join(&hub, n, "presence-room", 1));
        first.get_or_insert(sink);
    }
    let first = first.expect("there are others");
    bencher.bench_local(|| {
        runtime.block_on(async {
            let told = first.taken();
            let sink = join(&hub, others, "presence-room", 1).await;
            hub.disconnect(sink.id(), laravel_echo_server::event::CloseReason::TransportClose);
            while first.taken() < told + 2 {
                tokio::task::yield_now().await;
            }
        });
    });
}
