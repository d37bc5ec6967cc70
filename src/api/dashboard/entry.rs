//! [`Entry`]: one line of the trace.
//!
//! Input: an [`Observation`]. Output: the same as JSON for the page, with copies of what it borrows.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::event::SocketId;
use crate::hub::Observation;
use crate::metrics::Refusal;

/// Bytes of an event's data that the page gets; what is longer is cut, and its size says so.
const MAX_DATA: usize = 2048;

/// What pages choose by; an entry is of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Delivered,
    Unheard,
    Whispers,
    Subscribes,
    Refusals,
    Presence,
    Connections,
}

impl Group {
    pub(super) const ALL: [(&'static str, Self); 7] = [
        ("delivered", Self::Delivered),
        ("unheard", Self::Unheard),
        ("whispers", Self::Whispers),
        ("subscribes", Self::Subscribes),
        ("refusals", Self::Refusals),
        ("presence", Self::Presence),
        ("connections", Self::Connections),
    ];

    pub(super) const fn of(observation: &Observation<'_>) -> Self {
        match observation {
            Observation::Published { delivered: 0, .. } => Self::Unheard,
            Observation::Published { .. } => Self::Delivered,
            Observation::Whispered { .. } => Self::Whispers,
            Observation::Refused { .. } | Observation::TurnedAway { .. } => Self::Refusals,
            Observation::Joined { .. } | Observation::Left { .. } => Self::Presence,
            Observation::Connected { .. } | Observation::Disconnected { .. } => Self::Connections,
            Observation::Subscribed { .. }
            | Observation::Unsubscribed { .. }
            | Observation::Granted { .. }
            | Observation::CacheMiss { .. } => Self::Subscribes,
        }
    }
}

/// A channel that an event was most likely meant for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Near {
    channel: String,
    hint: String,
}

impl From<(String, String)> for Near {
    fn from((channel, hint): (String, String)) -> Self {
        Self { channel, hint }
    }
}

/// One line of the trace. What does not apply is absent.
#[derive(Debug, Default, Serialize)]
pub(super) struct Entry {
    /// Counts up.
    pub(super) n: u64,
    /// Milliseconds since 1970.
    at: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) socket: Option<SocketId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    /// Bytes of the whole data.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// How many sockets took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delivered: Option<usize>,
    /// The socket that was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    except: Option<SocketId>,
    /// It was in the channel.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_left_out: bool,
    /// Sockets in the channel afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// What the application answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    /// Who gave a grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'static str>,
    /// Milliseconds of a callback.
    #[serde(skip_serializing_if = "Option::is_none")]
    took: Option<u64>,
    /// Of the page of a client that did not get in.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// Why somebody left.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Of an event that found nobody; looked for outside of the hub's work.
    #[serde(serialize_with = "found", skip_serializing_if = "is_absent")]
    pub(super) near: OnceLock<Option<Near>>,
}

fn found<S: Serializer>(near: &OnceLock<Option<Near>>, serializer: S) -> Result<S::Ok, S::Error> {
    near.get().serialize(serializer)
}

fn is_absent(near: &OnceLock<Option<Near>>) -> bool {
    !matches!(near.get(), Some(Some(_)))
}

/// Data as far as it is shown.
fn shown(data: &str) -> String {
    let mut end = MAX_DATA.min(data.len());
    while !data.is_char_boundary(end) {
        end -= 1;
    }
    data[..end].to_owned()
}

/// What to do about a refusal that no callback explains.
fn hint_for(cause: Refusal) -> Option<String> {
    cause.limit().map(|key| format!("over `{key}`: raise it if the page is not at fault")).or_else(|| {
        let hint = match cause {
            Refusal::Whisper => {
                "whispers are for private and presence channels that the client is in, and their names begin with client- (Echo's whisper() adds it)"
            }
            Refusal::Headers => "its headers are too large: auth.headers, or those of the handshake (limits.handshakeHeaders)",
            Refusal::Origin => "if this is a page of yours, add its origin to allowedOrigins",
            Refusal::Connections => "limits.connections is reached",
            Refusal::ConnectionsPerIp => "limits.connectionsPerIp is reached; behind a proxy, trustProxies tells clients apart",
            Refusal::WhisperQueue => "the queue to the other nodes is full: is Redis slow?",
            _ => return None,
        };
        Some(hint.to_owned())
    })
}

