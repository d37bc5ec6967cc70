//! What the server does all the time, as work that can be measured alone: `benches/counts.rs` counts its instructions,
//! `tests/allocations.rs` its allocations.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up is over")]

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use laravel_echo_server::cluster::envelope::message_of;
use laravel_echo_server::hub::Socket as _;
use laravel_echo_server::metrics::Source;
use laravel_echo_server::{Config, Server, socket_io};
use tokio_util::sync::CancellationToken;

use super::world::{SUBSCRIBE, Sink, UNSUBSCRIBE, WHISPER, data, envelope, event, hub, room, runtime};

/// Makes everything that a work needs.
type Setup = fn() -> Work;

/// All of them, by name.
pub(crate) const WORKS: [(&str, Setup); 6] = [
    ("decode", decode),
    ("fan-out-1", || fan_out(1)),
    ("fan-out-1000", || fan_out(1_000)),
    ("subscribe", subscribe),
    ("whisper", whisper),
    ("poll", poll),
];

/// One call of `run` is measured, after one of `prepare` that is not.
pub(crate) struct Work {
    pub(crate) prepare: Box<dyn FnMut()>,
    pub(crate) run: Box<dyn FnMut()>,
}

impl Work {
    fn new(run: impl FnMut() + 'static) -> Self {
        Self { prepare: Box::new(|| ()), run: Box::new(run) }
    }

    /// Does it a few times, after which it no longer grows any table.
    pub(crate) fn warm_up(&mut self) {
        for _ in 0..3 {
            (self.prepare)();
            (self.run)();
        }
    }
}

/// A message of Redis with an event of 1,000 bytes.
fn decode() -> Work {
    let payload = envelope(1_000);
    Work::new(move || assert!(message_of("private-orders.1", black_box(payload.as_bytes())).is_ok()))
}

/// An event for this many sockets.
fn fan_out(sockets: usize) -> Work {
    let runtime = runtime();
    let hub = room(&runtime, "orders", sockets);
    let data = data();
    Work::new(move || {
        let _guard = runtime.enter();
        assert_eq!(hub.publish(black_box(&event(&data)), Source::Redis), sockets);
    })
}

/// A socket subscribes to a public channel and unsubscribes.
fn subscribe() -> Work {
    let runtime = runtime();
    let hub = hub(&runtime);
    hub.connect(Sink::new(0));
    let id = Sink::new(0).id();
    Work::new(move || {
        let _guard = runtime.enter();
        socket_io::take(&hub, id, "subscribe", black_box(SUBSCRIBE), false);
        socket_io::take(&hub, id, "unsubscribe", black_box(UNSUBSCRIBE), false);
    })
}

/// A whisper to a hundred sockets.
fn whisper() -> Work {
    let runtime = runtime();
    let hub = room(&runtime, "private-room", 101);
    let from = Sink::new(0).id();
    Work::new(move || {
        let _guard = runtime.enter();
        socket_io::take(&hub, from, "client event", black_box(WHISPER), false);
    })
}

/// The server answers a poll for which an event waits, on a new connection as clients in Node open one for each.
fn poll() -> Work {
    let settings = serde_json::json!({
        "host": "127.0.0.1",
        "clients": [{ "appId": "app", "key": "key" }],
        "subscribers": { "redis": false },
        // No ping comes between.
        "socketio": { "pingInterval": 3_600_000 },
    });
    let config = Config { port: 0, ..serde_json::from_value(settings).unwrap() };
    let runtime = Rc::new(runtime());
    let server = runtime.block_on(Server::bind(config)).unwrap();
    let address = server.local_addr();
    runtime.spawn(server.run(CancellationToken::new()));
    let serve = {
        let runtime = Rc::clone(&runtime);
        move |client: &TcpStream| runtime.block_on(answered(client))
    };
    let exchange = {
        let serve = serve.clone();
        move |request: &str| {
            let mut client = send(address, request);
            serve(&client);
            let mut response = String::new();
            client.set_nonblocking(false).unwrap();
            client.read_to_string(&mut response).unwrap();
            response
        }
    };

    let opened = exchange(&request("GET /socket.io/?EIO=4&transport=polling", ""));
    let sid = opened.split(r#""sid":""#).nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let session = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    let get = request(&format!("GET {session}"), "");
    for packet in ["40", &format!("42{SUBSCRIBE}")] {
        assert!(exchange(&request(&format!("POST {session}"), packet)).ends_with("ok"));
    }
    assert!(exchange(&get).contains("40{"));

    let body = serde_json::json!({ "channel": "orders", "name": "App\\Events\\OrderShipped", "data": data() }).to_string();
    let publish = request("POST /apps/app/events?auth_key=key", &body);
    let client = Rc::new(RefCell::new(None));
    let waiting = Rc::clone(&client);
    Work {
        prepare: Box::new(move || {
            assert!(exchange(&publish).starts_with("HTTP/1.1 200"));
            *waiting.borrow_mut() = Some(send(address, &get));
        }),
        run: Box::new(move || assert!(client.borrow().as_ref().is_some_and(|client| serve(client) > body.len()))),
    }
}

fn request(line: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Sends a request on a connection of its own.
fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    client.set_nonblocking(true).unwrap();
    client
}

/// Waits until the server has answered. Returns the size of the response.
async fn answered(client: &TcpStream) -> usize {
    for _ in 0..1_000_000 {
        match client.peek(&mut [0; 1024]) {
            Ok(length) => return length,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    panic!("no answer");
}
