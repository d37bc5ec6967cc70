//! What the HTTP API asks about all nodes at once. A single node answers by itself.
//!
//! Input: questions of the API, and of other nodes. Output: sums over the nodes, which say when somebody did not answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Hub, Socket};
use crate::channel::ChannelName;
use crate::cluster::questions::{Counts, Message, Question};

/// A sum over all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Everywhere<T> {
    /// The sum of what is known.
    pub value: T,
    /// Whether a node did not answer in time.
    pub is_partial: bool,
}

impl<S: Socket> Hub<S> {
    /// How many sockets are connected to all nodes.
    pub async fn connections_everywhere(self: &Arc<Self>) -> Everywhere<usize> {
        self.total(Question::Connections).await
    }

    /// How many sockets are in a channel on all nodes.
    pub async fn subscription_count_everywhere(self: &Arc<Self>, channel: &ChannelName) -> Everywhere<usize> {
        self.total(Question::Count(channel.as_str().to_owned())).await
    }

    /// Channels whose name starts with `prefix`, with their counts of sockets on all nodes.
    pub async fn channels_everywhere(self: &Arc<Self>, prefix: &str) -> Everywhere<BTreeMap<String, usize>> {
        self.ask_nodes(Question::Channels(prefix.to_owned())).await
    }

    /// [`Hub::terminate_user`] on all nodes.
    pub async fn terminate_user_everywhere(self: &Arc<Self>, user: &str) -> Everywhere<usize> {
        self.total(Question::Terminate(user.to_owned())).await
    }

    /// [`Hub::unsubscribe_user`] on all nodes.
    pub async fn unsubscribe_user_everywhere(self: &Arc<Self>, user: &str, channel: &ChannelName) -> Everywhere<usize> {
        self.total(Question::Unsubscribe(user.to_owned(), channel.as_str().to_owned())).await
    }

    async fn total(self: &Arc<Self>, question: Question) -> Everywhere<usize> {
        let Everywhere { value, is_partial } = self.ask_nodes(question).await;
        Everywhere { value: value.into_values().fold(0, usize::saturating_add), is_partial }
    }

    async fn ask_nodes(self: &Arc<Self>, question: Question) -> Everywhere<BTreeMap<String, usize>> {
        let mut sum: BTreeMap<String, usize> = self.answer(&question).into_iter().collect();
        let Some(nodes) = &self.nodes else { return Everywhere { value: sum, is_partial: false } };
        let (answers, is_partial) = match self.store.other_nodes().await {
            Ok(0) => (Vec::new(), false),
            Ok(others) => nodes.bus.ask(question, others).await,
            Err(_) => (Vec::new(), true),
        };
        for (name, count) in answers.into_iter().flatten() {
            let known = sum.entry(name).or_default();
            *known = known.saturating_add(count);
        }
        Everywhere { value: sum, is_partial }
    }

    /// This node's answer.
    fn answer(self: &Arc<Self>, question: &Question) -> Counts {
        let one = |count| vec![(String::new(), count)];
        match question {
            Question::Connections => one(self.connections()),
            Question::Count(channel) => one(self.subscription_count(channel)),
            Question::Channels(prefix) => {
                self.channels(prefix).into_iter().map(|(name, count)| (name.as_str().to_owned(), count)).collect()
            }
            Question::Terminate(user) => one(self.terminate_user(user)),
            Question::Unsubscribe(user, channel) => one(self.unsubscribe_user(user, &channel.as_str().into())),
        }
    }

    /// A message from another node, or from this one, has come. `false`: a single node knows no such messages.
    pub fn consult(self: &Arc<Self>, payload: &[u8]) -> bool {
        let Some(nodes) = &self.nodes else { return false };
        match serde_json::from_slice(payload) {
            Ok(Message::Ask { from, id, question }) if from != nodes.bus.number() => {
                nodes.bus.say(&Message::Answer { id, counts: self.answer(&question) });
            }
            Ok(Message::Answer { id, counts }) => nodes.bus.answered(id, counts),
            Ok(Message::Ask { .. }) => {}
            Err(cause) => tracing::debug!(%cause, "skipped a message between nodes; do they run the same version?"),
        }
        true
    }
}
