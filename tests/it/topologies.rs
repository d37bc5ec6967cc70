//! Redis deployments: Sentinel with a failover, Redis Cluster, TLS, ACL users, URLs, Unix sockets.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};

use laravel_echo_server::channel::ChannelName;
use laravel_echo_server::config::RedisConfig;
use laravel_echo_server::event::SocketId;
use laravel_echo_server::redis_client::{Cause, Loss, Redis};
use laravel_echo_server::store::{Heartbeat, Member};
use serde_json::{Value, json};

use crate::support::{Client, Laravel, TestServer, free_port, until};

mod doctor;

const ROOM: &str = "presence-room";

/// A redis process with its own directory; killed on drop.
struct Instance {
    port: u16,
    process: Child,
    folder: std::path::PathBuf,
}

impl Instance {
    fn start(port: u16, config: &str, arguments: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("echo-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("redis.conf");
        let base = format!("port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly no\ndir {}\n", folder.display());
        std::fs::write(&file, base + config).expect("a config file");
        let process = Command::new("redis-server")
            .arg(&file)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need redis-server: apt-get install redis-server");
        Self { port, process, folder }
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &str) -> Option<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a valid URL");
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().expect("a command"));
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut connection).await.ok()
    }

    async fn answers(&self) {
        until("redis to answer", async || self.ask::<String>("PING").await.is_some()).await;
    }

    fn kill(&mut self) {
        self.process.kill().expect("redis can be killed");
        self.process.wait().expect("redis ends");
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Fails if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server that subscribes to Redis in this mode; nodes of one cluster may use different modes.
async fn server(laravel: &Laravel, mode: &str, redis: Value) -> TestServer {
    TestServer::start(settings(laravel, mode, &redis)).await
}

fn settings(laravel: &Laravel, mode: &str, redis: &Value) -> Value {
    json!({
        "authHost": laravel.url,
        "database": "redis",
        "subscribers": { "redis": true, "redisMode": mode },
        "databaseConfig": { "redis": redis, "publishPresence": true },
        "cluster": { "enabled": true },
        "presence": { "lease": "2s" },
    })
}

/// A member that has joined; waits until Redis is ready.
async fn member(server: &TestServer, user: u32) -> Client {
    loop {
        let mut client = server.client_of(user).await;
        client.subscribe(ROOM).await;
        if client.next().await.expect("the connection holds")[0] == "presence:subscribed" {
            return client;
        }
    }
}

/// Sends whispers from one client to the other until one arrives, which shows that events pass through Redis.
async fn whispers(from: &mut Client, to: &mut Client) {
    let arriving = async {
        loop {
            from.whisper(ROOM, "client-ping", json!(1)).await;
            let heard = tokio::time::timeout(std::time::Duration::from_millis(200), to.event("client-ping")).await;
            if heard.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(crate::support::DEADLINE * 2, arriving).await.expect("a whisper that arrives");
}

/// A master, its replica, a sentinel, and the settings to reach them.
async fn watched_by_a_sentinel() -> (Instance, Instance, Instance, Value) {
    let master = Instance::start(free_port(), "requirepass secret\nmasterauth secret\n", &[]);
    let replica = Instance::start(
        free_port(),
        &format!("requirepass secret\nmasterauth secret\nreplicaof 127.0.0.1 {}\nrepl-diskless-sync-delay 0\n", master.port),
        &[],
    );
    let client = redis::Client::open(format!("redis://:secret@127.0.0.1:{}", replica.port)).expect("a valid URL");
    until("the replica to be in sync", async || {
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap_or_default();
        info.contains("master_link_status:up")
    })
    .await;
    let watch = format!(
        "sentinel monitor mymaster 127.0.0.1 {} 1\nsentinel auth-pass mymaster secret\nsentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\nrequirepass watching\n",
        master.port
    );
    let sentinel = Instance::start(free_port(), &watch, &["--sentinel"]);
    let sentinel_client = redis::Client::open(format!("redis://:watching@127.0.0.1:{}", sentinel.port)).expect("a valid URL");
    until("the sentinel to know the replica", async || {
        let Ok(mut connection) = sentinel_client.get_multiplexed_async_connection().await else { return false };
        let known: String = redis::cmd("INFO").arg("sentinel").query_async(&mut connection).await.unwrap_or_default();
        known.contains("slaves=1")
    })
    .await;
    let settings = json!({
        "sentinels": [{ "host": "127.0.0.1", "port": sentinel.port }],
        "name": "mymaster", "password": "secret", "sentinelPassword": "watching",
    });
    (master, replica, sentinel, settings)
}

#[tokio::test]
async fn a_sentinel_failover_in_mid_traffic() {
    let laravel = Laravel::start().await;
    let (mut master, _replica, _sentinel, settings) = watched_by_a_sentinel().await;
    let nodes = [server(&laravel, "pattern", settings.clone()).await, server(&laravel, "exact", settings).await];
    let (mut alice, mut bob) = (member(&nodes[0], 1).await, member(&nodes[1], 2).await);
    alice.event("presence:joining").await;
    whispers(&mut alice, &mut bob).await;
    master.kill();
    whispers(&mut alice, &mut bob).await;
    whispers(&mut bob, &mut alice).await;
    let mut carol = nodes[0].client_of(3).await;
    until("a join on the new master", async || {
        carol.subscribe(ROOM).await;
        let answer = carol.next().await.expect("the connection holds");
        answer[0] == "presence:subscribed" && answer[2].as_array().expect("a list").len() == 3
    })
    .await;
    assert_eq!(bob.event("presence:joining").await[1]["user_id"], 3);
    assert!(!bob.left_over().contains(&"presence:leaving"), "a member was wrongly removed");
}

/// The nodes of a Redis Cluster, and their addresses as settings.
async fn cluster_of_three() -> (Vec<Instance>, Vec<Value>) {
    let config = "cluster-enabled yes\ncluster-node-timeout 2000\n";
    // The cluster bus listens on the port plus 10,000.
    let port = || loop {
        let port = free_port();
        if port < 55_000 && std::net::TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    };
    let nodes: Vec<_> = (0..3).map(|_| Instance::start(port(), config, &[])).collect();
    for node in &nodes {
        node.answers().await;
    }
    let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let created = Command::new("redis-cli")
        .args(["--cluster", "create", "--cluster-yes", "--cluster-replicas", "0"])
        .args(&addresses)
        .output()
        .expect("these tests need redis-cli: apt-get install redis-tools");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    for node in &nodes {
        until("the cluster to agree", async || {
            node.ask::<String>("CLUSTER INFO").await.is_some_and(|info| info.contains("cluster_state:ok"))
        })
        .await;
    }
    let seeds: Vec<_> = nodes.iter().map(|node| json!({ "host": "127.0.0.1", "port": node.port })).collect();
    (nodes, seeds)
}

#[tokio::test]
async fn a_redis_cluster_of_three() {
    let laravel = Laravel::start().await;
    let (nodes, seeds) = cluster_of_three().await;
    let servers = [
        server(&laravel, "exact", json!({ "cluster": seeds[..1] })).await,
        server(&laravel, "exact", json!({ "cluster": seeds[1..] })).await,
    ];
    let (mut alice, mut bob) = (member(&servers[0], 1).await, member(&servers[1], 2).await);
    assert_eq!(alice.event("presence:joining").await[1]["user_id"], 2);
    whispers(&mut alice, &mut bob).await;
    for n in 0..50 {
        alice.whisper(ROOM, "client-n", json!(n)).await;
    }
    for n in 0..50 {
        assert_eq!(bob.event("client-n").await[1], n, "in order");
    }
    // The channels are spread over all three servers.
    for n in 0..20 {
        let channel = format!("presence-{n}");
        bob.subscribe(&channel).await;
        assert_eq!(bob.event("presence:subscribed").await[0], json!(channel));
    }
    until("the mirrors", async || {
        let mut mirrors = 0;
        for node in &nodes {
            mirrors += node.ask::<Vec<String>>("KEYS presence-*:members").await.expect("the cluster answers").len();
        }
        mirrors == 21
    })
    .await;
    drop(bob);
    assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 2);
}

#[tokio::test]
async fn in_a_redis_cluster_nothing_is_lost_that_is_there() {
    let (nodes, seeds) = cluster_of_three().await;
    let config = json!({ "database": "redis", "databaseConfig": { "membersMirror": false, "redis": { "cluster": seeds } } });
    let store = laravel_echo_server::store::open(&serde_json::from_value(config).expect("valid settings")).await.expect("a store");
    until("a lease", async || store.heartbeat().await.is_ok()).await;
    let channels: Vec<ChannelName> = (0..20).map(|n| format!("presence-{n}").into()).collect();
    for channel in &channels {
        let member = Member::parse(r#"{"user_id":1}"#).expect("a member");
        store.join(channel, SocketId::new(1, 1), member, true).await.expect("a join");
    }
    assert_eq!(store.heartbeat().await.expect("a heartbeat"), Heartbeat::default());
    // The others do not have it.
    for node in &nodes {
        node.ask::<u64>("DEL laravel-echo:{presence-0}:sockets").await;
    }
    let beat = store.heartbeat().await.expect("a heartbeat");
    assert_eq!((beat.unreconciled, beat.has_lost), (channels[..1].to_vec(), true));
}

#[tokio::test]
async fn tls_an_acl_user_a_url_and_a_unix_socket() {
    let laravel = Laravel::start().await;
    let folder = std::env::temp_dir().join(format!("echo-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&folder)
            .output()
            .expect("these tests need openssl: apt-get install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
    openssl("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout redis.key -out redis.csr");
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("a file");
    openssl("x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out redis.pem");
    let (plain, tls) = (free_port(), free_port());
    let at = folder.display();
    let config = format!(
        "tls-port {tls}\ntls-cert-file {at}/redis.pem\ntls-key-file {at}/redis.key\ntls-ca-cert-file {at}/ca.pem\ntls-auth-clients no\nunixsocket {at}/redis.sock\nuser default off\nuser echo on >secret ~* &* +@all\n"
    );
    let instance = Instance::start(plain, &config, &[]);
    let ca = format!("{at}/ca.pem");
    let by_keys = json!({ "host": "localhost", "port": tls, "tls": { "ca": ca }, "username": "echo", "password": "secret" });
    let by_url = json!({ "url": format!("redis://echo:secret@127.0.0.1:{}", instance.port) });
    let by_socket = json!({ "path": format!("{at}/redis.sock"), "username": "echo", "password": "secret" });
    let unchecked = json!({ "port": tls, "tls": { "rejectUnauthorized": false }, "username": "echo", "password": "secret" });
    let mut before = Vec::new();
    for ((user, redis), mode) in (1..).zip([by_keys, by_url, by_socket, unchecked]).zip(["pattern", "exact", "pattern", "exact"]) {
        let server = server(&laravel, mode, redis).await;
        let client = member(&server, user).await;
        before.push((server, client));
        if let [(_, first), .., (_, latest)] = before.as_mut_slice() {
            whispers(first, latest).await;
        }
    }
    // A server whose certificate is not signed by a trusted authority is rejected.
    let distrusting = json!({ "host": "localhost", "port": tls, "tls": true, "username": "echo", "password": "secret" });
    let server = server(&laravel, "pattern", distrusting).await;
    let mut client = server.client_of(9).await;
    client.subscribe(ROOM).await;
    let members = client.event("presence:subscribed").await.remove(1);
    assert_eq!(members.as_array().map(Vec::len), Some(1), "this node's own, not those in the Redis: {members}");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

#[tokio::test]
async fn the_words_about_a_failure_do_not_depend_on_the_topology() {
    let instance = Instance::start(free_port(), "requirepass secret\ncluster-enabled yes\n", &[]);
    let sentinel = Instance::start(free_port(), "sentinel monitor mymaster 127.0.0.1 1 1\n", &["--sentinel"]);
    sentinel.answers().await;
    let at = |port: u16| json!([{ "host": "127.0.0.1", "port": port }]);
    let wrong = "Redis refuses the password or the user (WRONGPASS)";
    for (settings, reason) in [
        (json!({ "port": instance.port, "password": "wrong" }), wrong),
        (json!({ "cluster": at(instance.port), "password": "wrong" }), wrong),
        (json!({ "port": instance.port }), "Redis asks for a password (NOAUTH)"),
        (json!({ "cluster": at(instance.port) }), "Redis asks for a password (NOAUTH)"),
        (json!({ "sentinels": at(instance.port), "name": "mymaster" }), "Redis asks for a password (NOAUTH)"),
        (json!({ "sentinels": at(sentinel.port), "name": "other" }), "the sentinels watch no master of the configured name"),
        (json!({ "port": 1 }), "Connection refused"),
        (json!({ "cluster": at(1) }), "Connection refused"),
        (json!({ "sentinels": at(1), "name": "mymaster" }), "Connection refused"),
    ] {
        let redis = Redis::new(&serde_json::from_value(settings.clone()).expect("settings")).expect("valid settings");
        until(reason, async || redis.connect().await.err().is_some_and(|error| Loss::from(&error).reason.starts_with(reason))).await;
    }
}

#[tokio::test]
async fn the_rights_that_are_advised_suffice() {
    let port = free_port();
    let command = |prefix: &str| {
        let config = RedisConfig { port, username: Some("echo".to_owned()), key_prefix: prefix.to_owned(), ..RedisConfig::default() };
        let hint = Cause::NoPermission.hint(&config);
        hint.split('`').find(|part| part.contains("ACL SETUSER")).expect("a command").replace("'echo' ", "echo ")
    };
    let shown = command("<keyPrefix>").replace('\'', "");
    let documented = shown[shown.find("ACL").expect("the words")..].replace("echo ", "echo on >password ");
    assert!(include_str!("../../docs/several-nodes.md").contains(&format!("\n{documented}\n")), "{documented}");
    let (laravel, instance) = (Laravel::start().await, Instance::start(port, "user echo on >secret\n", &[]));
    instance.answers().await;
    let pasted = Command::new("sh").args(["-c", &command("app_")]).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&pasted.stdout).trim(), "OK", "{pasted:?}");
    let settings = |mode: &str| {
        let redis = json!({ "port": instance.port, "username": "echo", "password": "secret", "keyPrefix": "app_" });
        let mut settings = settings(&laravel, mode, &redis);
        settings["webhooks"] = json!([{ "target": "queue", "job": "EchoWebhook" }]);
        settings["webhooksDelivery"] = json!({ "store": "redis", "grace": "100ms" });
        settings
    };
    let (one, other) = (TestServer::start(settings("pattern")).await, TestServer::start(settings("pattern")).await);
    let (mut alice, mut bob) = (member(&one, 1).await, member(&other, 2).await);
    whispers(&mut alice, &mut bob).await;
    let exact = TestServer::start(settings("exact")).await;
    let mut eve = member(&exact, 3).await;
    whispers(&mut eve, &mut alice).await;
    drop(bob);
    // With what it gives the others of its clients' sessions and of the past.
    other.stop().await;
    while alice.event("presence:leaving").await[1]["user_id"] != 2 {}
    until("a job of the queue", async || instance.ask::<u64>("LLEN app_queues:default").await > Some(0)).await;
    until("the mirror", async || instance.ask::<u64>("EXISTS app_presence-room:members").await == Some(1)).await;
    exact.stop().await;
    one.stop().await;
    let refused = instance.ask::<Vec<HashMap<String, redis::Value>>>("ACL LOG").await.expect("Redis answers");
    // The server also tries to look beyond its prefix, and does without.
    let missing: Vec<_> = refused.iter().filter(|entry| entry["object"] != redis::Value::BulkString(b"*".to_vec())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn a_password_for_a_redis_that_needs_none() {
    let laravel = Laravel::start().await;
    let instance = Instance::start(free_port(), "", &[]);
    instance.answers().await;
    let watch = format!("sentinel monitor mymaster 127.0.0.1 {} 1\n", instance.port);
    let sentinel = Instance::start(free_port(), &watch, &["--sentinel"]);
    sentinel.answers().await;
    let sentinels = json!([{ "host": "127.0.0.1", "port": sentinel.port }]);
    for (user, redis) in (1..).zip([
        json!({ "port": instance.port, "password": "null" }),
        json!({ "url": format!("redis://:secret@127.0.0.1:{}", instance.port) }),
        json!({ "sentinels": sentinels, "name": "mymaster", "password": "secret" }),
        json!({ "sentinels": sentinels, "name": "mymaster", "sentinelPassword": "secret" }),
        json!({ "sentinels": sentinels, "name": "mymaster", "password": "secret", "sentinelPassword": "secret" }),
    ]) {
        let server = server(&laravel, "pattern", redis).await;
        let (mut alice, mut bob) = (member(&server, user).await, member(&server, 100 + user).await);
        whispers(&mut alice, &mut bob).await;
    }
}

#[tokio::test]
async fn a_password_that_redis_refuses_is_reported_with_its_message() {
    let instance = Instance::start(free_port(), "requirepass right\n", &[]);
    let settings = json!({ "port": instance.port, "password": "wrong" });
    let redis = Redis::new(&serde_json::from_value(settings).expect("valid settings")).expect("an address");
    until("Redis to say what is wrong", async || redis.pubsub().await.is_err_and(|error| error.to_string().contains("WRONGPASS"))).await;
    assert!(redis.connect().await.is_err_and(|error| error.to_string().contains("WRONGPASS")));
}

#[tokio::test]
async fn a_cluster_node_configured_as_a_single_host_is_reported() {
    let (nodes, _) = cluster_of_three().await;
    let mut server = tokio::process::Command::new(env!("CARGO_BIN_EXE_laravel-echo-server"))
        .args(["start", "--defaults"])
        .env_clear()
        .env("LARAVEL_ECHO_SERVER_HOST", "127.0.0.1")
        .env("LARAVEL_ECHO_SERVER_PORT", free_port().to_string())
        .env("LARAVEL_ECHO_SERVER_DATABASE", "redis")
        .env("LARAVEL_ECHO_SERVER_REDIS_PORT", nodes[0].port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the server starts");
    let log = tokio::io::BufReader::new(server.stderr.take().expect("it is piped"));
    let warning = crate::hints::line(&mut tokio::io::AsyncBufReadExt::lines(log), "is a node of a Redis Cluster").await;
    assert!(warning.contains("databaseConfig.redis.cluster"), "{warning}");
}
