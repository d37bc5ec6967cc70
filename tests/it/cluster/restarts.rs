//! Redis and the nodes restart while events keep coming, in separate processes. No client misses an event that could have
//! been delivered, and in the end every client has the true member list.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinHandle;

use super::watcher::{TICK, Watcher};
use super::{ROOM, process};
use crate::support::{Laravel, Node, Redis, until};

/// Interval between two events.
const PACE: Duration = Duration::from_millis(2);
/// Minimum number of events in each phase.
const WHILE: u64 = 50;

#[tokio::test]
async fn redis_restarts_empty_under_two_processes() {
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let nodes = [process(redis.port, &laravel).await, process(redis.port, &laravel).await];
    let (mut alice, mut bob) = (Watcher::join(&nodes[0], 1).await, Watcher::join(&nodes[1], 2).await);
    let leaves = Watcher::join(&nodes[1], 3).await;
    // One of bob's tabs, on the other node, stays; the other one leaves.
    let tab = Watcher::join(&nodes[0], 2).await;
    for watcher in [&mut alice, &mut bob] {
        watcher.believes([1, 2, 3]).await;
    }
    redis.down();
    drop(leaves);
    drop(tab);
    redis.up().await;
    for watcher in [&mut alice, &mut bob] {
        watcher.believes([1, 2]).await;
    }
    until("both nodes to listen", async || redis.publish("app_nothing", "ready", &json!(1), None).await == 2).await;
    // Meanwhile a node may take the other's members for gone. In the end all have the same list.
    let mut late = Watcher::join(&nodes[0], 4).await;
    for watcher in [&mut late, &mut alice, &mut bob] {
        watcher.believes([1, 2, 4]).await;
    }
    redis.publish(&format!("app_{ROOM}"), TICK, &json!(1), None).await;
    for watcher in [&mut late, &mut alice, &mut bob] {
        watcher.hears(1).await;
        assert_eq!((&watcher.here, &watcher.ticks), (&BTreeSet::from([1, 2, 4]), &vec![1]));
    }
    assert_eq!(Watcher::join(&nodes[1], 5).await.here, BTreeSet::from([1, 2, 4, 5]), "a member that left meanwhile is gone");
}

/// Publishes events of the application, numbered from 1, until it is stopped.
struct Traffic {
    /// The number of the last event that was sent or is about to be.
    begun: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    sending: JoinHandle<()>,
}

impl Traffic {
    fn start(redis: &Arc<Redis>) -> Self {
        let (redis, begun, ends) = (Arc::clone(redis), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let sending = tokio::spawn({
            let (begun, ends) = (Arc::clone(&begun), Arc::clone(&ends));
            async move {
                let mut publisher = redis.publisher().await;
                while !ends.load(Ordering::SeqCst) {
                    let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                    publisher.publish(&format!("app_{ROOM}"), TICK, &json!(number)).await;
                    tokio::time::sleep(PACE).await;
                }
            }
        });
        Self { begun, ends, sending }
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits until many more events were sent.
    async fn goes_on(&self) {
        let enough = self.begun() + WHILE;
        until("more events", async || self.begun() >= enough).await;
    }

    /// Stops. Returns the last number.
    async fn end(self) -> u64 {
        self.ends.store(true, Ordering::SeqCst);
        self.sending.await.expect("the events are sent");
        self.begun.load(Ordering::SeqCst)
    }
}

/// A watcher, and the last event that may have been sent before it joined.
struct Listener {
    watcher: Watcher,
    before: u64,
}

impl Listener {
    async fn join(node: &Node, user: u64, traffic: &Traffic) -> Self {
        let watcher = Watcher::join(node, user).await;
        Self { watcher, before: traffic.begun() }
    }

    /// Asserts that every event since it joined arrived once and in order.
    fn has_missed_nothing(&self) {
        let ticks = &self.watcher.ticks;
        let first = ticks.first().expect("events came");
        assert!(*first <= self.before + 1, "the first is {first}, and only {} were sent before", self.before);
        let all: Vec<u64> = (*first..).take(ticks.len()).collect();
        assert_eq!(ticks, &all, "every event once, and in order");
    }
}

#[tokio::test]
async fn a_rolling_restart_under_traffic_loses_no_event() {
    let (redis, laravel) = (Arc::new(Redis::start().await), Laravel::start().await);
    let mut nodes = [process(redis.port, &laravel).await, process(redis.port, &laravel).await, process(redis.port, &laravel).await];
    let traffic = Traffic::start(&redis);
    let mut listeners = Vec::new();
    for (node, user) in nodes.iter().zip(1..) {
        listeners.push(Listener::join(node, user, &traffic).await);
    }
    for listener in &mut listeners {
        listener.watcher.believes([1, 2, 3]).await;
    }
    traffic.goes_on().await;
    // One node after the other; the last one stays, with the client that receives everything.
    for restarted in 0..2 {
        let user = restarted as u64 + 1;
        nodes[restarted].signal(Signal::TERM);
        listeners[restarted].watcher.closed().await;
        listeners[restarted].has_missed_nothing();
        let others: Vec<u64> = (1..=3).filter(|other| *other != user).collect();
        for (n, listener) in listeners.iter_mut().enumerate().filter(|(n, _)| *n != restarted) {
            listener.watcher.believes(others.clone()).await;
            assert!(listener.watcher.here.contains(&(n as u64 + 1)));
        }
        traffic.goes_on().await;
        nodes[restarted].again().await;
        listeners[restarted] = Listener::join(&nodes[restarted], user, &traffic).await;
        for listener in &mut listeners {
            listener.watcher.believes([1, 2, 3]).await;
        }
        traffic.goes_on().await;
    }
    let last = traffic.end().await;
    for listener in &mut listeners {
        listener.watcher.hears(last).await;
        listener.has_missed_nothing();
        assert_eq!(listener.watcher.here, BTreeSet::from([1, 2, 3]));
    }
    assert_eq!(listeners[2].watcher.changes, 4, "two left once and joined again once");
}