impl Entry {
    pub(super) fn new(n: u64, observation: &Observation<'_>) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let base = Self { n, at: u64::try_from(at).unwrap_or_default(), ..Self::default() };
        match *observation {
            Observation::Connected { socket } => Self { kind: "connected", socket: Some(socket), ..base },
            Observation::Disconnected { socket, reason } => {
                Self { kind: "disconnected", socket: Some(socket), reason: Some(reason.as_str()), ..base }
            }
            Observation::TurnedAway { cause, origin } => {
                Self { kind: "turned", cause: Some(cause.as_str()), origin: origin.map(str::to_owned), hint: hint_for(cause), ..base }
            }
            Observation::Subscribed { channel, socket, count } => {
                Self { kind: "subscribed", channel: Some(channel.to_owned()), socket: Some(socket), count: Some(count), ..base }
            }
            Observation::Unsubscribed { channel, socket, reason, count } => Self {
                kind: "left",
                channel: Some(channel.to_owned()),
                socket: Some(socket),
                count: Some(count),
                reason: Some(reason),
                ..base
            },
            Observation::Granted { channel, socket, by, user, took } => Self {
                kind: "granted",
                channel: Some(channel.to_owned()),
                socket: Some(socket),
                user: user.map(str::to_owned),
                by: Some(by.as_str()),
                took: took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
                ..base
            },
            Observation::Refused { channel, socket, cause, status, reason } => Self {
                kind: "refused",
                channel: Some(channel.to_owned()),
                socket: Some(socket),
                status,
                cause: Some(cause.as_str()),
                answer: reason.map(|reason| reason.answer.clone()),
                hint: reason.map(|reason| reason.hint).filter(|hint| !hint.is_empty()).map(str::to_owned).or_else(|| hint_for(cause)),
                ..base
            },
            Observation::Joined { channel, member } => {
                Self { kind: "joined", channel: Some(channel.to_owned()), user: Some(member.user().to_owned()), ..base }
            }
            Observation::Left { channel, member } => {
                Self { kind: "gone", channel: Some(channel.to_owned()), user: Some(member.user().to_owned()), ..base }
            }
            Observation::Published { event, source, delivered, has_left_out } => Self {
                kind: "event",
                channel: Some(event.channel.to_owned()),
                name: Some(event.name.as_ref().to_owned()),
                source: Some(source.as_str()),
                size: Some(event.data.get().len()),
                data: Some(shown(event.data.get())),
                delivered: Some(delivered),
                except: event.except,
                has_left_out,
                ..base
            },
            Observation::Whispered { channel, socket, name, data, user } => Self {
                kind: "whisper",
                channel: Some(channel.to_owned()),
                socket: Some(socket),
                user: user.map(str::to_owned),
                name: Some(name.to_owned()),
                size: Some(data.get().len()),
                data: Some(shown(data.get())),
                ..base
            },
            Observation::CacheMiss { channel } => Self { kind: "miss", channel: Some(channel.to_owned()), ..base },
        }
    }

    pub(super) fn user(&self) -> Option<&String> {
        self.user.as_ref()
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_data_is_cut_between_letters() {
        let text = "é".repeat(MAX_DATA);
        assert_eq!(shown(&text).len(), MAX_DATA);
        assert_eq!(shown(&format!("x{text}")).len(), MAX_DATA - 1);
        assert_eq!(shown("{}"), "{}");
    }

    #[test]
    fn every_limit_is_named() {
        assert!(hint_for(Refusal::SubscribeRate).unwrap().contains("limits.subscribesPerSecond"));
        assert_eq!(hint_for(Refusal::Unauthorized), None);
    }
}
