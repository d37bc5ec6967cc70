//! Encodes the hub's messages as Socket.IO events.
//!
//! Input: a [`Message`] of the hub. Output: the websocket frame that holds it; poll responses reuse the text of the same
//! frame.

use std::collections::HashSet;
use std::io::Write as _;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::event::SocketId;
use crate::hub::{Message, Offset};
use crate::net::websocket::text_frame;
use crate::store::Member;

/// The event that carries the current offset. No listener handles it, but socket.io-client stores the offset.
const POSITION: &str = "echo:position";

/// Capacity for quotes, brackets and the packet type.
const PUNCTUATION: usize = 24;

/// Capacity for the longest offset with its quotes and comma.
const OFFSET_BYTES: usize = 40;

/// Encodes a message as a Socket.IO event packet. `None`: the protocol has no such event. After a subscribe to a public or
/// private channel, for example, Echo expects no confirmation.
#[must_use]
pub fn encode(message: &Message<'_>, offset: Option<Offset>) -> Option<Bytes> {
    let frame = match *message {
        Message::Event { channel, name, data, user, is_stamped, is_flat: false } => {
            let stamp = is_stamped.then_some(user);
            event(name, Some(channel), data_bytes(data, offset), |text| push_data(text, data, stamp, offset))
        }
        Message::Event { channel, name, data, is_flat: true, .. } => {
            event(&format!("{channel}:{name}"), None, data_bytes(data, offset), |text| push_data(text, data, None, offset))
        }
        Message::Position => {
            let offset = offset?;
            event(POSITION, None, 0, |text| push(text, &format!("\"{offset}\"")))
        }
        Message::Subscribed { members: None, .. } | Message::CacheMiss { .. } | Message::Count { .. } | Message::Watched { .. } => {
            return None;
        }
        Message::Subscribed { channel, members: Some(members), shows_sockets } => {
            let size = members.iter().map(|(_, member)| member.json().len() + 1).sum();
            event("presence:subscribed", Some(channel), size, |text| member_list(text, members, shows_sockets))
        }
        Message::Joined { channel, member, socket } => {
            event("presence:joining", Some(channel), member.json().len(), |text| push_member(text, member, socket))
        }
        // Compat: the member in `presence:leaving` never has a `socketId` (`src/channels/presence-channel.ts:131`).
        Message::Left { channel, member } => {
            event("presence:leaving", Some(channel), member.json().len(), |text| push_member(text, member, None))
        }
        Message::Refused { channel, status } => event("subscription_error", Some(channel), 3, |text| push(text, &status.to_string())),
    };
    Some(frame)
}

/// `42["name","channel",data]`; in flat mode without the channel.
fn event(name: &str, channel: Option<&str>, data_bytes: usize, data: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let size = name.len() + channel.map_or(0, str::len) + data_bytes + PUNCTUATION;
    text_frame(size, |text| {
        push(text, "42[");
        push_json(text, name);
        if let Some(channel) = channel {
            push(text, ",");
            push_json(text, channel);
        }
        push(text, ",");
        data(text);
        push(text, "]");
    })
}

/// The list of `presence:subscribed`, newest first: one entry per user, from the user's newest socket.
fn member_list(text: &mut Vec<u8>, members: &[(SocketId, Member)], shows_sockets: bool) {
    let mut seen = HashSet::with_capacity(members.len());
    let mut separator = "[";
    for (socket, member) in members.iter().rev() {
        if seen.insert(member.user()) {
            push(text, separator);
            push_member(text, member, shows_sockets.then_some(*socket));
            separator = ",";
        }
    }
    push(text, if members.is_empty() { "[]" } else { "]" });
}

/// A member as clients see it: `{"user_id":1,"user_info":{…}}`, plus `socketId` if it is to be exposed.
fn push_member(text: &mut Vec<u8>, member: &Member, socket: Option<SocketId>) {
    match socket {
        None => push(text, member.json()),
        Some(_) => {
            let mut json = String::new();
            member.push_json(&mut json, socket);
            push(text, &json);
        }
    }
}

fn data_bytes(data: &RawValue, offset: Option<Offset>) -> usize {
    data.get().len() + offset.map_or(0, |_| OFFSET_BYTES)
}

