//! Log lines that explain why something does not arrive.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

use crate::support::{Client, DEADLINE, Laravel, Redis, SlowApp, TestServer, free_port, until};
use crate::tls::Certificate;

/// Waits for a line that contains `text`.
pub(crate) async fn line(log: &mut tokio::io::Lines<BufReader<ChildStderr>>, text: &str) -> String {
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

/// A server without a config file that subscribes to `redis`, with its port.
async fn serve(redis: &Redis, variables: &[(&str, &str)]) -> (Child, u16) {
    let port = free_port();
    let server = Command::new(env!("CARGO_BIN_EXE_laravel-echo-server"))
        .args(["start", "--defaults"])
        .env_clear()
        .env("LARAVEL_ECHO_SERVER_HOST", "127.0.0.1")
        .env("LARAVEL_ECHO_SERVER_PORT", port.to_string())
        .env("LARAVEL_ECHO_SERVER_REDIS_PORT", redis.port.to_string())
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the server starts");
    redis.heard("x").await;
    (server, port)
}

#[tokio::test]
async fn repeated_refusals_do_not_flood_the_log() {
    const CHANNELS: usize = 600;
    let (redis, app) = (Redis::start().await, SlowApp::start(Duration::ZERO).await);
    app.answers(403, "{}");
    let (mut server, port) = serve(&redis, &[("LARAVEL_ECHO_SERVER_AUTH_HOST", &app.url)]).await;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let reading = tokio::spawn(async move {
        let mut lines = 0;
        while let Ok(Some(line)) = log.next_line().await {
            lines += usize::from(line.contains("got HTTP status 403"));
        }
        lines
    });
    let mut client = Client::connect(format!("127.0.0.1:{port}").parse().expect("an address"), &[]).await;
    for n in 0..CHANNELS {
        client.subscribe(&format!("private-{n}")).await;
    }
    for _ in 0..CHANNELS {
        client.event("subscription_error").await;
    }
    server.kill().await.expect("it can be killed");
    let lines = reading.await.expect("the log can be read");
    assert!((50..CHANNELS / 2).contains(&lines), "{lines} lines for {CHANNELS} refusals");
}

#[tokio::test]
async fn a_wrong_scheme_of_auth_host_is_reported() {
    let app = SlowApp::start(Duration::ZERO).await;
    let certificate = Certificate::new("other-scheme");
    let (crt, key) = (certificate.0.join("crt"), certificate.0.join("key"));
    let (crt, key) = (crt.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    let https = [("LARAVEL_ECHO_SERVER_PROTO", "https"), ("LARAVEL_ECHO_SERVER_SSL_CERT", crt), ("LARAVEL_ECHO_SERVER_SSL_KEY", key)];
    let redis = Redis::start().await;
    let (_secure, secure_port) = serve(&redis, &https).await;
    let (as_https, as_http) = (app.url.replace("http://", "https://"), format!("http://127.0.0.1:{secure_port}"));
    for (host, hint) in [(as_https, "write http:// in `authHost`"), (as_http, "write https:// in `authHost`")] {
        // Each has its own, so that `serve` waits for this server.
        let redis = Redis::start().await;
        let (mut server, port) = serve(&redis, &[("LARAVEL_ECHO_SERVER_AUTH_HOST", &host)]).await;
        let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
        let mut client = Client::connect(format!("127.0.0.1:{port}").parse().expect("an address"), &[]).await;
        client.subscribe("private-a").await;
        client.event("subscription_error").await;
        let warning = line(&mut log, "Error authenticating client").await;
        assert!(warning.contains(hint), "{warning}");
    }
}

#[tokio::test]
async fn differing_clocks_are_reported() {
    let redis = Redis::start().await;
    let (mut server, port) = serve(&redis, &[("LARAVEL_ECHO_SERVER_CLIENTS", r#"[{"appId":"app","key":"key","secret":"secret"}]"#)]).await;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let query = "auth_key=key&auth_timestamp=1000&auth_version=1.0";
    let signed = format!("GET\n/apps/app/channels\n{query}");
    let signature = laravel_echo_server::signature::sign(b"secret", signed.as_bytes());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/apps/app/channels?{query}&auth_signature={signature}")).await;
    assert_eq!(answer.expect("an answer").status(), 403);
    let warning = line(&mut log, "refused a request of the HTTP API").await;
    assert!(warning.contains("the clocks differ: compare `date -u`"), "{warning}");
}

#[tokio::test]
async fn a_missing_redis_prefix_and_failing_handshakes_are_reported() {
    let redis = Redis::start().await;
    let (mut server, port) = serve(&redis, &[]).await;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    let mut alice = Client::connect(address, &[]).await;
    alice.subscribe("news").await;
    // Its response shows that the subscribe before it was handled.
    alice.subscribe(&"x".repeat(300)).await;
    alice.event("subscription_error").await;
    // If the channel's hash collides with that of the channel `serve` publishes on, it is checked only later.
    let published = async {
        loop {
            redis.publish("laravel_database_news", "sent", &json!(1), None).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let warning = tokio::select! {
        () = published => unreachable!("it runs forever"),
        warning = line(&mut log, "no subscriber") => warning,
    };
    assert!(warning.contains(r#"set databaseConfig.redis.keyPrefix = \"laravel_database_\""#), "{warning}");

    // No server in this process has installed a crypto provider, which reqwest needs even for plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for _ in 0..5 {
        reqwest::get(format!("http://{address}/socket.io/?EIO=4&transport=flashsocket")).await.expect("an answer");
    }
    let warning = line(&mut log, "keep failing to connect").await;
    assert!(warning.contains("socketio.transports"), "{warning}");
}

#[tokio::test]
async fn a_wrong_prefix_is_reported_before_any_event_arrives() {
    let redis = Redis::start().await;
    let mut server = serve(&redis, &[("LARAVEL_ECHO_SERVER_DATABASE_CONFIG_REDIS_KEY_PREFIX", "shop_")]).await.0;
    // `serve` has published an event on `x`.
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let warning = line(&mut log, "outside of databaseConfig.redis.keyPrefix").await;
    assert!(warning.contains("channel=\"x\"") && warning.contains("doctor --listen 30"), "{warning}");
    // After the warning, only channels with the prefix are subscribed.
    until("the subscription to all channels to end", async || redis.publish("x", "x", &json!(1), None).await == 0).await;
    assert_eq!(redis.publish("shop_x", "x", &json!(1), None).await, 1);
}

#[tokio::test]
async fn a_correct_prefix_is_not_reported_because_of_other_publishers() {
    let redis = Redis::start().await;
    let laravel = Laravel::start().await;
    let server = TestServer::with(&redis, &laravel, json!({ "databaseConfig": { "redis": { "keyPrefix": "shop_" } } })).await;
    let mut alice = server.client_in("news").await;
    until("an event", async || redis.publish("shop_news", "first", &json!(1), None).await > 0).await;
    alice.event("first").await;
    until("the subscription to all channels to end", async || redis.publish("other_news", "x", &json!(1), None).await == 0).await;
    redis.publish("shop_news", "second", &json!(2), None).await;
    assert_eq!(alice.event("second").await, [json!("news"), json!(2)]);
    assert_eq!(alice.left_over(), [] as [&str; 0], "each event arrives once");
}

#[tokio::test]
async fn tls_on_a_plain_port_and_missing_upgrade_headers_are_reported() {
    let redis = Redis::start().await;
    let (mut server, port) = serve(&redis, &[]).await;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    // The beginning of a TLS ClientHello.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.expect("it reads");
    let warning = line(&mut log, "speaks TLS").await;
    assert!(warning.contains("sslCertPath"), "{warning}");

    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let request = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request).await.expect("it reads");
    let warning = line(&mut log, "without its Upgrade header").await;
    assert!(warning.contains("proxy_set_header"), "{warning}");
}

#[tokio::test]
async fn plain_http_on_an_https_port_is_reported() {
    let (redis, certificate) = (Redis::start().await, Certificate::new("plain"));
    let path = |name: &str| certificate.0.join(name).display().to_string();
    let (crt, key) = (path("crt"), path("key"));
    let variables = [
        ("LARAVEL_ECHO_SERVER_PROTOCOL", "https"),
        ("LARAVEL_ECHO_SERVER_SSL_CERT_PATH", &*crt),
        ("LARAVEL_ECHO_SERVER_SSL_KEY_PATH", &*key),
    ];
    let (mut server, port) = serve(&redis, &variables).await;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    for request in ["GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let warning = line(&mut log, "speaks plain HTTP").await;
        assert!(warning.contains("httpPort"), "{warning}");
    }
}

#[tokio::test]
async fn reached_limits_are_reported_with_their_key() {
    let redis = Redis::start().await;
    for dev_mode in ["false", "true"] {
        let variables = [
            ("LARAVEL_ECHO_SERVER_DEV_MODE", dev_mode),
            ("LARAVEL_ECHO_SERVER_LIMITS_SUBSCRIPTIONS", "2"),
            ("LARAVEL_ECHO_SERVER_LIMITS_WHISPER_BYTES", "10"),
        ];
        let app = SlowApp::start(Duration::ZERO).await;
        let (mut server, port) = serve(&redis, &[&variables[..], &[("LARAVEL_ECHO_SERVER_AUTH_HOST", &app.url)]].concat()).await;
        let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
        let mut client = Client::connect(format!("127.0.0.1:{port}").parse().expect("an address"), &[]).await;
        for channel in ["private-room", "news", "more"] {
            client.subscribe(channel).await;
        }
        client.event("subscription_error").await;
        line(&mut log, "`limits.subscriptions`").await;
        client.whisper("news", "client-typing", json!(1)).await;
        line(&mut log, "private and presence channels alone").await;
        // Before the callback is answered, whispers are refused because the client is not a member.
        let told = async {
            loop {
                client.whisper("private-room", "client-typing", json!("far too much")).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = told => {}
            _ = line(&mut log, "`limits.whisperBytes`") => {}
        }
        server.kill().await.expect("it can be killed");
    }
}

#[tokio::test]
async fn an_api_request_without_the_right_key_is_logged_with_a_hint() {
    let redis = Redis::start().await;
    // For reqwest.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (mut server, port) = serve(&redis, &[("LARAVEL_ECHO_SERVER_CLIENTS", "app:key")]).await;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    for (path, hint) in [
        ("app/channels", "`Authorization: Bearer <key>`"),
        ("app/channels?auth_key=other", "the key or secret of the request"),
        ("other/channels", "no entry of `clients` has this appId"),
    ] {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/apps/{path}")).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.text().await.expect("text").contains("Unauthorized")), (403, true));
        let warning = line(&mut log, "refused a request of the HTTP API").await;
        assert!(warning.contains(hint), "{warning}");
    }
}

#[tokio::test]
async fn an_event_sent_over_redis_and_http_is_reported() {
    let redis = Redis::start().await;
    // For reqwest.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let single = serve(&redis, &[("LARAVEL_ECHO_SERVER_CLIENTS", "app:key")]).await;
    let port = single.1;
    tells_of_two_ways(&redis, single, port).await;
}

#[tokio::test]
async fn an_event_sent_over_redis_and_to_another_node_over_http_is_reported() {
    let redis = Redis::start().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = [
        ("LARAVEL_ECHO_SERVER_CLIENTS", "app:key"),
        ("LARAVEL_ECHO_SERVER_DATABASE", "redis"),
        ("LARAVEL_ECHO_SERVER_CLUSTER_ENABLED", "true"),
    ];
    let (_other, other) = serve(&redis, &cluster).await;
    let node = serve(&redis, &cluster).await;
    tells_of_two_ways(&redis, node, other).await;
}

#[tokio::test]
async fn a_redis_that_refuses_webhook_writes_is_logged_with_a_hint() {
    let mut redis = Redis::not_yet();
    redis.up_with(&["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-eval"]).await;
    let webhooks = r#"[{"url":"http://127.0.0.1:9/hook","key":"key","secret":"secret"}]"#;
    let variables = [("LARAVEL_ECHO_SERVER_WEBHOOKS", webhooks), ("LARAVEL_ECHO_SERVER_WEBHOOKS_DELIVERY_STORE", "redis")];
    let mut server = serve(&redis, &variables).await.0;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let mut warnings = [line(&mut log, "webhooks could not").await, line(&mut log, "webhooks could not").await];
    warnings.sort_by_key(|warning| warning.contains("write changes"));
    for (warning, what) in warnings.iter().zip(["take their lease from Redis", "write changes to Redis"]) {
        assert!(warning.contains(what) && warning.contains("WARN") && warning.contains("+@scripting"), "{warning}");
    }
}

#[tokio::test]
async fn a_stop_without_redis_does_not_warn_about_webhooks_that_lost_nothing() {
    let mut redis = Redis::start().await;
    let webhooks = r#"[{"url":"http://127.0.0.1:9/hook","key":"key","secret":"secret"}]"#;
    let variables = [("LARAVEL_ECHO_SERVER_WEBHOOKS", webhooks), ("LARAVEL_ECHO_SERVER_WEBHOOKS_DELIVERY_STORE", "redis")];
    let (mut server, _) = serve(&redis, &variables).await;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    redis.down();
    line(&mut log, "webhooks are not sent until Redis is back").await;
    let process = server.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).expect("it runs");
    rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("sending a signal");
    line(&mut log, "stopping").await;
    let rest = async {
        let mut warnings = Vec::new();
        while let Some(line) = log.next_line().await.expect("the log can be read") {
            warnings.extend(Some(line).filter(|line| line.contains("WARN")));
        }
        warnings
    };
    let warnings = tokio::time::timeout(DEADLINE, rest).await.expect("it ends in time");
    assert_eq!(warnings, [""; 0]);
}

#[tokio::test]
async fn an_unreachable_webhook_target_is_logged_with_the_last_cause() {
    let redis = Redis::start().await;
    let webhooks = format!(r#"[{{"url":"http://127.0.0.1:{}/hook","key":"key","secret":"secret"}}]"#, free_port());
    let (mut server, port) = serve(&redis, &[("LARAVEL_ECHO_SERVER_WEBHOOKS", &webhooks)]).await;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let mut client = Client::connect(format!("127.0.0.1:{port}").parse().expect("an address"), &[]).await;
    client.subscribe("news").await;
    let warning = line(&mut log, "webhook delivery failed").await;
    assert!(warning.contains("cause=\"Connection refused (os error 111)\""), "{warning}");
}

#[tokio::test]
async fn a_callback_that_is_redirected_is_logged_with_the_location() {
    let (redis, app) = (Redis::start().await, SlowApp::start(Duration::ZERO).await);
    app.redirects("http://app.test/login");
    let (mut server, port) = serve(&redis, &[("LARAVEL_ECHO_SERVER_AUTH_HOST", &app.url)]).await;
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let mut client = Client::connect(format!("127.0.0.1:{port}").parse().expect("an address"), &[]).await;
    client.subscribe("private-a").await;
    let warning = line(&mut log, "got HTTP status 302").await;
    assert!(warning.contains("location=\"http://app.test/login\"") && warning.contains("sent no cookie and no token"), "{warning}");
}

/// A client connects to the `server`; API requests go to the port `api`.
async fn tells_of_two_ways(redis: &Redis, (mut server, port): (Child, u16), api: u16) {
    for port in [port, api] {
        let health = format!("http://127.0.0.1:{port}/health");
        until("the node to answer", async || reqwest::get(&health).await.is_ok()).await;
    }
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let mut client = Client::connect(format!("127.0.0.1:{port}").parse().expect("an address"), &[]).await;
    client.subscribe("news").await;
    let channel = format!("http://127.0.0.1:{port}/apps/app/channels/news?auth_key=key");
    let is_in = async || reqwest::get(&channel).await.expect("an answer").text().await.expect("an answer").contains(":1");
    until("the client to be in", is_in).await;
    let url = format!("http://127.0.0.1:{api}/apps/app/events?auth_key=key");
    // An event sent only over HTTP is not reported, even though it goes through Redis in a cluster. After this both ways are in use.
    for _ in 0..2 {
        let body = json!({ "name": "App\\Told", "channel": "news", "data": "{}" }).to_string();
        let request = reqwest::Client::new().post(&url).header("content-type", "application/json").body(body);
        assert_eq!(request.send().await.expect("an answer").status(), 200);
    }
    for n in 0..2 {
        redis.publish("news", "App\\Shipped", &json!({ "n": n, "socket": null }), None).await;
        let body = json!({ "name": "App\\Shipped", "channel": "news", "data": format!("{{\"n\":{n}}}") }).to_string();
        let request = reqwest::Client::new().post(&url).header("content-type", "application/json").body(body);
        assert_eq!(request.send().await.expect("an answer").status(), 200);
    }
    let line = line(&mut log, "goes out twice").await;
    assert!(line.contains("broadcastVia") && line.contains("news") && line.contains("Shipped"), "{line}");
}
