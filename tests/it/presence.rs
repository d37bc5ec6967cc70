//! Presence seen from outside, where time, Redis or the store matter.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Laravel, Redis, TestServer, until};

const ROOM: &str = "presence-room";

#[tokio::test]
async fn a_page_reload_is_not_announced() {
    let laravel = Laravel::start().await;
    let server = TestServer::start(json!({ "authHost": laravel.url, "presence": { "leaveGrace": "2s" } })).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe(ROOM).await;
    alice.event("presence:subscribed").await;
    let mut page = server.client_of(2).await;
    page.subscribe(ROOM).await;
    alice.event("presence:joining").await;

    drop(page);
    server.subscribed(ROOM, 1).await;
    let mut reloaded = server.client_of(2).await;
    reloaded.subscribe(ROOM).await;
    reloaded.event("presence:subscribed").await;
    // An explicit unsubscribe takes effect at once.
    let mut carol = server.client_of(3).await;
    carol.subscribe(ROOM).await;
    assert_eq!(alice.event("presence:joining").await[1]["user_id"], 3);
    carol.unsubscribe(ROOM).await;
    assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 3);
    assert!(alice.left_over().is_empty(), "a reload was announced: {:?}", alice.left_over());

    let started = Instant::now();
    drop(reloaded);
    assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 2);
    assert!(started.elapsed() >= Duration::from_millis(1900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn shutdown_does_not_wait_for_the_grace_period() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "database": "redis", "presence": { "leaveGrace": "1h" } })).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe(ROOM).await;
    alice.event("presence:subscribed").await;
    drop(alice);
    server.subscribed(ROOM, 0).await;
    server.stop().await;
    assert_eq!(redis.keys("*").await, ["presence-room:members"]);
    assert_eq!(redis.get("presence-room:members").await.as_deref(), Some("[]"));
}

#[tokio::test]
async fn joins_succeed_while_redis_is_unreachable() {
    let (mut redis, laravel) = (Redis::not_yet(), Laravel::start().await);
    let server = TestServer::with(&redis, &laravel, json!({ "database": "redis" })).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe(ROOM).await;
    assert_eq!(alice.event("presence:subscribed").await[1].as_array().unwrap().len(), 1);
    let mut carol = server.client_of(3).await;
    carol.subscribe(ROOM).await;
    assert_eq!(carol.event("presence:subscribed").await[1].as_array().unwrap().len(), 2, "members on this node are known");
    assert_eq!(alice.event("presence:joining").await[1]["user_id"], 3);
    redis.up().await;
    until("the members", async || redis.get("presence-room:members").await.is_some_and(|list| list.contains(&carol.id))).await;
    drop(carol);
    assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 3);
    // After Redis was restarted empty, the list is restored without any client's help.
    redis.down();
    redis.up().await;
    until("the member", async || redis.get("presence-room:members").await.is_some_and(|list| list.contains(&alice.id))).await;
    let mut bob = server.client_of(2).await;
    bob.subscribe(ROOM).await;
    assert_eq!(bob.event("presence:subscribed").await[1].as_array().unwrap().len(), 2);
    assert!(alice.left_over().is_empty(), "{:?}", alice.left_over());
}

#[tokio::test]
async fn a_redis_that_goes_back_to_older_data_makes_nobody_leave_on_a_single_node() {
    const SAVE: &str =
        "for _, key in ipairs(redis.call('KEYS', 'laravel-echo:*')) do redis.call('SET', 'old:' .. key, redis.call('DUMP', key)) end";
    const GO_BACK: &str = "for _, key in ipairs(redis.call('KEYS', 'old:*')) do \
        redis.call('RESTORE', string.sub(key, 5), 0, redis.call('GET', key), 'REPLACE') end";
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let extra = json!({ "database": "redis", "databaseConfig": { "membersMirror": false }, "presence": { "lease": "1h" } });
    let server = TestServer::with(&redis, &laravel, extra).await;
    let join = async |user| {
        let mut client = server.client_of(user).await;
        client.subscribe(ROOM).await;
        let here = client.event("presence:subscribed").await[1].as_array().expect("a list").len();
        (client, here)
    };
    let (mut alice, _) = join(1).await;
    redis.eval::<()>(SAVE, &[], &[]).await;
    let (_bob, _) = join(2).await;
    redis.eval::<()>(GO_BACK, &[], &[]).await;
    for user in [3, 4] {
        let (mut client, here) = join(user).await;
        assert_eq!(here, 3);
        client.unsubscribe(ROOM).await;
        assert_eq!(alice.event("presence:leaving").await[1]["user_id"], user);
    }
    assert!(!alice.left_over().contains(&"presence:leaving"), "{:?}", alice.left_over());
}

#[tokio::test]
async fn what_redis_loses_is_no_news_on_a_single_node() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let extra = json!({ "database": "redis", "databaseConfig": { "membersMirror": false }, "presence": { "lease": "1h" } });
    let server = TestServer::with(&redis, &laravel, extra).await;
    let mut clients = Vec::new();
    for user in 1..=3 {
        let mut client = server.client_of(user).await;
        client.subscribe(ROOM).await;
        client.event("presence:subscribed").await;
        clients.push(client);
    }
    let [alice, bob, carol] = clients.as_mut_slice() else { panic!("three") };
    for part in ["sockets", "users"] {
        redis.delete(&format!("laravel-echo:{{{ROOM}}}:{part}")).await;
        let mut tab = server.client_of(2).await;
        tab.subscribe(ROOM).await;
        let here = tab.event("presence:subscribed").await;
        let mut users: Vec<_> = here[1].as_array().expect("a list").iter().map(|member| member["user_id"].to_string()).collect();
        users.sort_unstable();
        assert_eq!(users, ["1", "2", "3"], "{part}");
    }
    bob.unsubscribe(ROOM).await;
    carol.unsubscribe(ROOM).await;
    assert_eq!(alice.event("presence:joining").await[1]["user_id"], 2);
    assert_eq!(alice.event("presence:joining").await[1]["user_id"], 3);
    let mut gone = [0; 2];
    for user in &mut gone {
        *user = alice.event("presence:leaving").await[1]["user_id"].as_u64().expect("an id");
    }
    gone.sort_unstable();
    assert_eq!(gone, [2, 3]);
    assert!(alice.left_over().is_empty(), "{:?}", alice.left_over());
}

#[tokio::test]
async fn members_of_a_crashed_process_leave_when_their_lease_expires() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    // A lease that is not renewed, as a killed process leaves it behind.
    let config = json!({
        "database": "redis",
        "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port } },
        "presence": { "lease": "2s" },
    });
    let ghost = laravel_echo_server::store::open(&serde_json::from_value(config).unwrap()).await.unwrap();
    let member = laravel_echo_server::store::Member::parse(r#"{"user_id":9}"#).unwrap();
    let socket = laravel_echo_server::event::SocketId::new(1, 2);
    ghost.join(&ROOM.into(), socket, member, true).await.unwrap();

    let server = TestServer::with(&redis, &laravel, json!({ "database": "redis", "presence": { "lease": "2s" } })).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe(ROOM).await;
    assert_eq!(alice.event("presence:subscribed").await[1].as_array().unwrap().len(), 2);
    assert_eq!(alice.event("presence:leaving").await, [json!(ROOM), json!({ "user_id": 9 })]);
}
