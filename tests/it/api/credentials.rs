//! Access to the API: keys, Pusher's signatures, tokens, and rate limits.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Answer, BEARER, get, send};
use crate::support::{TestServer, until};

const EVENT: &str = r#"{"name":"sent","channels":["news"],"data":"{\"some\":\"data\"}"}"#;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Signs requests like Pusher's libraries.
struct Signer {
    key: &'static str,
    secret: &'static str,
    timestamp: u64,
}

impl Signer {
    fn new() -> Self {
        Self { key: "pusher-key", secret: "pusher-secret", timestamp: now() }
    }

    /// Path and query for a body; `more` are further parameters, `a=1&b=2` sorted by name, placed before or after `auth_…`.
    fn url(&self, method: &str, path: &str, body: &str, more: &str) -> String {
        let mut parameters =
            vec![format!("auth_key={}", self.key), format!("auth_timestamp={}", self.timestamp), "auth_version=1.0".into()];
        if !body.is_empty() {
            parameters.push(format!("body_md5={}", hex(&Md5::digest(body))));
        }
        parameters.extend(more.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned));
        parameters.sort();
        let query = parameters.join("&");
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any length");
        mac.update(format!("{method}\n{path}\n{query}").as_bytes());
        format!("{path}?{query}&auth_signature={}", hex(&mac.finalize().into_bytes()))
    }

    async fn post(&self, server: &TestServer, path: &str, body: &str) -> Answer {
        send(server, "POST", &self.url("POST", path, body, ""), &[("content-type", "application/json")], body).await
    }
}

async fn server(requires_signature: bool) -> TestServer {
    let client = json!({ "appId": "app", "key": "pusher-key", "secret": "pusher-secret", "requireSignature": requires_signature });
    TestServer::start(json!({ "clients": [client] })).await
}

fn refused(answer: &Answer, error: &str) {
    assert_eq!((answer.status, answer.error().as_str()), (403, error));
}

#[tokio::test]
async fn a_key_grants_access_to_its_own_application() {
    let clients = json!([{ "appId": "app", "key": "test-key" }, { "appId": "other", "key": "other-key" }, { "appId": "open", "key": "" }]);
    let server = TestServer::start(json!({ "clients": clients })).await;
    for (path, headers) in [
        ("/apps/app/status", vec![("authorization", "Bearer test-key")]),
        ("/apps/app/status", vec![("authorization", "test-key")]),
        ("/apps/app/status?auth_key=test-key", vec![]),
        ("/apps/app/status?auth_key=test-key", vec![("authorization", "")]),
        ("/apps/other/status?auth_key=other-key", vec![]),
    ] {
        assert_eq!(send(&server, "GET", path, &headers, "").await.status, 200, "{path} {headers:?}");
    }
    for (path, headers) in [
        ("/apps/app/status", vec![]),
        ("/apps/app/status", vec![("authorization", "Bearer other-key")]),
        ("/apps/app/status?auth_key=test-key", vec![("authorization", "Bearer wrong")]),
        ("/apps/app/status?auth_key=test-key", vec![("authorization", "Basic dGVzdC1rZXk=")]),
        ("/apps/app/status?auth_key=app", vec![]),
        ("/apps/open/status?auth_key=", vec![]),
        ("/apps/unknown/status?auth_key=test-key", vec![]),
    ] {
        refused(&send(&server, "GET", path, &headers, "").await, "Unauthorized");
    }
}

#[tokio::test]
async fn signed_requests_are_accepted_and_so_is_the_key_alone() {
    let server = server(false).await;
    let signer = Signer::new();
    assert_eq!(signer.post(&server, "/apps/app/events", EVENT).await.json(), json!({ "message": "ok" }));
    let batch = r#"{"batch":[{"channel":"news","name":"sent","data":"{}"}]}"#;
    assert_eq!(signer.post(&server, "/apps/app/batch_events", batch).await.json(), json!({}));
    assert_eq!(signer.post(&server, "/apps/app/users/1/terminate_connections", "{}").await.json(), json!({}));
    for (path, more) in [
        ("/apps/app/channels", "filter_by_prefix=presence-&info=user_count"),
        ("/apps/app/channels/presence-room", "info=user_count"),
        ("/apps/app/channels/presence-room/users", ""),
    ] {
        assert_eq!(send(&server, "GET", &signer.url("GET", path, "", more), &[], "").await.status, 200, "{path}");
    }
    // With the id instead of the key, as callers without a key send it.
    let by_id = Signer { key: "app", ..Signer::new() };
    assert_eq!(by_id.post(&server, "/apps/app/events", EVENT).await.status, 200);
    assert_eq!(send(&server, "POST", "/apps/app/events?auth_key=pusher-key", &[], EVENT).await.status, 200);
}

