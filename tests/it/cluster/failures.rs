//! Nodes as processes of their own that are killed, stopped or cut off: what every client believes in the end is true,
//! and nobody comes or goes twice on the way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{ROOM, users};
use crate::support::{Client, Laravel, Redis, free_port, merge, until};

/// A server process; it is killed with the value.
struct Node {
    address: SocketAddr,
    process: Child,
    folder: std::path::PathBuf,
}

impl Node {
    async fn start(redis_port: u16, laravel: &Laravel) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("echo-node-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut config = super::settings();
        merge(
            &mut config,
            json!({
                "host": "127.0.0.1",
                "port": port,
                "authHost": laravel.url,
                "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis_port } },
            }),
        );
        std::fs::write(folder.join("laravel-echo-server.json"), config.to_string()).expect("a config file");
        let process = Command::new(env!("CARGO_BIN_EXE_laravel-echo-server"))
            .args(["start", "--dir"])
            .arg(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("the node to listen", async || TcpStream::connect(address).await.is_ok()).await;
        Self { address, process, folder }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("the node can be signalled");
    }

    async fn join(&self, user: u64) -> Watcher {
        let mut client = Client::connect(self.address, &[("cookie", &format!("user={user}"))]).await;
        client.subscribe(ROOM).await;
        let here = users(&client.event("presence:subscribed").await[1]);
        Watcher { client, here: here.into_iter().collect(), changes: 0 }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A client that keeps the list of who is here, as a page does.
struct Watcher {
    client: Client,
    here: BTreeSet<u64>,
    /// Joins and leaves it heard of.
    changes: usize,
}

impl Watcher {
    /// Waits until it believes that exactly these are here.
    async fn believes(&mut self, expected: impl IntoIterator<Item = u64>) {
        let expected: BTreeSet<u64> = expected.into_iter().collect();
        while self.here != expected {
            let event = self.client.next().await.expect("the connection holds");
            let user = |event: &[Value]| event[2]["user_id"].as_u64().expect("an id");
            match event[0].as_str() {
                Some("presence:joining") => assert!(self.here.insert(user(&event)), "came twice: {event:?}"),
                Some("presence:leaving") => assert!(self.here.remove(&user(&event)), "left twice: {event:?}"),
                other => panic!("unexpected {other:?} while {:?} are here, expected {expected:?}", self.here),
            }
            self.changes += 1;
        }
    }
}

/// A network between a node and Redis that can be cut.
struct Network {
    port: u16,
    redis_port: u16,
    traffic: Option<tokio::task::JoinHandle<()>>,
}

impl Network {
    async fn to(redis: &Redis) -> Self {
        let mut network = Self { port: free_port(), redis_port: redis.port, traffic: None };
        network.mend().await;
        network
    }

    async fn mend(&mut self) {
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

#[tokio::test]
async fn a_killed_node_loses_its_members_once() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let killed = Node::start(redis.port, &laravel).await;
    let survivors = [Node::start(redis.port, &laravel).await, Node::start(redis.port, &laravel).await];
    let (mut alice, mut bob) = (survivors[0].join(1).await, survivors[1].join(2).await);
    let mut lost = Vec::new();
    for user in 10..15 {
        lost.push(killed.join(user).await);
    }
    // User 1 has a tab on the node that dies, and stays.
    lost.push(killed.join(1).await);
    for watcher in [&mut alice, &mut bob] {
        watcher.believes([1, 2, 10, 11, 12, 13, 14]).await;
    }
    killed.signal(Signal::KILL);
    for watcher in [&mut alice, &mut bob] {
        watcher.believes([1, 2]).await;
    }
    assert_eq!(survivors[0].join(3).await.here, BTreeSet::from([1, 2, 3]));
    bob.believes([1, 2, 3]).await;
    assert_eq!(bob.changes, 5 + 5 + 1, "nothing else was heard");
}

#[tokio::test]
async fn a_node_stopped_for_longer_than_its_lease_comes_back() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let (stopped, other) = (Node::start(redis.port, &laravel).await, Node::start(redis.port, &laravel).await);
    let (mut inside, mut outside) = (stopped.join(1).await, other.join(2).await);
    inside.believes([1, 2]).await;
    stopped.signal(Signal::STOP);
    outside.believes([2]).await;
    let mut late = other.join(3).await;
    stopped.signal(Signal::CONT);
    for watcher in [&mut inside, &mut outside, &mut late] {
        watcher.believes([1, 2, 3]).await;
    }
    drop(late);
    // What was heard before does not fool anybody: this is the last news, and then the beliefs are the same.
    for watcher in [&mut inside, &mut outside] {
        watcher.believes([1, 2]).await;
    }
    assert_eq!(stopped.join(4).await.here, BTreeSet::from([1, 2, 4]));
}

#[tokio::test]
async fn a_node_cut_off_from_redis_catches_up() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let mut network = Network::to(&redis).await;
    let (cut, other) = (Node::start(network.port, &laravel).await, Node::start(redis.port, &laravel).await);
    let (mut inside, leaves_inside) = (cut.join(1).await, cut.join(2).await);
    let (mut outside, leaves_outside) = (other.join(3).await, other.join(4).await);
    inside.believes([1, 2, 3, 4]).await;
    outside.believes([1, 2, 3, 4]).await;
    network.cut().await;
    // The lease runs out, and the world goes on on both sides.
    outside.believes([3, 4]).await;
    drop(leaves_outside);
    drop(leaves_inside);
    outside.believes([3]).await;
    let mut late = other.join(5).await;
    network.mend().await;
    for watcher in [&mut inside, &mut outside, &mut late] {
        watcher.believes([1, 3, 5]).await;
    }
    assert_eq!(cut.join(6).await.here, BTreeSet::from([1, 3, 5, 6]));
}

#[tokio::test]
async fn a_rolling_restart_loses_nobody() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let mut nodes = [Node::start(redis.port, &laravel).await, Node::start(redis.port, &laravel).await];
    let steady = Node::start(redis.port, &laravel).await;
    let mut watcher = steady.join(1).await;
    let mut clients = [nodes[0].join(2).await, nodes[1].join(3).await];
    watcher.believes([1, 2, 3]).await;
    for n in 0..2 {
        let fresh = Node::start(redis.port, &laravel).await;
        let mut old = std::mem::replace(&mut nodes[n], fresh);
        old.signal(Signal::TERM);
        // A clean stop leaves at once; the client comes back to the fresh node.
        watcher.believes(if n == 0 { [1, 3] } else { [1, 2] }).await;
        clients[n] = nodes[n].join(n as u64 + 2).await;
        watcher.believes([1, 2, 3]).await;
        until("the old node to end", async || old.process.try_wait().expect("a child").is_some()).await;
    }
    clients[1].believes([1, 2, 3]).await;
    assert_eq!(watcher.changes, 2 + 4, "each left once and came back once");
}
