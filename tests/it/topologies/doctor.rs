//! `doctor` with sentinels and with a Redis Cluster.

use serde_json::{Value, json};

use super::{Instance, cluster_of_three, watched_by_a_sentinel};
use crate::cli::Folder;
use crate::support::{free_port, until};

/// The findings about these settings of `databaseConfig.redis`: check, status, message and fix.
fn findings(redis: &Value) -> Vec<(String, String, String)> {
    findings_with(redis, "redis")
}

/// Like [`findings`], with members kept in memory or in Redis.
fn findings_with(redis: &Value, database: &str) -> Vec<(String, String, String)> {
    let folder = Folder::new();
    // The application is not asked about callbacks in these tests.
    let config = json!({
        "host": "127.0.0.1", "port": free_port(), "authHost": format!("http://127.0.0.1:{}", free_port()),
        "databaseConfig": { "redis": redis }, "database": database,
    });
    folder.write("laravel-echo-server.json", &config.to_string());
    let ended = folder.run(&["doctor", "--json", "--listen", "0"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr));
    let findings = report["findings"].as_array().expect("a list");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let finding = |f: &Value| (text(f, "check"), text(f, "status"), text(f, "message") + "\n" + &text(f, "fix"));
    findings.iter().map(finding).collect()
}

/// Asserts that a finding of this check and status contains these words.
#[track_caller]
fn assert_found(findings: &[(String, String, String)], check: &str, status: &str, words: &[&str]) {
    let is_it =
        |(known, level, text): &(String, String, String)| known == check && level == status && words.iter().all(|word| text.contains(word));
    assert!(findings.iter().any(is_it), "no {status} of {check} with {words:?} in {findings:#?}");
}

#[tokio::test]
async fn the_master_is_found_through_sentinels() {
    let (master, _replica, sentinel, settings) = watched_by_a_sentinel().await;
    let found = findings(&settings);
    let at = format!("127.0.0.1:{}", master.port);
    assert_found(&found, "sentinel", "ok", &[&at, "`mymaster`", "1 of 1 sentinels", "replicas: 1"]);
    assert_found(&found, "redis", "ok", &[&at, "answers"]);
    assert_found(&found, "events", "unknown", &["Redis accepts the subscription"]);

    let with = |changes: Value| {
        let mut settings = settings.clone();
        crate::support::merge(&mut settings, changes);
        findings(&settings)
    };
    assert_found(&with(json!({ "name": "other" })), "sentinel", "problem", &["watches no master `other`", "`mymaster`", "redis.name"]);
    assert_found(
        &with(json!({ "sentinelPassword": "wrong" })),
        "sentinel",
        "problem",
        &["refuses the connection", "redis.sentinelPassword"],
    );
    let locked = super::Instance::start(free_port(), "requirepass secret\n", &["--sentinel"]);
    let asks = json!({ "sentinels": [{ "host": "127.0.0.1", "port": locked.port }], "sentinelPassword": "" });
    until("the locked sentinel", async || std::net::TcpStream::connect(("127.0.0.1", locked.port)).is_ok()).await;
    assert_found(&with(asks), "sentinel", "problem", &["Redis asks for a password (NOAUTH)", "`databaseConfig.redis.sentinelPassword`"]);
    assert_found(&with(json!({ "password": "wrong" })), "redis", "problem", &[&at, "databaseConfig.redis.password"]);
    let both = json!([{ "host": "127.0.0.1", "port": free_port() }, { "host": "127.0.0.1", "port": sentinel.port }]);
    let found = with(json!({ "sentinels": both }));
    assert_found(&found, "sentinel", "warning", &["cannot connect to Redis at"]);
    assert_found(&found, "sentinel", "ok", &[&at, "1 of 2 sentinels"]);
    let no_sentinel = json!({ "sentinels": [{ "host": "127.0.0.1", "port": master.port }], "sentinelPassword": "secret" });
    assert_found(&with(no_sentinel), "sentinel", "problem", &["is not a sentinel", "26379"]);

    drop(master);
    until("the sentinel to miss the master", async || {
        let found = findings(&settings);
        // The sentinel may already have promoted the replica.
        found.iter().any(|(check, status, _)| check == "sentinel" && status == "problem")
            || found.iter().any(|(check, status, text)| check == "redis" && status == "ok" && !text.contains(&at))
    })
    .await;
}

#[tokio::test]
async fn a_cluster_has_to_serve_all_slots() {
    let (mut nodes, seeds) = cluster_of_three().await;
    let found = findings(&json!({ "cluster": seeds }));
    let first = format!("127.0.0.1:{}", nodes[0].port);
    assert_found(&found, "cluster", "ok", &[&first, "all slots", "3 masters"]);
    assert_found(&found, "redis", "ok", &[&first, "answers"]);
    assert_found(&found, "events", "unknown", &["Redis accepts the subscription"]);

    // Configured as a single host.
    let lone = json!({ "host": "127.0.0.1", "port": nodes[0].port });
    for (database, status) in [("redis", "problem"), ("memory", "warning")] {
        let fix = format!("cluster = [{{ host = \"127.0.0.1\", port = {} }}]", nodes[0].port);
        assert_found(&findings_with(&lone, database), "cluster", status, &["is a node of a Redis Cluster", &fix]);
    }

    let plain = Instance::start(free_port(), "", &[]);
    plain.answers().await;
    let alone = findings(&json!({ "cluster": [{ "host": "127.0.0.1", "port": plain.port }] }));
    assert_found(&alone, "cluster", "problem", &["not a node of a cluster", "`host` and `port`"]);

    let lost = nodes.pop().expect("three nodes");
    let at = format!("127.0.0.1:{}", lost.port);
    drop(lost);
    let found = findings(&json!({ "cluster": seeds }));
    assert_found(&found, "cluster", "warning", &[&at, "cannot connect to Redis at"]);
    until("the cluster to miss its node", async || {
        let found = findings(&json!({ "cluster": seeds }));
        found.iter().any(|(check, status, text)| check == "cluster" && status == "problem" && text.contains("cluster state fail"))
    })
    .await;
}
