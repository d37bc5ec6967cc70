//! The dashboard: access, what it never reveals, and its live data.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::server::KEY;
use crate::support::{Client, DEADLINE, Laravel, Node, Redis, TestServer, free_port, merge, until};

const PASSWORD: &str = "a password of the tests";

/// A browser's request; `headers` as pairs.
async fn request(server: &TestServer, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Response {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"));
    }
    let request = reqwest::Client::new().request(method, server.url(path)).headers(all);
    let request = if let Some(body) = body { request.body(body.to_string()) } else { request };
    request.send().await.expect("the server answers")
}

/// The headers that the page's own script sends.
struct Page<'a> {
    server: &'a TestServer,
    origin: String,
    cookie: String,
}

impl<'a> Page<'a> {
    async fn sign_in(server: &'a TestServer, secret: &str) -> Result<Self, u16> {
        let origin = server.url("");
        let mut page = Self { server, origin, cookie: String::new() };
        let answer = page.send(Method::POST, "/dashboard/session", Some(json!({ "secret": secret }))).await;
        if answer.status() != 204 {
            return Err(answer.status().as_u16());
        }
        let cookie = answer.headers()["set-cookie"].to_str().expect("text");
        for part in ["HttpOnly", "SameSite=Strict", "Path=/dashboard", "Max-Age="] {
            assert!(cookie.contains(part), "{cookie}");
        }
        page.cookie = cookie.split(';').next().expect("a cookie").to_owned();
        Ok(page)
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let headers = [("origin", self.origin.as_str()), ("x-dashboard", "1"), ("cookie", &self.cookie)];
        request(self.server, method, path, &headers, body).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.send(Method::GET, path, None).await;
        assert_eq!(answer.status(), 200, "{path}");
        serde_json::from_str(&answer.text().await.expect("text")).expect("JSON")
    }

    async fn act(&self, body: Value) -> Response {
        self.send(Method::POST, "/dashboard/api/act", Some(body)).await
    }

    async fn stream(&self, query: &str) -> Stream {
        let answer = self.send(Method::GET, &format!("/dashboard/stream?{query}"), None).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut stream = Stream { answer, text: String::new(), entries: Vec::new(), all: String::new() };
        stream.message("hello").await;
        stream
    }
}

struct Stream {
    answer: Response,
    text: String,
    entries: Vec<Value>,
    /// Everything received.
    all: String,
}

impl Stream {
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let message: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).expect("a field").to_owned();
                return Some((field("event: "), serde_json::from_str(&field("data: ")).expect("JSON")));
            }
            let bytes = tokio::time::timeout(DEADLINE, self.answer.chunk()).await.expect("something comes in time").ok()??;
            let text = std::str::from_utf8(&bytes).expect("whole messages");
            self.text.push_str(text);
            self.all.push_str(text);
        }
    }

    async fn message(&mut self, name: &str) -> Value {
        loop {
            let (event, data) = self.next().await.expect("the stream goes on");
            if event == "trace" {
                self.entries.extend(data["entries"].as_array().expect("a list").iter().cloned());
            }
            if event == name {
                return data;
            }
        }
    }

    /// The next line of the trace that matches.
    async fn entry(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(at) = self.entries.iter().position(&fits) {
                return self.entries.drain(..=at).next_back().expect("it was found");
            }
            self.message("trace").await;
        }
    }

    async fn kind(&mut self, kind: &str) -> Value {
        self.entry(|entry| entry["kind"] == kind).await
    }
}

async fn start(settings: Value) -> TestServer {
    let mut all = json!({ "dashboard": { "enabled": true, "password": PASSWORD } });
    merge(&mut all, settings);
    TestServer::start(all).await
}

fn acting() -> Value {
    json!({ "dashboard": { "enabled": true, "password": PASSWORD, "actions": true } })
}

