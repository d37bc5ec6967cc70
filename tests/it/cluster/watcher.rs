//! A client that tracks the member list like a page does, and the numbers of received events.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ROOM, users};
use crate::support::{Client, Node};

/// An event that carries a number.
pub(super) const TICK: &str = "tick";

fn number(event: &[Value]) -> u64 {
    event[2].as_u64().expect("a number")
}

/// A client in the room.
pub(super) struct Watcher {
    pub(super) client: Client,
    pub(super) here: BTreeSet<u64>,
    /// Number of joins and leaves it was told of.
    pub(super) changes: usize,
    /// Numbers of events, in order of arrival.
    pub(super) ticks: Vec<u64>,
}

impl Watcher {
    pub(super) async fn join(node: &Node, user: u64) -> Self {
        let mut client = Client::connect(node.address, &[("cookie", &format!("user={user}"))]).await;
        client.subscribe(ROOM).await;
        let mut ticks = Vec::new();
        loop {
            let event = client.next().await.expect("the connection holds");
            match event[0].as_str() {
                // Events may arrive before the member list.
                Some(TICK) => ticks.push(number(&event)),
                Some("presence:subscribed") => {
                    return Self { client, here: users(&event[2]).into_iter().collect(), changes: 0, ticks };
                }
                other => panic!("unexpected {other:?} before the list"),
            }
        }
    }

    /// Waits until its member list is exactly this.
    pub(super) async fn believes(&mut self, expected: impl IntoIterator<Item = u64>) {
        let expected: BTreeSet<u64> = expected.into_iter().collect();
        while self.here != expected {
            let event = self.client.next().await.expect("the connection holds");
            self.take(&event);
        }
    }

    /// Waits for the event with this number.
    pub(super) async fn hears(&mut self, number: u64) {
        while self.ticks.last() != Some(&number) {
            let event = self.client.next().await.expect("the connection holds");
            self.take(&event);
        }
    }

    /// Processes events until the server ends the connection.
    pub(super) async fn closed(&mut self) {
        while let Some(event) = self.client.next().await {
            self.take(&event);
        }
    }

    fn take(&mut self, event: &[Value]) {
        assert_eq!(event[1], json!(ROOM));
        let user = || event[2]["user_id"].as_u64().expect("an id");
        match event[0].as_str() {
            Some("presence:joining") => assert!(self.here.insert(user()), "came twice: {event:?}"),
            Some("presence:leaving") => assert!(self.here.remove(&user()), "left twice: {event:?}"),
            Some(TICK) => return self.ticks.push(number(event)),
            other => panic!("unexpected {other:?} while {:?} are here", self.here),
        }
        self.changes += 1;
    }
}
