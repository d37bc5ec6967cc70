//! Questions to the other nodes over Redis, with a deadline.
//!
//! Input: a question of the HTTP API. Output: a [`Message`] for all nodes, and their answers as they come.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::auth::Pass;
use crate::event::SocketId;

/// What a node knows by itself: far more than one that is well takes.
const ANSWERED: Duration = Duration::from_secs(1);
/// What a node has to ask the application about: as long as most callers wait for an answer.
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
    /// Time for the answers of the other nodes.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        match self {
            Self::Recheck(_) => RECHECKED,
            _ => ANSWERED,
        }
    }
}

/// What a node answers: counts by channel, or by what was counted; the only one under the empty name.
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
    /// What it counted.
    pub counts: Counts,
    /// To [`Question::Cached`].
    pub event: Option<KeptEvent>,
}

/// What the dashboard of a node says to those of others, and what only they understand.
#[derive(Debug, Serialize, Deserialize)]
pub struct DashboardNote {
    /// The number of the process.
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

/// What goes over [`CONTROL_CHANNEL`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Message {
    /// To all nodes but `from`.
    Ask {
        /// The number of the asking process.
        from: u64,
        /// The number of the question.
        id: u64,
        /// The question.
        question: Question,
    },
    /// To all nodes: the events after this one are counted from here, under this name.
    Order(u64),
    /// To all nodes: what was heard before all took this name can be had.
    Past(u64),
    /// To all nodes but `from`: it goes on with this session.
    Taken {
        /// The number of the process.
        from: u64,
        /// The session.
        id: SocketId,
    },
    /// To all nodes but its own, or to one of them.
    Dashboard {
        /// The number of that one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
        /// What is said.
        note: DashboardNote,
    },
    /// To the node that asked.
    Answer {
        /// The number of the question.
        id: u64,
        /// The answer.
        counts: Counts,
        /// To [`Question::Cached`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event: Option<KeptEvent>,
    },
    /// To all nodes: a user has signed in, or the last connection of one is over.
    User {
        /// The user.
        user: String,
        /// Which of both.
        is_online: bool,
    },
    /// To all nodes: so many sockets are in a channel now, on all of them together.
    Count {
        /// The channel.
        channel: String,
        /// Its sockets.
        count: usize,
    },
    /// To all nodes but `from`: somebody was taken out of a channel by the decision of one node.
    Removed {
        /// The number of the process that tells it.
        from: u64,
        /// The user, where it is known.
        user: Option<String>,
        /// What else it may come back by.
        pass: Option<Pass>,
        /// The channel.
        channel: String,
    },
}

/// The channel of questions and answers, below the prefix. No client gets what comes from it.
pub(crate) const CONTROL_CHANNEL: &str = "laravel-echo:nodes";

/// Questions that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<HashMap<u64, mpsc::UnboundedSender<Answer>>>);

/// Answers to one question; nobody listens any more once it is dropped.
pub(super) struct Answers<'a> {
    asked: &'a Asked,
    pub(super) id: u64,
    pub(super) answers: mpsc::UnboundedReceiver<Answer>,
}

impl Asked {
    fn all(&self) -> MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<Answer>>> {
        self.0.lock()
    }

    pub(super) fn begin(&self) -> Answers<'_> {
        let id = rand::random();
        let (sender, answers) = mpsc::unbounded_channel();
        self.all().insert(id, sender);
        Answers { asked: self, id, answers }
    }

    /// An answer has come; those to nobody's question, or too late, are dropped.
    pub(super) fn answered(&self, id: u64, answer: Answer) {
        if let Some(sender) = self.all().get(&id) {
            let _ = sender.send(answer);
        }
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.asked.all().remove(&self.id);
    }
}
