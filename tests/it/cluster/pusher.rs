//! Pusher clients on several nodes.

use serde_json::{Value, json};

use super::{nodes_with, post};
use crate::pusher::{Pusher, SECRET};
use crate::support::server::KEY;
use crate::support::{Laravel, Redis, TestServer, merge};

fn settings(mode: &str) -> Value {
    json!({
        "clients": [{ "appId": "app", "key": KEY, "secret": SECRET }],
        "subscribers": { "redisMode": mode },
        "pusher": { "subscriptionCount": true },
    })
}

#[tokio::test]
async fn a_user_signed_in_on_one_node_is_reached_and_terminated_from_another() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes_with(settings("exact"), &redis, &laravel).await;
    let mut client = Pusher::connect(&one).await;
    assert_eq!(client.sign_in(r#"{"id":"7"}"#).await["event"], "pusher:signin_success");
    client.say(json!({ "event": "pusher:subscribe", "data": { "channel": "#server-to-user-7", "auth": "" } })).await;
    assert_eq!(client.hear().await["event"], "pusher_internal:subscription_succeeded");
    let event = json!({ "channel": "#server-to-user-7", "name": "sent", "data": "{}" });
    assert_eq!(post(&other, "/apps/app/events", &event).await.0, 200);
    // The channel's count may arrive first.
    while client.hear().await["event"] != "sent" {}
    assert_eq!(post(&other, "/apps/app/users/7/terminate_connections", &json!({})).await, (200, json!({})));
    loop {
        let message = client.hear().await;
        if message["event"] == "pusher:error" {
            assert_eq!(message["data"]["code"], 4009);
            break;
        }
    }
    assert_eq!(client.close_code().await, 4009);
}

async fn cache_channels_give_the_event_that_any_node_has_heard(mode: &str) {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes_with(settings(mode), &redis, &laravel).await;
    let event = json!({ "channel": "cache-news", "name": "sent", "data": "{\"n\":1}" });
    assert_eq!(post(&one, "/apps/app/events", &event).await.0, 200);
    let mut first = Pusher::connect(&other).await;
    first.say(json!({ "event": "pusher:subscribe", "data": { "channel": "cache-news" } })).await;
    assert_eq!(first.hear().await["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(first.hear().await["data"], "{\"n\":1}", "received with no client in it");

    let mut all = super::settings();
    merge(&mut all, settings(mode));
    let late = TestServer::with(&redis, &laravel, all).await;
    let mut second = Pusher::connect(&late).await;
    second.say(json!({ "event": "pusher:subscribe", "data": { "channel": "cache-news" } })).await;
    assert_eq!(second.hear().await["event"], "pusher_internal:subscription_succeeded");
    loop {
        let message = second.hear().await;
        if message["event"] != "pusher_internal:subscription_count" {
            assert_eq!(message["data"], "{\"n\":1}", "another node knows it: {message}");
            break;
        }
    }
    let url = late.url(&format!("/apps/app/channels/cache-news?info=cache&auth_key={KEY}"));
    let answer = reqwest::get(url).await.expect("the API answers").bytes().await.expect("the API answers");
    let answer: Value = serde_json::from_slice(&answer).expect("the API answers JSON");
    assert_eq!(answer["cache"]["data"], "{\"n\":1}", "{answer}");
    second.say(json!({ "event": "pusher:subscribe", "data": { "channel": "cache-empty" } })).await;
    while second.hear().await != json!({ "event": "pusher:cache_miss", "channel": "cache-empty" }) {}
}

#[tokio::test]
async fn cache_channels_by_pattern() {
    cache_channels_give_the_event_that_any_node_has_heard("pattern").await;
}

#[tokio::test]
async fn cache_channels_exactly() {
    cache_channels_give_the_event_that_any_node_has_heard("exact").await;
}

#[tokio::test]
async fn counts_include_all_nodes() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes_with(settings("exact"), &redis, &laravel).await;
    let (mut first, mut second) = (Pusher::connect(&one).await, Pusher::connect(&other).await);
    let count = |n: u64| json!({ "event": "pusher_internal:subscription_count", "channel": "news", "data": format!("{{\"subscription_count\":{n}}}") });
    first.subscribe("news", None).await;
    assert_eq!(first.hear().await, count(1));
    second.subscribe("news", None).await;
    assert_eq!(second.hear().await, count(2));
    assert_eq!(first.hear().await, count(2));
    second.say(json!({ "event": "pusher:unsubscribe", "data": { "channel": "news" } })).await;
    assert_eq!(first.hear().await, count(1));
}

#[tokio::test]
async fn watchlist_users_are_tracked_on_all_nodes() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let [one, other] = nodes_with(settings("exact"), &redis, &laravel).await;
    let (mut ann, mut bob) = (Pusher::connect(&one).await, Pusher::connect(&other).await);
    let news = |name: &str, user: &str| {
        let data = format!("{{\"events\":[{{\"name\":\"{name}\",\"user_ids\":[\"{user}\"]}}]}}");
        json!({ "event": "pusher_internal:watchlist_events", "data": data })
    };
    ann.sign_in(r#"{"id":"1","watchlist":["2"]}"#).await;
    assert_eq!(ann.hear().await, news("offline", "2"));
    bob.sign_in(r#"{"id":"2","watchlist":["1"]}"#).await;
    assert_eq!(ann.hear().await, news("online", "2"));
    assert_eq!(bob.hear().await, news("online", "1"));
    assert_eq!(post(&one, "/apps/app/users/2/terminate_connections", &json!({})).await.0, 200);
    assert_eq!(ann.hear().await, news("offline", "2"));
}
