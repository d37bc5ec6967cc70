//! Random walks of clients that reconnect: each has received what was published while it was in a channel, once and in order,
//! or was told that it starts a new session.
//!
//! Input: steps of the walk. Output: a panic when a client unknowingly misses an event, or receives one twice, out of order, or
//! from before it joined. All nodes receive one stream of messages, each at its own pace.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::value::RawValue;

use super::walk::{in_paused_time, walks};
use crate::event::Event;
use crate::metrics::Source;

mod world;

use world::{CHANNELS, CLIENTS, Heard, NODES, Node, World, phone};

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish {
        channel: usize,
        except: Option<usize>,
    },
    Noise,
    /// A node receives this many more messages.
    Hear {
        node: usize,
        count: usize,
    },
    /// An event that only one node receives.
    Local {
        node: usize,
        channel: usize,
    },
    Join {
        client: usize,
        channel: usize,
    },
    Leave {
        client: usize,
        channel: usize,
    },
    Beat {
        client: usize,
    },
    /// The connection ends; this many frames at its end are lost. The node may not notice.
    Drop {
        client: usize,
        lost: usize,
        is_known: bool,
    },
    Return {
        client: usize,
        node: usize,
    },
    Stop {
        node: usize,
    },
    Kill {
        node: usize,
    },
    Cut {
        node: usize,
    },
    Repair {
        node: usize,
    },
    /// A node is given past events of other nodes, if they have offered them.
    Fetch {
        node: usize,
    },
    /// All nodes begin a new epoch if one of them is out of step, and write what has changed.
    Tick,
    Seconds(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let (node, client, channel) = (0..NODES, 0..CLIENTS, 0..CHANNELS.len());
    prop_oneof![
        10 => (channel.clone(), prop::option::weighted(0.2, client.clone())).prop_map(|(channel, except)| Step::Publish { channel, except }),
        1 => Just(Step::Noise),
        10 => (node.clone(), 1..8_usize).prop_map(|(node, count)| Step::Hear { node, count }),
        1 => (node.clone(), channel.clone()).prop_map(|(node, channel)| Step::Local { node, channel }),
        5 => (client.clone(), channel.clone()).prop_map(|(client, channel)| Step::Join { client, channel }),
        1 => (client.clone(), channel).prop_map(|(client, channel)| Step::Leave { client, channel }),
        2 => client.clone().prop_map(|client| Step::Beat { client }),
        4 => (client.clone(), 0..4_usize, any::<bool>()).prop_map(|(client, lost, is_known)| Step::Drop { client, lost, is_known }),
        6 => (client, node.clone()).prop_map(|(client, node)| Step::Return { client, node }),
        1 => node.clone().prop_map(|node| Step::Stop { node }),
        1 => node.clone().prop_map(|node| Step::Kill { node }),
        1 => node.clone().prop_map(|node| Step::Cut { node }),
        2 => node.prop_map(|node| Step::Repair { node }),
        4 => Just(Step::Tick),
        3 => (0..NODES).prop_map(|node| Step::Fetch { node }),
        1 => (1..40_u64).prop_map(Step::Seconds),
    ]
}

impl World {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Publish { channel, except } => {
                let number = self.next();
                let except = except.and_then(|client| self.clients[client].id);
                self.stream.push(Heard::Event { channel: CHANNELS[channel], number, except });
            }
            Step::Noise => self.stream.push(Heard::Noise),
            Step::Hear { node, count } => self.hear(node, count),
            Step::Local { node, channel } => {
                let data = RawValue::from_string("0".to_owned()).unwrap();
                let event = Event { channel: CHANNELS[channel], name: "sent".into(), data: &data, except: None, user: None };
                self.nodes[node].hub.publish(&event, Source::Http);
            }
            Step::Join { client, channel } => self.join(client, channel).await,
            Step::Leave { client, channel } => self.leave(client, channel),
            Step::Beat { client } => {
                let client = &self.clients[client];
                if let Some(phone) = &client.phone {
                    self.nodes[client.node].hub.tell_position(phone, &mut 0);
                }
            }
            Step::Drop { client, lost, is_known } => self.drop(client, lost, is_known),
            Step::Return { client, node } => self.come(client, node).await,
            Step::Stop { node } => {
                let mut sockets = Vec::new();
                self.nodes[node].hub.each_socket(|socket| sockets.push(socket.clone()));
                self.nodes[node].hub.hand_over(&sockets).await;
                self.leave_node(node);
            }
            Step::Kill { node } => {
                // In time, a node writes what has changed.
                self.write().await;
                self.leave_node(node);
            }
            Step::Cut { node } => self.nodes[node].heard = None,
            Step::Repair { node } => {
                let end = self.stream.len();
                let Node { hub, heard } = &mut self.nodes[node];
                if heard.is_none() {
                    *heard = Some(end);
                    hub.listens_again();
                    // It does not know where it missed them; its connected clients miss some, as without recovery.
                    for client in self.clients.iter_mut().filter(|client| client.node == node && client.phone.is_some()) {
                        client.holes.extend(0..end);
                    }
                }
            }
            Step::Fetch { node } => {
                Self::settle().await;
                for name in self.sessions.offered() {
                    self.nodes[node].hub.fetch_past(name).await;
                }
            }
            Step::Tick => {
                self.tick_order();
                self.write().await;
            }
            Step::Seconds(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
        self.check();
    }
}

