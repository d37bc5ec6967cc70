//! What those who join and leave a large channel cost the others in it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::delays::{Told, told};
use super::{Heard, Recorder};
use crate::config::Config;
use crate::event::{CloseReason, Event};
use crate::hub::presence::{CALM, LARGE_CHANNEL};
use crate::hub::{Hub, Socket as _, Whisper};
use crate::metrics::{Metrics, Source};
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
    let sockets: Vec<_> = (0..count).map(|n| Recorder::numbered(&format!("1.{n}"))).collect();
    for (user, socket) in (0..).zip(&sockets) {
        hub.connect(socket.clone());
        join(&hub, socket, user).await;
    }
    pass(CALM).await;
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
        let again = Recorder::numbered(&format!("2.{n}"));
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
async fn who_subscribes_again_and_again_gets_few_lists() {
    let (hub, sockets) = room(LARGE_CHANNEL).await;
    for _ in 0..600 {
        join(&hub, &sockets[0], 0).await;
    }
    pass(2 * CALM).await;
    let [own, others] = heard(&sockets);
    let lists = own.iter().filter(|name| *name == "presence:subscribed").count();
    // It took three seconds.
    assert!((1..=8).contains(&lists), "{own:?}");
    assert_eq!(others, [""; 0]);
    join(&hub, &sockets[0], 0).await;
    assert_eq!(heard(&sockets)[0], ["presence:subscribed"], "once it has calmed down");
}

#[tokio::test(start_paused = true)]
async fn of_a_large_channel_a_leave_is_told_a_moment_later() {
    let (hub, sockets) = room(LARGE_CHANNEL + 1).await;
    hub.unsubscribe(sockets[0].id(), ROOM);
    pass(CALM - Duration::from_millis(1)).await;
    assert_eq!(heard(&sockets)[1], [""; 0]);
    pass(Duration::from_millis(2)).await;
    assert_eq!(heard(&sockets)[1], ["presence:leaving"]);
    pass(CALM).await;
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

/// A socket that joins as this user, without waiting for what follows.
async fn newcomer(hub: &Arc<Hub<Recorder>>, user: u32) -> Recorder {
    let socket = Recorder::numbered(&format!("3.{user}"));
    hub.connect(socket.clone());
    hub.subscribe(socket.id(), ROOM, told(Some(user), 0, Duration::ZERO));
    // The join takes no time.
    pass(Duration::ZERO).await;
    tokio::task::yield_now().await;
    socket
}

/// What a socket received, as `name user`, and when.
fn told_of(socket: &Recorder) -> Vec<(Instant, String)> {
    let of = |heard: Heard| {
        let user = heard.data.split_once("\"user_id\":").and_then(|(_, rest)| rest.split(',').next());
        match heard.name.as_str() {
            "presence:joining" | "presence:leaving" => format!("{} {}", heard.name, user.unwrap_or_default()),
            _ => heard.name,
        }
    };
    socket.take().into_iter().map(|(at, heard)| (at, of(heard))).collect()
}

fn names(told: Vec<(Instant, String)>) -> Vec<String> {
    told.into_iter().map(|(_, name)| name).collect()
}

#[tokio::test(start_paused = true)]
async fn who_joins_a_large_channel_in_the_same_moment_is_told_together() {
    let (hub, sockets) = room(LARGE_CHANNEL).await;
    let mut new = Vec::new();
    for user in 1000..1040 {
        new.push(newcomer(&hub, user).await);
    }
    let first = told_of(&sockets[1]);
    assert_eq!(names(first), ["presence:joining 1000"], "the first one is not delayed");
    pass(Duration::from_millis(20)).await;
    let rest = told_of(&sockets[1]);
    assert!(rest.iter().all(|(at, _)| *at == rest[0].0), "at one moment: {rest:?}");
    assert_eq!(names(rest), (1001..1040).map(|user| format!("presence:joining {user}")).collect::<Vec<_>>());
    for (user, socket) in (1000..).zip(&new) {
        let expected = ["presence:subscribed".to_owned()].into_iter();
        let expected = expected.chain((user + 1..1040).map(|later| format!("presence:joining {later}"))).collect::<Vec<_>>();
        assert_eq!(names(told_of(socket)), expected, "a list and who came later");
    }
    for socket in &new {
        hub.disconnect(socket.id(), CloseReason::ClientLeft);
    }
    pass(2 * CALM).await;
    let left = told_of(&sockets[1]);
    let moments = left.iter().map(|(at, _)| at).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!((left.len(), moments), (40, 2), "the first one, and the others together: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn an_event_comes_after_the_joins_before_it() {
    let (hub, sockets) = room(LARGE_CHANNEL).await;
    newcomer(&hub, 1000).await;
    let second = newcomer(&hub, 1001).await;
    hub.publish(&Event { channel: ROOM, name: "sent".into(), data: RawValue::NULL, except: None, user: None }, Source::Http);
    newcomer(&hub, 1002).await;
    hub.whisper(second.id(), Whisper { channel: ROOM, event: "client-typing", data: RawValue::NULL, is_binary: false }).unwrap();
    let expected = ["presence:joining 1000", "presence:joining 1001", "sent", "presence:joining 1002", "client-typing"];
    assert_eq!(names(told_of(&sockets[1])), expected);
    assert_eq!(names(told_of(&second)), ["presence:subscribed", "sent", "presence:joining 1002"]);
    pass(CALM).await;
    assert_eq!(told_of(&sockets[1]), [], "and nothing is told twice");
}

/// A new connection each time, for a new user each time.
#[tokio::test(start_paused = true)]
async fn who_comes_as_somebody_new_each_time_costs_the_others_little() {
    for (reason, leaves_first) in [(CloseReason::ClientLeft, false), (CloseReason::TransportClose, false), (CloseReason::ClientLeft, true)]
    {
        let (hub, sockets) = room(LARGE_CHANNEL).await;
        for user in 1000..1600 {
            let socket = newcomer(&hub, user).await;
            pass(Duration::from_millis(1)).await;
            if leaves_first {
                hub.unsubscribe(socket.id(), ROOM);
                pass(Duration::ZERO).await;
            }
            hub.disconnect(socket.id(), reason);
        }
        pass(2 * CALM).await;
        let told = names(told_of(&sockets[1]));
        let joins = told.iter().filter(|name| name.starts_with("presence:joining")).count();
        // It took a good second: whoever is there when a batch is told, every 10 ms, is announced.
        assert!(joins <= 130, "{joins}");
        assert_eq!(told.len(), 2 * joins, "each of them is told to leave");
        assert_eq!(hub.members(&ROOM.into()).await.unwrap().len(), LARGE_CHANNEL);
        drop(sockets);
    }
}
