//! Tokens that grant channels, including one made by the PHP code of the documentation.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::{Client, Laravel, TestServer};

pub(crate) const SECRET: &str = "a secret that is long enough for everybody";

pub(crate) fn token(claims: &Value) -> String {
    laravel_echo_server::jws::install();
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("claims can be signed")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs()
}

async fn server(laravel: &Laravel) -> TestServer {
    TestServer::start(json!({ "authHost": laravel.url, "auth": { "jwt": { "algorithm": "HS256", "secret": SECRET } } })).await
}

async fn subscribe(client: &mut Client, channel: &str, token: &str) {
    let headers = json!({ "Authorization": format!("Bearer {token}") });
    client.emit("subscribe", json!({ "channel": channel, "auth": { "headers": headers } })).await;
}

#[tokio::test]
async fn a_token_grants_without_a_callback() {
    let laravel = Laravel::start().await;
    let server = server(&laravel).await;
    let mut client = server.client().await;
    let good =
        token(&json!({ "sub": "7", "info": { "name": "Ann" }, "channels": ["private-orders.*", "presence-room"], "exp": now() + 60 }));
    subscribe(&mut client, "private-orders.1", &good).await;
    server.subscribed("private-orders.1", 1).await;
    subscribe(&mut client, "presence-room", &good).await;
    assert_eq!(client.event("presence:subscribed").await[1], json!([{ "user_id": "7", "user_info": { "name": "Ann" } }]));
    subscribe(&mut client, "private-other", &good).await;
    assert_eq!(client.event("subscription_error").await, [json!("private-other"), json!(403)]);
    let late = token(&json!({ "channels": ["private-orders.*"], "exp": now() - 1 }));
    subscribe(&mut client, "private-orders.2", &late).await;
    assert_eq!(client.event("subscription_error").await, [json!("private-orders.2"), json!(401)]);
    assert!(laravel.callbacks().is_empty());
    subscribe(&mut client, "private-forbidden", &token(&json!({ "sub": "7" }))).await;
    assert_eq!(client.event("subscription_error").await, [json!("private-forbidden"), json!(403)]);
    assert_eq!(laravel.callbacks().len(), 1, "a token without channels is left to the application");
}

#[tokio::test]
async fn an_expired_token_is_followed_by_a_callback() {
    let laravel = Laravel::start().await;
    let server = server(&laravel).await;
    let mut client = server.client().await;
    let short = |channel: &str| token(&json!({ "channels": [channel], "exp": now() + 2 }));
    subscribe(&mut client, "private-forbidden", &short("private-forbidden")).await;
    server.subscribed("private-forbidden", 1).await;
    assert_eq!(client.event("subscription_error").await, [json!("private-forbidden"), json!(401)]);
    assert_eq!(laravel.callbacks().len(), 1);
    let last = short("private-orders");
    subscribe(&mut client, "private-orders", &last).await;
    crate::support::until("the callback", async || laravel.callbacks().len() == 2).await;
    assert_eq!(laravel.callbacks()[1].headers["authorization"], format!("Bearer {last}"));
    assert_eq!(server.subscription_count("private-orders").await, 1);
}

/// Operators copy the PHP block in docs/auth.md.
#[tokio::test]
async fn the_documented_php_mints_a_valid_token() {
    let chapter = include_str!("../../docs/auth.md");
    let (_, code) = chapter.split_once("```php\n").expect("the chapter has PHP");
    let (code, _) = code.split_once("```").expect("the PHP ends");
    let script = format!("{code}\necho echo_token(7, ['name' => 'Žofie'], ['private-orders.*', 'presence-room'], '{SECRET}');");
    let output = Command::new("php").args(["-r", &script]).output().expect("this test needs php: apt-get install php-cli");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let minted = String::from_utf8(output.stdout).expect("a token is text");
    let laravel = Laravel::start().await;
    let server = server(&laravel).await;
    let mut client = server.client().await;
    subscribe(&mut client, "presence-room", &minted).await;
    assert_eq!(client.event("presence:subscribed").await[1], json!([{ "user_id": "7", "user_info": { "name": "Žofie" } }]));
    assert!(laravel.callbacks().is_empty());
}
