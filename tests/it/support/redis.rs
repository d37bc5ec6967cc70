//! A private redis-server.

use std::process::{Child, Command, Stdio};

use redis::{AsyncConnectionConfig, AsyncTypedCommands as _};
use serde_json::{Value, json};

use super::{DEADLINE, free_port, until};

/// A running redis-server without persistence; killed on drop.
pub(crate) struct Redis {
    pub(crate) port: u16,
    process: Option<Child>,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        let mut redis = Self { port: free_port(), process: None };
        redis.up().await;
        redis
    }

    /// A port on which a Redis may be started later.
    pub(crate) fn not_yet() -> Self {
        Self { port: free_port(), process: None }
    }

    pub(crate) async fn up(&mut self) {
        self.up_with(&[]).await;
    }

    /// Starts it with further options of redis-server.
    pub(crate) async fn up_with(&mut self, options: &[&str]) {
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need redis-server: apt-get install redis-server");
        self.process = Some(process);
        until("redis-server to answer", async || self.connect().await.is_some()).await;
    }

    /// Kills the server; its data is lost.
    pub(crate) fn down(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("redis-server can be killed");
            process.wait().expect("redis-server ends");
        }
    }

    /// Deletes all data.
    pub(crate) async fn flush(&self) {
        let mut connection = self.connect().await.expect("redis-server runs");
        redis::cmd("FLUSHALL").exec_async(&mut connection).await.expect("FLUSHALL succeeds");
    }

    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        let mut connection = self.connect().await.expect("redis-server runs");
        connection.get(key).await.expect("GET succeeds")
    }

    pub(crate) async fn delete(&self, key: &str) {
        let mut connection = self.connect().await.expect("redis-server runs");
        connection.del(key).await.expect("DEL succeeds");
    }

    /// How often a command has been run so far.
    pub(crate) async fn calls(&self, command: &str) -> u64 {
        let mut connection = self.connect().await.expect("redis-server runs");
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("INFO succeeds");
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().and_then(|count| count.parse().ok()).expect("a count"))
    }

    /// Runs an administrator's command.
    pub(crate) async fn run(&self, command: &[&str]) -> String {
        let mut connection = self.connect().await.expect("redis-server runs");
        let command = command.iter().fold(redis::Cmd::new(), |mut all, part| std::mem::take(all.arg(part)));
        command.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Names of keys, sorted.
    pub(crate) async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut connection = self.connect().await.expect("redis-server runs");
        let mut keys: Vec<String> = connection.keys(pattern).await.expect("KEYS succeeds");
        keys.sort();
        keys
    }

    /// Sets a field of a hash, as another program could.
    pub(crate) async fn set_field(&self, key: &str, field: &str, value: &str) {
        let mut connection = self.connect().await.expect("redis-server runs");
        redis::cmd("HSET").arg(key).arg(field).arg(value).exec_async(&mut connection).await.expect("HSET succeeds");
    }

    /// Suspends the process (SIGSTOP); its connections stay open.
    pub(crate) fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// The result of a script.
    pub(crate) async fn eval<T: redis::FromRedisValue>(&self, script: &str, keys: &[&str], arguments: &[&str]) -> T {
        let mut connection = self.connect().await.expect("redis-server runs");
        let mut eval = redis::cmd("EVAL");
        eval.arg(script).arg(keys.len()).arg(keys).arg(arguments);
        eval.query_async(&mut connection).await.expect("EVAL succeeds")
    }

    /// Resumes the process.
    pub(crate) fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let process = self.process.as_ref().expect("redis-server runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(process), signal).expect("redis-server can be signalled");
    }

    async fn connect(&self) -> Option<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a valid URL");
        // The client's default timeout of a second may be too short on a busy machine.
        let patience = AsyncConnectionConfig::new().set_connection_timeout(Some(DEADLINE)).set_response_timeout(Some(DEADLINE));
        client.get_multiplexed_async_connection_with_config(&patience).await.ok()
    }

    /// Number of subscribers of each channel by name, not counting patterns.
    pub(crate) async fn subscribers(&self, channels: &[String]) -> Vec<u64> {
        let mut connection = self.connect().await.expect("redis-server runs");
        let counts: Vec<(String, u64)> =
            redis::cmd("PUBSUB").arg("NUMSUB").arg(channels).query_async(&mut connection).await.expect("PUBSUB succeeds");
        counts.into_iter().map(|(_, count)| count).collect()
    }

    /// Publishes like Laravel's RedisBroadcaster. Returns the number of subscribers that Redis reports.
    pub(crate) async fn publish(&self, channel: &str, event: &str, data: &Value, socket: Option<&str>) -> usize {
        self.publish_text(channel, &json!({ "event": event, "data": data, "socket": socket }).to_string()).await
    }

    /// Waits until a server receives what is published on a channel.
    pub(crate) async fn heard(&self, channel: &str) {
        until("a server to listen", async || self.publish(channel, "x", &json!(1), None).await == 1).await;
    }

    /// Publishes any text.
    pub(crate) async fn publish_text(&self, channel: &str, text: &str) -> usize {
        let mut connection = self.connect().await.expect("redis-server runs");
        connection.publish(channel, text).await.expect("PUBLISH succeeds")
    }

    /// A connection for repeated publishing.
    pub(crate) async fn publisher(&self) -> Publisher {
        Publisher(self.connect().await.expect("redis-server runs"))
    }

    /// Publishes many texts in one pipeline.
    pub(crate) async fn publish_all(&self, channel: &str, texts: impl Iterator<Item = String>) {
        let mut pipeline = redis::pipe();
        texts.for_each(|text| {
            pipeline.publish(channel, text).ignore();
        });
        let mut connection = self.connect().await.expect("redis-server runs");
        pipeline.query_async::<()>(&mut connection).await.expect("PUBLISH succeeds");
    }
}

/// Publishes over one connection.
pub(crate) struct Publisher(redis::aio::MultiplexedConnection);

impl Publisher {
    /// Publishes like Laravel's RedisBroadcaster.
    pub(crate) async fn publish(&mut self, channel: &str, event: &str, data: &Value) {
        let text = json!({ "event": event, "data": data, "socket": null }).to_string();
        self.0.publish(channel, text).await.expect("PUBLISH succeeds");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.down();
    }
}
