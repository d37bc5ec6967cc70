//! A server in a process of its own, which can be killed, stopped and started again.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::server::KEY;
use super::{free_port, merge, until};

/// A server process; killed on drop.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    process: Child,
    folder: std::path::PathBuf,
}

impl Node {
    /// A node that is ready; `settings` are merged into the tests' defaults, as JSON with the keys of the config file.
    pub(crate) async fn start(settings: Value) -> Self {
        // For reqwest. Fails if another node of this test has already installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("echo-node-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut config = json!({ "host": "127.0.0.1", "port": port, "clients": [{ "appId": "app", "key": KEY }] });
        merge(&mut config, settings);
        std::fs::write(folder.join("laravel-echo-server.json"), config.to_string()).expect("a config file");
        let node = Self { address: SocketAddr::from(([127, 0, 0, 1], port)), process: run(&folder), folder };
        node.is_ready().await;
        node
    }

    async fn is_ready(&self) {
        let url = format!("http://{}/ready", self.address);
        until("the node to be ready", async || reqwest::get(&url).await.is_ok_and(|answer| answer.status() == 200)).await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("the node can be signalled");
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) {
        until("the node to end", async || self.process.try_wait().expect("a child").is_some()).await;
    }

    /// Restarts the process on the same address, once it has ended.
    pub(crate) async fn again(&mut self) {
        self.ended().await;
        self.process = run(&self.folder);
        self.is_ready().await;
    }
}

fn run(folder: &std::path::Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_laravel-echo-server"))
        .args(["start", "--dir"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts")
}

impl Drop for Node {
    fn drop(&mut self) {
        // Fails if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
