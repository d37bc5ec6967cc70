//! Valid and invalid tokens of all algorithms, and key sets that rotate.

use axum::Router;
use axum::extract::State;
use http::HeaderMap;
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::config::value::Secret;
use crate::event::SocketId;

const SECRET: &str = "a secret that is long enough for everybody";
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/jwt");

/// The next authorizer, which answers with a status that shows it was asked.
struct Callback;

#[async_trait]
impl Authorizer for Callback {
    async fn authorize(&self, _: AuthRequest<'_>) -> Result<Grant, Denied> {
        Err(Denied::new(299))
    }
}

const ASKED: u16 = 299;

fn authorizer(change: impl FnOnce(&mut JwtConfig)) -> JwtAuthorizer<Callback> {
    // HTTP clients need a crypto provider; the server installs it at start.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::default();
    config.auth.jwt.algorithm = Some("HS256".to_owned());
    config.auth.jwt.secret = Some(Secret(SECRET.to_owned()));
    change(&mut config.auth.jwt);
    let algorithm = config.auth.jwt.algorithm.clone().unwrap();
    JwtAuthorizer::new(&config, &algorithm, Callback, Arc::new(Metrics::new())).unwrap()
}

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(format!("{KEYS}/{name}.pem")).unwrap()
}

fn private_key(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => EncodingKey::from_secret(SECRET.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(&pem("p256")).unwrap(),
        Algorithm::ES384 => EncodingKey::from_ec_pem(&pem("p384")).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem("ed25519")).unwrap(),
        _ => EncodingKey::from_rsa_pem(&pem("rsa")).unwrap(),
    }
}

fn public_key_path(algorithm: Algorithm) -> Option<PathBuf> {
    let name = match algorithm {
        Algorithm::ES256 => "p256",
        Algorithm::ES384 => "p384",
        Algorithm::EdDSA => "ed25519",
        other if other.family() == jsonwebtoken::AlgorithmFamily::Hmac => return None,
        _ => "rsa",
    };
    Some(format!("{KEYS}/{name}.pub.pem").into())
}

fn sign(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    crate::jws::install();
    let header = Header { kid: kid.map(ToOwned::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, &private_key(algorithm)).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, None, claims)
}

async fn subscribe<A: Authorizer>(authorizer: &A, channel: &str, token: &str) -> Result<Grant, Denied> {
    let (channel, handshake) = (channel.into(), HeaderMap::new());
    let headers = [("authorization".to_owned(), format!("Bearer {token}"))];
    let socket = SocketId::parse("123.456").unwrap();
    let request =
        AuthRequest { socket, channel: &channel, headers: &headers, handshake: &handshake, peer: None, by: None, is_again: false };
    authorizer.authorize(request).await
}

async fn status<A: Authorizer>(authorizer: &A, channel: &str, token: &str) -> u16 {
    subscribe(authorizer, channel, token).await.map_or_else(|denied| denied.status, |_| 200)
}

#[tokio::test]
async fn a_token_that_demands_to_be_understood_is_refused() {
    crate::jws::install();
    let authorizer = authorizer(|jwt| {
        jwt.algorithm = Some("HS256".to_owned());
    });
    let claims = json!({ "channels": ["private-a"] });
    for (crit, expected) in [(None, 200), (Some(vec!["exp".to_owned()]), 403), (Some(Vec::new()), 403)] {
        let header = Header { crit, ..Header::new(Algorithm::HS256) };
        let token = encode(&header, &claims, &private_key(Algorithm::HS256)).unwrap();
        assert_eq!(status(&authorizer, "private-a", &token).await, expected);
    }
}

