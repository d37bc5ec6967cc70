//! Encodes messages of the hub and the session as Pusher events.
//!
//! Input: a [`Message`] of the hub. Output: a frame. `data` is always a string of JSON: PusherSwift accepts nothing else.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;

use super::code;
use crate::client::Speech;
use crate::event::SocketId;
use crate::hub::{Dialect, Message, Offset};
use crate::net::websocket::text_frame;
use crate::store::Member;

/// Protocol 7.
pub(super) struct Protocol7;

impl Speech for Protocol7 {
    fn dialect(&self) -> Dialect {
        Dialect::Pusher
    }

    fn encode(&self, message: &Message<'_>, _: Option<Offset>) -> Option<Bytes> {
        encode(message)
    }

    fn goodbye(&self) -> Bytes {
        let error = error(Some(code::UNAUTHORIZED), "the application has ended this connection");
        [error, close(code::UNAUTHORIZED)].concat().into()
    }

    fn version(&self) -> &'static str {
        "pusher"
    }
}

fn encode(message: &Message<'_>) -> Option<Bytes> {
    Some(match *message {
        // Flat mode concerns only Socket.IO pages.
        Message::Event { is_flat: true, .. } => return None,
        Message::Event { channel, name, data, user, is_flat: false, .. } => event(name, Some(channel), data.get(), user),
        Message::Subscribed { channel, members, .. } => {
            let data = members.map_or_else(|| "{}".to_owned(), presence);
            event("pusher_internal:subscription_succeeded", Some(channel), &data, None)
        }
        Message::Joined { channel, member, .. } => event("pusher_internal:member_added", Some(channel), &added(member), None),
        Message::Left { channel, member } => {
            let data = json!({ "user_id": member.user() }).to_string();
            event("pusher_internal:member_removed", Some(channel), &data, None)
        }
        Message::Count { channel, count } => {
            let data = json!({ "subscription_count": count }).to_string();
            event("pusher_internal:subscription_count", Some(channel), &data, None)
        }
        Message::Position => return None,
        Message::Watched { online, offline } => {
            let named = [("online", online), ("offline", offline)].into_iter().filter(|(_, users)| !users.is_empty());
            let events: Vec<_> = named.map(|(name, users)| json!({ "name": name, "user_ids": users })).collect();
            event("pusher_internal:watchlist_events", None, &json!({ "events": events }).to_string(), None)
        }
        Message::CacheMiss { channel } => text(&json!({ "event": "pusher:cache_miss", "channel": channel })),
        Message::Refused { channel, status } => {
            let why = match status {
                401 | 403 => "the subscription is not authorized",
                409 => "the channel is full",
                429 => "too many subscriptions",
                _ => "the subscription failed",
            };
            let data = json!({ "type": "AuthError", "error": why, "status": status });
            text(&json!({ "event": "pusher:subscription_error", "channel": channel, "data": data }))
        }
    })
}

/// `{"event":"…","channel":"…","data":"…"}`, where `data` is a string of JSON.
pub(super) fn event(name: &str, channel: Option<&str>, data: &str, user: Option<&str>) -> Bytes {
    text_frame(name.len() + channel.map_or(0, str::len) + data.len() + 64, |frame| {
        let mut push = |part: &str, value: &str| {
            frame.extend_from_slice(part.as_bytes());
            serde_json::to_writer(&mut *frame, value).expect("writing text to memory cannot fail");
        };
        push("{\"event\":", name);
        if let Some(channel) = channel {
            push(",\"channel\":", channel);
        }
        push(",\"data\":", data);
        if let Some(user) = user {
            push(",\"user_id\":", user);
        }
        frame.push(b'}');
    })
}

/// `{"event":"pusher:error","data":{"code":4001,"message":"…"}}`
pub(super) fn error(code: Option<u16>, message: &str) -> Bytes {
    text(&json!({ "event": "pusher:error", "data": { "code": code, "message": message } }))
}