async fn publish(server: &TestServer, body: Value) {
    let answer = request(server, Method::POST, &format!("/apps/app/events?auth_key={KEY}"), &[], Some(body)).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn it_is_off_by_default() {
    let server = TestServer::start(json!({})).await;
    for path in ["/dashboard", "/dashboard/app.js", "/dashboard/session", "/dashboard/stream"] {
        assert_eq!(request(&server, Method::GET, path, &[], None).await.status(), 404, "{path}");
    }
    let answer = request(&server, Method::GET, "/dashboard", &[], None).await.text().await.expect("text");
    assert!(answer.contains("dashboard.enabled = true"), "{answer}");
}

#[tokio::test]
async fn the_page_runs_only_its_own_scripts() {
    let server = start(json!({})).await;
    let page = request(&server, Method::GET, "/dashboard", &[], None).await;
    let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let text = page.text().await.expect("text");
    assert!(!text.contains("<style") && !text.contains("style=") && !text.contains(" onclick") && !text.contains("=\"http"), "{text}");
    assert!(text.matches("<script").count() == 1 && text.contains(r#"<script type="module" src="/dashboard/app.js">"#));
    for path in ["/dashboard/app.js", "/dashboard/style.css"] {
        assert_eq!(request(&server, Method::GET, path, &[], None).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn without_a_session_nothing_is_revealed() {
    let server = start(acting()).await;
    let reads = ["session", "stream", "api/channels", "api/channel?name=a", "api/socket?id=1.1", "api/user?id=1", "api/why?channel=a"];
    for cookie in ["", "laravel_echo_dashboard=00000000000000000000000000000001", "laravel_echo_dashboard="] {
        for path in reads {
            let answer = request(&server, Method::GET, &format!("/dashboard/{path}"), &[("cookie", cookie)], None).await;
            assert_eq!(answer.status(), 401, "{path} with {cookie:?}");
        }
        let origin = server.url("");
        let own = [("origin", origin.as_str()), ("x-dashboard", "1"), ("cookie", cookie)];
        for path in ["api/event", "api/act"] {
            let answer = request(&server, Method::POST, &format!("/dashboard/{path}"), &own, Some(json!({}))).await;
            assert_eq!(answer.status(), 401, "{path} with {cookie:?}");
        }
    }
}

#[tokio::test]
async fn credentials_of_the_http_api_open_the_dashboard() {
    let server = start(json!({ "clients": [
        { "appId": "app", "key": KEY },
        { "appId": "pusher", "key": "known-to-pages", "secret": "the-secret-of-it" },
        { "appId": "signed", "key": "public-key", "secret": "another-secret", "requireSignature": true },
    ] }))
    .await;
    for secret in [PASSWORD, KEY, "the-secret-of-it", "another-secret"] {
        assert!(Page::sign_in(&server, secret).await.is_ok(), "{secret}");
    }
    for secret in ["known-to-pages", "public-key", "app"] {
        assert_eq!(Page::sign_in(&server, secret).await.err(), Some(403), "{secret}");
    }
}

#[tokio::test]
async fn wrong_passwords_are_throttled_by_address() {
    let server = start(json!({ "trustProxies": ["127.0.0.1"] })).await;
    let origin = server.url("");
    let attempt = async |address: &str, secret: &str| {
        let headers = [("origin", origin.as_str()), ("x-dashboard", "1"), ("x-forwarded-for", address)];
        let body = Some(json!({ "secret": secret }));
        request(&server, Method::POST, "/dashboard/session", &headers, body).await.status().as_u16()
    };
    for _ in 0..5 {
        assert_eq!(attempt("203.0.113.1", "wrong").await, 403);
    }
    assert_eq!(attempt("203.0.113.1", "wrong").await, 429);
    assert_eq!(attempt("203.0.113.1", PASSWORD).await, 429, "the right password is not checked either");
    assert_eq!(attempt("203.0.113.2", PASSWORD).await, 204);
}

#[tokio::test]
async fn a_forged_form_post_does_nothing() {
    let mut settings = acting();
    // Even if the HTTP API may be read from any origin.
    merge(&mut settings, json!({ "apiOriginAllow": { "allowCors": true, "allowOrigin": "*", "allowMethods": "*", "allowHeaders": "*" } }));
    let server = TestServer::start(settings).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let mut ann = server.client_in("news").await;
    let body = || Some(json!({ "channel": "news", "name": "sent", "data": 1 }));
    let (origin, cookie) = (page.origin.as_str(), page.cookie.as_str());
    for headers in [
        // A form of another site cannot set the header; a form on another port of this machine does get the cookie sent.
        &[("cookie", cookie), ("origin", origin)][..],
        &[("cookie", cookie), ("origin", "http://evil.test"), ("content-type", "text/plain")],
        &[("cookie", cookie), ("origin", "http://evil.test"), ("x-dashboard", "1")],
        &[("cookie", cookie), ("origin", "null"), ("x-dashboard", "1")],
        &[("cookie", cookie), ("origin", origin), ("sec-fetch-site", "same-site"), ("x-dashboard", "1")],
        &[("cookie", cookie), ("x-dashboard", "1")],
    ] {
        for path in ["/dashboard/api/event", "/dashboard/api/act"] {
            assert_eq!(request(&server, Method::POST, path, headers, body()).await.status(), 403, "{path} {headers:?}");
        }
    }
    let read = [("cookie", cookie), ("origin", "http://evil.test")];
    let answer = request(&server, Method::GET, "/dashboard/api/channels", &read, None).await;
    assert_eq!(answer.status(), 403);
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    let asked =
        [("origin", "http://evil.test"), ("access-control-request-method", "POST"), ("access-control-request-headers", "x-dashboard")];
    let answer = request(&server, Method::OPTIONS, "/dashboard/api/act", &asked, None).await;
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    assert_eq!(page.send(Method::POST, "/dashboard/api/event", body()).await.status(), 200);
    assert_eq!(ann.event("sent").await, [json!("news"), json!(1)]);
    assert!(ann.left_over().is_empty());
}

#[tokio::test]
async fn without_actions_it_is_read_only() {
    let server = start(json!({})).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    assert_eq!(page.get("/dashboard/session").await["actions"], false);
    let event = json!({ "channel": "news", "name": "sent", "data": 1 });
    assert_eq!(page.send(Method::POST, "/dashboard/api/event", Some(event)).await.status(), 403);
    assert_eq!(page.act(json!({ "do": "closeUser", "user": "1" })).await.status(), 403);
}

#[tokio::test]
async fn signing_out_and_another_password_end_a_session() {
    let server = start(json!({})).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    assert_eq!(page.send(Method::DELETE, "/dashboard/session", None).await.status(), 204);
    assert_eq!(page.send(Method::GET, "/dashboard/session", None).await.status(), 401);
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let mut stream = page.stream("").await;
    let changed = server.changed(json!({ "dashboard": { "password": "another password" } }));
    server.reload.reload(&changed).expect("it can be taken");
    assert_eq!(page.send(Method::GET, "/dashboard/session", None).await.status(), 401);
    while stream.next().await.is_some() {}
    assert_eq!(Page::sign_in(&server, PASSWORD).await.err(), Some(403));
    assert!(Page::sign_in(&server, "another password").await.is_ok());
}

#[tokio::test]
async fn it_is_also_served_on_the_metrics_port() {
    let port = free_port();
    let server = start(json!({ "metrics": { "port": port } })).await;
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/dashboard")).await.expect("it answers");
    assert_eq!(answer.status(), 200);
    assert_eq!(reqwest::get(format!("http://127.0.0.1:{port}/dashboard/stream")).await.expect("it answers").status(), 401);
    drop(server);
}

#[tokio::test]
async fn the_trace_shows_where_an_event_went() {
    let server = start(json!({})).await;
    let mut stream = Page::sign_in(&server, PASSWORD).await.expect("it opens").stream("").await;
    let ann = server.client_in("news").await;
    let subscribed = stream.kind("subscribed").await;
    assert_eq!((&subscribed["channel"], &subscribed["socket"], &subscribed["count"]), (&json!("news"), &json!(ann.id), &json!(1)));
    publish(&server, json!({ "channel": "news", "name": "sent", "data": { "a": 1 } })).await;
    let event = stream.kind("event").await;
    assert_eq!(event["delivered"], 1);
    assert_eq!(
        (&event["name"], &event["source"], &event["data"], &event["size"]),
        (&json!("sent"), &json!("http"), &json!(r#"{"a":1}"#), &json!(7))
    );
    publish(&server, json!({ "channel": "news", "name": "sent", "data": 1, "socket_id": ann.id })).await;
    let event = stream.kind("event").await;
    assert_eq!((&event["delivered"], &event["has_left_out"], &event["except"]), (&json!(0), &json!(true), &json!(ann.id)));
    publish(&server, json!({ "channel": "News", "name": "sent", "data": 1 })).await;
    let event = stream.kind("event").await;
    assert_eq!((&event["delivered"], &event["near"]["channel"]), (&json!(0), &json!("news")));
    assert!(event["near"]["hint"].as_str().is_some_and(|hint| hint.contains("case sensitive")), "{event}");
}

#[tokio::test]
async fn messages_that_are_dropped_are_shown_with_the_reason() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, acting()).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let mut stream = page.stream("groups=dropped").await;
    let _ann = server.client_in("news").await;
    redis.heard("news").await;
    let dropped = |entry: Value| {
        assert_eq!(entry["kind"], "dropped");
        (entry["channel"].clone(), entry["source"].clone(), entry["why"].as_str().expect("a reason").to_owned())
    };
    redis.publish_text("news", "hello").await;
    let (channel, source, why) = dropped(stream.kind("dropped").await);
    assert!((channel, source) == (json!("news"), json!("redis")) && why.contains("not a JSON object"), "{why}");
    redis.publish("news", "connect", &json!(1), None).await;
    let (channel, _, why) = dropped(stream.kind("dropped").await);
    assert!(channel == "news" && why.contains("`connect` is reserved"), "{why}");
    for (path, body, reason) in [
        (format!("/apps/app/events?auth_key={KEY}"), json!({ "channel": "news", "data": 1 }), "`name` is missing"),
        (
            format!("/apps/app/batch_events?auth_key={KEY}"),
            json!({ "batch": [{ "channel": "news", "name": "disconnect", "data": 1 }] }),
            "reserved",
        ),
        ("/apps/app/events?auth_key=wrong".to_owned(), json!({ "channel": "news", "name": "sent", "data": 1 }), "Unauthorized"),
    ] {
        assert!(request(&server, Method::POST, &path, &[], Some(body)).await.status().is_client_error());
        let (channel, source, why) = dropped(stream.kind("dropped").await);
        assert!((channel, source) == (Value::Null, json!("http")) && why.contains(reason), "{why}");
    }
    let why = page.get("/dashboard/api/why?channel=news").await.to_string();
    assert!(
        why.contains("was dropped: event name `connect` is reserved") && why.contains("before its channel was known: Unauthorized"),
        "{why}"
    );
}

#[tokio::test]
async fn a_refused_subscribe_is_shown_with_its_reason_and_no_credentials() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, acting()).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let mut stream = page.stream("").await;
    let headers = [("cookie", "laravel_session=TOP-SECRET-COOKIE; user=7"), ("authorization", "Bearer TOP-SECRET-TOKEN")];
    let mut ann = Client::connect(server.address, &headers).await;
    let auth = json!({ "headers": { "Authorization": "Bearer TOP-SECRET-OTHER", "X-CSRF-TOKEN": "TOP-SECRET-CSRF" } });
    ann.emit("subscribe", json!({ "channel": "private-forbidden", "auth": auth })).await;
    let refused = stream.kind("refused").await;
    assert_eq!((&refused["status"], &refused["answer"], &refused["socket"]), (&json!(403), &json!("no"), &json!(ann.id)));
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("routes/channels.php")), "{refused}");
    ann.emit("subscribe", json!({ "channel": "private-orders", "auth": auth })).await;
    let granted = stream.kind("granted").await;
    assert_eq!((&granted["by"], &granted["channel"]), (&json!("application"), &json!("private-orders")));
    assert!(granted["took"].is_number(), "{granted}");
    let socket = page.get(&format!("/dashboard/api/socket?id={}", ann.id)).await;
    assert_eq!(socket["address"], "127.0.0.1");
    assert_eq!((&socket["channels"][0]["channel"], &socket["channels"][0]["by"]), (&json!("private-orders"), &json!("application")));
    let channel = page.get("/dashboard/api/channel?name=private-orders").await;
    assert_eq!((&channel["here"], &channel["sockets"][0]["id"]), (&json!(1), &json!(ann.id)));
    let why = page.get("/dashboard/api/why?channel=private-forbidden").await;
    assert!(why.to_string().contains("routes/channels.php"), "{why}");
    let texts: Vec<_> = why["findings"].as_array().expect("a list").iter().map(|found| found["text"].as_str().expect("a text")).collect();
    let place = |part: &str| texts.iter().position(|text| text.contains(part)).unwrap_or_else(|| panic!("no {part} in {texts:?}"));
    assert!(place("was refused") < place("no client is subscribed"), "{texts:?}");
    for text in [stream.all.clone(), socket.to_string(), channel.to_string(), why.to_string()] {
        assert!(!text.contains("TOP-SECRET"), "{text}");
    }
}

#[tokio::test]
async fn overlong_names_are_truncated_when_they_are_refused() {
    let server = start(json!({})).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let mut stream = page.stream("").await;
    let mut ann = server.client().await;
    let name = "ä".repeat(100_000);
    ann.whisper(&name, &format!("client-{name}"), json!(null)).await;
    let refused = stream.kind("refused").await;
    let channel = refused["channel"].as_str().expect("a name");
    assert!(name.starts_with(channel) && channel.len() <= 200, "{} bytes", channel.len());
}

#[tokio::test]
async fn a_rejected_origin_is_shown() {
    let server = start(json!({ "allowedOrigins": ["https://app.test"] })).await;
    let mut stream = Page::sign_in(&server, PASSWORD).await.expect("it opens").stream("groups=refusals").await;
    let path = "/socket.io/?EIO=4&transport=polling";
    assert_eq!(request(&server, Method::GET, path, &[("origin", "https://other.test")], None).await.status(), 403);
    let turned = stream.kind("turned").await;
    assert_eq!((&turned["cause"], &turned["origin"]), (&json!("origin"), &json!("https://other.test")));
    assert!(turned["hint"].as_str().is_some_and(|hint| hint.contains("allowedOrigins")), "{turned}");
}

#[tokio::test]
async fn filters_select_by_channel_user_and_kind() {
    let laravel = Laravel::start().await;
    let mut settings = acting();
    merge(&mut settings, json!({ "authHost": laravel.url }));
    let server = TestServer::start(settings).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let mut ann = server.client_of(7).await;
    ann.subscribe("presence-room").await;
    ann.event("presence:subscribed").await;
    let _bob = server.client_in("news").await;
    let mut of_channel = page.stream("channel=%3Dpresence-room&groups=delivered").await;
    let mut of_user = page.stream("who=7&groups=delivered").await;
    for channel in ["news", "presence-room-2", "presence-room"] {
        publish(&server, json!({ "channel": channel, "name": format!("to-{channel}"), "data": 1 })).await;
    }
    for stream in [&mut of_channel, &mut of_user] {
        assert_eq!(stream.kind("event").await["name"], "to-presence-room");
    }
}

#[tokio::test]
async fn kicking_and_closing_affect_only_the_named_targets() {
    let laravel = Laravel::start().await;
    let mut settings = acting();
    merge(&mut settings, json!({ "authHost": laravel.url }));
    let server = TestServer::start(settings).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let (mut ann, mut bob) = (server.client_of(1).await, server.client_of(2).await);
    for client in [&mut ann, &mut bob] {
        client.subscribe("presence-room").await;
        client.event("presence:subscribed").await;
    }
    let answer = page.act(json!({ "do": "kickUser", "user": "1", "channel": "presence-room" })).await;
    assert_eq!(answer.text().await.expect("text"), r#"{"sockets":1,"partial":false}"#);
    assert_eq!(ann.event("subscription_error").await, [json!("presence-room"), json!(403)]);
    bob.event("presence:leaving").await;
    let answer = page.act(json!({ "do": "askAgain", "channel": "presence-room" })).await;
    let answer: Value = serde_json::from_str(&answer.text().await.expect("text")).expect("JSON");
    assert_eq!((&answer["checked"], &answer["removed"]), (&json!(1), &json!(0)));
    page.act(json!({ "do": "kickSocket", "socket": bob.id, "channel": "presence-room" })).await;
    assert_eq!(bob.event("subscription_error").await, [json!("presence-room"), json!(403)]);
    page.act(json!({ "do": "closeSocket", "socket": bob.id })).await;
    while bob.next().await.is_some() {}
    assert_eq!(page.act(json!({ "do": "askAgain", "channel": "news" })).await.status(), 400);
    assert_eq!(page.act(json!({ "do": "burn" })).await.status(), 400);
}

#[tokio::test]
async fn why_an_event_did_not_arrive() {
    let server = start(json!({})).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let mut stream = page.stream("").await;
    let why = async |channel: &str, event: &str| page.get(&format!("/dashboard/api/why?channel={channel}&event={event}")).await.to_string();
    let text = why("news", "").await;
    assert!(text.contains("no client is subscribed") && text.contains("known only since a page of the dashboard is open"), "{text}");
    let ann = server.client_in("private").await;
    let _bob = server.client_in("orders").await;
    let text = why("Orders", "").await;
    assert!(text.contains("but some are in") && text.contains("case sensitive"), "{text}");
    publish(&server, json!({ "channel": "private", "name": "App\\Events\\Shipped", "data": 1, "socket_id": ann.id })).await;
    publish(&server, json!({ "channel": "orders", "name": "App\\Events\\Shipped", "data": 1 })).await;
    for _ in 0..2 {
        stream.kind("event").await;
    }
    let text = why("private", "Shipped").await;
    assert!(text.contains("toOthers()"), "{text}");
    let text = why("orders", "Shipped").await;
    assert!(text.contains("delivered to 1") && text.contains(".listen('Shipped', …)"), "{text}");
    let text = why("orders", "Cancelled").await;
    assert!(text.contains("none is called"), "{text}");
}

#[tokio::test]
async fn why_reports_events_outside_the_prefix() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(
        &redis,
        &laravel,
        json!({ "dashboard": { "enabled": true, "password": PASSWORD }, "databaseConfig": { "redis": { "keyPrefix": "app_" } } }),
    )
    .await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let why = async || page.get("/dashboard/api/why?channel=news").await.to_string();
    assert!(!why().await.contains("outside of"));
    until("the event outside of the prefix to be told", async || {
        redis.publish("laravel_database_news", "sent", &json!(1), None).await;
        let text = why().await;
        text.contains("laravel_database_news") && text.contains("outside of databaseConfig.redis.keyPrefix")
    })
    .await;
    // The event's channel is the one asked about, so its prefix is certainly wrong, and no other lead is shown.
    let text = page.get("/dashboard/api/why?channel=news").await;
    let first = text["findings"][0]["hint"].as_str().expect("a hint");
    assert_eq!(first, "set databaseConfig.redis.keyPrefix = \"laravel_database_\" and restart");
    assert!(!text.to_string().contains("queue worker"), "{text}");
}

async fn two_nodes(redis: &Redis, laravel: &Laravel) -> (TestServer, TestServer) {
    let mut settings = acting();
    merge(&mut settings, json!({ "database": "redis", "cluster": { "enabled": true } }));
    let here = TestServer::with(redis, laravel, settings.clone()).await;
    let there = TestServer::with(redis, laravel, settings).await;
    until("both nodes to listen", async || redis.publish_text("laravel-echo:nodes", "{}").await == 2).await;
    (here, there)
}

#[tokio::test]
async fn a_page_sees_what_happens_on_another_node() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let (here, there) = two_nodes(&redis, &laravel).await;
    let mut stream = Page::sign_in(&here, PASSWORD).await.expect("it opens").stream("channel=forbidden").await;
    let mut ann = there.client().await;
    // Repeats until the other node knows that a page is open.
    let refused = async {
        loop {
            ann.subscribe("private-forbidden").await;
            ann.event("subscription_error").await;
            let news = stream.message("node").await;
            let entries = news["entries"].as_array().expect("a list").clone();
            if let Some(refused) = entries.into_iter().find(|entry| entry["kind"] == "refused") {
                return (news, refused);
            }
        }
    };
    let (news, refused) = tokio::time::timeout(DEADLINE, refused).await.expect("it is told in time");
    assert_eq!((&refused["socket"], &refused["channel"]), (&json!(ann.id), &json!("private-forbidden")));
    assert!(
        news["node"].as_str().is_some_and(|node| !node.is_empty()) && news["name"].as_str().is_some_and(|name| name.contains(':')),
        "{news}"
    );
    until("the figures of the other node", async || {
        let news = stream.message("node").await;
        news["samples"].as_array().expect("a list").iter().any(|sample| sample["values"][0] == 1)
    })
    .await;
    let page = Page::sign_in(&there, PASSWORD).await.expect("it opens");
    assert_eq!(page.get("/dashboard/api/why?channel=a").await["watching"], true);
    drop(stream);
    let ended = until("the other node to look no more", async || page.get("/dashboard/api/why?channel=a").await["watching"] == false);
    // The other node is notified, and does not wait for the subscription to expire.
    tokio::time::timeout(Duration::from_secs(4), ended).await.expect("the other node stops at once");
}

#[tokio::test]
async fn opening_and_closing_pages_does_not_lock_out_other_nodes() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let (here, there) = two_nodes(&redis, &laravel).await;
    let (here, there) = (Page::sign_in(&here, PASSWORD).await.expect("it opens"), Page::sign_in(&there, PASSWORD).await.expect("it opens"));
    for n in 0..25 {
        here.stream(&format!("who={n}")).await.message("figures").await;
    }
    there.stream("").await.message("figures").await;
    let long = here.send(Method::GET, &format!("/dashboard/stream?channel={}", "x".repeat(3000)), None).await;
    assert_eq!(long.status(), 400);
}

