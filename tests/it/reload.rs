//! Other settings for a server that runs.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::TestServer;

async fn status(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> StatusCode {
    let mut request = reqwest::Client::new().get(server.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer").status()
}

const HANDSHAKE: &str = "/socket.io/?EIO=4&transport=polling";

#[tokio::test]
async fn clients_limits_and_origins_change_while_connections_go_on() {
    let server = TestServer::start(json!({ "limits": { "subscriptions": 1 } })).await;
    let mut alice = server.client().await;
    alice.subscribe("one").await;
    server.subscribed("one", 1).await;
    let new_key = [("authorization", "Bearer new-key")];
    assert_eq!(status(&server, "/apps/new/status", &new_key).await, StatusCode::FORBIDDEN);

    let config = server.changed(json!({
        "clients": [{ "appId": "app", "key": "test-key" }, { "appId": "new", "key": "new-key" }],
        "limits": { "subscriptions": 2, "connections": 2 },
        "allowedOrigins": ["https://good.test"],
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
async fn settings_that_cannot_be_used_change_nothing() {
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
    // The same connection as before: nothing was dropped.
    assert_eq!(http.get(&url).send().await.unwrap().status(), StatusCode::FORBIDDEN);
}
