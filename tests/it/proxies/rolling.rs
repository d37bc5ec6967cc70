//! A rolling restart: two nodes behind HAProxy, a steady stream of events, and clients that reconnect on their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Proxy, connections, packaged_haproxy};
use crate::support::polling::Polling;
use crate::support::redis::Publisher;
use crate::support::{Client, DEADLINE, Node, Redis, SlowApp, free_port, until};

/// A presence channel, because it confirms the subscription.
const CHANNEL: &str = "presence-news";

/// Enough clients that both nodes disconnect theirs in groups.
const DIRECT: usize = 220;
const POLLING: usize = 20;
const CLIENTS: usize = DIRECT + POLLING;

/// `auth.maxConcurrent` of a node.
const CALLBACKS: usize = 4;

/// Interval between two events.
const PAUSE: Duration = Duration::from_millis(100);

/// How many events a client may be behind the others when its connection closes. By default HAProxy retries a server that
/// refuses connections for 3 s, which is 30 events.
const BEHIND: usize = 20;

/// Two nodes behind HAProxy, and the progress of the events.
struct Site {
    address: SocketAddr,
    /// Number of events published or being published.
    published: AtomicUsize,
    /// Number of events that have reached any client.
    delivered: AtomicUsize,
    /// The next event is the last one.
    is_over: CancellationToken,
}

/// One connection of a client, from its subscription to its end.
struct Stay {
    /// Number of events published when it was subscribed: all later ones must arrive.
    published: usize,
    /// Numbers of the received events.
    seen: Vec<usize>,
    /// How long the client had been disconnected before.
    away: Duration,
    /// Number of events that had reached any client when this one was closed.
    delivered: usize,
}

enum Connection {
    Direct(Box<Client>),
    Polling(Box<Polling>),
}

impl Connection {
    async fn open(site: &Site, polls: bool, cookies: &[(String, String)]) -> Option<Self> {
        let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if polls {
            return Some(Self::Polling(Box::new(Polling::try_connect(site.address, 4, from, cookies.to_vec()).await?)));
        }
        Some(Self::Direct(Box::new(Client::try_connect(from, site.address, &[]).await?)))
    }

    async fn subscribe(&mut self) -> Option<()> {
        let packet = format!("42{}", json!(["subscribe", { "channel": CHANNEL, "auth": { "headers": {} } }]));
        match self {
            Self::Direct(client) => client.try_send(&packet).await.ok(),
            Self::Polling(client) => client.try_send(&packet).await,
        }
    }

    /// The next event; `None` when the server has ended the connection.
    async fn next(&mut self) -> Option<Vec<Value>> {
        match self {
            Self::Direct(client) => client.next().await,
            Self::Polling(client) => client.next().await,
        }
    }
}

impl Site {
    /// Publishes until it is over; numbers start at 0, and the last event is marked.
    async fn publish(&self, mut redis: Publisher) {
        let mut clock = tokio::time::interval(PAUSE);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let is_last = self.is_over.is_cancelled();
            let number = self.published.fetch_add(1, Ordering::SeqCst);
            redis.publish(CHANNEL, "tick", &json!({ "n": number, "last": is_last })).await;
            if is_last {
                return;
            }
        }
    }

    /// Connects and, until the last event, reconnects like socket.io-client but faster. Reports each subscription.
    async fn live(&self, polls: bool, arrivals: mpsc::Sender<()>) -> Vec<Stay> {
        let (mut stays, mut closed) = (Vec::new(), None::<Instant>);
        // A browser keeps cookies, by which the proxy knows the client's node.
        let mut cookies = Vec::new();
        loop {
            let mut connection = self.come_back(polls, closed.is_some(), &cookies).await;
            let away = closed.map_or(Duration::ZERO, |closed| closed.elapsed());
            let mut stay = Stay { published: self.published.load(Ordering::SeqCst), seen: Vec::new(), away, delivered: 0 };
            arrivals.send(()).await.expect("the test listens");
            let mut is_over = false;
            while !is_over && let Some(event) = connection.next().await {
                if event[0] == "tick" {
                    let number = usize::try_from(event[2]["n"].as_u64().expect("a number")).expect("a small number");
                    stay.seen.push(number);
                    self.delivered.fetch_max(number + 1, Ordering::SeqCst);
                    is_over = event[2]["last"] == true;
                }
            }
            closed = Some(Instant::now());
            stay.delivered = self.delivered.load(Ordering::SeqCst);
            stays.push(stay);
            if is_over {
                return stays;
            }
            if let Connection::Polling(client) = connection {
                cookies = client.cookies;
            }
        }
    }

    /// Connects and subscribes. Each attempt comes after a random and growing delay.
    async fn come_back(&self, polls: bool, is_again: bool, cookies: &[(String, String)]) -> Connection {
        let mut delay = Duration::from_millis(200);
        let mut waits = is_again;
        loop {
            if waits {
                let jitter = rand::rng().random_range(0.5..1.5);
                tokio::time::sleep(delay.mul_f64(jitter)).await;
                delay = (delay * 2).min(Duration::from_secs(2));
            }
            waits = true;
            let Some(mut connection) = Connection::open(self, polls, cookies).await else { continue };
            if connection.subscribe().await.is_none() {
                continue;
            }
            while let Some(event) = connection.next().await {
                assert_ne!(event[0], "subscription_error", "{event:?}");
                if event[0] == "presence:subscribed" {
                    return connection;
                }
            }
        }
    }
}