#[tokio::test]
async fn the_checks_of_doctor_can_run_in_the_server() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let node = Node::start(json!({
        "authHost": laravel.url,
        "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port } },
        "dashboard": { "enabled": true, "password": PASSWORD },
    }))
    .await;
    let url = format!("http://{}", node.address);
    let client = reqwest::Client::new();
    let signing = client.post(format!("{url}/dashboard/session")).header("origin", &url).header("x-dashboard", "1");
    let signed = signing.body(json!({ "secret": PASSWORD }).to_string()).send().await.expect("it answers");
    let cookie = signed.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a cookie").to_owned();
    let checks = client.get(format!("{url}/dashboard/api/checks"));
    assert_eq!(checks.try_clone().expect("no body").send().await.expect("it answers").status(), 401);
    let answer = checks.header("cookie", cookie).send().await.expect("it answers").text().await.expect("text");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let of = |check: &str| answer["findings"].as_array().expect("a list").iter().find(|finding| finding["check"] == check).cloned();
    let redis = of("redis").expect("Redis is looked at");
    assert!(redis["status"] == "ok" && redis["message"].as_str().is_some_and(|text| text.ends_with("answers")), "{answer}");
    assert!(of("auth").is_some_and(|auth| auth["message"].as_str().is_some_and(|text| text.contains("/broadcasting/auth"))), "{answer}");
    assert!(of("events").is_some_and(|events| events["status"] == "unknown"), "{answer}");
}

