//! Presence stores: one conformance suite for all of them.

#![expect(clippy::unwrap_used, reason = "helpers here are tests as well")]

use std::sync::Arc;

use laravel_echo_server::Config;
use laravel_echo_server::channel::ChannelName;
use laravel_echo_server::event::SocketId;
use laravel_echo_server::store::{self, Left, Member, PresenceStore};
use serde_json::{Value, json};

use crate::support::Redis;

mod redis;

type Store = Arc<dyn PresenceStore>;

async fn open(settings: Value) -> Store {
    let config: Config = serde_json::from_value(settings).unwrap();
    store::open(&config).await.unwrap()
}

fn socket(n: usize) -> SocketId {
    SocketId::parse(&format!("1.{n}")).unwrap()
}

fn member(user: &Value, info: &str) -> Member {
    Member::parse(&json!({ "user_id": user, "user_info": info }).to_string()).unwrap()
}

fn user(n: usize) -> Member {
    member(&json!(n), "")
}

/// The sockets in a channel, with their members as JSON.
async fn listed(store: &Store, channel: &ChannelName) -> Vec<(SocketId, String)> {
    let members = store.members(channel).await.unwrap();
    members.into_iter().map(|(socket, member)| (socket, member.json().to_owned())).collect()
}

/// Runs each case of the suite as one test per store.
macro_rules! conformance {
    ($($case:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::open(serde_json::json!({ "database": "memory" })).await).await;
            })+
        }
        mod redis_server {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let redis = super::Redis::start().await;
                super::$case(super::redis::node(&redis, serde_json::json!({})).await).await;
            })+
        }
    };
}

conformance!(
    a_user_joins_with_the_first_socket_and_leaves_with_the_last,
    a_repeated_join_makes_a_socket_the_newest,
    another_user_on_the_same_socket_replaces_the_first,
    any_text_is_a_user_a_channel_or_data,
    users_are_equal_if_their_ids_have_the_same_text,
    five_hundred_join_and_leave_on_twenty_nodes_at_once,
    tabs_of_one_user_in_any_order_cause_one_join_and_leave,
);

async fn a_user_joins_with_the_first_socket_and_leaves_with_the_last(store: Store) {
    let channel = ChannelName::from("presence-room");
    assert_eq!(store.leave(&channel, socket(1)).await.unwrap(), Left::NotThere);
    let joined = store.join(&channel, socket(1), user(1), true).await.unwrap();
    assert!(joined.is_first && joined.replaced.is_none());
    assert_eq!(joined.members.unwrap(), [(socket(1), user(1))]);
    let joined = store.join(&channel, socket(2), user(2), true).await.unwrap();
    assert!(joined.is_first);
    let joined = store.join(&channel, socket(3), user(1), true).await.unwrap();
    assert!(!joined.is_first);
    assert_eq!(joined.members.unwrap(), [(socket(1), user(1)), (socket(2), user(2)), (socket(3), user(1))]);
    assert_eq!(store.leave(&channel, socket(1)).await.unwrap(), Left::Remains);
    assert_eq!(store.leave(&channel, socket(1)).await.unwrap(), Left::NotThere);
    assert_eq!(store.leave(&channel, socket(3)).await.unwrap(), Left::Gone(user(1)));
    assert_eq!(store.members(&channel).await.unwrap(), [(socket(2), user(2))]);
    assert_eq!(store.leave(&channel, socket(2)).await.unwrap(), Left::Gone(user(2)));
    assert!(store.members(&channel).await.unwrap().is_empty());
    assert!(store.join(&channel, socket(4), user(1), true).await.unwrap().is_first);
    assert!(store.members(&"presence-other".into()).await.unwrap().is_empty());
}

async fn a_repeated_join_makes_a_socket_the_newest(store: Store) {
    let channel = ChannelName::from("presence-room");
    store.join(&channel, socket(1), member(&json!(1), "old"), true).await.unwrap();
    store.join(&channel, socket(2), user(2), true).await.unwrap();
    let joined = store.join(&channel, socket(1), member(&json!(1), "new"), true).await.unwrap();
    assert!(!joined.is_first && joined.replaced.is_none());
    assert_eq!(joined.members.unwrap(), [(socket(2), user(2)), (socket(1), member(&json!(1), "new"))]);
    assert_eq!(store.leave(&channel, socket(1)).await.unwrap(), Left::Gone(member(&json!(1), "new")));
}

async fn another_user_on_the_same_socket_replaces_the_first(store: Store) {
    let channel = ChannelName::from("presence-room");
    store.join(&channel, socket(1), user(1), true).await.unwrap();
    let joined = store.join(&channel, socket(1), user(2), true).await.unwrap();
    assert!(joined.is_first);
    assert_eq!(joined.replaced, Some(user(1)));
    assert_eq!(joined.members.unwrap(), [(socket(1), user(2))]);
    store.join(&channel, socket(3), user(2), true).await.unwrap();
    let joined = store.join(&channel, socket(1), user(3), true).await.unwrap();
    assert_eq!(joined.replaced, None, "user 2 has another socket here");
    assert_eq!(store.leave(&channel, socket(3)).await.unwrap(), Left::Gone(user(2)));
}

