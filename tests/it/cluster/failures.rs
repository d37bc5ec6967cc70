//! Nodes in separate processes that are killed, stopped or cut off: in the end every client has the true member list, and
//! no join or leave was announced twice.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::watcher::Watcher;
use super::{process, settings};
use crate::support::server::KEY;
use crate::support::{Laravel, Redis, TestServer, free_port, until};

/// A network between a node and Redis that can be interrupted.
struct Network {
    port: u16,
    redis_port: u16,
    traffic: Option<tokio::task::JoinHandle<()>>,
}

impl Network {
    async fn to(redis: &Redis) -> Self {
        let mut network = Self { port: free_port(), redis_port: redis.port, traffic: None };
        network.repair().await;
        network
    }

    async fn repair(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port is free");
        let redis_port = self.redis_port;
        self.traffic = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(("127.0.0.1", redis_port)).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        }));
    }

    async fn cut(&mut self) {
        if let Some(traffic) = self.traffic.take() {
            traffic.abort();
            let _ = traffic.await;
        }
    }
}

/// A proxy to Redis that drops a connection when a node sends this text. Returns its port.
async fn breaks_at(redis: &Redis, text: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let (port, redis_port) = (listener.local_addr().expect("an address").port(), redis.port);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let far = TcpStream::connect(("127.0.0.1", redis_port)).await.expect("Redis is there");
                let ((mut from_node, mut to_node), (mut from_redis, mut to_redis)) = (near.into_split(), far.into_split());
                let back = tokio::spawn(async move { tokio::io::copy(&mut from_redis, &mut to_node).await });
                let mut bytes = vec![0; 65_536];
                while let Ok(count @ 1..) = from_node.read(&mut bytes).await {
                    let end = bytes[..count].windows(text.len()).position(|window| window == text);
                    if to_redis.write_all(&bytes[..end.unwrap_or(count)]).await.is_err() || end.is_some() {
                        break;
                    }
                }
                back.abort();
            });
        }
    });
    port
}

#[tokio::test]
async fn an_event_for_many_channels_reaches_all_or_none() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let node = process(breaks_at(&redis, b"app_c50").await, &laravel).await;
    let other = TestServer::with(&redis, &laravel, settings()).await;
    let mut client = other.client().await;
    client.subscribe("c0").await;
    until("it to be in", async || other.subscription_count("c0").await == 1).await;
    redis.publish("app_c0", "before", &json!(1), None).await;
    client.event("before").await;
    let channels: Vec<_> = (0..100).map(|n| format!("c{n}")).collect();
    let body = json!({ "channels": channels, "name": "sent", "data": 1 });
    let request = reqwest::Client::new().post(format!("http://{}/apps/app/events", node.address)).bearer_auth(KEY);
    assert_eq!(request.body(body.to_string()).send().await.expect("an answer").status(), 503);
    redis.publish("app_c0", "after", &json!(1), None).await;
    assert_eq!(client.next().await.expect("an event")[0], "after");
}

#[tokio::test]
async fn a_killed_node_loses_its_members_once() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let killed = process(redis.port, &laravel).await;
    let survivors = [process(redis.port, &laravel).await, process(redis.port, &laravel).await];
    let (mut alice, mut bob) = (Watcher::join(&survivors[0], 1).await, Watcher::join(&survivors[1], 2).await);
    let mut lost = Vec::new();
    for user in 10..15 {
        lost.push(Watcher::join(&killed, user).await);
    }
    // User 1 also has a tab on the killed node, and stays present.
    lost.push(Watcher::join(&killed, 1).await);
    for watcher in [&mut alice, &mut bob] {
        watcher.believes([1, 2, 10, 11, 12, 13, 14]).await;
    }
    killed.signal(Signal::KILL);
    for watcher in [&mut alice, &mut bob] {
        watcher.believes([1, 2]).await;
    }
    assert_eq!(Watcher::join(&survivors[0], 3).await.here, BTreeSet::from([1, 2, 3]));
    bob.believes([1, 2, 3]).await;
    assert_eq!(bob.changes, 5 + 5 + 1, "no other changes were announced");
}

#[tokio::test]
async fn a_node_suspended_for_longer_than_its_lease_recovers() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let (stopped, other) = (process(redis.port, &laravel).await, process(redis.port, &laravel).await);
    let (mut inside, mut outside) = (Watcher::join(&stopped, 1).await, Watcher::join(&other, 2).await);
    inside.believes([1, 2]).await;
    stopped.signal(Signal::STOP);
    outside.believes([2]).await;
    let mut late = Watcher::join(&other, 3).await;
    stopped.signal(Signal::CONT);
    for watcher in [&mut inside, &mut outside, &mut late] {
        watcher.believes([1, 2, 3]).await;
    }
    drop(late);
    // Earlier changes do not matter: after the last ones, both clients have the same list.
    for watcher in [&mut inside, &mut outside] {
        watcher.believes([1, 2]).await;
    }
    assert_eq!(Watcher::join(&stopped, 4).await.here, BTreeSet::from([1, 2, 4]));
}

#[tokio::test]
async fn a_node_cut_off_from_redis_catches_up() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let mut network = Network::to(&redis).await;
    let (cut, other) = (process(network.port, &laravel).await, process(redis.port, &laravel).await);
    let (mut inside, leaves_inside) = (Watcher::join(&cut, 1).await, Watcher::join(&cut, 2).await);
    let (mut outside, leaves_outside) = (Watcher::join(&other, 3).await, Watcher::join(&other, 4).await);
    inside.believes([1, 2, 3, 4]).await;
    outside.believes([1, 2, 3, 4]).await;
    network.cut().await;
    // The lease expires while members change on both sides.
    outside.believes([3, 4]).await;
    drop(leaves_outside);
    drop(leaves_inside);
    outside.believes([3]).await;
    let mut late = Watcher::join(&other, 5).await;
    network.repair().await;
    for watcher in [&mut inside, &mut outside, &mut late] {
        watcher.believes([1, 3, 5]).await;
    }
    assert_eq!(Watcher::join(&cut, 6).await.here, BTreeSet::from([1, 3, 5, 6]));
}

#[tokio::test]
async fn a_rolling_restart_loses_no_member() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let mut nodes = [process(redis.port, &laravel).await, process(redis.port, &laravel).await];
    let steady = process(redis.port, &laravel).await;
    let mut watcher = Watcher::join(&steady, 1).await;
    let mut clients = [Watcher::join(&nodes[0], 2).await, Watcher::join(&nodes[1], 3).await];
    watcher.believes([1, 2, 3]).await;
    for n in 0..2 {
        let fresh = process(redis.port, &laravel).await;
        let mut old = std::mem::replace(&mut nodes[n], fresh);
        old.signal(Signal::TERM);
        // A clean stop removes members at once; the client then joins again on the restarted node.
        watcher.believes(if n == 0 { [1, 3] } else { [1, 2] }).await;
        clients[n] = Watcher::join(&nodes[n], n as u64 + 2).await;
        watcher.believes([1, 2, 3]).await;
        old.ended().await;
    }
    clients[1].believes([1, 2, 3]).await;
    assert_eq!(watcher.changes, 2 + 4, "each left once and joined again once");
}
