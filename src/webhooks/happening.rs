//! [`Happening`]: one event of a delivery, in Pusher's format.
//!
//! Input: what happened. Output: JSON such as `{"name":"member_added","channel":"presence-room","user_id":"1","time_ms":…,"seq":…}`.

use serde::Serialize;

use crate::channel::{ChannelKind, kind_of};
use crate::clock::{milliseconds, since_1970};
use crate::config::WebhookEvent;

/// The fields of an event in addition to its name and channel.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Detail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<&'a str>,
    /// JSON as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) socket_id: Option<crate::event::SocketId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subscription_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Written<'a> {
    name: &'static str,
    channel: &'a str,
    #[serde(flatten)]
    detail: Detail<'a>,
    time_ms: u64,
}

/// One event, complete except for its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Happening {
    pub(super) event: WebhookEvent,
    /// Empty for events that have no channel.
    pub(super) channel: Box<str>,
    /// The user of a member event, or the number of a count.
    pub(super) what: Box<str>,
    /// When it happened, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// The JSON without its closing brace, so that the number can be appended.
    pub(super) json: String,
}

impl Happening {
    /// An event that happens now.
    pub(super) fn now(event: WebhookEvent, channel: &str, detail: Detail<'_>) -> Self {
        let time_ms = now_ms();
        let written = Written { name: event.as_str(), channel, detail, time_ms };
        let mut json = serde_json::to_string(&written).expect("texts and numbers serialize");
        json.pop();
        let count = detail.subscription_count.map(|count| count.to_string());
        let what = count.as_deref().or(detail.user_id).unwrap_or_default().into();
        Self { event, channel: channel.into(), what, time_ms, json }
    }

    /// Whether clients can cause any number of such events: they are dropped before other events about occupancy and members. Public
    /// channels count as well, because anyone can join them and make up their names.
    pub(super) fn is_of_clients(&self) -> bool {
        use WebhookEvent::{ChannelOccupied, ChannelVacated, SubscriptionCount};
        let is_of_channel = matches!(self.event, ChannelOccupied | ChannelVacated | SubscriptionCount);
        self.event.is_of_clients() || is_of_channel && kind_of(&self.channel) == ChannelKind::Public
    }

    /// The complete JSON. `seq` grows with every event.
    pub(super) fn numbered(&self, seq: u64) -> String {
        format!("{},\"seq\":{seq}}}", self.json)
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    milliseconds(since_1970())
}

/// The body of a delivery.
pub(super) fn body<'a>(events: impl Iterator<Item = &'a str>) -> String {
    let events: Vec<&str> = events.collect();
    format!("{{\"time_ms\":{},\"events\":[{}]}}", now_ms(), events.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_event_is_written_as_pusher_writes_it() {
        let detail = Detail { user_id: Some("7\""), ..Detail::default() };
        let happening = Happening::now(WebhookEvent::MemberAdded, "presence-a", detail);
        let body: Value = serde_json::from_str(&body([happening.numbered(5).as_str()].into_iter())).unwrap();
        let time = happening.time_ms;
        assert_eq!(body["events"], json!([{"name": "member_added", "channel": "presence-a", "user_id": "7\"", "time_ms": time, "seq": 5}]));
        assert!(body["time_ms"].as_u64().unwrap() >= time);
    }
}
