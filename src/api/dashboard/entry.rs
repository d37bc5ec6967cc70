//! [`Entry`]: one line of the trace.
//!
//! Input: an [`Observation`]. Output: an owned copy of it that serializes to JSON for the page.

use std::sync::OnceLock;

use serde::{Serialize, Serializer};

use crate::clock::{milliseconds, since_1970};
use crate::event::SocketId;
use crate::hub::{Observation, USERS};
use crate::metrics::Refusal;

/// Maximum bytes of an event's data sent to the page; longer data is truncated, and `size` has its full length.
const MAX_DATA: usize = 2048;

/// Maximum bytes of any other text: names of events, channels and users may be as long as a message.
const MAX_TEXT: usize = 512;

/// The channel, the socket and the user that an entry is about.
pub(super) type About<'a> = (Option<&'a str>, Option<SocketId>, Option<&'a str>);

/// Groups by which pages filter; every entry is in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Delivered,
    Unheard,
    Dropped,
    Whispers,
    Subscribes,
    Refusals,
    Presence,
    Connections,
}

impl Group {
    pub(super) const ALL: [(&'static str, Self); 8] = [
        ("delivered", Self::Delivered),
        ("unheard", Self::Unheard),
        ("dropped", Self::Dropped),
        ("whispers", Self::Whispers),
        ("subscribes", Self::Subscribes),
        ("refusals", Self::Refusals),
        ("presence", Self::Presence),
        ("connections", Self::Connections),
    ];

    pub(super) const fn of(observation: &Observation<'_>) -> Self {
        match observation {
            Observation::Dropped { .. } | Observation::Published { dropped: 1.., .. } => Self::Dropped,
            Observation::Published { delivered: 0, .. } => Self::Unheard,
            Observation::Published { .. } => Self::Delivered,
            Observation::Whispered { .. } => Self::Whispers,
            Observation::Refused { .. } | Observation::TurnedAway { .. } | Observation::Afresh { .. } | Observation::Gap => Self::Refusals,
            Observation::Joined { .. } | Observation::Left { .. } => Self::Presence,
            Observation::Connected { .. } | Observation::Disconnected { .. } | Observation::Returned { .. } => Self::Connections,
            Observation::Subscribed { .. }
            | Observation::Unsubscribed { .. }
            | Observation::Granted { .. }
            | Observation::CacheMiss { .. } => Self::Subscribes,
        }
    }
}

/// The channel that an event was probably meant for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Near {
    channel: String,
    hint: String,
}

impl From<(String, String)> for Near {
    fn from((channel, hint): (String, String)) -> Self {
        Self { channel: cut(&channel), hint: cut(&hint) }
    }
}

/// One line of the trace. Fields that do not apply are absent.
#[derive(Debug, Default, Serialize)]
pub(super) struct Entry {
    /// Sequence number.
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
    /// Name of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    /// Bytes of the complete data.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// Number of sockets that received it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delivered: Option<usize>,
    /// Number of sockets that do not keep up, and for which it was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dropped: Option<usize>,
    /// Why it was not sent to anyone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    /// The excluded socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    except: Option<SocketId>,
    /// The excluded socket was in the channel.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_left_out: bool,
    /// Sockets in the channel afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// The application's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    /// What granted the subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'static str>,
    /// Milliseconds of a callback.
    #[serde(skip_serializing_if = "Option::is_none")]
    took: Option<u64>,
    /// Origin of a rejected client's page.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// Why a socket or member left.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// For an event without subscribers; computed outside the hub's work.
    #[serde(serialize_with = "found", skip_serializing_if = "is_absent")]
    pub(super) near: OnceLock<Option<Near>>,
}

fn found<S: Serializer>(near: &OnceLock<Option<Near>>, serializer: S) -> Result<S::Ok, S::Error> {
    near.get().serialize(serializer)
}

fn is_absent(near: &OnceLock<Option<Near>>) -> bool {
    !matches!(near.get(), Some(Some(_)))
}