#[tokio::test]
async fn resumed_sessions_and_gaps_are_shown() {
    let (mut redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, acting()).await;
    redis.heard("x").await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let mut stream = page.stream("").await;
    let mut ann = server.client_in("news").await;
    publish(&server, json!({ "channel": "news", "name": "sent", "data": 1 })).await;
    ann.event("sent").await;
    let (pid, offset) = (ann.pid.clone(), ann.offset.clone());
    ann.vanish();
    server.subscribed("news", 0).await;
    publish(&server, json!({ "channel": "news", "name": "sent", "data": 2 })).await;
    let ann = Client::come_back(server.address, &pid, offset.as_deref()).await;
    let returned = stream.kind("returned").await;
    assert_eq!((&returned["socket"], &returned["count"]), (&json!(ann.id), &json!(1)));
    assert!(stream.message("figures").await["log"]["events"].as_u64().is_some_and(|events| events > 0));
    let (pid, offset) = (ann.pid.clone(), ann.offset.clone());
    ann.vanish();
    server.subscribed("news", 0).await;
    redis.down();
    redis.up().await;
    redis.heard("x").await;
    stream.kind("gap").await;
    let _ann = Client::come_back(server.address, &pid, offset.as_deref()).await;
    let afresh = stream.kind("afresh").await;
    assert!(afresh["hint"].as_str().is_some_and(|hint| hint.contains("recovery.window")), "{afresh}");
}

