//! A private server on a free port.

use std::net::SocketAddr;

use laravel_echo_server::server::Reload;
use laravel_echo_server::{Config, Server};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Client, Laravel, Redis, until};

/// A running server; stopped on drop.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    /// The plain HTTP port beside https.
    pub(crate) http_address: Option<SocketAddr>,
    /// Reloads the settings of the running server.
    pub(crate) reload: Reload,
    /// Cancelled when shutdown has begun.
    pub(crate) draining: CancellationToken,
    settings: Value,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
}

/// Key of the application `app` in every test's settings.
pub(crate) const KEY: &str = "test-key";

impl TestServer {
    /// A server without Redis; `settings` are merged into the tests' defaults, as JSON with the keys of the config file.
    pub(crate) async fn start(settings: Value) -> Self {
        let mut all = json!({
            "host": "127.0.0.1",
            "clients": [{ "appId": "app", "key": KEY }],
            "subscribers": { "http": true, "redis": false },
        });
        merge(&mut all, settings);
        let mut config: Config = serde_json::from_value(all.clone()).expect("valid settings");
        // 0 is not valid in a config file, but here it lets the system choose a port.
        config.port = 0;
        config.http_port = config.http_port.map(|_| 0);
        let server = Server::bind(config).await.expect("the server can be bound");
        let (address, http_address) = (server.local_addr(), server.http_addr());
        let (reload, draining) = (server.reload(), server.draining());
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let stop = stop.clone();
            async move {
                server.run(stop).await;
            }
        });
        Self { address, http_address, reload, draining, settings: all, stop, running: Some(running) }
    }

    /// A server that subscribes to `redis` and asks `laravel`.
    pub(crate) async fn with(redis: &Redis, laravel: &Laravel, settings: Value) -> Self {
        let mut all = json!({
            "authHost": laravel.url,
            "subscribers": { "redis": true },
            "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port } },
        });
        merge(&mut all, settings);
        Self::start(all).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A connected Engine.IO 4 client.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address, &[]).await
    }

    /// A connected client that is alone in a channel.
    pub(crate) async fn client_in(&self, channel: &str) -> Client {
        let mut client = self.client().await;
        client.subscribe(channel).await;
        self.subscribed(channel, 1).await;
        client
    }

    /// A connected client with a user's session cookie.
    pub(crate) async fn client_of(&self, user: u32) -> Client {
        Client::connect(self.address, &[("cookie", &format!("user={user}"))]).await
    }

    /// Number of sockets in a channel, from the HTTP API.
    pub(crate) async fn subscription_count(&self, channel: &str) -> u64 {
        let channel = percent_encoding::utf8_percent_encode(channel, percent_encoding::NON_ALPHANUMERIC);
        let url = self.url(&format!("/apps/app/channels/{channel}?auth_key={KEY}"));
        let body = reqwest::get(url).await.expect("the API answers").text().await.expect("the API answers");
        let answer: Value = serde_json::from_str(&body).expect("the API answers JSON");
        answer["subscription_count"].as_u64().expect("a count")
    }

    /// Waits until this many sockets are in a channel.
    pub(crate) async fn subscribed(&self, channel: &str, count: u64) {
        until(&format!("{count} in {channel}"), async || self.subscription_count(channel).await == count).await;
    }

    /// The server's settings with others merged in.
    pub(crate) fn changed(&self, settings: Value) -> Config {
        let mut all = self.settings.clone();
        merge(&mut all, settings);
        let mut config: Config = serde_json::from_value(all).expect("valid settings");
        config.port = 0;
        config
    }

    /// Starts the shutdown without waiting for it.
    pub(crate) fn begin_to_stop(&self) {
        self.stop.cancel();
    }

    /// Shuts the server down, as SIGTERM does, and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let running = self.running.take().expect("it is stopped once");
        tokio::time::timeout(super::DEADLINE, running).await.expect("the server ends in time").expect("the server does not panic");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Merges objects recursively; other values are replaced.
pub(crate) fn merge(base: &mut Value, extra: Value) {
    match (base, extra) {
        (Value::Object(base), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, extra) => *base = extra,
    }
}
