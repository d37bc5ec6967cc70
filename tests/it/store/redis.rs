//! The Redis store when Redis or a node misbehaves.

use std::time::{Duration, Instant};

use laravel_echo_server::channel::ChannelName;
use laravel_echo_server::store::Left;
use serde_json::{Value, json};

use super::{Store, open, socket, user};
use crate::support::{Redis, until};

/// A node on this Redis, with a short lease.
pub(super) async fn node(redis: &Redis, extra: Value) -> Store {
    let mut settings = json!({
        "database": "redis",
        "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port, "keyPrefix": "app_" } },
        "presence": { "lease": "1s" },
    });
    crate::support::merge(&mut settings, extra);
    let store = open(settings).await;
    settle(&store).await;
    store
}

/// Runs the store's maintenance as the hub does. Returns the users who left by it.
async fn settle(store: &Store) -> Vec<(String, String)> {
    let mut gone = Vec::new();
    let Ok(beat) = store.heartbeat().await else { return gone };
    for channel in beat.unreconciled {
        let Ok(members) = store.reconcile(&channel).await else { continue };
        gone.extend(members.into_iter().map(|member| (channel.to_string(), member.user().to_owned())));
    }
    gone
}

/// Renews a node's lease as the hub does.
fn keep(store: &Store) -> tokio::task::JoinHandle<()> {
    let store = std::sync::Arc::clone(store);
    tokio::spawn(async move {
        loop {
            store.next_maintenance().await;
            settle(&store).await;
        }
    })
}

fn channel() -> ChannelName {
    "presence-room".into()
}

/// The keys of that channel.
const SOCKETS: &str = "app_laravel-echo:{presence-room}:sockets";
const USERS: &str = "app_laravel-echo:{presence-room}:users";

