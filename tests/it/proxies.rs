//! The shipped files and snippets for nginx and HAProxy, unchanged except for ports, with two nodes behind them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::polling::Polling;
use crate::support::server::KEY;
use crate::support::{Client, Laravel, Node, Redis, free_port, metrics, until};

mod rolling;

const ROOM: &str = "presence-room";
/// Enough for a proxy that hashes addresses to use both nodes: with 8, one run in 128 would use only one.
const VISITORS: u8 = 16;

/// A proxy process; killed on drop.
struct Proxy {
    address: SocketAddr,
    process: Child,
    folder: PathBuf,
}

/// Where a configuration text comes from.
#[derive(Clone, Copy)]
enum Source {
    /// A file under `packaging`.
    File(&'static str),
    /// The code block of this language in the documentation of several nodes.
    Docs(&'static str),
}

impl Source {
    fn text(self) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a file of the repository");
        match self {
            Self::File(name) => read(&format!("packaging/{name}")),
            Self::Docs(language) => {
                let docs = read("docs/several-nodes.md");
                let (_, block) = docs.split_once(&format!("```{language}\n")).expect("the block");
                block.split_once("```").expect("its end").0.to_owned()
            }
        }
    }

    /// The text with replacements, each of which must match.
    fn with(self, changes: &[(&str, String)]) -> String {
        let mut text = self.text();
        for (old, new) in changes {
            assert_eq!(text.matches(old).count(), 1, "`{old}` is once in\n{text}");
            text = text.replace(old, new);
        }
        text
    }
}

impl Proxy {
    async fn start(program: &str, port: u16, config: impl FnOnce(&Path) -> String, arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = std::env::temp_dir().join(format!("echo-proxy-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("proxy.conf");
        std::fs::write(&file, config(&folder)).expect("a config file");
        let process = Command::new(program)
            .args(arguments(&file))
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("these tests need {program} ({error}): apt-get install nginx-light haproxy"));
        let proxy = Self { address: SocketAddr::from(([127, 0, 0, 1], port)), process, folder };
        until("the proxy to listen", async || TcpStream::connect(proxy.address).await.is_ok()).await;
        proxy
    }

    async fn nginx(port: u16, text: String) -> Self {
        let config = |folder: &Path| {
            let at = folder.display();
            std::fs::write(folder.join("snippet.conf"), text).expect("a file");
            let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {at}/{name};"));
            let http = format!("access_log off; {} include {at}/snippet.conf;", paths.join(" "));
            format!("daemon off; pid {at}/pid; error_log stderr crit; events {{}} http {{ {http} }}\n")
        };
        // For messages before the configuration has set a log file.
        let log = |file: &Path| vec!["-e".into(), "stderr".into(), "-c".into(), file.display().to_string()];
        Self::start("nginx", port, config, log).await
    }

    async fn haproxy(port: u16, text: String) -> Self {
        Self::start("haproxy", port, |_| text, |file| vec!["-db".into(), "-f".into(), file.display().to_string()]).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGKILL would leave nginx's worker processes running.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), rustix::process::Signal::TERM);
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Two nodes, and the services they need.
struct Site {
    redis: Redis,
    laravel: Laravel,
    nodes: [Node; 2],
}

impl Site {
    async fn start() -> Self {
        let (redis, laravel) = (Redis::start().await, Laravel::start().await);
        let settings = json!({
            "authHost": laravel.url,
            "auth": { "forward": ["X-Real-IP", "X-Forwarded-Proto"] },
            "trustProxies": ["127.0.0.1"],
            "database": "redis",
            "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port } },
            "cluster": { "enabled": true },
        });
        let nodes = [Node::start(settings.clone()).await, Node::start(settings).await];
        Self { redis, laravel, nodes }
    }

    fn port(&self, node: usize) -> u16 {
        self.nodes[node].address.port()
    }

    /// The user's address and scheme as the application received them.
    fn visitor(&self, user: u8) -> (Value, Value) {
        let callbacks = self.laravel.callbacks();
        let is_theirs = |cookie: &str| cookie.split("; ").any(|pair| pair == format!("user={user}"));
        let text = |value: &axum::http::HeaderValue| value.to_str().expect("text").to_owned();
        let theirs = callbacks.iter().rev().find(|callback| is_theirs(&text(&callback.headers["cookie"]))).expect("a callback");
        let header = |name| theirs.headers.get(name).map(text).map_or(Value::Null, Value::from);
        (header("x-real-ip"), header("x-forwarded-proto"))
    }

    /// Clients from many addresses poll, upgrade, or connect by websocket.
    async fn is_served_by(&self, proxy: &Proxy, scheme: Value) {
        let from = |user: u8| IpAddr::V4(Ipv4Addr::new(127, 0, user, 1));
        let mut polling = Vec::new();
        for user in 1..=VISITORS {
            let user_text = user.to_string();
            let mut client = Polling::connect(proxy.address, 3 + user % 2, from(user), &[("user", &user_text)]).await;
            client.subscribe(ROOM).await;
            let here = client.event("presence:subscribed").await;
            assert_eq!(here[1].as_array().expect("a list").len(), usize::from(user), "everybody so far");
            assert_eq!(self.visitor(user), (json!(from(user).to_string()), scheme.clone()));
            polling.push(client);
        }
        let connections = [connections(&self.nodes[0]).await, connections(&self.nodes[1]).await];
        assert!(connections.iter().all(|count| *count > 0), "both nodes have visitors: {connections:?}");
        assert_eq!(connections.iter().sum::<usize>(), usize::from(VISITORS));
        let user = VISITORS + 1;
        let mut direct = Client::connect_from(from(user), proxy.address, &[("cookie", &format!("user={user}"))]).await;
        direct.subscribe(ROOM).await;
        assert_eq!(direct.event("presence:subscribed").await[1].as_array().expect("a list").len(), usize::from(user));
        assert_eq!(self.visitor(user).0, json!(from(user).to_string()));

        // One polling client of each version upgrades.
        let mut upgraded = vec![polling.pop().expect("a client").upgrade().await, polling.pop().expect("a client").upgrade().await];
        upgraded.push(direct);
        assert_eq!(self.redis.publish(ROOM, "news", &json!({ "n": 1 }), None).await, 2);
        for client in &mut polling {
            assert_eq!(client.event("news").await, [json!(ROOM), json!({ "n": 1 })]);
        }
        for client in &mut upgraded {
            assert_eq!(client.event("news").await, [json!(ROOM), json!({ "n": 1 })]);
            client.whisper(ROOM, "client-hello", json!(1)).await;
        }
        for _ in 0..3 {
            assert_eq!(polling[0].event("client-hello").await, [json!(ROOM), json!(1)]);
        }
    }
}

#[tokio::test]
async fn nginx_as_documented() {
    let (site, port) = (Site::start().await, free_port());
    let text = Source::Docs("nginx").with(&[
        ("listen 18080;", format!("listen 127.0.0.1:{port};")),
        ("127.0.0.1:16001", format!("127.0.0.1:{}", site.port(0))),
        ("127.0.0.1:16002", format!("127.0.0.1:{}", site.port(1))),
    ]);
    let proxy = Proxy::nginx(port, text).await;
    site.is_served_by(&proxy, json!("http")).await;
    let channels = reqwest::get(format!("http://{}/apps/app/channels?auth_key={}", proxy.address, KEY));
    assert_eq!(channels.await.expect("the API answers").status(), 200);
}

#[tokio::test]
async fn nginx_as_packaged() {
    let (site, port) = (Site::start().await, free_port());
    let text = Source::File("nginx.conf").with(&[
        ("listen 80;", format!("listen 127.0.0.1:{port};")),
        ("127.0.0.1:6001", format!("127.0.0.1:{}", site.port(0))),
        ("# server 10.0.0.2:6001", format!("server 127.0.0.1:{}", site.port(1))),
    ]);
    site.is_served_by(&Proxy::nginx(port, text).await, json!("http")).await;
}

#[tokio::test]
async fn haproxy_as_documented() {
    let (site, port) = (Site::start().await, free_port());
    let text = Source::Docs("haproxy").with(&[
        ("bind :18081", format!("bind 127.0.0.1:{port}")),
        ("127.0.0.1:16001", format!("127.0.0.1:{}", site.port(0))),
        ("127.0.0.1:16002", format!("127.0.0.1:{}", site.port(1))),
    ]);
    site.is_served_by(&Proxy::haproxy(port, text).await, Value::Null).await;
}

/// Number of sockets on a node.
async fn connections(node: &Node) -> usize {
    let text = metrics(node.address).await;
    let samples = text.lines().filter(|line| line.starts_with("laravel_echo_connections{"));
    samples.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<usize>().ok()).expect("a count")).sum()
}

/// The shipped HAProxy file with these two nodes behind it.
fn packaged_haproxy(port: u16, nodes: [&Node; 2]) -> String {
    Source::File("haproxy.cfg").with(&[
        // The original number may exceed this machine's limit.
        ("maxconn 50000", "maxconn 1000".into()),
        ("bind :80", format!("bind 127.0.0.1:{port}")),
        ("127.0.0.1:6001", nodes[0].address.to_string()),
        ("# server two 10.0.0.2:6001", format!("server two {}", nodes[1].address)),
    ])
}

#[tokio::test]
async fn haproxy_as_packaged() {
    let (site, port) = (Site::start().await, free_port());
    let text = packaged_haproxy(port, [&site.nodes[0], &site.nodes[1]]);
    site.is_served_by(&Proxy::haproxy(port, text).await, Value::Null).await;
}
