//! The API's information about channels, with and without Pusher's `info`.

use serde_json::json;

use super::{get, post};
use crate::support::{Client, Laravel, TestServer};

/// One public subscriber, and three sockets of two users in a presence channel.
async fn populated() -> (TestServer, Vec<Client>) {
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url })).await;
    let mut clients = Vec::new();
    for user in [1, 2, 2] {
        let mut client = server.client_of(user).await;
        client.subscribe("presence-room").await;
        client.event("presence:subscribed").await;
        clients.push(client);
    }
    clients[0].subscribe("news").await;
    server.subscribed("news", 1).await;
    (server, clients)
}

#[tokio::test]
async fn responses_about_channels_match_the_original() {
    let (server, _clients) = populated().await;
    let (news, room) = (json!({ "subscription_count": 1, "occupied": true }), json!({ "subscription_count": 3, "occupied": true }));
    assert_eq!(get(&server, "/apps/app/channels").await.json(), json!({ "channels": { "news": news, "presence-room": room } }));
    assert_eq!(
        get(&server, "/apps/app/channels?filter_by_prefix=presence-").await.json(),
        json!({ "channels": { "presence-room": room } })
    );
    assert_eq!(get(&server, "/apps/app/channels?filter_by_prefix=x").await.json(), json!({ "channels": {} }));
    assert_eq!(get(&server, "/apps/app/channels/news").await.json(), news);
    let nobody = json!({ "subscription_count": 0, "occupied": false });
    assert_eq!(get(&server, "/apps/app/channels/with%20space%2F%C3%A9").await.json(), nobody);
    let users = json!({ "users": [{ "id": 1, "user_info": { "id": 1 } }, { "id": 2, "user_info": { "id": 2 } }] });
    assert_eq!(get(&server, "/apps/app/channels/presence-room/users").await.json(), users);
    let refused = get(&server, "/apps/app/channels/news/users").await;
    assert_eq!((refused.status, refused.error().as_str()), (400, "User list is only possible for Presence Channels"));
}

#[tokio::test]
async fn a_trailing_slash_changes_nothing() {
    let (server, _clients) = populated().await;
    for path in ["/apps/app/channels", "/apps/app/channels/news", "/apps/app/channels/presence-room/users"] {
        let (plain, slashed) = (get(&server, path).await, get(&server, &format!("{path}/")).await);
        assert_eq!((plain.status, slashed.status, plain.text), (200, 200, slashed.text), "{path}");
    }
}

#[tokio::test]
async fn info_counts_users() {
    let (server, _clients) = populated().await;
    let room = json!({ "subscription_count": 3, "occupied": true, "user_count": 2 });
    let list = get(&server, "/apps/app/channels?info=user_count").await.json();
    assert_eq!(list["channels"], json!({ "news": { "subscription_count": 1, "occupied": true }, "presence-room": room }));
    assert_eq!(get(&server, "/apps/app/channels/presence-room").await.json(), room);
    assert_eq!(get(&server, "/apps/app/channels/presence-room?info=user_count,subscription_count,cache").await.json(), room);
}

#[tokio::test]
async fn responses_to_events_have_requested_channel_attributes() {
    let (server, _clients) = populated().await;
    let event = json!({ "channels": ["presence-room", "news"], "name": "sent", "data": "{}", "info": "user_count,subscription_count" });
    let told = json!({ "presence-room": { "subscription_count": 3, "user_count": 2 }, "news": { "subscription_count": 1 } });
    assert_eq!(post(&server, "/apps/app/events", event).await.json(), json!({ "message": "ok", "channels": told }));
    let batch = json!({ "batch": [
        { "channel": "presence-room", "name": "sent", "data": "{}", "info": "user_count" },
        { "channel": "news", "name": "sent", "data": "{}" },
        { "channel": "news", "name": "sent", "data": "{}", "info": "subscription_count" },
    ] });
    let answer = post(&server, "/apps/app/batch_events", batch).await.json();
    assert_eq!(answer, json!({ "batch": [{ "user_count": 2 }, {}, { "subscription_count": 1 }] }));
}

#[tokio::test]
async fn status_counts_connections() {
    let (server, _clients) = populated().await;
    let status = get(&server, "/apps/app/status").await.json();
    assert_eq!(status["subscription_count"], 3);
    assert!(status["uptime"].as_f64().unwrap() > 0.0);
    let memory = |key: &str| status["memory_usage"][key].as_u64().unwrap();
    assert!(memory("heapUsed") > 1_000_000 && memory("heapUsed") < memory("heapTotal"), "{status}");
    assert_eq!(memory("heapTotal"), memory("rss"));
    server.reload.reload(&server.changed(json!({}))).expect("the same settings");
    let later = get(&server, "/apps/app/status").await.json();
    assert!(later["uptime"].as_f64() > status["uptime"].as_f64(), "{later}");
}
