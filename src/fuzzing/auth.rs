//! Fuzz targets for the application's answers and for tokens. Input: bytes. Output: a panic if an assertion fails.

use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Map, Value};

use crate::auth::answer::{Answer, Credentials};
use crate::auth::jwt::JwtAuthorizer;
use crate::auth::{AuthRequest, Authorizer as _};
use crate::channel::{ChannelKind, ChannelName};
use crate::config::Config;
use crate::config::value::Secret;
use crate::event::SocketId;
use crate::fuzzing::{Refuse, block_on};
use crate::metrics::Metrics;
use crate::store::Member;

/// The secret that signs the tokens.
const SECRET: &str = "fuzzing";

/// An answer: a line such as `200 text/html`, then the body. Grants contain only what the application wrote, and a member
/// parsed from one serializes to JSON.
pub fn auth_answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once('\n').unwrap_or(("200", &text));
    let (status, content_type) = head.split_once(' ').map_or((head, None), |(status, kind)| (status, Some(kind)));
    let status = status.parse().unwrap_or(200);
    let answer = Answer { status, content_type, body, ..Answer::default() };
    assert!(answer.summary().chars().count() <= 200 && !answer.hint(Credentials::Cookie).is_empty());
    let grant = match answer.judge() {
        Ok(grant) => grant,
        Err(denied) => return assert!(denied.status == status || status == 200 && denied.status == 403),
    };
    assert_eq!(status, 200);
    let Some(data) = grant.channel_data else { return };
    assert!(body.contains(data.get()), "{} is not in the answer", data.get());
    let Ok(member) = Member::parse(data.get()) else { return };
    assert_eq!(Member::parse(member.json()).as_ref(), Ok(&member));
    assert!(!member.view().user_id.get().is_empty());
    let socket = SocketId::parse("123.456").expect("it has the form of an id");
    for socket in [None, Some(socket)] {
        let mut json = String::new();
        member.push_json(&mut json, socket);
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok(), "{json}");
        assert!(json.ends_with(r#""socketId":"123.456"}"#) || socket.is_none());
    }
}

/// A token, or a JSON object with the claims of a correctly signed one. Without a valid signature nothing is granted, and
/// with one nothing that the claims do not list.
pub fn jwt(bytes: &[u8]) {
    static AUTHORIZER: OnceLock<JwtAuthorizer<Refuse>> = OnceLock::new();
    let authorizer = AUTHORIZER.get_or_init(|| {
        let mut config = Config::default();
        config.auth.jwt.secret = Some(Secret(SECRET.to_owned()));
        JwtAuthorizer::new(&config, "HS256", Refuse, Arc::new(Metrics::new())).expect("the settings can be used")
    });
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let claims: Option<Map<String, Value>> = serde_json::from_str(text).ok();
    let token = claims.as_ref().map_or_else(|| text.to_owned(), sign);
    let headers = [("Authorization".to_owned(), format!("Bearer {token}"))];
    for channel in ["private-orders.1", "presence-room"].map(ChannelName::from) {
        let handshake = HeaderMap::new();
        let socket = SocketId::parse("123.456").expect("it is an id");
        let request =
            AuthRequest { socket, channel: &channel, headers: &headers, handshake: &handshake, peer: None, by: None, is_again: false };
        let Ok(grant) = block_on(authorizer.authorize(request)) else { continue };
        let claims = claims.as_ref().expect("an unsigned token grants nothing");
        let listed = claims.get("channels").map(Value::to_string).unwrap_or_default();
        assert!(listed.contains('*') || listed.contains(channel.as_str()), "{listed} does not list {channel}");
        if channel.kind() == ChannelKind::Presence {
            let data = grant.channel_data.expect("a presence channel needs a member");
            Member::parse(data.get()).expect("claims make a member");
        }
    }
}

fn sign(claims: &Map<String, Value>) -> String {
    crate::jws::install();
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("claims are JSON")
}