async fn any_text_is_a_user_a_channel_or_data(store: Store) {
    let odd = ["", " ", "version", "7 a b", "žluťoučký kůň", "\"quoted\"", "a{b}c", "%d %s", "\u{1f980}", "line\nline"];
    for name in odd {
        let channel = ChannelName::from(format!("presence-{name}"));
        for (n, id) in odd.into_iter().enumerate() {
            let joined = store.join(&channel, socket(n), member(&json!(id), name), true).await.unwrap();
            assert!(joined.is_first, "{id:?} in {name:?}");
            assert_eq!(joined.members.unwrap().len(), n + 1, "{id:?} in {name:?}");
        }
        for (n, id) in odd.into_iter().enumerate() {
            assert_eq!(store.leave(&channel, socket(n)).await.unwrap(), Left::Gone(member(&json!(id), name)));
        }
    }
    let json = r#"{ "user_id" : 1.0, "user_info":{"\u017e\/":[1e2, null]}, "more":"kept" }"#;
    let channel = ChannelName::from("presence-bytes");
    store.join(&channel, socket(1), Member::parse(json).unwrap(), true).await.unwrap();
    assert_eq!(listed(&store, &channel).await, [(socket(1), json.to_owned())]);
}

async fn users_are_equal_if_their_ids_have_the_same_text(store: Store) {
    let channel = ChannelName::from("presence-room");
    assert!(store.join(&channel, socket(1), member(&json!(1), ""), true).await.unwrap().is_first);
    assert!(!store.join(&channel, socket(2), member(&json!("1"), ""), true).await.unwrap().is_first);
    assert!(store.join(&channel, socket(3), member(&json!("01"), ""), true).await.unwrap().is_first);
    assert_eq!(store.leave(&channel, socket(1)).await.unwrap(), Left::Remains);
    assert_eq!(store.leave(&channel, socket(2)).await.unwrap(), Left::Gone(member(&json!("1"), "")));
}

async fn five_hundred_join_and_leave_on_twenty_nodes_at_once(store: Store) {
    const COUNT: usize = 500;
    // A node joins a channel's sockets one after the other, so at any time there is one join per node. If all 500 ran at once,
    // each would wait for 500 lists of 500, longer than the Redis timeout.
    const SIDES: usize = 20;
    let channel = ChannelName::from("presence-room");
    let joins: Vec<_> = (0..SIDES)
        .map(|side| {
            let (store, channel) = (Arc::clone(&store), channel.clone());
            tokio::spawn(async move {
                let mut longest = 0;
                for n in (side..COUNT).step_by(SIDES) {
                    let joined = store.join(&channel, socket(n), user(n), true).await.unwrap();
                    assert!(joined.is_first);
                    longest = longest.max(joined.members.unwrap().len());
                }
                longest
            })
        })
        .collect();
    let mut longest = 0;
    for join in joins {
        longest = longest.max(join.await.unwrap());
    }
    assert_eq!(longest, COUNT);
    assert_eq!(store.members(&channel).await.unwrap().len(), COUNT);
    let leaves: Vec<_> = (0..SIDES)
        .map(|side| {
            let (store, channel) = (Arc::clone(&store), channel.clone());
            tokio::spawn(async move {
                for n in (side..COUNT).step_by(SIDES) {
                    assert_eq!(store.leave(&channel, socket(n)).await.unwrap(), Left::Gone(user(n)));
                }
            })
        })
        .collect();
    for leave in leaves {
        leave.await.unwrap();
    }
    assert!(store.members(&channel).await.unwrap().is_empty());
}

async fn tabs_of_one_user_in_any_order_cause_one_join_and_leave(store: Store) {
    const COUNT: usize = 60;
    let channel = ChannelName::from("presence-room");
    let tabs: Vec<_> = (0..COUNT)
        .map(|n| {
            let (store, channel) = (Arc::clone(&store), channel.clone());
            tokio::spawn(async move {
                let came = store.join(&channel, socket(n), user(1), true).await.unwrap().is_first;
                let went = matches!(store.leave(&channel, socket(n)).await.unwrap(), Left::Gone(_));
                (usize::from(came), usize::from(went))
            })
        })
        .collect();
    let (mut came, mut went) = (0, 0);
    for tab in tabs {
        let (first, last) = tab.await.unwrap();
        came += first;
        went += last;
    }
    assert!(came >= 1);
    assert_eq!(came, went, "each user joins and leaves equally often");
    assert!(store.members(&channel).await.unwrap().is_empty());
}
