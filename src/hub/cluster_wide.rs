//! What the HTTP API asks about all nodes at once. A single node answers alone.
//!
//! Input: questions of the API, and of other nodes. Output: sums over the nodes, marked as partial when a node did not answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Hub, Recheck, Socket};
use crate::channel::ChannelName;
use crate::cluster::control::{Answer, Counts, Message, Question};

/// Names of the counts of a recheck.
const CHECKED: &str = "checked";
const REMOVED: &str = "removed";
const UNDECIDED: &str = "undecided";

/// A sum over all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterWide<T> {
    /// The sum of the answers.
    pub value: T,
    /// Whether a node did not answer in time.
    pub is_partial: bool,
}

impl<S: Socket> Hub<S> {
    /// How many sockets are connected to all nodes.
    pub async fn connections_everywhere(self: &Arc<Self>) -> ClusterWide<usize> {
        self.total(Question::Connections).await
    }

    /// How many sockets are in a channel on all nodes.
    pub async fn subscription_count_everywhere(self: &Arc<Self>, channel: &ChannelName) -> ClusterWide<usize> {
        self.total(Question::Count(channel.as_str().to_owned())).await
    }

    /// Channels whose name starts with `prefix`, with their socket counts on all nodes.
    pub async fn channels_everywhere(self: &Arc<Self>, prefix: &str) -> ClusterWide<BTreeMap<String, usize>> {
        self.ask_nodes(Question::Channels(prefix.to_owned())).await
    }

    /// [`Hub::terminate_user`] on all nodes.
    pub async fn terminate_user_everywhere(self: &Arc<Self>, user: &str) -> ClusterWide<usize> {
        self.total(Question::Terminate(user.to_owned())).await
    }

    /// [`Hub::unsubscribe_user`] on all nodes.
    pub async fn unsubscribe_user_everywhere(self: &Arc<Self>, user: &str, channel: &ChannelName) -> ClusterWide<usize> {
        self.total(Question::Unsubscribe(user.to_owned(), channel.as_str().to_owned())).await
    }

    /// [`Hub::recheck`] on all nodes, each of which asks about its own sockets.
    pub async fn recheck_everywhere(self: &Arc<Self>, channel: &ChannelName) -> ClusterWide<Recheck> {
        let ClusterWide { value, is_partial } = self.ask_nodes(Question::Recheck(channel.as_str().to_owned())).await;
        let count = |name| value.get(name).copied().unwrap_or_default();
        let value = Recheck { checked: count(CHECKED), removed: count(REMOVED), undecided: count(UNDECIDED) };
        ClusterWide { value, is_partial }
    }

    async fn total(self: &Arc<Self>, question: Question) -> ClusterWide<usize> {
        let ClusterWide { value, is_partial } = self.ask_nodes(question).await;
        ClusterWide { value: value.into_values().fold(0, usize::saturating_add), is_partial }
    }

    pub(super) async fn ask_nodes(self: &Arc<Self>, question: Question) -> ClusterWide<BTreeMap<String, usize>> {
        self.ban(&question).await;
        let (ours, (theirs, is_partial)) = tokio::join!(self.answer(&question), self.ask_others(&question));
        let mut sum: BTreeMap<String, usize> = ours.counts.into_iter().collect();
        for (name, count) in theirs.into_iter().flat_map(|answer| answer.counts) {
            let known = sum.entry(name).or_default();
            *known = known.saturating_add(count);
        }
        ClusterWide { value: sum, is_partial }
    }

    /// The answers of the other nodes, and whether some are missing.
    pub(super) async fn ask_others(&self, question: &Question) -> (Vec<Answer>, bool) {
        let Some(nodes) = &self.nodes else { return (Vec::new(), false) };
        match self.store.other_nodes().await {
            Ok(0) => (Vec::new(), false),
            Ok(others) => nodes.bus.ask(question.clone(), others).await,
            Err(_) => (Vec::new(), true),
        }
    }

    /// This node's answer.
    async fn answer(self: &Arc<Self>, question: &Question) -> Answer {
        if let Question::Cached(channel) = question {
            return Answer { event: self.cache.kept(channel), ..Answer::default() };
        }
        Answer { counts: self.count(question).await, event: None }
    }

    async fn count(self: &Arc<Self>, question: &Question) -> Counts {
        let one = |count| vec![(String::new(), count)];
        match question {
            Question::Cached(_) => Vec::new(),
            Question::SignedIn(users) => self.watchlists.counts(users),
            Question::Connections => one(self.connections()),
            Question::Count(channel) => one(self.subscription_count(channel)),
            Question::Channels(prefix) => {
                self.channels(prefix).into_iter().map(|(name, count)| (name.as_str().to_owned(), count)).collect()
            }
            Question::Terminate(user) => one(self.terminate_user(user)),
            Question::Unsubscribe(user, channel) => one(self.unsubscribe_user(user, &channel.as_str().into())),
            Question::Recheck(channel) => {
                let Recheck { checked, removed, undecided } = self.recheck(&channel.as_str().into()).await;
                [(CHECKED, checked), (REMOVED, removed), (UNDECIDED, undecided)].map(|(name, count)| (name.to_owned(), count)).into()
            }
        }
    }

    /// Handles a message from another node, or from this one. `false`: a single node has no such messages.
    pub fn handle_control(self: &Arc<Self>, payload: &[u8]) -> bool {
        let Some(nodes) = &self.nodes else { return false };
        match serde_json::from_slice(payload) {
            Ok(Message::Ask { from, id, question }) if from != nodes.bus.node_id() => {
                let hub = Arc::clone(self);
                // The answer may take a request to the application, and events must not wait for that.
                self.tasks.spawn(async move {
                    let answer = hub.closing.run_until_cancelled(hub.answer(&question)).await;
                    if let Some(Answer { counts, event }) = answer {
                        hub.tell_others(|_| Message::Answer { id, counts, event });
                    }
                });
            }
            Ok(Message::Answer { id, counts, event }) => nodes.bus.answered(id, Answer { counts, event }),
            Ok(Message::Dashboard { to, note }) => nodes.hear_dashboard(to, note),
            Ok(Message::Count { channel, count }) => self.show_count(&channel, count),
            Ok(Message::User { user, is_online }) => self.apply_user_state(&user, is_online),
            Ok(Message::Removed { from, user, pass, channel }) if from != nodes.bus.node_id() => {
                let channel = channel.as_str().into();
                self.authorizer.removed(user.as_deref(), Some(&channel));
                if let Some(pass) = pass {
                    self.authorizer.void(&pass, &channel);
                }
            }
            Ok(Message::Ask { .. } | Message::Removed { .. }) => {}
            Ok(Message::Order(name)) => self.enter_order(name),
            Ok(Message::Past(name)) => self.apply_past(name),
            Ok(Message::Taken { from, id }) if from != nodes.bus.node_id() => self.let_go(id),
            Ok(Message::Taken { .. }) => {}
            Err(cause) => tracing::debug!(%cause, "skipped a message between nodes; do they run the same version?"),
        }
        true
    }
}
