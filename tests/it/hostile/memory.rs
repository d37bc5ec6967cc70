//! Memory under headers that have to be kept, large events for clients that do not read, and repeatedly resumed sessions.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::support::polling::Polling;
use crate::support::{Client, DEADLINE, Laravel, TestServer, free_port, until};

#[tokio::test]
async fn header_memory_per_socket_is_bounded_and_equal_headers_are_kept_once() {
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url })).await;
    let mut client = server.client_of(1).await;
    let headers = |text: String| json!({ "headers": { "Authorization": format!("Bearer {text}") } });
    // The same headers for each of a thousand channels are kept once.
    for n in 0..200 {
        client.emit("subscribe", json!({ "channel": format!("private-same.{n}"), "auth": headers("x".repeat(20_000)) })).await;
    }
    server.subscribed("private-same.199", 1).await;
    let mut refused = 0;
    for n in 0..10 {
        let channel = format!("private-other.{n}");
        client.emit("subscribe", json!({ "channel": channel, "auth": headers(format!("{n}{}", "x".repeat(20_000))) })).await;
        // An answer to this subscribe shows that the one before it was handled.
        client.subscribe(&"x".repeat(300)).await;
        let mut error = client.event("subscription_error").await;
        if error[1] == json!(431) {
            refused += 1;
            error = client.event("subscription_error").await;
        } else {
            server.subscribed(&channel, 1).await;
        }
        assert_eq!(error[1], json!(414));
    }
    assert_eq!(refused, 5, "128 KB hold six sets");
}

/// The transport of a client that does not read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Websocket,
    Upgraded,
    Polling,
}

