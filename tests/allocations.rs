//! How often the hot path allocates memory. The counts are the same on every machine, unlike times and instructions, and a change
//! that makes an event dearer nearly always shows in them. When one falls, write the new one here.

use allocation_counter::measure;
use laravel_echo_server::cluster::envelope::message_of;
use laravel_echo_server::hub::Socket as _;
use laravel_echo_server::metrics::Source;
use laravel_echo_server::socket_io;

#[path = "../benches/world.rs"]
mod world;

use world::{SUBSCRIBE, Sink, UNSUBSCRIBE, WHISPER, data, envelope, event, hub, room, runtime};

/// The count once everything is warm.
#[track_caller]
fn assert_count(most: u64, mut run: impl FnMut()) {
    run();
    let count = measure(&mut run).count_total;
    assert!(count <= most, "{count} allocations instead of {most}");
}

#[test]
fn decoding_a_message_of_redis() {
    let payload = envelope(1_000);
    assert_count(5, || assert!(message_of("private-orders.1", payload.as_bytes()).is_ok()));
}

#[test]
fn an_event_for_any_number_of_sockets() {
    for sockets in [1, 1_000] {
        let runtime = runtime();
        let hub = room(&runtime, "orders", sockets);
        let _guard = runtime.enter();
        let data = data();
        assert_count(3, || assert_eq!(hub.publish(&event(&data), Source::Redis), sockets));
    }
}

#[test]
fn a_whisper_to_a_hundred_sockets() {
    let runtime = runtime();
    let hub = room(&runtime, "private-room", 101);
    let _guard = runtime.enter();
    let from = Sink::new(0).id();
    assert_count(5, || socket_io::take(&hub, from, "client event", WHISPER, false));
}

#[test]
fn a_subscribe_and_an_unsubscribe() {
    let runtime = runtime();
    let hub = hub(&runtime);
    let _guard = runtime.enter();
    hub.connect(Sink::new(0));
    let id = Sink::new(0).id();
    assert_count(9, || {
        socket_io::take(&hub, id, "subscribe", SUBSCRIBE, false);
        socket_io::take(&hub, id, "unsubscribe", UNSUBSCRIBE, false);
    });
}