async fn until_written(store: &Store, count: usize) {
    until("all members", async || store.members(&channel()).await.is_ok_and(|members| members.len() == count)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_lease_is_no_loss() {
    let redis = Redis::start().await;
    let settings = json!({ "database": "redis", "databaseConfig": { "redis": { "port": redis.port } } });
    let (joins_first, beats_first) = (open(settings.clone()).await, open(settings).await);
    joins_first.join(&channel(), socket(1), user(1), true).await.unwrap();
    assert!(!joins_first.heartbeat().await.unwrap().has_lost);
    assert!(!beats_first.heartbeat().await.unwrap().has_lost);
    redis.flush().await;
    assert!(beats_first.heartbeat().await.unwrap().has_lost, "the next one is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leave_after_redis_lost_its_data_takes_effect() {
    let redis = Redis::start().await;
    let store = node(&redis, json!({ "presence": { "lease": "1h" } })).await;
    for (n, name) in [(1, 1), (2, 1), (3, 2)] {
        assert!(!store.join(&channel(), socket(n), user(name), true).await.unwrap().has_lost);
    }
    redis.flush().await;
    assert_eq!(store.leave(&channel(), socket(1)).await.unwrap(), Left::Remains, "with another socket");
    assert_eq!(store.leave(&channel(), socket(2)).await.unwrap(), Left::Gone(user(1)));
    assert!(store.join(&channel(), socket(4), user(3), true).await.unwrap().has_lost, "user 2 is missing");
    // Repairs start at once, not at the next lease renewal.
    tokio::time::timeout(crate::support::DEADLINE, store.next_maintenance()).await.expect("the store is due at once");
    assert!(store.heartbeat().await.unwrap().has_lost, "the lease is gone, too");
    settle(&store).await;
    assert!(!store.join(&channel(), socket(5), user(4), true).await.unwrap().has_lost);
    let users: Vec<_> = store.members(&channel()).await.unwrap().into_iter().map(|(_, member)| member.user().to_owned()).collect();
    assert_eq!(users, ["3", "2", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_members() {
    let redis = Redis::start().await;
    let (one, other) = (node(&redis, json!({})).await, node(&redis, json!({})).await);
    assert!(one.join(&channel(), socket(1), user(1), true).await.unwrap().is_first);
    let joined = other.join(&channel(), socket(2), user(1), true).await.unwrap();
    assert!(!joined.is_first);
    assert_eq!(joined.members.unwrap(), [(socket(1), user(1)), (socket(2), user(1))]);
    assert_eq!(one.leave(&channel(), socket(1)).await.unwrap(), Left::Remains);
    assert_eq!(other.leave(&channel(), socket(2)).await.unwrap(), Left::Gone(user(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_reads_the_members_only_if_they_are_wanted_and_others_are_there() {
    let redis = Redis::start().await;
    let no_copies = json!({ "cluster": { "enabled": true }, "databaseConfig": { "membersMirror": false } });
    let (one, other) = (node(&redis, no_copies.clone()).await, node(&redis, no_copies).await);
    for n in 1..20 {
        let joined = one.join(&channel(), socket(n), user(n), true).await.unwrap();
        let members: Vec<_> = (1..=n).map(|n| (socket(n), user(n))).collect();
        assert_eq!(joined.members.unwrap(), members);
    }
    let joined = other.join(&channel(), socket(20), user(20), false).await.unwrap();
    assert!(joined.is_first && joined.members.is_none());
    assert_eq!(redis.calls("hgetall").await, 0);
    let listed = other.join(&channel(), socket(21), user(1), true).await.unwrap();
    assert!(!listed.is_first && listed.version > joined.version);
    assert_eq!(listed.members.unwrap().len(), 21);
    assert_eq!(redis.calls("hgetall").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_dead_node_leave_once() {
    let redis = Redis::start().await;
    let dead = node(&redis, json!({})).await;
    let lasting = json!({ "presence": { "lease": "30s" } });
    let survivors = [node(&redis, lasting.clone()).await, node(&redis, lasting).await];
    for n in 0..50 {
        dead.join(&channel(), socket(n), user(n), true).await.unwrap();
    }
    survivors[0].join(&channel(), socket(100), user(7), true).await.unwrap();
    drop(dead);
    let mut gone = Vec::new();
    until("the lease to run out", async || {
        let [one, other] = &survivors;
        let (first, second) = tokio::join!(settle(one), settle(other));
        gone.extend(first);
        gone.extend(second);
        survivors[0].members(&channel()).await.unwrap().len() == 1
    })
    .await;
    gone.sort();
    let before = gone.len();
    gone.dedup();
    assert_eq!((before, gone.len()), (49, 49), "each user goes once, and user 7 stays");
    assert_eq!(survivors[1].members(&channel()).await.unwrap(), [(socket(100), user(7))]);
    until("nothing of the dead node to be left", async || {
        settle(&survivors[0]).await;
        redis.keys("app_laravel-echo:node*").await.len() == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_wrongly_thought_dead_restores_its_members() {
    let redis = Redis::start().await;
    let (stopped, survivor) = (node(&redis, json!({})).await, node(&redis, json!({})).await);
    let keeping = keep(&survivor);
    for n in 0..3 {
        stopped.join(&channel(), socket(n), user(n), true).await.unwrap();
    }
    until("the members to be removed", async || survivor.members(&channel()).await.unwrap().is_empty()).await;
    // It resumes, and a member leaves and another joins before its lease is renewed.
    assert_eq!(stopped.leave(&channel(), socket(1)).await.unwrap(), Left::Gone(user(1)), "as far as this node knows");
    stopped.join(&channel(), socket(5), user(5), true).await.unwrap();
    settle(&stopped).await;
    let keeping_too = keep(&stopped);
    let sockets = async || survivor.members(&channel()).await.unwrap().into_iter().map(|(socket, _)| socket).collect::<Vec<_>>();
    let mut back = sockets().await;
    back.sort_unstable();
    assert_eq!(back, [socket(0), socket(2), socket(5)]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(sockets().await.len(), 3, "they live under a lease that is kept");
    keeping.abort();
    keeping_too.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn data_lost_by_redis_is_restored_in_order() {
    let mut redis = Redis::start().await;
    let store = node(&redis, json!({ "presence": { "lease": "600ms" } })).await;
    for n in 0..5 {
        store.join(&channel(), socket(n), user(n), true).await.unwrap();
    }
    store.join(&channel(), socket(0), user(0), true).await.unwrap();
    let before = store.members(&channel()).await.unwrap();
    let keeping = keep(&store);
    redis.flush().await;
    until("members after a flush", async || store.members(&channel()).await.unwrap() == before).await;
    redis.down();
    redis.up().await;
    until("members after a restart", async || store.members(&channel()).await.is_ok_and(|members| members == before)).await;
    keeping.abort();
    assert_eq!(store.leave(&channel(), socket(3)).await.unwrap(), Left::Gone(user(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nothing_hangs_and_nothing_is_lost() {
    let mut redis = Redis::not_yet();
    // Starting does not need Redis.
    let store = node(&redis, json!({})).await;
    let started = Instant::now();
    let joined = store.join(&channel(), socket(1), user(1), true).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(joined.is_first && joined.version == 0);
    assert_eq!(joined.members.unwrap(), [(socket(1), user(1))], "what this node knows");
    store.leave(&channel(), socket(1)).await.unwrap_err();
    store.join(&channel(), socket(2), user(2), true).await.unwrap();
    let joined = store.join(&channel(), socket(4), user(2), true).await.unwrap();
    assert!(!joined.is_first);
    store.leave(&channel(), socket(4)).await.unwrap_err();
    redis.up().await;
    let keeping = keep(&store);
    until("the member to be written", async || store.members(&channel()).await.is_ok_and(|members| members == [(socket(2), user(2))]))
        .await;
    store.join(&channel(), socket(3), user(3), true).await.unwrap();
    redis.down();
    store.leave(&channel(), socket(2)).await.unwrap_err();
    redis.up().await;
    until("the one to be back, the other not", async || {
        store.members(&channel()).await.is_ok_and(|members| members == [(socket(3), user(3))])
    })
    .await;
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_wait_for_a_short_outage_to_end() {
    let mut redis = Redis::start().await;
    let store = node(&redis, json!({})).await;
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    redis.down();
    let joining = tokio::spawn({
        let store = std::sync::Arc::clone(&store);
        async move { store.join(&channel(), socket(2), user(2), true).await }
    });
    redis.up().await;
    assert!(joining.await.unwrap().unwrap().is_first);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_hangs_no_join_waits_long() {
    let redis = Redis::start().await;
    let store = node(&redis, json!({})).await;
    redis.pause();
    let joins: Vec<_> = (0..20)
        .map(|n| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move { store.join(&channel(), socket(n), user(n), true).await })
        })
        .collect();
    let started = Instant::now();
    for join in joins {
        assert_eq!(join.await.unwrap().unwrap().version, 0);
    }
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    redis.resume();
    let keeping = keep(&store);
    until_written(&store, 20).await;
    keeping.abort();
}

/// After a failover the address may lead to a replica, which accepts connections and refuses every write.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_replica_is_asked_now_and_then_until_it_is_the_master() {
    let redis = Redis::start().await;
    let store = node(&redis, json!({})).await;
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    redis.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let keeping = keep(&store);
    let started = Instant::now();
    let joined = store.join(&channel(), socket(2), user(2), true).await.unwrap();
    assert_eq!((joined.version, joined.members.map(|members| members.len())), (0, Some(2)), "what this node knows");
    // Each new connection asks for the role first, by INFO, as `calls` does.
    let mut own = 0;
    until("some attempts", async || {
        own += 1;
        redis.calls("info").await >= own + 4
    })
    .await;
    let (attempts, quarters) = (redis.calls("eval").await + redis.calls("evalsha").await, started.elapsed().as_millis() / 250);
    assert!(u128::from(attempts) < 20 + 2 * quarters, "{attempts} scripts in {:?}", started.elapsed());
    redis.run(&["REPLICAOF", "NO", "ONE"]).await;
    until_written(&store, 2).await;
    keeping.abort();
}

/// It is as good as away: presence channels work with what the node knows.
#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_full_members_are_kept_here() {
    let redis = Redis::start().await;
    let store = node(&redis, json!({})).await;
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let joined = store.join(&channel(), socket(2), user(2), true).await.unwrap();
    assert_eq!((joined.is_first, joined.version, joined.members.map(|members| members.len())), (true, 0, Some(2)));
    let keeping = keep(&store);
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    until_written(&store, 2).await;
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_loses_of_a_quiet_channel_is_written_again() {
    let redis = Redis::start().await;
    let store = node(&redis, json!({ "presence": { "lease": "1h" } })).await;
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    assert_eq!(settle(&store).await, []);
    redis.run(&["DEL", SOCKETS, USERS]).await;
    let beat = store.heartbeat().await.unwrap();
    assert_eq!((beat.unreconciled, beat.has_lost), (vec![channel()], true), "other nodes' members may be gone, too");
    settle(&store).await;
    assert_eq!(store.members(&channel()).await.unwrap(), [(socket(1), user(1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_half_lost_channel_nothing_counts() {
    let redis = Redis::start().await;
    let lasting = json!({ "presence": { "lease": "1h" } });
    let (one, other) = (node(&redis, lasting.clone()).await, node(&redis, lasting).await);
    other.join(&channel(), socket(3), user(2), true).await.unwrap();
    for part in [USERS, SOCKETS] {
        one.join(&channel(), socket(1), user(1), true).await.unwrap();
        one.join(&channel(), socket(2), user(1), true).await.unwrap();
        // As a Redis does that makes room for other data.
        redis.delete(part).await;
        assert_eq!(one.leave(&channel(), socket(1)).await.unwrap(), Left::Remains, "{part}");
        settle(&one).await;
        settle(&other).await;
        assert_eq!(one.members(&channel()).await.unwrap().len(), 2, "{part}");
        assert_eq!(one.leave(&channel(), socket(2)).await.unwrap(), Left::Gone(user(1)), "{part}");
        assert_eq!(one.members(&channel()).await.unwrap(), [(socket(3), user(2))], "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_goes_back_to_older_data_brings_nobody_back() {
    const SAVE: &str =
        "for _, key in ipairs(redis.call('KEYS', 'app_laravel-echo:*')) do redis.call('SET', 'old:' .. key, redis.call('DUMP', key)) end";
    const GO_BACK: &str = "for _, key in ipairs(redis.call('KEYS', 'old:*')) do \
        redis.call('RESTORE', string.sub(key, 5), 0, redis.call('GET', key), 'REPLACE') end";
    let redis = Redis::start().await;
    let store = node(&redis, json!({ "presence": { "lease": "1h" } })).await;
    let other = ChannelName::from("presence-other");
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    store.join(&channel(), socket(2), user(2), true).await.unwrap();
    store.join(&other, socket(2), user(2), true).await.unwrap();
    redis.eval::<()>(SAVE, &[], &[]).await;
    store.leave(&other, socket(2)).await.unwrap();
    store.leave(&channel(), socket(2)).await.unwrap();
    let mut newest = 0;
    for n in 3..100 {
        newest = store.join(&channel(), socket(n), user(n), false).await.unwrap().version;
        store.leave(&channel(), socket(n)).await.unwrap();
    }
    settle(&store).await;
    redis.eval::<()>(GO_BACK, &[], &[]).await;
    redis.run(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    until("a connection", async || store.members(&channel()).await.is_ok()).await;
    settle(&store).await;
    assert_eq!(store.members(&channel()).await.unwrap(), [(socket(1), user(1))]);
    assert_eq!(store.members(&other).await.unwrap(), []);
    assert!(store.join(&channel(), socket(3), user(3), false).await.unwrap().version > newest, "others would take it for old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_cut_off_takes_no_socket_back_that_another_has_taken_over() {
    let redis = Redis::start().await;
    let lasting = json!({ "presence": { "lease": "1h" } });
    let (one, other) = (node(&redis, lasting.clone()).await, node(&redis, lasting).await);
    one.join(&channel(), socket(1), user(1), true).await.unwrap();
    // It has come back there; the first node has not heard of that.
    other.join(&channel(), socket(1), user(1), true).await.unwrap();
    redis.run(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    for store in [&one, &other] {
        until("a connection", async || store.members(&channel()).await.is_ok()).await;
    }
    settle(&one).await;
    assert_eq!(one.release(&channel(), socket(1)).await.unwrap(), Left::Remains);
    assert_eq!(other.members(&channel()).await.unwrap(), [(socket(1), user(1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_shutdown_leaves_nothing_behind() {
    let redis = Redis::start().await;
    let store = node(&redis, json!({ "databaseConfig": { "membersMirror": false } })).await;
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    store.leave(&channel(), socket(1)).await.unwrap();
    store.close().await;
    assert_eq!(redis.keys("*").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_remains_of_a_node_id_that_died_by_a_flush() {
    let redis = Redis::start().await;
    let store = node(&redis, json!({ "presence": { "lease": "30s" }, "databaseConfig": { "membersMirror": false } })).await;
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    redis.flush().await;
    // Written under a lease that this node still believes in.
    let other = ChannelName::from("presence-other");
    store.join(&other, socket(2), user(2), true).await.unwrap();
    settle(&store).await;
    assert_eq!(store.members(&channel()).await.unwrap(), [(socket(1), user(1))]);
    assert_eq!(store.members(&other).await.unwrap(), [(socket(2), user(2))]);
    settle(&store).await;
    assert_eq!(redis.keys("app_laravel-echo:node:*:channels").await.len(), 1, "the index of the new id alone");
    store.leave(&channel(), socket(1)).await.unwrap();
    store.leave(&other, socket(2)).await.unwrap();
    settle(&store).await;
    store.close().await;
    assert_eq!(redis.keys("*").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_indexed_under_a_node_id_without_a_lease() {
    let redis = Redis::start().await;
    let store = node(&redis, json!({ "presence": { "lease": "1h" } })).await;
    let id = async || {
        let leases = redis.keys("app_laravel-echo:node:*:lease").await;
        let [lease] = leases.as_slice() else { panic!("one lease: {leases:?}") };
        lease.trim_end_matches(":lease").to_owned()
    };
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    let old = id().await;
    redis.flush().await;
    let other = ChannelName::from("presence-other");
    store.join(&other, socket(2), user(2), true).await.unwrap();
    let new = id().await;
    assert_ne!(old, new);
    let written = redis.keys("app_laravel-echo:node:*").await;
    assert_eq!(written, [format!("{new}:channels"), format!("{new}:lease")]);
    // The join has detected the loss, which is reported as if the renewal had.
    tokio::time::timeout(crate::support::DEADLINE, store.next_maintenance()).await.expect("the store is due at once");
    let beat = store.heartbeat().await.unwrap();
    assert!(beat.has_lost);
    for channel in beat.unreconciled {
        store.reconcile(&channel).await.unwrap();
    }
    assert!(!store.heartbeat().await.unwrap().has_lost);
    // All members are under the new id, so they are found if this node dies.
    assert_eq!(store.members(&channel()).await.unwrap(), [(socket(1), user(1))]);
    drop(store);
    redis.delete(&format!("{new}:lease")).await;
    let survivor = node(&redis, json!({})).await;
    for channel in [channel(), other] {
        assert_eq!(survivor.members(&channel).await.unwrap(), []);
    }
    assert_eq!(redis.keys("app_laravel-echo:node:*:channels").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_expired_lease_still_counts_until_removed() {
    let redis = Redis::start().await;
    let lasting = json!({ "presence": { "lease": "1h" } });
    let late = node(&redis, lasting.clone()).await;
    let [lease] = redis.keys("app_laravel-echo:node:*:lease").await.try_into().expect("one lease");
    late.join(&channel(), socket(1), user(1), true).await.unwrap();
    let other = node(&redis, lasting).await;
    redis.delete(&lease).await;
    assert_eq!(other.other_nodes().await.unwrap(), 1, "it may live, and is asked");
    settle(&other).await;
    settle(&other).await;
    assert_eq!(other.other_nodes().await.unwrap(), 0, "it is dead once its members are removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_list_of_nodes_is_restored() {
    let redis = Redis::start().await;
    let lasting = json!({ "presence": { "lease": "1h" } });
    let dead = node(&redis, lasting.clone()).await;
    let [lease_of_the_dead] = redis.keys("app_laravel-echo:node:*:lease").await.try_into().expect("one lease");
    let (one, other) = (node(&redis, lasting.clone()).await, node(&redis, lasting).await);
    dead.join(&channel(), socket(1), user(1), true).await.unwrap();
    one.join(&channel(), socket(2), user(2), true).await.unwrap();
    for store in [&one, &other, &dead] {
        settle(store).await;
        assert_eq!(store.other_nodes().await.unwrap(), 2);
    }
    // A Redis Cluster may lose only one shard: leases and members remain.
    redis.delete("app_laravel-echo:nodes").await;
    assert_eq!(one.other_nodes().await.unwrap(), 2, "a node that is missing restores the list");
    redis.delete("app_laravel-echo:nodes").await;
    settle(&one).await;
    assert_eq!(other.other_nodes().await.unwrap(), 2, "a renewal does, too");
    // A node that stops before it could list itself again is still found.
    redis.delete("app_laravel-echo:nodes").await;
    drop(dead);
    redis.delete(&lease_of_the_dead).await;
    assert_eq!(settle(&one).await, [(channel().to_string(), "1".to_owned())]);
    assert_eq!(one.members(&channel()).await.unwrap(), [(socket(2), user(2))]);
    settle(&one).await;
    assert_eq!(one.other_nodes().await.unwrap(), 1);
}

/// The readable list of a channel, as other programs see it.
async fn mirrored(redis: &Redis) -> Option<Value> {
    let text = redis.get("app_presence-room:members").await?;
    Some(serde_json::from_str(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readable_list_is_updated_at_most_once_a_second() {
    let redis = Redis::start().await;
    // Long, because renewing a lease is a SET, too.
    let store = node(&redis, json!({ "presence": { "lease": "30s" } })).await;
    let member = |n: usize| json!({ "user_id": n, "user_info": "", "socketId": socket(n) });
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    until("the first write", async || mirrored(&redis).await == Some(json!([member(1)]))).await;
    let started = Instant::now();
    let writes_before = redis.calls("set").await;
    for n in 2..50 {
        store.join(&channel(), socket(n), user(n), true).await.unwrap();
    }
    let all: Vec<_> = (1..50).map(member).collect();
    until("the last write", async || mirrored(&redis).await == Some(json!(all))).await;
    let writes = redis.calls("set").await - writes_before;
    assert!(writes <= 1 + started.elapsed().as_secs(), "{writes} writes in {:?}", started.elapsed());
    for n in 1..50 {
        store.leave(&channel(), socket(n)).await.unwrap();
    }
    store.close().await;
    assert_eq!(mirrored(&redis).await, Some(json!([])), "the end does not wait for the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readable_list_can_be_disabled() {
    let redis = Redis::start().await;
    let store = node(&redis, json!({ "databaseConfig": { "membersMirror": false } })).await;
    store.join(&channel(), socket(1), user(1), true).await.unwrap();
    store.close().await;
    assert_eq!(mirrored(&redis).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_a_dead_node_is_emptied() {
    let redis = Redis::start().await;
    let (dead, survivor) = (node(&redis, json!({})).await, node(&redis, json!({})).await);
    dead.join(&channel(), socket(1), user(1), true).await.unwrap();
    until("the write", async || mirrored(&redis).await.is_some()).await;
    drop(dead);
    let keeping = keep(&survivor);
    until("an empty list", async || mirrored(&redis).await == Some(json!([]))).await;
    keeping.abort();
}
