//! What one member who keeps joining and leaving costs the others in a large channel.

use std::sync::Arc;
use std::time::Duration;

use super::Recorder;
use super::delays::{Told, told};
use crate::config::Config;
use crate::event::CloseReason;
use crate::hub::presence::{CALM, LARGE_CHANNEL};
use crate::hub::{Hub, Socket as _};
use crate::metrics::Metrics;
use crate::store::memory::MemoryStore;

const ROOM: &str = "presence-room";

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

async fn join(hub: &Arc<Hub<Recorder>>, socket: &Recorder, user: u32) {
    hub.subscribe(socket.id(), ROOM, told(Some(user), 0, Duration::ZERO));
    pass(Duration::from_millis(5)).await;
}

/// A room with this many users, each of whom has received everything.
async fn room(count: usize) -> (Arc<Hub<Recorder>>, Vec<Recorder>) {
    let hub = Hub::new(&Config::default(), Arc::new(Told), Arc::new(MemoryStore::default()), None, Arc::new(Metrics::new()));
    let sockets: Vec<_> = (0..count).map(|n| Recorder::new(&format!("1.{n}"))).collect();
    for (user, socket) in (0..).zip(&sockets) {
        hub.connect(socket.clone());
        join(&hub, socket, user).await;
    }
    heard(&sockets);
    (hub, sockets)
}

/// Names of what the first and the second socket received since the last call.
fn heard(sockets: &[Recorder]) -> [Vec<String>; 2] {
    let names = |socket: &Recorder| socket.take().into_iter().map(|(_, heard)| heard.name).collect();
    let heard = [names(&sockets[0]), names(&sockets[1])];
    sockets[2..].iter().for_each(|socket| drop(socket.take()));
    heard
}

#[tokio::test(start_paused = true)]
async fn who_comes_and_goes_without_end_costs_the_others_little() {
    let (hub, sockets) = room(LARGE_CHANNEL + 1).await;
    for _ in 0..600 {
        hub.unsubscribe(sockets[0].id(), ROOM);
        join(&hub, &sockets[0], 0).await;
    }
    pass(2 * CALM).await;
    let [own, others] = heard(&sockets);
    assert!(own.iter().all(|name| name == "presence:subscribed") && own.len() < 10, "{own:?}");
    // It took three seconds; one leave and one join per second is the maximum.
    assert!(others.len() <= 6, "{others:?}");
    assert_eq!(hub.subscription_count(ROOM), LARGE_CHANNEL + 1, "and is there");

    // Reconnecting costs the others nothing: another socket of the user is always there.
    for n in 0..600 {
        let again = Recorder::new(&format!("2.{n}"));
        hub.connect(again.clone());
        join(&hub, &again, 0).await;
        hub.disconnect(again.id(), CloseReason::ClientLeft);
    }
    hub.unsubscribe(sockets[0].id(), ROOM);
    pass(2 * CALM).await;
    assert_eq!(heard(&sockets)[1], ["presence:leaving"], "told once it is gone");
}

#[tokio::test(start_paused = true)]
async fn who_is_somebody_else_each_time_costs_the_others_little() {
    let (hub, sockets) = room(LARGE_CHANNEL + 1).await;
    for n in 0..600 {
        join(&hub, &sockets[0], 1000 + n % 2).await;
    }
    pass(2 * CALM).await;
    let [own, others] = heard(&sockets);
    assert!(own.iter().any(|name| name == "subscription_error"), "{own:?}");
    let metrics = hub.metrics().render(std::iter::empty());
    let counted = metrics.lines().find_map(|line| line.strip_prefix("laravel_echo_refusals_total{cause=\"users\"} "));
    assert_ne!(counted.unwrap(), "0", "by its own name");
    // It took three seconds; one leave and one join per second is the maximum for each of the two users.
    assert!(others.len() <= 16, "{others:?}");
}

#[tokio::test(start_paused = true)]
async fn of_a_large_channel_a_leave_is_told_a_moment_later() {
    let (hub, sockets) = room(LARGE_CHANNEL + 1).await;
    hub.unsubscribe(sockets[0].id(), ROOM);
    pass(CALM - Duration::from_millis(1)).await;
    assert_eq!(heard(&sockets)[1], [""; 0]);
    pass(Duration::from_millis(2)).await;
    assert_eq!(heard(&sockets)[1], ["presence:leaving"]);
    join(&hub, &sockets[0], 0).await;
    assert_eq!(heard(&sockets), [["presence:subscribed"], ["presence:joining"]]);
}

#[tokio::test(start_paused = true)]
async fn of_a_small_channel_every_leave_is_told_at_once() {
    let (hub, sockets) = room(LARGE_CHANNEL - 1).await;
    for _ in 0..10 {
        hub.unsubscribe(sockets[0].id(), ROOM);
        join(&hub, &sockets[0], 0).await;
    }
    let [own, others] = heard(&sockets);
    assert_eq!((own.len(), others.len()), (10, 20));
}