/// Writes the data, then the user id of a stamped whisper (`null` if unknown), then the offset. The offset must come last:
/// a client that can recover takes the last argument, if it is a string, as its offset.
fn push_data(text: &mut Vec<u8>, data: &RawValue, stamp: Option<Option<&str>>, offset: Option<Offset>) {
    push(text, data.get());
    match stamp {
        Some(Some(user)) => {
            push(text, ",");
            push_json(text, user);
        }
        Some(None) => push(text, ",null"),
        None => {}
    }
    if let Some(offset) = offset {
        write!(text, ",\"{offset}\"").expect("writing text to memory cannot fail");
    }
}

fn push(text: &mut Vec<u8>, part: &str) {
    text.extend_from_slice(part.as_bytes());
}

fn push_json(text: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(text, value).expect("writing text to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::websocket::text_of;

    fn text(message: Message<'_>) -> Option<String> {
        encode(&message, None).map(|frame| String::from_utf8(text_of(&frame).into()).unwrap())
    }

    fn member(n: u64, json: &str) -> (SocketId, Member) {
        (SocketId::new(1, n), Member::parse(json).unwrap())
    }

    #[test]
    fn events_keep_every_byte_of_their_data() {
        let data = RawValue::from_string(r#"{"a":"ü"}"#.to_owned()).unwrap();
        let event = |is_flat| {
            text(Message::Event { channel: "news", name: "se\"nt", data: &data, user: None, is_stamped: false, is_flat }).unwrap()
        };
        assert_eq!(event(false), r#"42["se\"nt","news",{"a":"ü"}]"#);
        assert_eq!(event(true), r#"42["news:se\"nt",{"a":"ü"}]"#);
    }

    #[test]
    fn offsets_come_last() {
        let message = Message::Event { channel: "news", name: "sent", data: RawValue::NULL, user: None, is_stamped: false, is_flat: false };
        let frame = encode(&message, Some(Offset { epoch: 255, number: 7 })).unwrap();
        assert_eq!(text_of(&frame), r#"42["sent","news",null,"ff-7"]"#);
    }

    #[test]
    fn a_stamp_comes_before_the_offset() {
        let whisper =
            |user| Message::Event { channel: "a", name: "client-a", data: RawValue::NULL, user, is_stamped: true, is_flat: false };
        assert_eq!(text(whisper(Some("7\""))).unwrap(), r#"42["client-a","a",null,"7\""]"#);
        assert_eq!(text(whisper(None)).unwrap(), r#"42["client-a","a",null,null]"#);
        let frame = encode(&whisper(Some("7")), Some(Offset { epoch: 255, number: 7 })).unwrap();
        assert_eq!(text_of(&frame), r#"42["client-a","a",null,"7","ff-7"]"#);
    }

    #[test]
    fn only_presence_channels_announce_a_subscribe() {
        let subscribed = |members| Message::Subscribed { channel: "presence-a", members, shows_sockets: false };
        assert_eq!(text(subscribed(None)), None);
        assert_eq!(text(subscribed(Some(&[]))).unwrap(), r#"42["presence:subscribed","presence-a",[]]"#);
    }

    #[test]
    fn the_newest_member_comes_first_and_each_user_once() {
        let members = [
            member(1, r#"{"user_id":1,"user_info":"old tab"}"#),
            member(2, r#"{"user_id":2}"#),
            member(3, r#"{"user_id":"1","user_info":"new tab"}"#),
        ];
        let list =
            |members, shows_sockets| text(Message::Subscribed { channel: "presence-a", members: Some(members), shows_sockets }).unwrap();
        let all = r#"42["presence:subscribed","presence-a",[{"user_id":"1","user_info":"new tab"},{"user_id":2}]]"#;
        assert_eq!(list(&members, false), all);
        let exposed = r#"42["presence:subscribed","presence-a",[{"user_id":1,"user_info":"old tab","socketId":"1.1"}]]"#;
        assert_eq!(list(&members[..1], true), exposed);
    }

    #[test]
    fn members_join_and_leave() {
        let (socket, member) = member(1, r#"{"user_id":1}"#);
        let (channel, member) = ("presence-a", &member);
        let joined = text(Message::Joined { channel, member, socket: Some(socket) });
        assert_eq!(joined.unwrap(), r#"42["presence:joining","presence-a",{"user_id":1,"socketId":"1.1"}]"#);
        assert_eq!(text(Message::Left { channel, member }).unwrap(), r#"42["presence:leaving","presence-a",{"user_id":1}]"#);
        assert_eq!(text(Message::Refused { channel, status: 403 }).unwrap(), r#"42["subscription_error","presence-a",403]"#);
    }
}