/// The displayed part of the data.
fn shown(data: &str) -> String {
    data[..data.floor_char_boundary(MAX_DATA)].to_owned()
}

/// The displayed part of any other text.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

/// The subjects of an observation.
pub(super) fn about<'a>(observation: &Observation<'a>) -> About<'a> {
    match *observation {
        Observation::TurnedAway { .. } | Observation::Gap => (None, None, None),
        Observation::Connected { socket }
        | Observation::Disconnected { socket, .. }
        | Observation::Returned { socket, .. }
        | Observation::Afresh { socket } => (None, Some(socket), None),
        Observation::Subscribed { channel, socket, .. }
        | Observation::Unsubscribed { channel, socket, .. }
        | Observation::Refused { channel, socket, .. } => (Some(channel), Some(socket), None),
        Observation::Granted { channel, socket, user, .. } | Observation::Whispered { channel, socket, user, .. } => {
            (Some(channel), Some(socket), user)
        }
        Observation::Joined { channel, member } | Observation::Left { channel, member } => (Some(channel), None, Some(member.user())),
        Observation::Published { event, .. } => (Some(event.channel), None, None),
        Observation::CacheMiss { channel } => (Some(channel), None, None),
        Observation::Dropped { channel, .. } => (channel, None, None),
    }
}

/// For a client that could not resume because missed events are no longer kept.
const AFRESH: &str =
    "not all missed events are kept: see recovery.window, recovery.events and recovery.bytes; Redis outages leave a gap, too";

/// For a reconnect to Redis.
const GAP: &str = "events published to Redis meanwhile are lost; clients that were disconnected then start a new session and resubscribe";