#[tokio::test]
async fn a_sign_in_body_that_is_too_large_gets_its_own_error() {
    let server = start(json!({})).await;
    let origin = server.url("");
    let headers = [("origin", origin.as_str()), ("x-dashboard", "1")];
    let body = Some(json!({ "secret": "x".repeat(20_000) }));
    let answer = request(&server, Method::POST, "/dashboard/session", &headers, body).await;
    assert_eq!(answer.status(), 413);
    let text = answer.text().await.expect("text");
    assert!(text.contains("16384 bytes") && !text.contains("apiBody"), "{text}");
}

#[tokio::test]
async fn more_than_a_page_can_show_is_sampled_and_counted() {
    const EVENTS: u64 = 400;
    let server = start(json!({})).await;
    let mut stream = Page::sign_in(&server, PASSWORD).await.expect("it opens").stream("groups=delivered,unheard").await;
    let _ann = server.client_in("news").await;
    let batch: Vec<_> = (1..=100).map(|n| json!({ "channel": "news", "name": "sent", "data": n })).collect();
    for _ in 0..EVENTS / 100 {
        let body = Some(json!({ "batch": batch }));
        assert_eq!(request(&server, Method::POST, &format!("/apps/app/batch_events?auth_key={KEY}"), &[], body).await.status(), 200);
    }
    let (mut seen, mut shown) = (0, 0);
    while seen < EVENTS {
        let (event, data) = stream.next().await.expect("the stream goes on");
        if event == "trace" {
            seen += data["seen"].as_u64().expect("a number");
            shown += data["entries"].as_array().expect("a list").len() as u64;
        }
    }
    assert_eq!(seen, EVENTS);
    assert!(shown < EVENTS / 2, "{shown} of {EVENTS}");
}