/// A server in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Process {
    /// Starts with a limit of `most` bytes of address space, if given.
    async fn start(most: Option<u64>) -> Self {
        // Maybe no server in this process has installed a crypto provider yet, which reqwest needs even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let binary = env!("CARGO_BIN_EXE_laravel-echo-server");
        let mut command = match most {
            None => Command::new(binary),
            Some(bytes) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--as={bytes}")).arg(binary);
                command
            }
        };
        let child = command
            .args(["start", "--defaults"])
            .env("LARAVEL_ECHO_SERVER_HOST", "127.0.0.1")
            .env("LARAVEL_ECHO_SERVER_PORT", address.port().to_string())
            .env("LARAVEL_ECHO_SERVER_SUBSCRIBERS_REDIS", "false")
            .env("LARAVEL_ECHO_SERVER_REDIS_SERVER_ENABLED", "false")
            .env("LARAVEL_ECHO_SERVER_CLIENTS", "app:test-key")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("these tests need prlimit: apt-get install util-linux");
        let process = Self { child, address, http: reqwest::Client::new() };
        until("the server to answer", async || process.http.get(process.url("/")).send().await.is_ok()).await;
        process
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its peak memory in bytes.
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().expect("it runs"))).expect("it runs");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
        kib.trim().strip_suffix(" kB").expect("a size").parse::<usize>().expect("a number") * 1024
    }

    async fn publish(&self, bytes: usize) -> u16 {
        let event = json!({ "channel": "news", "name": "sent", "data": "x".repeat(bytes) }).to_string();
        let request = self.http.post(self.url("/apps/app/events?auth_key=test-key")).body(event);
        request.send().await.expect("an answer").status().as_u16()
    }

    async fn subscribed(&self, count: usize) {
        let expected = format!(r#""subscription_count":{count}"#);
        until("all to be subscribed", async || {
            let request = self.http.get(self.url("/apps/app/channels/news?auth_key=test-key"));
            request.send().await.expect("an answer").text().await.expect("text").contains(&expected)
        })
        .await;
    }

    /// A client of this kind in the channel `news` that has read nothing after its subscription.
    async fn client(&self, kind: Kind) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        if kind == Kind::Websocket {
            upgrade(&mut stream, "").await;
            wait_for(&mut stream, "0{").await;
            send(&mut stream, "40").await;
            wait_for(&mut stream, "40{").await;
            send(&mut stream, r#"42["subscribe",{"channel":"news"}]"#).await;
            return stream;
        }
        let mut polling = Polling::connect(self.address, 4, Ipv4Addr::LOCALHOST.into(), &[]).await;
        polling.subscribe("news").await;
        let sid = format!("&sid={}", polling.sid());
        if kind == Kind::Upgraded {
            upgrade(&mut stream, &sid).await;
            send(&mut stream, "2probe").await;
            wait_for(&mut stream, "3probe").await;
            send(&mut stream, "5").await;
        } else {
            let request = format!("GET /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("it reads");
        }
        stream
    }
}

async fn upgrade(stream: &mut TcpStream, sid: &str) {
    let request = format!(
        "GET /socket.io/?EIO=4&transport=websocket{sid} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("it answers"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
}

/// Sends a short packet in a frame masked with zeros.
async fn send(stream: &mut TcpStream, packet: &str) {
    let length = u8::try_from(packet.len()).expect("a short packet");
    assert!(length < 126);
    let frame = [&[0x81, 0x80 | length, 0, 0, 0, 0], packet.as_bytes()].concat();
    stream.write_all(&frame).await.expect("it reads");
}

async fn wait_for(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(text) {
            let read = stream.read_buf(&mut seen).await.expect("it answers");
            assert!(read > 0, "it closed the connection before `{text}`");
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("no `{text}`"));
}

/// How much a server grows when it sends large events to clients that read only their beginning.
async fn grown(kind: Kind) -> usize {
    const CLIENTS: usize = 60;
    const LARGE: usize = 4_000_000;
    const SMALLER: usize = 100_000;
    let process = Process::start(None).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(process.client(kind).await);
    }
    process.subscribed(CLIENTS).await;
    let before = process.peak();
    assert_eq!(process.publish(LARGE).await, 200);
    for client in &mut clients {
        // The frame or response was created, since its beginning has arrived.
        wait_for(client, "sent").await;
    }
    for _ in 0..30 {
        assert_eq!(process.publish(SMALLER).await, 200);
    }
    process.subscribed(CLIENTS).await;
    process.peak() - before
}

#[tokio::test]
async fn large_events_take_the_same_memory_whatever_the_transport() {
    let websocket = grown(Kind::Websocket).await;
    for kind in [Kind::Upgraded, Kind::Polling] {
        let grown = grown(kind).await;
        assert!(2 * grown <= 3 * websocket, "{kind:?}: {grown} bytes, and {websocket} for websockets");
    }
}

#[tokio::test]
async fn a_large_event_to_many_polling_clients_fits_into_little_memory() {
    const POLLERS: usize = 200;
    // Much of it is unused address space: thread stacks and allocator arenas.
    let process = Process::start(Some(1_500_000_000)).await;
    let mut clients = Vec::new();
    for _ in 0..POLLERS {
        clients.push(process.client(Kind::Polling).await);
    }
    process.subscribed(POLLERS).await;
    assert_eq!(process.publish(9_000_000).await, 200);
    for client in &mut clients {
        wait_for(client, "sent").await;
    }
    process.subscribed(POLLERS).await;
}

/// A client that resumes one session again and again, on more and more connections.
#[tokio::test]
async fn resuming_one_session_thousands_of_times_does_not_affect_others() {
    const RETURNS: usize = 4000;
    const AT_ONCE: usize = 16;
    let process = Process::start(None).await;
    let mut healthy = Client::connect(process.address, &[]).await;
    let mut restless = Client::connect(process.address, &[]).await;
    healthy.subscribe("news").await;
    restless.subscribe("news").await;
    process.subscribed(2).await;
    assert_eq!(process.publish(100).await, 200);
    restless.event("sent").await;
    healthy.event("sent").await;
    let (address, pid, offset) = (process.address, restless.pid.clone(), restless.offset.clone().expect("events have offsets"));
    restless.vanish();
    let left = Arc::new(AtomicUsize::new(RETURNS));
    let mut attackers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (pid, offset, left) = (pid.clone(), offset.clone(), Arc::clone(&left));
        attackers.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                Client::come_back(address, &pid, Some(&offset)).await.vanish();
            }
        });
    }
    // The first of them already take all the memory.
    until("half of them", async || left.load(Ordering::Relaxed) < RETURNS / 2).await;
    let half = process.peak();
    while !attackers.is_empty() {
        assert_eq!(process.publish(100).await, 200);
        healthy.event("sent").await;
        while attackers.try_join_next().is_some() {}
    }
    let grown = process.peak().saturating_sub(half);
    assert!(grown < 4 << 20, "{grown} bytes more after as many again");
    process.subscribed(1).await;
    assert_eq!(healthy.left_over(), [] as [&str; 0]);
}