/// What to do about a refusal without a callback.
fn hint_for(cause: Refusal) -> Option<String> {
    cause.limit().map(|key| format!("over `{key}`: raise it if the page is not at fault")).or_else(|| {
        let hint = match cause {
            Refusal::Whisper => {
                "whispers need a private or presence channel that the client is in, and a name with client- (added by Echo's whisper())"
            }
            Refusal::Users => USERS,
            Refusal::Headers => "its headers are too large: auth.headers, or those of the handshake (limits.handshakeHeaders)",
            Refusal::Origin => "if this page is yours, add its origin to allowedOrigins",
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
        let (channel, socket, user) = about(observation);
        let base = Self { n, at: milliseconds(since_1970()), channel: channel.map(cut), socket, user: user.map(cut), ..Self::default() };
        match *observation {
            Observation::Connected { .. } => Self { kind: "connected", ..base },
            Observation::Disconnected { reason, .. } => Self { kind: "disconnected", reason: Some(reason.as_str()), ..base },
            Observation::TurnedAway { cause, origin } => {
                Self { kind: "turned", cause: Some(cause.as_str()), origin: origin.map(cut), hint: hint_for(cause), ..base }
            }
            Observation::Returned { replayed, .. } => Self { kind: "returned", count: Some(replayed), ..base },
            Observation::Afresh { .. } => Self { kind: "afresh", hint: Some(AFRESH.to_owned()), ..base },
            Observation::Gap => Self { kind: "gap", hint: Some(GAP.to_owned()), ..base },
            Observation::Subscribed { count, .. } => Self { kind: "subscribed", count: Some(count), ..base },
            Observation::Unsubscribed { reason, count, .. } => Self { kind: "left", count: Some(count), reason: Some(reason), ..base },
            Observation::Granted { by, took, .. } => Self { kind: "granted", by: Some(by.as_str()), took: took.map(milliseconds), ..base },
            Observation::Refused { cause, status, reason, .. } => Self {
                kind: "refused",
                status,
                cause: Some(cause.as_str()),
                answer: reason.map(|reason| cut(&reason.answer)),
                hint: reason.map(|reason| &*reason.hint).filter(|hint| !hint.is_empty()).map(str::to_owned).or_else(|| hint_for(cause)),
                ..base
            },
            Observation::Joined { .. } => Self { kind: "joined", ..base },
            Observation::Left { .. } => Self { kind: "gone", ..base },
            Observation::Dropped { source, why, .. } => {
                Self { kind: "dropped", source: Some(source.as_str()), why: Some(cut(why)), ..base }
            }
            Observation::Published { event, source, delivered, dropped, has_left_out } => Self {
                kind: "event",
                name: Some(cut(&event.name)),
                source: Some(source.as_str()),
                size: Some(event.data.get().len()),
                data: Some(shown(event.data.get())),
                delivered: Some(delivered),
                dropped: Some(dropped).filter(|dropped| *dropped > 0),
                except: event.except,
                has_left_out,
                ..base
            },
            Observation::Whispered { name, data, .. } => {
                Self { kind: "whisper", name: Some(cut(name)), size: Some(data.get().len()), data: Some(shown(data.get())), ..base }
            }
            Observation::CacheMiss { .. } => Self { kind: "miss", ..base },
        }
    }

    /// As [`about`], for a stored entry.
    pub(super) fn about(&self) -> About<'_> {
        (self.channel.as_deref(), self.socket, self.user.as_deref())
    }

    /// Its memory, including all texts.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.channel, &self.user, &self.name, &self.data, &self.answer, &self.hint, &self.origin, &self.why];
        size_of::<Self>() + texts.into_iter().flatten().map(String::capacity).sum::<usize>()
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::metrics::Source;

    #[test]
    fn long_data_is_truncated_between_characters() {
        let text = "é".repeat(MAX_DATA);
        assert_eq!(shown(&text).len(), MAX_DATA);
        assert_eq!(shown(&format!("x{text}")).len(), MAX_DATA - 1);
        assert_eq!(shown("{}"), "{}");
    }

    #[test]
    fn the_size_of_an_entry_is_bounded() {
        let text = "x".repeat(1 << 20);
        let data = serde_json::value::to_raw_value(&text).unwrap();
        let event = Event { channel: &text, name: text.as_str().into(), data: &data, except: None, user: None };
        let published = Observation::Published { event: &event, source: Source::Redis, delivered: 0, dropped: 0, has_left_out: false };
        let entry = Entry::new(1, &published);
        assert_eq!(entry.size, Some(text.len() + 2));
        assert!(entry.bytes() < 4096, "{} bytes", entry.bytes());
        let near = Near::from((text.clone(), text.clone()));
        assert_eq!(near.channel.len() + near.hint.len(), 2 * MAX_TEXT);
        let dropped = Observation::Dropped { channel: Some(&text), source: Source::Redis, why: &text };
        assert!(Entry::new(1, &dropped).bytes() < 4096);
        let turned = Observation::TurnedAway { cause: Refusal::Origin, origin: Some(&text) };
        assert!(Entry::new(1, &turned).bytes() < 4096);
    }

    #[test]
    fn an_event_that_slow_clients_miss_is_among_the_dropped_ones() {
        let data = serde_json::value::to_raw_value(&1).unwrap();
        let event = Event { channel: "news", name: "sent".into(), data: &data, except: None, user: None };
        let group = |delivered, dropped| {
            Group::of(&Observation::Published { event: &event, source: Source::Redis, delivered, dropped, has_left_out: false })
        };
        assert_eq!(
            [group(0, 0), group(1, 0), group(0, 1), group(2, 1)],
            [Group::Unheard, Group::Delivered, Group::Dropped, Group::Dropped]
        );
    }

    #[test]
    fn every_limit_is_named() {
        assert!(hint_for(Refusal::SubscribeRate).unwrap().contains("limits.subscribesPerSecond"));
        assert_eq!(hint_for(Refusal::Users).as_deref(), Some(USERS));
        assert_eq!(hint_for(Refusal::Unauthorized), None);
    }
}
