//! Helpers of the hub's unit tests, and its property tests.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::auth::{AuthRequest, Authorizer, Denied, Grant};
use crate::config::Limits;
use crate::event::SocketId;
use crate::hub::{Allowance, Message, Push, PushError, Socket};
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

/// A socket that records what it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: SocketId,
    headers: http::HeaderMap,
    allowance: Allowance,
    frames: Mutex<Vec<(Instant, Heard)>>,
}

/// A frame that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) name: String,
    pub(crate) channel: String,
    pub(crate) data: String,
}

impl Recorder {
    pub(crate) fn new(id: &str) -> Self {
        Self(Arc::new(Inner {
            id: SocketId::parse(id).unwrap(),
            headers: http::HeaderMap::new(),
            allowance: Allowance::new(&Limits::default()),
            frames: Mutex::default(),
        }))
    }

    /// What was received since the last call, and when.
    fn take(&self) -> Vec<(Instant, Heard)> {
        std::mem::take(&mut *self.0.frames.lock())
    }
}

impl Socket for Recorder {
    fn id(&self) -> SocketId {
        self.0.id
    }

    fn handshake(&self) -> &http::HeaderMap {
        &self.0.headers
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        None
    }

    fn allowance(&self) -> &Allowance {
        &self.0.allowance
    }

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
        self.0.frames.lock().push((Instant::now(), heard));
        Ok(())
    }

    fn close(&self) {}

    fn terminate(&self) {}
}

/// Members as JSON: the newest first, each user once.
fn list(members: &[(SocketId, Member)]) -> String {
    let mut seen = std::collections::HashSet::new();
    let newest = members.iter().rev().filter(|(_, member)| seen.insert(member.user()));
    format!("[{}]", newest.map(|(_, member)| member.json()).collect::<Vec<_>>().join(","))
}