#[tokio::test]
async fn errors_explain_why_a_signature_is_wrong() {
    let server = server(false).await;
    let mismatch = "auth_signature does not match the request";
    let forger = Signer { secret: "guessed", ..Signer::new() };
    refused(&forger.post(&server, "/apps/app/events", EVENT).await, mismatch);
    let url = Signer::new().url("POST", "/apps/app/events", EVENT, "");
    refused(&send(&server, "POST", &format!("{url}&info=user_count"), &[], EVENT).await, mismatch);
    refused(&send(&server, "POST", &url, &[], EVENT.replace("news", "other")).await, "body_md5 does not match the body");
    let unsigned_body = Signer::new().url("POST", "/apps/app/events", "", "");
    refused(&send(&server, "POST", &unsigned_body, &[], EVENT).await, "body_md5 is missing");
    let late = Signer { timestamp: now() - 700, ..Signer::new() };
    let answer = late.post(&server, "/apps/app/events", EVENT).await;
    assert_eq!(answer.status, 403);
    assert!(answer.error().starts_with("auth_timestamp is 70"), "{}", answer.text);
    let stranger = Signer { key: "nobody", ..Signer::new() };
    refused(&stranger.post(&server, "/apps/app/events", EVENT).await, "Unauthorized");
}

#[tokio::test]
async fn signatures_can_be_made_mandatory() {
    let server = server(true).await;
    assert_eq!(Signer::new().post(&server, "/apps/app/events", EVENT).await.status, 200);
    let missing = "auth_signature is missing, and this application requires signatures";
    refused(&send(&server, "POST", "/apps/app/events?auth_key=pusher-key", &[], EVENT).await, missing);
    refused(&send(&server, "GET", "/apps/app/status", &[("authorization", "Bearer pusher-key")], "").await, missing);
    refused(&send(&server, "GET", "/apps/app/status", &[BEARER], "").await, "Unauthorized");
}

fn token(claims: &Value) -> String {
    let key = EncodingKey::from_rsa_pem(include_bytes!("../../../fixtures/jwt/rsa.pem")).expect("a key");
    laravel_echo_server::jws::install();
    format!("Bearer {}", encode(&Header::new(Algorithm::RS256), claims, &key).expect("a token"))
}

#[tokio::test]
async fn tokens_grant_access_to_the_applications_they_name() {
    let public_key = include_str!("../../../fixtures/jwt/rsa.pub.pem");
    let server = TestServer::start(json!({ "clients": [{ "appId": "app", "jwt": public_key }] })).await;
    let ask = async |claims: Value| send(&server, "GET", "/apps/app/status", &[("authorization", &token(&claims))], "").await;
    assert_eq!(ask(json!({ "exp": now() + 60, "apps": ["app"] })).await.status, 200);
    refused(&ask(json!({ "exp": now() - 60, "apps": ["app"] })).await, "the token has expired (exp)");
    refused(&ask(json!({ "exp": now() + 60, "apps": ["other"] })).await, "apps in the token does not name this application");
    let claims = "the token must hold exp (seconds since 1970) and apps (a list of application ids)";
    refused(&ask(json!({ "apps": ["app"] })).await, claims);
    refused(&send(&server, "GET", "/apps/app/status", &[BEARER], "").await, "Unauthorized");
    refused(&send(&server, "GET", "/apps/app/status?auth_key=", &[], "").await, "Unauthorized");
    let metrics = token(&json!({ "exp": now() + 60, "apps": ["app"] }));
    assert_eq!(send(&server, "GET", "/metrics", &[("authorization", &metrics)], "").await.status, 200);
}

#[tokio::test]
async fn requests_are_limited_per_application() {
    let clients = json!([{ "appId": "app", "key": "test-key" }, { "appId": "other", "key": "test-key" }]);
    let server = TestServer::start(json!({ "clients": clients, "limits": { "apiRequestsPerSecond": 2 } })).await;
    let mut refusal = None;
    until("a refusal", async || {
        let answer = get(&server, "/apps/app/status").await;
        refusal = (answer.status == 429).then_some(answer);
        refusal.is_some()
    })
    .await;
    let refusal = refusal.expect("there was one");
    assert_eq!(refusal.error(), "more requests than limits.apiRequestsPerSecond for this application");
    assert_eq!(refusal.header("retry-after"), "1");
    assert!(get(&server, "/metrics").await.text.contains("laravel_echo_refusals_total{cause=\"api_rate\"} 1\n"));
    assert_eq!(get(&server, "/apps/other/status").await.status, 200);
    assert_eq!(send(&server, "GET", "/apps/app/status", &[], "").await.status, 403);
    until("the next second", async || get(&server, "/apps/app/status").await.status == 200).await;
}
