//! Test fixtures: a server, a Redis, a fake Laravel application, an Echo client.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

pub(crate) mod client;
pub(crate) mod laravel;
pub(crate) mod node;
pub(crate) mod polling;
pub(crate) mod redis;
pub(crate) mod server;
pub(crate) mod slow_app;

pub(crate) use client::Client;
pub(crate) use laravel::Laravel;
pub(crate) use node::Node;
pub(crate) use redis::Redis;
pub(crate) use server::{TestServer, merge};
pub(crate) use slow_app::SlowApp;

/// How long to wait for an expected event. Generous, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The metrics of a server.
pub(crate) async fn metrics(address: SocketAddr) -> String {
    let request = reqwest::Client::new().get(format!("http://{address}/metrics")).bearer_auth(server::KEY);
    request.send().await.expect("the server answers").text().await.expect("the server answers")
}

/// Waits until `probe` is true.
pub(crate) async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "timed out waiting for {what}");
}

/// Below the ports that systems give to connections, and to listeners that ask for any.
const PORTS: std::ops::Range<u16> = 10_000..32_768;

/// A port on which nothing listens. Tests are processes that run side by side, and start servers on it later, or again: no other is
/// given it until this one has ended.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("echo-ports");
    std::fs::create_dir_all(&folder).expect("a folder");
    loop {
        let port = rand::random_range(PORTS);
        let file = File::create(folder.join(port.to_string())).expect("a file to lock");
        if file.try_lock().is_ok() && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().expect("no test panics here").push(file);
            return port;
        }
    }
}
