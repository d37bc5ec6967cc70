//! Helpers of the hub's unit tests, and its property tests.

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::auth::{AuthRequest, Authorizer, Denied, Grant};
use crate::event::SocketId;
use crate::hub::fake_socket::{FakeSocket, Receiver};
use crate::hub::{Message, Push, PushError};
use crate::store::Member;

mod calm;
mod delays;
mod exact;
mod fake_store;
mod observer;
mod order;
mod page;
mod receive;
mod returns;
mod simulation;
mod walk;

/// An authorizer for tests without guarded channels.
pub(crate) struct Nobody;

#[async_trait::async_trait]
impl Authorizer for Nobody {
    async fn authorize(&self, _: AuthRequest<'_>) -> Result<Grant, Denied> {
        unreachable!("nobody asks for a guarded channel")
    }
}

/// Records what it is sent, and when.
#[derive(Debug, Default)]
pub(crate) struct Frames(Mutex<Vec<(Instant, Heard)>>);

pub(crate) type Recorder = FakeSocket<Frames>;

/// A frame that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) name: String,
    pub(crate) channel: String,
    pub(crate) data: String,
}

impl Recorder {
    pub(crate) fn numbered(id: &str) -> Self {
        Self::new(SocketId::parse(id).unwrap(), Frames::default())
    }
}

impl Frames {
    /// What was received since the last call, and when.
    fn take(&self) -> Vec<(Instant, Heard)> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Receiver for Frames {
    fn push(&self, push: &Push<'_>) -> Result<(), PushError> {
        let (name, channel, data) = match push.message {
            Message::Event { channel, name, data, .. } => (name, channel, data.get().to_owned()),
            Message::Position
            | Message::Subscribed { members: None, .. }
            | Message::CacheMiss { .. }
            | Message::Count { .. }
            | Message::Watched { .. } => {
                return Ok(());
            }
            Message::Subscribed { channel, members: Some(members), .. } => ("presence:subscribed", channel, list(members)),
            Message::Joined { channel, member, .. } => ("presence:joining", channel, member.json().to_owned()),
            Message::Left { channel, member } => ("presence:leaving", channel, member.json().to_owned()),
            Message::Refused { channel, status } => ("subscription_error", channel, status.to_string()),
        };
        let heard = Heard { name: name.to_owned(), channel: channel.to_owned(), data };
        self.0.lock().push((Instant::now(), heard));
        Ok(())
    }
}

/// Members as JSON: the newest first, each user once.
fn list(members: &[(SocketId, Member)]) -> String {
    let mut seen = std::collections::HashSet::new();
    let newest = members.iter().rev().filter(|(_, member)| seen.insert(member.user()));
    format!("[{}]", newest.map(|(_, member)| member.json()).collect::<Vec<_>>().join(","))
}