fn text(value: &serde_json::Value) -> Bytes {
    let text = value.to_string();
    text_frame(text.len(), |frame| frame.extend_from_slice(text.as_bytes()))
}

/// A CLOSE frame with a [`code`].
pub(super) fn close(code: u16) -> Bytes {
    let [high, low] = code.to_be_bytes();
    Bytes::copy_from_slice(&[0x88, 2, high, low])
}

/// `{"presence":{"ids":["1"],"hash":{"1":{"name":"Ann"}},"count":1}}`, one entry per user.
fn presence(members: &[(SocketId, Member)]) -> String {
    let mut seen = HashSet::with_capacity(members.len());
    let users: Vec<_> = members.iter().rev().filter(|(_, member)| seen.insert(member.user())).map(|(_, member)| member).collect();
    let ids: Vec<&str> = users.iter().map(|member| member.user()).collect();
    let mut json = format!("{{\"presence\":{{\"ids\":{},\"hash\":{{", serde_json::to_string(&ids).expect("texts are JSON"));
    for (index, member) in users.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        json.push_str(&serde_json::to_string(member.user()).expect("a text is JSON"));
        json.push(':');
        json.push_str(info(member));
    }
    json.push_str(&format!("}},\"count\":{}}}}}", users.len()));
    json
}

fn added(member: &Member) -> String {
    let user = serde_json::to_string(member.user()).expect("a text is JSON");
    format!("{{\"user_id\":{user},\"user_info\":{}}}", info(member))
}

fn info(member: &Member) -> &str {
    member.view().user_info.map_or("{}", RawValue::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::websocket::text_of;

    fn encoded(message: &Message<'_>) -> serde_json::Value {
        let frame = encode(message).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&text_of(&frame)).unwrap();
        if let Some(data) = value["data"].as_str() {
            value["data"] = serde_json::from_str(data).unwrap();
        }
        value
    }

    #[test]
    fn data_is_a_string_and_the_sender_is_named() {
        let data = RawValue::from_string(r#"{"a":"ü"}"#.to_owned()).unwrap();
        let message =
            Message::Event { channel: "presence-a", name: "client-a", data: &data, user: Some("1"), is_stamped: false, is_flat: false };
        let frame = encode(&message).unwrap();
        let text = r#"{"event":"client-a","channel":"presence-a","data":"{\"a\":\"ü\"}","user_id":"1"}"#;
        assert_eq!(text_of(&frame), text);
    }

    #[test]
    fn members_are_listed_once_per_user() {
        let member = |n, json| (SocketId::new(1, n), Member::parse(json).unwrap());
        let members =
            [member(1, r#"{"user_id":1,"user_info":{"name":"Ann"}}"#), member(2, r#"{"user_id":"1"}"#), member(3, r#"{"user_id":2}"#)];
        let (channel, shows_sockets) = ("presence-a", false);
        let subscribed = encoded(&Message::Subscribed { channel, members: Some(&members), shows_sockets });
        assert_eq!(subscribed["data"], json!({ "presence": { "ids": ["2", "1"], "hash": { "2": {}, "1": {} }, "count": 2 } }));
        let joined = encoded(&Message::Joined { channel, member: &members[0].1, socket: None });
        assert_eq!(joined["data"], json!({ "user_id": "1", "user_info": { "name": "Ann" } }));
        let left = encoded(&Message::Left { channel, member: &members[0].1 });
        assert_eq!((left["event"].as_str(), &left["data"]), (Some("pusher_internal:member_removed"), &json!({ "user_id": "1" })));
        let subscribed = encoded(&Message::Subscribed { channel: "news", members: None, shows_sockets });
        assert_eq!(subscribed, json!({ "event": "pusher_internal:subscription_succeeded", "channel": "news", "data": {} }));
        let refused = encoded(&Message::Refused { channel: "private-a", status: 403 });
        assert_eq!(refused["data"]["status"], 403);
    }
}
