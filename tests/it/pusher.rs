//! Pusher clients, beside Socket.IO clients on the same channels.

use futures_util::{SinkExt as _, StreamExt as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::server::KEY;
use crate::support::{DEADLINE, Laravel, TestServer};

pub(crate) const SECRET: &str = "app-secret";

/// A Pusher client.
pub(crate) struct Pusher {
    pub(crate) id: String,
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

pub(crate) fn sign(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("the test server works");
    mac.update(text.as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{KEY}:{hex}")
}

pub(crate) async fn server(laravel: &Laravel, settings: Value) -> TestServer {
    let mut all = json!({ "authHost": laravel.url, "clients": [{ "appId": "app", "key": KEY, "secret": SECRET }] });
    crate::support::merge(&mut all, settings);
    TestServer::start(all).await
}

impl Pusher {
    async fn open(server: &TestServer, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut request = format!("ws://{}{path}", server.address).into_client_request().expect("the test server works");
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).expect("the test server works"));
        }
        let (stream, _) = connect_async(request).await.expect("the test server works");
        Self { id: String::new(), stream }
    }

    async fn connect_with(server: &TestServer, headers: &[(&'static str, &str)]) -> Self {
        Self::connect_by(server, KEY, headers).await
    }

    async fn connect_by(server: &TestServer, key: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut client = Self::open(server, &format!("/app/{key}?protocol=7&client=js&version=8.6.0"), headers).await;
        let established = client.hear().await;
        assert_eq!(established["event"], "pusher:connection_established");
        let data: Value =
            serde_json::from_str(established["data"].as_str().expect("the test server works")).expect("the test server works");
        assert_eq!(data["activity_timeout"], 30);
        client.id = data["socket_id"].as_str().expect("the test server works").to_owned();
        client
    }

    pub(crate) async fn connect(server: &TestServer) -> Self {
        Self::connect_with(server, &[]).await
    }

    pub(crate) async fn say(&mut self, message: Value) {
        self.stream.send(Message::text(message.to_string())).await.expect("the test server works");
    }

    /// The next message, with its `data` parsed.
    pub(crate) async fn hear(&mut self) -> Value {
        match self.next().await {
            Message::Text(text) => serde_json::from_str(&text).expect("the test server works"),
            other => panic!("{other:?}"),
        }
    }

    async fn next(&mut self) -> Message {
        tokio::time::timeout(DEADLINE, self.stream.next()).await.expect("a message in time").expect("a message").expect("a whole message")
    }

    pub(crate) async fn close_code(&mut self) -> u16 {
        match self.next().await {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("{other:?}"),
        }
    }

    /// Signs in as a user.
    pub(crate) async fn sign_in(&mut self, data: &str) -> Value {
        let auth = sign(&format!("{}::user::{data}", self.id));
        self.say(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": data } })).await;
        self.hear().await
    }

    pub(crate) async fn subscribe(&mut self, channel: &str, channel_data: Option<&str>) -> Value {
        let text = [Some(self.id.as_str()), Some(channel), channel_data].into_iter().flatten().collect::<Vec<_>>().join(":");
        let auth = if channel.contains('-') { sign(&text) } else { String::new() };
        self.say(json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": auth, "channel_data": channel_data } })).await;
        self.hear().await
    }

    pub(crate) async fn whisper(&mut self, channel: &str, data: Value) {
        self.say(json!({ "event": "client-typing", "channel": channel, "data": data })).await;
    }
}

async fn publish(server: &TestServer, channel: &str, socket: Option<&str>) {
    let body = json!({ "channel": channel, "name": "sent", "data": "{\"n\":1}", "socket_id": socket }).to_string();
    let url = server.url(&format!("/apps/app/events?auth_key={KEY}"));
    let sent =
        reqwest::Client::new().post(url).header("content-type", "application/json").body(body).send().await.expect("the test server works");
    assert_eq!(sent.status(), 200);
}

#[tokio::test]
async fn both_protocols_share_channels_and_whispers() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let mut pusher = Pusher::connect(&server).await;
    let mut socket_io = server.client_of(1).await;

    assert_eq!(pusher.subscribe("news", None).await["event"], "pusher_internal:subscription_succeeded");
    socket_io.subscribe("news").await;
    server.subscribed("news", 2).await;
    publish(&server, "news", None).await;
    let event = json!({ "event": "sent", "channel": "news", "data": "{\"n\":1}" });
    assert_eq!(pusher.hear().await, event);
    assert_eq!(socket_io.event("sent").await, [json!("news"), json!({ "n": 1 })]);
    publish(&server, "news", Some(&pusher.id)).await;
    assert_eq!(socket_io.event("sent").await, [json!("news"), json!({ "n": 1 })]);
    publish(&server, "news", Some(&socket_io.id)).await;
    assert_eq!(pusher.hear().await, event);

    assert_eq!(pusher.subscribe("private-room", None).await["event"], "pusher_internal:subscription_succeeded");
    socket_io.subscribe("private-room").await;
    server.subscribed("private-room", 2).await;
    socket_io.whisper("private-room", "client-typing", json!({ "a": 1 })).await;
    assert_eq!(pusher.hear().await, json!({ "event": "client-typing", "channel": "private-room", "data": "{\"a\":1}" }));
    pusher.whisper("private-room", json!({ "b": 2 })).await;
    assert_eq!(socket_io.event("client-typing").await, [json!("private-room"), json!({ "b": 2 })]);
    assert_eq!(laravel.callbacks().len(), 1, "a signature needs no callback");
    assert!(socket_io.left_over().is_empty());
}

#[tokio::test]
async fn a_user_with_a_tab_of_each_protocol_is_one_member() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let mut socket_io = server.client_of(1).await;
    socket_io.subscribe("presence-room").await;
    socket_io.event("presence:subscribed").await;

    let mut same = Pusher::connect(&server).await;
    let succeeded = same.subscribe("presence-room", Some(r#"{"user_id":"1","user_info":{"name":"Ann"}}"#)).await;
    let data: Value = serde_json::from_str(succeeded["data"].as_str().unwrap()).unwrap();
    assert_eq!((&data["presence"]["ids"], &data["presence"]["count"]), (&json!(["1"]), &json!(1)));
    let mut other = Pusher::connect(&server).await;
    other.subscribe("presence-room", Some(r#"{"user_id":"2","user_info":{"name":"Bob"}}"#)).await;
    // The second tab of user 1 was not announced; user 2 is.
    assert_eq!(socket_io.event("presence:joining").await[1]["user_id"], "2");
    let added = same.hear().await;
    assert_eq!(
        added,
        json!({ "event": "pusher_internal:member_added", "channel": "presence-room", "data": "{\"user_id\":\"2\",\"user_info\":{\"name\":\"Bob\"}}" })
    );
    other.whisper("presence-room", json!(null)).await;
    assert_eq!(same.hear().await["user_id"], "2");
    other.stream.close(None).await.unwrap();
    assert_eq!(same.hear().await["event"], "pusher_internal:member_removed");
    assert_eq!(socket_io.event("presence:leaving").await[1]["user_id"], "2");
}

#[tokio::test]
async fn a_wrong_signature_is_refused() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let (mut mallory, other) = (Pusher::connect(&server).await, Pusher::connect(&server).await);
    let wrong = [
        sign(&format!("{}:private-a", other.id)),
        sign(&format!("{}:private-b", mallory.id)),
        sign(&format!("{}:private-a", mallory.id)).replace(KEY, "other-key"),
        sign(&format!("{}::user::{{\"id\":\"1\"}}", mallory.id)),
    ];
    for auth in wrong {
        mallory.say(json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": auth } })).await;
        let refused = mallory.hear().await;
        assert_eq!((&refused["event"], &refused["channel"]), (&json!("pusher:subscription_error"), &json!("private-a")));
        assert_eq!(refused["data"]["status"], 401);
    }
    mallory.whisper("private-a", json!(1)).await;
    assert_eq!(mallory.hear().await["data"]["code"], 4301);
    // A user's own channel is closed to everyone else, in both protocols.
    mallory.say(json!({ "event": "pusher:subscribe", "data": { "channel": "#server-to-user-1", "auth": "" } })).await;
    assert_eq!(mallory.hear().await["data"]["status"], 401);
    let mut socket_io = server.client_of(1).await;
    socket_io.subscribe("#server-to-user-1").await;
    assert_eq!(socket_io.event("subscription_error").await, [json!("#server-to-user-1"), json!(403)]);
    assert_eq!(laravel.callbacks().len(), 0);
}

#[tokio::test]
async fn a_removed_socket_cannot_rejoin_with_the_same_signature() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let mut client = Pusher::connect(&server).await;
    let data = Some(r#"{"user_id":"9"}"#);
    assert_eq!(client.subscribe("presence-room", data).await["event"], "pusher_internal:subscription_succeeded");
    let url = server.url(&format!("/apps/app/users/9/unsubscribe?auth_key={KEY}"));
    let body = json!({ "channel": "presence-room" }).to_string();
    assert_eq!(reqwest::Client::new().post(url).body(body).send().await.unwrap().status(), 200);
    assert_eq!(client.hear().await["data"]["status"], 403);
    let again = client.subscribe("presence-room", data).await;
    assert_eq!((&again["event"], &again["data"]["status"]), (&json!("pusher:subscription_error"), &json!(403)));
}

#[tokio::test]
async fn a_signature_is_only_valid_for_its_own_channel() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let mut client = Pusher::connect(&server).await;
    // The parts of the signed text are joined with `:`.
    let auth = sign(&format!("{}:private-team:5", client.id));
    client.say(json!({ "event": "pusher:subscribe", "data": { "channel": "private-team", "auth": auth, "channel_data": "5" } })).await;
    assert_eq!(client.hear().await["data"]["status"], 401);
    let body = format!("socket_id={}&channel_name=private-team:5", client.id);
    let request = reqwest::Client::new().post(server.url("/broadcasting/auth"));
    assert_eq!(request.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_signed_in_user_has_a_channel_and_can_be_terminated() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let mut client = Pusher::connect(&server).await;
    let data = r#"{"id":"7","user_info":{"name":"Ann"}}"#;
    let success = client.sign_in(data).await;
    assert_eq!(success["event"], "pusher:signin_success");
    let echoed: Value = serde_json::from_str(success["data"].as_str().unwrap()).unwrap();
    assert_eq!(echoed["user_data"], data);
    client.say(json!({ "event": "pusher:subscribe", "data": { "channel": "#server-to-user-7", "auth": "" } })).await;
    assert_eq!(client.hear().await["event"], "pusher_internal:subscription_succeeded");
    publish(&server, "#server-to-user-7", None).await;
    assert_eq!(client.hear().await["event"], "sent");
    let presence = client.subscribe("presence-room", None).await;
    assert!(presence["data"].as_str().unwrap().contains("Ann"), "{presence}");
    let url = server.url(&format!("/apps/app/users/7/terminate_connections?auth_key={KEY}"));
    assert_eq!(reqwest::Client::new().post(url).send().await.unwrap().status(), 200);
    assert_eq!(client.hear().await["data"]["code"], 4009);
    assert_eq!(client.close_code().await, 4009);
}

#[tokio::test]
async fn an_application_that_cannot_sign_is_asked_by_callback() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let mut client = Pusher::connect_with(&server, &[("cookie", "user=5")]).await;
    client.say(json!({ "event": "pusher:subscribe", "data": { "channel": "private-a" } })).await;
    assert_eq!(client.hear().await["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(laravel.callbacks()[0].headers["cookie"], "user=5");
    client.say(json!({ "event": "pusher:subscribe", "data": { "channel": "private-forbidden", "auth": "Bearer token" } })).await;
    assert_eq!(client.hear().await["data"]["status"], 403);
    assert_eq!(laravel.callbacks()[1].headers["authorization"], "Bearer token");

    let endpoint = server.url("/broadcasting/auth");
    let ask = async |channel: &str| {
        let body = format!("socket_id={}&channel_name={channel}", client.id);
        let request = reqwest::Client::new().post(&endpoint).header("cookie", "user=5").header("origin", "http://app.test");
        request.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.unwrap()
    };
    let signed = ask("presence-room").await;
    assert_eq!(signed.headers()["access-control-allow-origin"], "http://app.test");
    let signed: Value = serde_json::from_slice(&signed.bytes().await.unwrap()).unwrap();
    assert_eq!(ask("presence-forbidden").await.status(), 403);
    assert_eq!(ask("news").await.status(), 403);
    let subscribe = json!({ "channel": "presence-room", "auth": signed["auth"], "channel_data": signed["channel_data"] });
    client.say(json!({ "event": "pusher:subscribe", "data": subscribe })).await;
    let succeeded = client.hear().await;
    let data: Value = serde_json::from_str(succeeded["data"].as_str().unwrap()).unwrap();
    assert_eq!(data["presence"]["ids"], json!(["5"]));
}

#[tokio::test]
async fn the_endpoint_signs_with_the_key_of_each_client_and_takes_json() {
    let laravel = Laravel::start().await;
    let clients =
        json!([{ "appId": "app", "key": KEY, "secret": SECRET }, { "appId": "other", "key": "other-key", "secret": "other-secret" }]);
    let server = server(&laravel, json!({ "clients": clients })).await;
    for key in [KEY, "other-key"] {
        let mut client = Pusher::connect_by(&server, key, &[]).await;
        let body = json!({ "socket_id": client.id, "channel_name": "presence-room" }).to_string();
        let request = reqwest::Client::new().post(server.url("/broadcasting/auth")).header("cookie", "user=5");
        let signed = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(signed.status(), 200);
        let signed: Value = serde_json::from_slice(&signed.bytes().await.unwrap()).unwrap();
        assert!(signed["auth"].as_str().unwrap().starts_with(&format!("{key}:")), "{signed}");
        let subscribe = json!({ "channel": "presence-room", "auth": signed["auth"], "channel_data": signed["channel_data"] });
        client.say(json!({ "event": "pusher:subscribe", "data": subscribe })).await;
        assert_eq!(client.hear().await["event"], "pusher_internal:subscription_succeeded", "{key}");
    }
}

#[tokio::test]
async fn a_signature_made_by_this_server_carries_the_user_of_the_token() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({ "auth": { "jwt": { "algorithm": "HS256", "secret": crate::auth_jwt::SECRET } } })).await;
    let mut client = Pusher::connect(&server).await;
    let token = crate::auth_jwt::token(&json!({ "sub": "7", "channels": ["private-a"], "exp": 4_000_000_000_u64 }));
    let request = reqwest::Client::new().post(server.url("/broadcasting/auth")).bearer_auth(token);
    let body = format!("socket_id={}&channel_name=private-a", client.id);
    let signed = request.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.unwrap();
    let signed: Value = serde_json::from_slice(&signed.bytes().await.unwrap()).unwrap();
    client.say(json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": signed["auth"] } })).await;
    assert_eq!(client.hear().await["event"], "pusher_internal:subscription_succeeded");
    let url = server.url(&format!("/apps/app/users/7/unsubscribe?auth_key={KEY}"));
    let answer = reqwest::Client::new().post(url).body(json!({ "channel": "private-a" }).to_string()).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), r#"{"unsubscribed":1}"#);
    assert_eq!(client.hear().await["data"]["status"], 403);
}

#[tokio::test]
async fn cache_channels_send_their_last_event_in_both_protocols() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let mut first = Pusher::connect(&server).await;
    first.say(json!({ "event": "pusher:subscribe", "data": { "channel": "cache-news" } })).await;
    assert_eq!(first.hear().await["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(first.hear().await, json!({ "event": "pusher:cache_miss", "channel": "cache-news" }));
    publish(&server, "cache-news", None).await;
    assert_eq!(first.hear().await["event"], "sent");
    let mut second = Pusher::connect(&server).await;
    second.say(json!({ "event": "pusher:subscribe", "data": { "channel": "cache-news" } })).await;
    second.hear().await;
    assert_eq!(second.hear().await["data"], "{\"n\":1}");
    let mut socket_io = server.client_of(1).await;
    socket_io.subscribe("cache-news").await;
    assert_eq!(socket_io.event("sent").await, [json!("cache-news"), json!({ "n": 1 })]);
}

async fn get(server: &TestServer, path: &str) -> (u16, Value) {
    let answer = reqwest::Client::new().get(server.url(path)).bearer_auth(KEY).send().await.expect("the test server works");
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.expect("the test server works")).unwrap_or_default())
}

#[tokio::test]
async fn the_http_api_returns_the_event_of_a_cache_channel() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let path = "/apps/app/channels/cache-news?info=cache";
    let empty = json!({ "subscription_count": 0, "occupied": false, "cache": null });
    assert_eq!(get(&server, path).await, (200, empty));
    publish(&server, "cache-news", None).await;
    let (_, found) = get(&server, path).await;
    assert_eq!(found["cache"], json!({ "data": "{\"n\":1}", "ttl": 1800 }));
    let (_, without) = get(&server, "/apps/app/channels/cache-news").await;
    assert_eq!(without, json!({ "subscription_count": 0, "occupied": false }));
    let (_, other) = get(&server, "/apps/app/channels/news?info=cache").await;
    assert_eq!(other.get("cache"), None);
}

#[tokio::test]
async fn without_a_client_secret_a_cache_channel_is_an_ordinary_channel() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({ "clients": [{ "appId": "app", "key": KEY }] })).await;
    publish(&server, "cache-news", None).await;
    let mut client = server.client_of(1).await;
    client.subscribe("cache-news").await;
    server.subscribed("cache-news", 1).await;
    publish(&server, "cache-news", None).await;
    client.event("sent").await;
    server.subscribed("cache-news", 1).await;
    assert!(client.left_over().is_empty());
}

#[tokio::test]
async fn the_http_api_is_also_served_below_pusher_path() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({ "pusher": { "path": "/ws/" } })).await;
    for prefix in ["", "/ws"] {
        let path = format!("{prefix}/apps/app/channels");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let query = format!("auth_key={KEY}&auth_timestamp={now}&auth_version=1.0");
        let signature = sign(&format!("GET\n{path}\n{query}"));
        let (_, signature) = signature.split_once(':').unwrap();
        let answer = reqwest::get(server.url(&format!("{path}?{query}&auth_signature={signature}"))).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert_eq!(get(&server, "/other/apps/app/channels").await.0, 404);
}

