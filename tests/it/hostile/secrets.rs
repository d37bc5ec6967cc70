//! Empty secrets, which anyone can guess.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use crate::support::TestServer;

#[tokio::test]
async fn an_empty_secret_or_token_key_opens_nothing() {
    laravel_echo_server::jws::install();
    let clients = json!([{ "appId": "app", "key": "key", "secret": "", "jwt": "" }]);
    let server = TestServer::start(json!({ "clients": clients })).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let query = format!("auth_key=app&auth_timestamp={now}&auth_version=1.0");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"").unwrap();
    mac.update(format!("GET\n/apps/app/channels\n{query}").as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = reqwest::get(server.url(&format!("/apps/app/channels?{query}&auth_signature={signature}"))).await.unwrap();
    assert_eq!(signed.status(), 403);
    let claims = json!({ "exp": now + 60, "app": "app" });
    let key = jsonwebtoken::EncodingKey::from_secret(b"");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    for path in ["/apps/app/channels", "/metrics"] {
        let answer = reqwest::Client::new().get(server.url(path)).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
    }
}