impl Stay {
    /// Asserts that only events published while the client was disconnected are missing.
    fn check(&self) {
        assert!(self.seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap, or out of order: {:?}", self.seen);
        assert!(self.away < DEADLINE, "away for {:?}", self.away);
        if let Some(first) = self.seen.first() {
            assert!(*first <= self.published, "subscribed when {} were published, and got {first} first", self.published);
        }
        let end = self.seen.last().map_or(self.published, |last| last + 1);
        assert!(end + BEHIND > self.delivered, "closed when others had {} events, and this one {end}", self.delivered);
    }
}

/// Whether the proxy sends new clients to this node, according to its cookie.
async fn is_served(proxy: &Proxy, name: &str) -> bool {
    let Ok(answer) = reqwest::get(format!("http://{}/health", proxy.address)).await else { return false };
    answer.headers().get("set-cookie").is_some_and(|cookie| cookie.as_bytes().starts_with(format!("ECHO_NODE={name};").as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_costs_each_client_one_reconnect_and_one_callback() {
    let (redis, app) = (Redis::start().await, SlowApp::start(Duration::from_millis(20)).await);
    app.answers(200, r#"{"channel_data":{"user_id":1}}"#);
    let settings = json!({
        "authHost": app.url,
        "auth": { "maxConcurrent": CALLBACKS },
        "trustProxies": ["127.0.0.1"],
        "database": "redis",
        "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port } },
        "cluster": { "enabled": true },
        "shutdown": { "drain": "4s" },
    });
    let mut nodes = [Node::start(settings.clone()).await, Node::start(settings).await];
    let port = free_port();
    let proxy = Proxy::haproxy(port, packaged_haproxy(port, [&nodes[0], &nodes[1]])).await;
    for name in ["one", "two"] {
        until("the proxy to know both nodes", async || is_served(&proxy, name).await).await;
    }
    let site = Arc::new(Site {
        address: proxy.address,
        published: AtomicUsize::new(0),
        delivered: AtomicUsize::new(0),
        is_over: CancellationToken::new(),
    });
    let publisher = redis.publisher().await;
    let publishing = tokio::spawn({
        let site = Arc::clone(&site);
        async move { site.publish(publisher).await }
    });
    let (arrivals, mut here) = mpsc::channel(CLIENTS);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (site, arrivals) = (Arc::clone(&site), arrivals.clone());
        clients.spawn(async move { site.live(number >= DIRECT, arrivals).await });
    }
    let mut all_in = async |count: usize| {
        for _ in 0..count {
            tokio::time::timeout(DEADLINE, here.recv()).await.expect("clients come in time").expect("clients live");
        }
    };
    all_in(CLIENTS).await;
    let mut moved = Vec::new();
    for (node, name) in nodes.iter_mut().zip(["one", "two"]) {
        let theirs = connections(node).await;
        assert!(theirs >= 100, "{name} has {theirs} clients: too few to be moved off in groups");
        node.signal(Signal::TERM);
        all_in(theirs).await;
        node.again().await;
        until("the proxy to send clients to the node again", async || is_served(&proxy, name).await).await;
        moved.push(theirs);
    }
    site.is_over.cancel();
    publishing.await.expect("publishing goes on");
    let lives = tokio::time::timeout(DEADLINE, clients.join_all()).await.expect("all get the last event");
    for stay in lives.iter().flatten() {
        stay.check();
    }
    // Node one's clients moved to node two, and all of those moved back.
    assert_eq!(lives.iter().map(Vec::len).sum::<usize>(), CLIENTS + moved.iter().sum::<usize>());
    assert!(app.callbacks() <= CLIENTS + moved.iter().sum::<usize>(), "{} callbacks", app.callbacks());
    assert!(app.peak() <= 2 * CALLBACKS, "{} callbacks at once", app.peak());
}