#[tokio::test]
async fn watchlist_users_go_online_and_offline() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let news = |name: &str, user: &str| {
        let data = format!("{{\"events\":[{{\"name\":\"{name}\",\"user_ids\":[\"{user}\"]}}]}}");
        json!({ "event": "pusher_internal:watchlist_events", "data": data })
    };
    let mut ann = Pusher::connect(&server).await;
    assert_eq!(ann.sign_in(r#"{"id":"1","watchlist":["2"]}"#).await["event"], "pusher:signin_success");
    assert_eq!(ann.hear().await, news("offline", "2"));
    let mut tabs = [Pusher::connect(&server).await, Pusher::connect(&server).await];
    for bob in &mut tabs {
        bob.sign_in(r#"{"id":"2","watchlist":["1"]}"#).await;
        assert_eq!(bob.hear().await, news("online", "1"));
    }
    assert_eq!(ann.hear().await, news("online", "2"));
    for bob in &mut tabs {
        bob.stream.close(None).await.unwrap();
    }
    assert_eq!(ann.hear().await, news("offline", "2"));

    let many: Vec<String> = (100..201).map(|n| n.to_string()).collect();
    let mut carol = Pusher::connect(&server).await;
    carol.sign_in(&json!({ "id": "3", "watchlist": many }).to_string()).await;
    assert_eq!(carol.hear().await["data"]["code"], 4302);
    let first = carol.hear().await;
    assert!(first["data"].as_str().unwrap().contains("\"199\"") && !first["data"].as_str().unwrap().contains("\"200\""), "{first}");
}

#[tokio::test]
async fn a_sign_in_is_valid_for_one_connection_and_one_user() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let (mut mallory, victim) = (Pusher::connect(&server).await, Pusher::connect(&server).await);
    let data = r#"{"id":"7"}"#;
    // Replays another connection's sign-in, a signature with another key, and one for a channel.
    let replayed = sign(&format!("{}::user::{data}", victim.id));
    let other_key = sign(&format!("{}::user::{data}", mallory.id)).replace(KEY, "other-key");
    for auth in [replayed, other_key, sign(&format!("{}:private-a", mallory.id)), "Bearer x".to_owned()] {
        mallory.say(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": data } })).await;
        assert_eq!(mallory.hear().await["data"]["code"], 4009);
    }
    assert_eq!(mallory.sign_in(data).await["event"], "pusher:signin_success");
    assert_eq!(mallory.sign_in(r#"{"id":"8"}"#).await["data"]["code"], 4009);
    assert_eq!(mallory.sign_in(data).await["event"], "pusher:signin_success");
    mallory.say(json!({ "event": "pusher:subscribe", "data": { "channel": "#server-to-user-8", "auth": "" } })).await;
    assert_eq!(mallory.hear().await["data"]["status"], 401);
}

#[tokio::test]
async fn channels_are_sent_their_subscription_count_if_enabled() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({ "pusher": { "subscriptionCount": true } })).await;
    let mut first = Pusher::connect(&server).await;
    let count = |n: u64| json!({ "event": "pusher_internal:subscription_count", "channel": "news", "data": format!("{{\"subscription_count\":{n}}}") });
    first.subscribe("news", None).await;
    assert_eq!(first.hear().await, count(1));
    let mut second = server.client_of(1).await;
    second.subscribe("news").await;
    assert_eq!(first.hear().await, count(2));
    second.unsubscribe("news").await;
    assert_eq!(first.hear().await, count(1));
}

#[tokio::test]
async fn a_rejected_client_is_told_why_and_whether_to_reconnect() {
    let laravel = Laravel::start().await;
    let settings = json!({ "allowedOrigins": ["http://app.test"], "limits": { "connections": 1 }, "pusher": { "path": "/ws" } });
    let server = server(&laravel, settings).await;
    for (path, origin, code) in [
        (format!("/ws/app/{KEY}x"), "http://app.test", 4001),
        (format!("/ws/app/{KEY}?protocol=4"), "http://app.test", 4007),
        (format!("/ws/app/{KEY}"), "http://evil.test", 4009),
    ] {
        let mut client = Pusher::open(&server, &path, &[("origin", origin)]).await;
        let error = client.hear().await;
        assert_eq!((&error["event"], &error["data"]["code"]), (&json!("pusher:error"), &json!(code)));
        assert_eq!(client.close_code().await, code);
    }
    let path = format!("/ws/app/{KEY}?protocol=7");
    let mut first = Pusher::open(&server, &path, &[]).await;
    first.hear().await;
    let mut second = Pusher::open(&server, &path, &[]).await;
    second.hear().await;
    assert_eq!(second.close_code().await, 4100, "clients retry");
    server.begin_to_stop();
    assert_eq!(first.close_code().await, 4100, "clients reconnect after a second");
}

#[tokio::test]
async fn both_sides_can_ping() {
    let laravel = Laravel::start().await;
    let server = server(&laravel, json!({})).await;
    let mut client = Pusher::connect(&server).await;
    client.say(json!({ "event": "pusher:ping", "data": {} })).await;
    assert_eq!(client.hear().await, json!({ "event": "pusher:pong", "data": "{}" }));
    client.stream.send(Message::Ping("x".into())).await.unwrap();
    assert!(matches!(client.next().await, Message::Pong(_)));
    client.stream.send(Message::text("{broken")).await.unwrap();
    assert_eq!(client.hear().await["data"]["code"], 4200);
    let quick = json!({ "pusher": { "activityTimeout": "100ms" } });
    let server = self::server(&laravel, quick).await;
    let mut client = Pusher::open(&server, &format!("/app/{KEY}"), &[]).await;
    client.hear().await;
    assert_eq!(client.hear().await["event"], "pusher:ping");
}
