//! `protocol: https`, and plain HTTP beside it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::support::{Client, TestServer};

/// A directory with a self-signed certificate and its key.
pub(crate) struct Certificate(pub(crate) PathBuf);

impl Certificate {
    pub(crate) fn new(name: &str) -> Self {
        Self::for_days(name, 30)
    }

    pub(crate) fn for_days(name: &str, days: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("echo-it-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let days = days.to_string();
        let arguments =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", &days, "-subj", "/CN=localhost", "-keyout", "key", "-out", "crt"];
        let made = Command::new("openssl").args(arguments).current_dir(&folder).output().expect("this test needs the command openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(folder)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn https_and_http_clients_share_channels() {
    let certificate = Certificate::new("both");
    let (crt, key) = (certificate.0.join("crt"), certificate.0.join("key"));
    let settings = json!({ "protocol": "https", "httpPort": 1, "sslCertPath": crt, "sslKeyPath": key });
    let server = TestServer::start(settings).await;
    let plain = server.http_address.expect("a second port");

    let mut alice = Client::connect(plain, &[]).await;
    alice.subscribe("news").await;
    let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let count = format!("https://{}/apps/app/channels/news?auth_key=test-key", server.address);
    crate::support::until("a subscription seen over https", async || {
        http.get(&count).send().await.unwrap().text().await.unwrap().contains(r#""subscription_count":1"#)
    })
    .await;
    let events = format!("https://{}/apps/app/events?auth_key=test-key", server.address);
    let event = json!({ "channel": "news", "name": "sent", "data": { "n": 1 } }).to_string();
    assert_eq!(http.post(events).body(event).send().await.unwrap().status(), 200);
    assert_eq!(alice.event("sent").await, [json!("news"), json!({ "n": 1 })]);
}
