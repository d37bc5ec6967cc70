//! Reloading the settings of a running server.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Client, Laravel, TestServer};

async fn status(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> StatusCode {
    let mut request = reqwest::Client::new().get(server.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer").status()
}

const HANDSHAKE: &str = "/socket.io/?EIO=4&transport=polling";

#[tokio::test]
async fn clients_limits_and_origins_change_without_dropping_connections() {
    let server = TestServer::start(json!({ "limits": { "subscriptions": 1 } })).await;
    let mut alice = server.client_in("one").await;
    let new_key = [("authorization", "Bearer new-key")];
    assert_eq!(status(&server, "/apps/new/status", &new_key).await, StatusCode::FORBIDDEN);

    let config = server.changed(json!({
        "clients": [{ "appId": "app", "key": "test-key" }, { "appId": "new", "key": "new-key" }],
        "limits": { "subscriptions": 2, "connections": 2 },
        "allowedOrigins": ["https://Good.test/"],
        "auth": { "timeout": 3 },
    }));
    assert_eq!(server.reload.reload(&config).unwrap(), ["auth.timeout"]);

    assert_eq!(status(&server, "/apps/new/status", &new_key).await, StatusCode::OK);
    assert_eq!(status(&server, HANDSHAKE, &[("origin", "https://bad.test")]).await, StatusCode::FORBIDDEN);
    assert_eq!(status(&server, HANDSHAKE, &[("origin", "https://good.test")]).await, StatusCode::OK);
    assert_eq!(status(&server, HANDSHAKE, &[]).await, StatusCode::SERVICE_UNAVAILABLE);
    alice.subscribe("two").await;
    server.subscribed("two", 1).await;
    assert_eq!(server.subscription_count("one").await, 1);
}

#[tokio::test]
async fn settings_that_need_a_restart_stay_unchanged_everywhere() {
    let server = TestServer::start(json!({ "allowedOrigins": ["https://good.test"] })).await;
    let config = server.changed(json!({
        "socketio": { "path": "/elsewhere", "transports": ["polling"], "cookie": "other" },
        "metrics": { "port": 9 },
        "authEndpoint": "/other",
        "limits": { "connections": 3 },
    }));
    let later = ["authEndpoint", "metrics.port", "socketio.cookie", "socketio.path", "socketio.transports"];
    for _ in 0..2 {
        let mut named = server.reload.reload(&config).unwrap();
        named.sort();
        assert_eq!(named, later, "it is reported every time");
        assert_eq!(status(&server, HANDSHAKE, &[("origin", "https://bad.test")]).await, StatusCode::FORBIDDEN);
        assert_eq!(status(&server, "/elsewhere/?EIO=4&transport=polling", &[]).await, StatusCode::NOT_FOUND);
        assert_eq!(status(&server, "/metrics", &[("authorization", "Bearer test-key")]).await, StatusCode::OK);
    }
    let handshake = reqwest::get(server.url(HANDSHAKE)).await.unwrap();
    assert!(handshake.headers()["set-cookie"].to_str().unwrap().starts_with("io="), "{:?}", handshake.headers());
    assert!(handshake.text().await.unwrap().contains(r#""upgrades":["websocket"]"#));
    let _others = (server.client().await, server.client().await);
    // Settings that can be changed were changed: this session is one too many.
    assert_eq!(status(&server, HANDSHAKE, &[]).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(server.reload.reload(&server.changed(json!({}))).unwrap(), [""; 0]);
}

#[tokio::test]
async fn trusted_proxies_change_everywhere_at_once() {
    let laravel = Laravel::start().await;
    let limits = json!({ "connectionsPerIp": 1 });
    let forward = json!({ "authHost": laravel.url, "auth": { "forward": ["X-Real-IP"] }, "limits": limits });
    let server = TestServer::start(forward).await;
    let mut before = Client::connect(server.address, &[("x-forwarded-for", "203.0.113.1")]).await;
    before.subscribe("private-one").await;
    server.subscribed("private-one", 1).await;
    assert_eq!(server.reload.reload(&server.changed(json!({ "trustProxies": ["127.0.0.1"] }))).unwrap(), [""; 0]);
    let mut after = Client::connect(server.address, &[("x-forwarded-for", "203.0.113.2")]).await;
    after.subscribe("private-two").await;
    server.subscribed("private-two", 1).await;
    let addresses: Vec<_> = laravel.callbacks().iter().map(|callback| callback.headers["x-real-ip"].clone()).collect();
    assert_eq!(addresses, ["127.0.0.1", "203.0.113.2"]);
}

#[tokio::test]
async fn invalid_settings_change_nothing() {
    let certificate = crate::tls::Certificate::new("reload");
    let (crt, key) = (certificate.0.join("crt"), certificate.0.join("key"));
    let server = TestServer::start(json!({ "protocol": "https", "sslCertPath": crt, "sslKeyPath": key })).await;
    let config = server.changed(json!({ "sslKeyPath": "/nowhere.key", "clients": [] }));
    let error = server.reload.reload(&config).unwrap_err();
    assert_eq!(error.to_string(), "sslKeyPath: cannot read `/nowhere.key`");
    let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let url = format!("https://{}/apps/app/status?auth_key=test-key", server.address);
    assert_eq!(http.get(&url).send().await.unwrap().status(), StatusCode::OK);
    server.reload.reload(&server.changed(json!({ "clients": [] }))).unwrap();
    // The same connection as before: no connection was dropped.
    assert_eq!(http.get(&url).send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn settings_that_a_restart_could_not_use_change_nothing() {
    let server = TestServer::start(json!({})).await;
    for (changes, expected) in [
        (
            json!({ "protocol": "https", "sslCertPath": "/nowhere.crt", "sslKeyPath": "/nowhere.key" }),
            "sslCertPath: cannot read `/nowhere.crt`",
        ),
        (json!({ "auth": { "tls": { "ca": "/nowhere.pem" } } }), "auth.tls.ca: `/nowhere.pem` is not a readable PEM certificate"),
        (json!({ "auth": { "jwt": { "algorithm": "RS256", "publicKey": "/nowhere.pub" } } }), "auth.jwt.publicKey"),
        (json!({ "databaseConfig": { "redis": { "tls": { "ca": "/nowhere.pem" } } } }), "databaseConfig.redis.tls.ca: cannot read"),
    ] {
        let mut config = changes;
        crate::support::merge(&mut config, json!({ "clients": [] }));
        let error = server.reload.reload(&server.changed(config)).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(status(&server, "/apps/app/status", &[("authorization", "Bearer test-key")]).await, StatusCode::OK);
    }
}
