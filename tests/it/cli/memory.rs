//! Memory of a server process with clients that never read.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use super::socket::Socket;
use super::{DEADLINE, Folder};

const CLIENTS: usize = 12;

/// This test's `limits.clientQueueBytes`.
const QUEUE: usize = 400_000;

/// Size of an event's data.
const EVENT: usize = 50_000;

/// The HTTP API, on one connection.
struct Api(TcpStream);

impl Api {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout is set");
        Self(stream)
    }

    /// Body of the response, which must be a success.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> String {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: {}\r\n\r\n", body.len());
        self.0.write_all(head.as_bytes()).expect("the server reads");
        self.0.write_all(body.as_bytes()).expect("the server reads");
        let mut answer = String::new();
        loop {
            let mut bytes = [0; 16_384];
            let length = self.0.read(&mut bytes).expect("the server answers");
            assert!(length > 0, "the server closed the connection: {answer}");
            answer += std::str::from_utf8(&bytes[..length]).expect("the API answers in ASCII");
            let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            if body.len() == length.parse::<usize>().expect("a number") {
                return body.to_owned();
            }
        }
    }

    /// Number of sockets in this test's channel.
    fn subscribed(&mut self) -> usize {
        let answer: serde_json::Value = serde_json::from_str(&self.ask("GET", "/apps/app/channels/news", "")).expect("JSON");
        answer["subscription_count"].as_u64().expect("a count") as usize
    }
}

/// Peak memory of a process, in bytes.
fn peak(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the server runs");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
    kib.trim().strip_suffix(" kB").expect("a size").parse::<usize>().expect("a number") * 1024
}

#[test]
fn clients_that_never_read_use_no_more_memory_than_their_queue_limits() {
    let (folder, port) = Folder::with_config();
    let config = folder.read("laravel-echo-server.toml")
        + &format!("[recovery]\nenabled = false\n[limits]\nclientQueueBytes = {QUEUE}\n[[clients]]\nappId = \"app\"\nkey = \"key\"\n");
    folder.write("laravel-echo-server.toml", &config);
    let running = folder.start(&[]);
    let mut api = Api::connect(port);
    let event = format!(r#"{{"channel":"news","name":"sent","data":"{}"}}"#, "x".repeat(EVENT));
    let mut clients = std::collections::VecDeque::new();
    let (mut closed, mut events, mut before) = (0, 0, 0);
    let end = Instant::now() + 4 * DEADLINE;
    // Each client is closed and replaced several times.
    while closed < 4 * CLIENTS {
        assert!(Instant::now() < end, "{closed} clients were closed by {events} events");
        let missing = CLIENTS - api.subscribed();
        if !clients.is_empty() {
            closed += missing;
        }
        for _ in 0..missing {
            // A client that does not read does not see that it was closed; the oldest is the likeliest.
            if clients.len() == CLIENTS {
                clients.pop_front();
            }
            let mut client = Socket::connect(port);
            client.send(r#"42["subscribe",{"channel":"news","auth":{"headers":{}}}]"#);
            clients.push_back(client);
        }
        if missing > 0 {
            let there = Instant::now() + DEADLINE;
            while api.subscribed() < CLIENTS && Instant::now() < there {}
        }
        if before == 0 {
            before = peak(running.pid());
        }
        api.ask("POST", "/apps/app/events", &event);
        events += 1;
    }
    // A full queue, the event being written, and as much again for the allocator.
    let most = 2 * CLIENTS * (QUEUE + EVENT);
    let grown = peak(running.pid()) - before;
    assert!(grown < most, "{events} events, {closed} clients closed: grown by {grown} bytes, more than {most}");
    // What the memory would be without a limit.
    assert!(events * EVENT * CLIENTS > 10 * most, "too little was published to tell: {events} events");
}