#[tokio::test]
async fn a_page_that_does_not_read_delays_nothing() {
    let server = start(json!({})).await;
    let page = Page::sign_in(&server, PASSWORD).await.expect("it opens");
    let stream = page.stream("").await;
    let mut ann = server.client_in("news").await;
    let data = "x".repeat(2000);
    for part in 0..5 {
        let event = |n: usize| json!({ "channel": "news", "name": format!("sent-{}", part * 100 + n), "data": data });
        let body = Some(json!({ "batch": (0..100).map(event).collect::<Vec<_>>() }));
        assert_eq!(request(&server, Method::POST, &format!("/apps/app/batch_events?auth_key={KEY}"), &[], body).await.status(), 200);
    }
    ann.event("sent-499").await;
    drop(stream);
    // An open stream does not delay shutdown.
    let _other = page.stream("").await;
    server.stop().await;
}

#[tokio::test]
async fn figures_are_sent_every_second() {
    let server = start(json!({})).await;
    let mut stream = Page::sign_in(&server, PASSWORD).await.expect("it opens").stream("").await;
    let _ann = server.client().await;
    let waiting = async {
        loop {
            let figures = stream.message("figures").await;
            if figures["samples"].as_array().expect("a list").iter().any(|sample| sample["values"][0] == 1) {
                return figures;
            }
        }
    };
    let figures = tokio::time::timeout(DEADLINE, waiting).await.expect("they come in time");
    assert_eq!(figures["redis"], "off");
    until("the breakdown", async || {
        stream.message("figures").await["by"] == json!([{ "engine": "4", "transport": "websocket", "count": 1 }])
    })
    .await;
    tokio::time::timeout(Duration::from_secs(5), server.stop()).await.expect("the stream ends with the server");
}