#[tokio::test]
async fn every_algorithm_grants_and_refuses() {
    // Signed by OpenSSL.
    let foreign: Value = serde_json::from_slice(&std::fs::read(format!("{KEYS}/tokens.json")).unwrap()).unwrap();
    for name in crate::config::validate::JWT_ALGORITHMS {
        let algorithm: Algorithm = name.parse().unwrap();
        let authorizer = authorizer(|jwt| {
            jwt.algorithm = Some((*name).to_owned());
            jwt.public_key = public_key_path(algorithm);
        });
        let token = sign(algorithm, None, &json!({ "channels": ["private-a"], "exp": get_current_timestamp() + 60 }));
        assert_eq!(status(&authorizer, "private-a", &token).await, 200, "{name}");
        assert_eq!(status(&authorizer, "private-a", foreign[name].as_str().unwrap()).await, 200, "{name}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let forged: String = signature.chars().rev().collect();
        assert_eq!(status(&authorizer, "private-a", &format!("{signed}.{forged}")).await, 403, "{name}");
        assert_eq!(status(&authorizer, "private-a", &format!("{signed}.")).await, 403, "{name}");
        let other = if algorithm == Algorithm::HS512 { Algorithm::HS256 } else { Algorithm::HS512 };
        let of_another_kind = sign(other, None, &json!({ "channels": ["private-a"] }));
        assert_eq!(status(&authorizer, "private-a", &of_another_kind).await, 403, "{name}");
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let authorizer = authorizer(|jwt| {
        jwt.algorithm = Some("RS256".to_owned());
        jwt.public_key = public_key_path(Algorithm::RS256);
    });
    let key = EncodingKey::from_secret(&pem("rsa.pub"));
    let token = encode(&Header::new(Algorithm::HS256), &json!({ "channels": ["private-a"] }), &key).unwrap();
    assert_eq!(status(&authorizer, "private-a", &token).await, 403);
}

#[tokio::test]
async fn claims_decide() {
    let authorizer = authorizer(|jwt| {
        jwt.issuer = Some("https://app.test".to_owned());
        jwt.audience = Some("echo".to_owned());
    });
    let now = get_current_timestamp();
    let good = json!({ "channels": ["private-a.*", "private-b"], "iss": "https://app.test", "aud": ["echo", "other"], "exp": now + 60 });
    for (change, channel, expected) in [
        (json!({}), "private-a.1", 200),
        (json!({}), "private-b", 200),
        (json!({}), "private-b.1", 403),
        (json!({ "channels": "private-c" }), "private-c", 200),
        (json!({ "channels": [] }), "private-a.1", 403),
        (json!({ "channels": null }), "private-a.1", 403),
        (json!({ "channels": [5] }), "private-a.1", 403),
        (json!({ "exp": now - 1 }), "private-b", 401),
        (json!({ "exp": "soon" }), "private-b", 403),
        (json!({ "nbf": now + 60 }), "private-b", 403),
        (json!({ "iss": "https://evil.test" }), "private-b", 403),
        (json!({ "iss": null }), "private-b", 403),
        (json!({ "aud": "another" }), "private-b", 403),
    ] {
        let mut claims = good.as_object().unwrap().clone();
        claims.extend(change.as_object().unwrap().clone());
        assert_eq!(status(&authorizer, channel, &hs256(&claims.into())).await, expected, "{change} {channel}");
    }
}

#[tokio::test]
async fn only_tokens_that_list_channels_are_looked_at() {
    let authorizer = authorizer(|_| {});
    for token in [hs256(&json!({ "sub": "1" })), "12|laravel-sanctum-token".to_owned(), String::new(), "a.b.c".to_owned()] {
        assert_eq!(status(&authorizer, "private-a", &token).await, ASKED, "{token}");
    }
    let token = hs256(&json!({ "channels": ["private-a"] }));
    let (channel, handshake) = ("private-a".into(), HeaderMap::new());
    for (header, is_again) in [(format!("Basic {token}"), false), (format!("Bearer {token}"), true)] {
        let headers = [("Authorization".to_owned(), header)];
        let socket = SocketId::parse("123.456").unwrap();
        let request = AuthRequest { socket, channel: &channel, headers: &headers, handshake: &handshake, peer: None, by: None, is_again };
        assert_eq!(authorizer.authorize(request).await.unwrap_err().status, ASKED);
    }
}

#[tokio::test]
async fn a_token_describes_a_member_and_its_end() {
    let authorizer = authorizer(|jwt| jwt.leeway = Duration::from_secs(5));
    let token = hs256(&json!({ "sub": "7", "info": { "name": "Žofie" }, "channels": ["presence-*"], "exp": get_current_timestamp() + 60 }));
    let grant = subscribe(&authorizer, "presence-room", &token).await.unwrap();
    assert_eq!(grant.channel_data.unwrap().get(), r#"{"user_id":"7","user_info":{"name":"Žofie"}}"#);
    assert_eq!(grant.user.as_deref(), Some("7"));
    let left = grant.ends.unwrap() - Instant::now();
    assert!((Duration::from_secs(62)..=Duration::from_secs(65)).contains(&left), "{left:?}");
    let nobody = hs256(&json!({ "channels": ["presence-*"] }));
    assert_eq!(status(&authorizer, "presence-room", &nobody).await, 403);
    let late = hs256(&json!({ "channels": ["private-a"], "exp": get_current_timestamp() - 2 }));
    assert_eq!(status(&authorizer, "private-a", &late).await, 200, "within the leeway");
}

#[test]
fn keys_that_cannot_be_used_stop_the_start() {
    let error = |algorithm: &str, change: fn(&mut JwtConfig)| {
        let mut config = Config::default();
        change(&mut config.auth.jwt);
        JwtAuthorizer::new(&config, algorithm, Callback, Arc::new(Metrics::new())).err().unwrap().to_string()
    };
    assert!(error("RS256", |jwt| jwt.public_key = Some("/nowhere.pem".into())).starts_with("auth.jwt.publicKey: `/nowhere.pem`"));
    assert!(error("RS256", |jwt| jwt.public_key = public_key_path(Algorithm::ES256)).starts_with("auth.jwt.publicKey"));
    assert!(error("RS256", |jwt| jwt.public_key = Some(format!("{KEYS}/rsa-1024.pub.pem").into())).starts_with("auth.jwt.publicKey"));
    assert!(error("RS256", |jwt| jwt.jwks = Some("/nowhere.json".into())).starts_with("auth.jwt.jwks: `/nowhere.json`"));
    assert!(error("HS256", |_| {}).contains("`secret`"));
}

fn key_set(kids: &[(&str, Algorithm)]) -> String {
    let public: Value = serde_json::from_slice(&std::fs::read(format!("{KEYS}/jwk.json")).unwrap()).unwrap();
    let keys = kids.iter().map(|(kid, algorithm)| {
        let mut jwk = public[if *algorithm == Algorithm::RS256 { "rsa" } else { "p256" }].clone();
        jwk["kid"] = json!(kid);
        jwk["alg"] = json!(algorithm);
        jwk
    });
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

/// Starts a server whose JWKS can be replaced, and which counts its requests. Returns its URL.
async fn issuer(set: Arc<Mutex<(String, usize)>>) -> String {
    let answer = async |State(set): State<Arc<Mutex<(String, usize)>>>| {
        let mut set = set.lock();
        set.1 += 1;
        set.0.clone()
    };
    let router = Router::new().fallback(answer).with_state(set);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn a_set_of_keys_is_fetched_once_and_again_when_it_rotates() {
    let set = Arc::new(Mutex::new((key_set(&[("one", Algorithm::ES256), ("other", Algorithm::RS256)]), 0)));
    let url = issuer(Arc::clone(&set)).await;
    let authorizer = authorizer(|jwt| {
        jwt.algorithm = Some("ES256".to_owned());
        jwt.jwks = Some(url);
    });
    let token = |kid| sign(Algorithm::ES256, kid, &json!({ "channels": ["private-a"] }));
    for kid in [Some("one"), None, Some("one")] {
        assert_eq!(status(&authorizer, "private-a", &token(kid)).await, 200, "{kid:?}");
    }
    assert_eq!(set.lock().1, 1);
    // Made-up key ids cause no further requests.
    for kid in ["two", "three", "other"] {
        assert_eq!(status(&authorizer, "private-a", &token(Some(kid))).await, 403, "{kid}");
    }
    assert_eq!(set.lock().1, 1);
    set.lock().0 = key_set(&[("two", Algorithm::ES256)]);
    let Keys::Set(keys) = &authorizer.keys else { panic!("a JWKS is set") };
    keys.forget_last_look().await;
    assert_eq!(status(&authorizer, "private-a", &token(Some("two"))).await, 200);
    assert_eq!(status(&authorizer, "private-a", &token(Some("one"))).await, 403);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_a_503_at_first() {
    let authorizer = authorizer(|jwt| {
        jwt.algorithm = Some("ES256".to_owned());
        jwt.jwks = Some("http://127.0.0.1:1/jwks.json".to_owned());
    });
    let token = sign(Algorithm::ES256, Some("one"), &json!({ "channels": ["private-a"] }));
    assert_eq!(status(&authorizer, "private-a", &token).await, 503);
}
