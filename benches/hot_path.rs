//! The cost of an event, a client's message and a join inside the server, without sockets: `cargo bench`.
//!
//! Input: messages as Laravel and Echo send them. Output: time and allocated memory for each. `bench/load` measures whole
//! servers with real connections.

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use laravel_echo_server::cluster::envelope::message_of;
use laravel_echo_server::hub::Socket as _;
use laravel_echo_server::metrics::Source;
use laravel_echo_server::socket_io;

mod world;

use world::{SUBSCRIBE, Sink, UNSUBSCRIBE, WHISPER, data, envelope, event, hub, join, room, runtime};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = [100, 1_000, 100_000])]
fn decode_message_of_redis(bencher: Bencher<'_, '_>, bytes: usize) {
    let payload = envelope(bytes);
    bencher.counter(BytesCount::of_str(&payload)).bench(|| message_of("private-orders.1", black_box(payload.as_bytes())).is_ok());
}

#[divan::bench(args = [0, 1, 100, 10_000])]
fn publish_to_sockets(bencher: Bencher<'_, '_>, sockets: usize) {
    let runtime = runtime();
    let hub = room(&runtime, "orders", sockets);
    let data = data();
    bencher.counter(ItemsCount::new(sockets.max(1))).bench(|| hub.publish(black_box(&event(&data)), Source::Redis));
}

#[divan::bench]
fn whisper_to_100_sockets(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let hub = room(&runtime, "private-room", 101);
    let _guard = runtime.enter();
    let from = Sink::new(0).id();
    bencher.counter(ItemsCount::new(100_usize)).bench(|| socket_io::take(&hub, from, "client event", black_box(WHISPER), false));
}

#[divan::bench]
fn subscribe_and_unsubscribe(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let hub = hub(&runtime);
    let _guard = runtime.enter();
    hub.connect(Sink::new(0));
    let id = Sink::new(0).id();
    bencher.bench(|| {
        socket_io::take(&hub, id, "subscribe", black_box(SUBSCRIBE), false);
        socket_io::take(&hub, id, "unsubscribe", black_box(UNSUBSCRIBE), false);
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
