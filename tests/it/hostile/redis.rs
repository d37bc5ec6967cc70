//! A Redis that hangs, and one that other programs write to.

use serde_json::json;

use crate::support::{Laravel, Redis, TestServer, metrics, until};

#[tokio::test]
async fn a_redis_that_hangs_is_not_ready() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    let ready = async || reqwest::get(server.url("/ready")).await.expect("an answer").status().as_u16();
    until("ready", async || ready().await == 200).await;
    redis.pause();
    until("not ready", async || ready().await == 503).await;
    redis.resume();
    until("ready again", async || ready().await == 200).await;
}

/// It answers even PING with MISCONF.
#[tokio::test]
async fn a_redis_that_cannot_save_still_delivers_events() {
    let (mut redis, laravel) = (Redis::not_yet(), Laravel::start().await);
    redis.up_with(&["--dir", "/proc", "--save", "900", "1"]).await;
    let server = TestServer::with(&redis, &laravel, json!({})).await;
    redis.run(&["BGSAVE"]).await;
    let refused_pings = async || {
        let stats = redis.run(&["INFO", "commandstats"]).await;
        let ping = stats.lines().find(|line| line.starts_with("cmdstat_ping:"));
        ping.and_then(|line| line.split_once("rejected_calls=")?.1.split(',').next()?.parse::<u32>().ok()).unwrap_or(0)
    };
    until("some refused PINGs", async || refused_pings().await >= 3).await;
    let metrics = metrics(server.address).await;
    assert!(metrics.contains("\nlaravel_echo_redis_losses_total 0\n"), "{metrics}");
}

#[tokio::test]
async fn a_foreign_entry_in_the_member_list_does_not_prevent_joins() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "database": "redis" })).await;
    let mut first = server.client_of(1).await;
    first.subscribe("presence-room").await;
    first.event("presence:subscribed").await;
    let key = redis.keys("*presence-room*").await.into_iter().find(|key| key.ends_with(":sockets")).expect("the members");
    for (field, value) in [("foreign", "text"), ("1.2", "neither"), ("999.999", "{}")] {
        redis.set_field(&key, field, value).await;
    }
    let mut second = server.client_of(2).await;
    second.subscribe("presence-room").await;
    assert_eq!(second.event("presence:subscribed").await[1].as_array().expect("a list").len(), 2);
    assert_eq!(first.event("presence:joining").await[1]["user_id"], 2);
}

#[tokio::test]
async fn foreign_data_in_the_place_of_members_does_not_prevent_joins() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "database": "redis" })).await;
    let set = "return redis.call(unpack(ARGV), KEYS[1], 'x')";
    for (channel, part, field) in [
        ("presence-a", "sockets", None),
        ("presence-b", "users", None),
        ("presence-c", "sockets", Some("version")),
        ("presence-d", "users", Some("1")),
    ] {
        let key = format!("laravel-echo:{{{channel}}}:{part}");
        match field {
            Some(field) => redis.set_field(&key, field, "text").await,
            None => redis.eval::<()>(set, &[&key], &["SET"]).await,
        }
        let mut first = server.client_of(1).await;
        first.subscribe(channel).await;
        assert_eq!(first.event("presence:subscribed").await[1].as_array().expect("a list").len(), 1, "{channel} {part}");
        let mut second = server.client_of(2).await;
        second.subscribe(channel).await;
        assert_eq!(first.event("presence:joining").await[1]["user_id"], 2, "{channel} {part}");
        drop(second);
        assert_eq!(first.event("presence:leaving").await[1]["user_id"], 2, "{channel} {part}");
        drop(first);
        until("nothing of ours is left", async || {
            let ours = |key: &String| key.contains(channel) && key.starts_with("laravel-echo:") && !key.ends_with(":foreign");
            !redis.keys(&format!("*{channel}*")).await.iter().any(ours)
        })
        .await;
    }
}

#[tokio::test]
async fn members_leave_a_list_that_others_have_overwritten() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "database": "redis" })).await;
    let (mut first, mut second) = (server.client_of(1).await, server.client_of(2).await);
    first.subscribe("presence-room").await;
    first.event("presence:subscribed").await;
    second.subscribe("presence-room").await;
    first.event("presence:joining").await;
    redis.set_field("laravel-echo:{presence-room}:users", "2", "text").await;
    drop(second);
    assert_eq!(first.event("presence:leaving").await[1]["user_id"], 2);
}