async fn walk(steps: Vec<Step>) -> (usize, usize) {
    let mut world = World::new();
    world.step(Step::Tick).await;
    for client in 0..CLIENTS {
        world.hear(client % NODES, usize::MAX);
        world.come(client, client % NODES).await;
        for channel in 0..CHANNELS.len() {
            world.join(client, channel).await;
        }
    }
    for step in steps {
        world.step(step).await;
    }
    for node in 0..NODES {
        world.step(Step::Repair { node }).await;
        world.hear(node, usize::MAX);
    }
    for client in 0..CLIENTS {
        world.come(client, client % NODES).await;
    }
    world.check();
    (world.back, world.elsewhere)
}

proptest! {
    #![proptest_config(walks())]

    #[test]
    fn who_comes_back_has_everything_or_knows(steps in prop::collection::vec(steps(), 1..120)) {
        in_paused_time(async {
            walk(steps).await;
        });
    }
}

/// A client is ahead of the node that it connects to, starts a new session there, and receives again what it had received, at
/// the same offset: when it reconnects with that offset, it may have received something of its new session, or nothing.
#[test]
fn what_is_heard_again_after_a_fresh_start_comes_once() {
    let steps = [
        Step::Publish { channel: 1, except: None },
        Step::Hear { node: 1, count: 1 },
        Step::Drop { client: 1, lost: 0, is_known: false },
        Step::Return { client: 1, node: 2 },
        Step::Join { client: 1, channel: 1 },
        Step::Hear { node: 2, count: 1 },
        Step::Drop { client: 1, lost: 0, is_known: false },
    ];
    in_paused_time(async {
        walk(steps.to_vec()).await;
    });
    // And on a third node, which has not received it yet.
    in_paused_time(async {
        walk([steps.as_slice(), &[Step::Return { client: 1, node: 0 }, Step::Join { client: 1, channel: 1 }]].concat()).await;
    });
}

/// Redis delivers an event to one node a moment before the other.
#[test]
fn a_client_that_is_ahead_of_the_node_waits_for_it() {
    in_paused_time(async {
        let mut world = World::new();
        world.step(Step::Tick).await;
        for node in 0..NODES {
            world.hear(node, usize::MAX);
        }
        world.come(1, 1).await;
        world.step(Step::Publish { channel: 0, except: None }).await;
        world.hear(1, usize::MAX);
        // Its subscription is ahead, too.
        world.join(1, 0).await;
        world.step(Step::Publish { channel: 0, except: None }).await;
        world.hear(1, usize::MAX);
        world.drop(1, 0, true);
        world.write().await;
        let (id, offset, hub) = (world.clients[1].id.unwrap(), world.clients[1].offset.clone(), Arc::clone(&world.nodes[2].hub));
        assert!(offset.is_some());
        let coming = tokio::spawn(async move {
            let found = hub.find(id, offset.as_deref()).await.unwrap();
            hub.adopt(id, found, offset.as_deref(), || phone(id))
        });
        World::settle().await;
        world.hear(2, usize::MAX);
        assert!(coming.await.unwrap());
    });
}

/// The walks reach the cases that they are for.
#[test]
fn walks_lead_back_and_elsewhere() {
    let mut runner = proptest::test_runner::TestRunner::new(walks());
    let (mut back, mut elsewhere) = (0, 0);
    for _ in 0..64 {
        let steps = prop::collection::vec(steps(), 60..120).new_tree(&mut runner).unwrap().current();
        in_paused_time(async {
            let came = walk(steps).await;
            (back, elsewhere) = (back + came.0, elsewhere + came.1);
        });
    }
    assert!(back > 64 && elsewhere > 16, "{back} came back, {elsewhere} of them to another node");
}
