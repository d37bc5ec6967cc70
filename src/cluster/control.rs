//! Questions to the other nodes over Redis, with a deadline.
//!
//! Input: a question of the HTTP API. Output: a [`Message`] for all nodes, and their answers as they arrive.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::auth::Pass;
use crate::event::SocketId;

/// Timeout for questions that a node answers from memory: far longer than a healthy node takes.
const ANSWERED: Duration = Duration::from_secs(1);
/// Timeout for questions that make a node ask the application: as long as most HTTP callers wait for a response.
const RECHECKED: Duration = Duration::from_secs(30);

/// What a node is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// How many sockets are connected?
    Connections,
    /// How many sockets are in this channel?
    Count(String),
    /// Which channels with this prefix have how many sockets?
    Channels(String),
    /// Close the sockets of this user.
    Terminate(String),
    /// Take this user's sockets out of this channel.
    Unsubscribe(String, String),
    /// Which of these users are signed in, on how many sockets?
    SignedIn(Vec<String>),
    /// What is the last event of this cache channel?
    Cached(String),
    /// Ask the application again about the sockets in this channel. Answered when that is done.
    Recheck(String),
}

impl Question {
    /// How long to wait for the answers of the other nodes.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        match self {
            Self::Recheck(_) => RECHECKED,
            _ => ANSWERED,
        }
    }
}

/// Counts in an answer, by channel or by whatever was counted. A question for one number is answered under the empty name.
pub(crate) type Counts = Vec<(String, usize)>;

/// The last event of a cache channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptEvent {
    /// The event's name.
    pub name: String,
    /// The event's data: JSON.
    pub data: String,
    /// Milliseconds until it is forgotten.
    pub left: u64,
}

/// What a node answers to a question.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The counts.
    pub counts: Counts,
    /// The answer to [`Question::Cached`].
    pub event: Option<KeptEvent>,
}

/// A message between the dashboards of nodes, opaque to everything else.
#[derive(Debug, Serialize, Deserialize)]
pub struct DashboardNote {
    /// The [`node_id`](super::Bus::node_id) of the sender.
    pub from: u64,
    /// JSON.
    pub note: Box<RawValue>,
}

impl PartialEq for DashboardNote {
    fn eq(&self, other: &Self) -> bool {
        self.from == other.from && self.note.get() == other.note.get()
    }
}

impl Eq for DashboardNote {}

/// A message on [`CONTROL_CHANNEL`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Message {
    /// To all nodes but `from`.
    Ask {
        /// The id of the asking node.
        from: u64,
        /// The id of the question.
        id: u64,
        /// The question.
        question: Question,
    },
    /// To all nodes: a new epoch with this name starts here; count events from this message on.
    Order(u64),
    /// To all nodes: the events from before the epoch with this name can be fetched from the session store.
    Past(u64),
    /// To all nodes but `from`: the client of this session has resumed it on `from`.
    Taken {
        /// The id of the sending node.
        from: u64,
        /// The session.
        id: SocketId,
    },
    /// To the dashboards of all other nodes, or of one of them.
    Dashboard {
        /// The id of the receiving node; `None` for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
        /// The message.
        note: DashboardNote,
    },
    /// To the node that asked.
    Answer {
        /// The id of the question.
        id: u64,
        /// The counts.
        counts: Counts,
        /// The answer to [`Question::Cached`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event: Option<KeptEvent>,
    },
    /// To all nodes: a user has signed in, or a user's last connection has closed.
    User {
        /// The user.
        user: String,
        /// Whether the user has signed in.
        is_online: bool,
    },
    /// To all nodes: the number of sockets in a channel, over all nodes.
    Count {
        /// The channel.
        channel: String,
        /// Its sockets.
        count: usize,
    },
    /// To all nodes but `from`: one node has removed a user from a channel.
    Removed {
        /// The id of the sending node.
        from: u64,
        /// The user, where it is known.
        user: Option<String>,
        /// The token that would let the same client in again, if it has one.
        pass: Option<Pass>,
        /// The channel.
        channel: String,
    },
}

/// The Redis channel of control messages, after the key prefix. Nothing from it is delivered to clients.
pub(crate) const CONTROL_CHANNEL: &str = "laravel-echo:nodes";

/// Questions that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<HashMap<u64, mpsc::UnboundedSender<Answer>>>);

/// Receives the answers to one question; those that arrive after it is dropped are ignored.
pub(super) struct Answers<'a> {
    asked: &'a Asked,
    pub(super) id: u64,
    pub(super) answers: mpsc::UnboundedReceiver<Answer>,
}

impl Asked {
    pub(super) fn begin(&self) -> Answers<'_> {
        let id = rand::random();
        let (sender, answers) = mpsc::unbounded_channel();
        self.0.lock().insert(id, sender);
        Answers { asked: self, id, answers }
    }

    /// Forwards an answer to its question. Answers to unknown questions, or that arrive too late, are dropped.
    pub(super) fn answered(&self, id: u64, answer: Answer) {
        if let Some(sender) = self.0.lock().get(&id) {
            let _ = sender.send(answer);
        }
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.asked.0.lock().remove(&self.id);
    }
}
