//! A page in a browser: what it did, and who it believes is here, judging only by the messages it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Heard, Recorder};
use crate::event::SocketId;
use crate::hub::Socket as _;

/// A connected page.
pub(super) struct Page {
    pub(super) node: usize,
    pub(super) user: u32,
    pub(super) socket: Recorder,
    pub(super) stays: BTreeMap<&'static str, Stay>,
}

/// A page's relation to a channel, from its first subscribe until it unsubscribes.
#[derive(Default)]
pub(super) struct Stay {
    /// Subscribes whose outcome has not been checked yet.
    asked: Vec<Asked>,
    answers: Vec<Answer>,
    /// The member that it is here, as of the last check.
    pub(super) member: Option<u32>,
    /// The users that it believes are here; `None` while it is not in the channel.
    pub(super) here: Option<BTreeSet<u32>>,
}

struct Asked {
    at: Instant,
    number: u64,
    /// The user that the application names, unless it refuses.
    user: Option<u32>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Subscribed,
    Error(u64),
}

/// A page was told that a user is gone.
pub(super) struct Gone {
    pub(super) at: Instant,
    pub(super) room: &'static str,
    pub(super) user: u32,
}

impl Page {
    pub(super) fn new(node: usize, user: u32, number: u64) -> Self {
        Self { node, user, socket: Recorder::numbered(&format!("1.{number}")), stays: BTreeMap::new() }
    }

    pub(super) fn id(&self) -> SocketId {
        self.socket.id()
    }

    /// The page subscribes, and the application answers after `delay`.
    pub(super) fn asks(&mut self, room: &'static str, user: Option<u32>, number: u64, delay: Duration) {
        let asked = Asked { at: Instant::now() + delay, number, user };
        self.stays.entry(room).or_default().asked.push(asked);
    }

    /// Processes what it was told. No user may join who is here, and none may leave who is not.
    pub(super) fn read(&mut self) -> Vec<Gone> {
        let mut gone = Vec::new();
        for (at, Heard { name, channel, data }) in self.socket.take() {
            let Some((&room, stay)) = self.stays.iter_mut().find(|(room, _)| **room == channel) else {
                panic!("{} is not in {channel}, and hears {name} {data}", self.socket.id());
            };
            let data: Value = serde_json::from_str(&data).unwrap();
            let user = |member: &Value| u32::try_from(member["user_id"].as_u64().unwrap()).unwrap();
            match name.as_str() {
                "presence:subscribed" => {
                    let list = data.as_array().unwrap();
                    let here: BTreeSet<u32> = list.iter().map(user).collect();
                    assert_eq!(here.len(), list.len(), "somebody is listed twice: {data}");
                    stay.here = Some(here);
                    stay.answers.push(Answer::Subscribed);
                }
                "subscription_error" => stay.answers.push(Answer::Error(data.as_u64().unwrap())),
                "presence:joining" => {
                    let here = stay.here.as_mut().expect("the list comes first");
                    assert!(here.insert(user(&data)), "{} came to {here:?} twice", user(&data));
                }
                "presence:leaving" => {
                    let here = stay.here.as_mut().expect("the list comes first");
                    assert!(here.remove(&user(&data)), "{} left {here:?} twice", user(&data));
                    gone.push(Gone { at, room, user: user(&data) });
                }
                other => panic!("unexpected {other}"),
            }
        }
        gone
    }

    /// Once everything has come to rest, each subscribe has its answer. `may_fail`: the store was unreachable at times.
    pub(super) fn rest(&mut self, may_fail: bool) {
        for stay in self.stays.values_mut() {
            stay.rest(may_fail);
        }
        self.stays.retain(|_, stay| stay.member.is_some());
    }
}

impl Stay {
    fn rest(&mut self, may_fail: bool) {
        self.asked.sort_by_key(|asked| (asked.at, asked.number));
        let (granted, refused): (Vec<_>, Vec<_>) = std::mem::take(&mut self.asked).into_iter().partition(|asked| asked.user.is_some());
        let (no, answers): (Vec<_>, Vec<_>) = std::mem::take(&mut self.answers).into_iter().partition(|a| *a == Answer::Error(403));
        assert_eq!(no.len(), refused.len(), "each refusal is told once");
        assert_eq!(answers.len(), granted.len(), "each grant is answered once");
        // The hub handles grants of one channel in turn, so its answers come in the order of the application's.
        for (asked, answer) in granted.into_iter().zip(answers) {
            match answer {
                Answer::Subscribed => self.member = asked.user,
                Answer::Error(500) if may_fail => {}
                error => panic!("a grant came to {error:?}"),
            }
        }
        assert_eq!(self.member.is_some(), self.here.is_some(), "who is in has a list");
    }

    /// Whether it is this user, and stays this user after everything in progress.
    pub(super) fn is_surely(&self, user: u32) -> bool {
        self.member == Some(user) && self.asked.iter().all(|asked| asked.user.is_none_or(|other| other == user))
    }
}
