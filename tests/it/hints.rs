//! The server says why something does not arrive, seen in its log.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{ChildStderr, Command};

use crate::support::{Client, DEADLINE, Redis, free_port};

/// Waits for a line that contains `text`.
async fn line(log: &mut tokio::io::Lines<BufReader<ChildStderr>>, text: &str) -> String {
    let found = async {
        loop {
            let line = log.next_line().await.expect("the log can be read").expect("the server runs");
            if line.contains(text) {
                return line;
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("no line with `{text}` in the log"))
}

#[tokio::test]
async fn a_redis_prefix_that_is_not_configured_and_clients_that_cannot_connect() {
    let redis = Redis::start().await;
    let port = free_port();
    let mut server = Command::new(env!("CARGO_BIN_EXE_laravel-echo-server"))
        .args(["start", "--defaults"])
        .env_clear()
        .env("LARAVEL_ECHO_SERVER_HOST", "127.0.0.1")
        .env("LARAVEL_ECHO_SERVER_PORT", port.to_string())
        .env("LARAVEL_ECHO_SERVER_REDIS_PORT", redis.port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the server starts");
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    redis.heard("x").await;

    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    let mut alice = Client::connect(address, &[]).await;
    alice.subscribe("news").await;
    // Its answer comes when the subscribe before it is done.
    alice.subscribe(&"x".repeat(300)).await;
    alice.event("subscription_error").await;
    redis.publish("laravel_database_news", "sent", &json!(1), None).await;
    let warning = line(&mut log, "no subscriber").await;
    assert!(warning.contains(r#"set databaseConfig.redis.keyPrefix = \"laravel_database_\""#), "{warning}");

    // In this process no server has chosen a crypto provider, which reqwest wants even for plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for _ in 0..5 {
        reqwest::get(format!("http://{address}/socket.io/?EIO=2&transport=polling")).await.expect("an answer");
    }
    let warning = line(&mut log, "keep failing to connect").await;
    assert!(warning.contains("socket.io-client 1.7 to 4.x"), "{warning}");
}
