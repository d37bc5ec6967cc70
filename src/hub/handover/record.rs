//! [`Record`]: a session as it is stored in Redis, for the node that resumes it.
//!
//! Input: a session of this node with numbers of its history, or JSON of another node. Output: the JSON, or the session with
//! numbers of the history here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::super::history::History;
use super::super::recovery::Stay;
use super::super::session::Terms;
use crate::auth::GrantedBy;
use crate::channel::ChannelName;
use crate::clock::{milliseconds, since_1970};
use crate::store::Member;

/// A session as it is stored for other nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The offset at which it began, if other nodes understand it.
    pub(super) since: Option<String>,
    /// The offset that its client had before this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stale: Option<Box<str>>,
    /// When other nodes do not understand all offsets: only a client that has received everything up to here can resume there.
    least: Option<String>,
    stays: Vec<StayRecord>,
}

/// A channel that the session is in.
#[derive(Debug, Serialize, Deserialize)]
struct StayRecord {
    channel: String,
    /// The offset at which the socket joined, or a later one.
    since: String,
    /// What the subscription is based on, in guarded channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    terms: Option<TermsRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TermsRecord {
    headers: Vec<(String, String)>,
    user: Option<Arc<str>>,
    by: GrantedBy,
    member: Option<Box<RawValue>>,
    /// When the grant expires, in milliseconds since 1970.
    ends: Option<u64>,
}

impl Record {
    /// `None` while other nodes would not understand it.
    pub(super) fn new(history: &History, since: u64, stale: Option<Box<str>>, stays: &[Stay]) -> Option<Self> {
        let mut least = None;
        let mut place = |number| {
            let (offset, is_exact) = history.epochs.shared_offset(number)?;
            if !is_exact {
                least = least.max(Some(number));
            }
            Some((offset.to_string(), is_exact))
        };
        let began = place(since)?;
        let mut records = Vec::with_capacity(stays.len());
        for stay in stays {
            let terms = stay.terms.as_ref().map(TermsRecord::new);
            records.push(StayRecord { channel: stay.channel.as_str().to_owned(), since: place(stay.since)?.0, terms });
        }
        let least = match least {
            Some(number) => Some(history.epochs.shared_offset(number)?.0.to_string()),
            None => None,
        };
        Some(Self { since: Some(began).filter(|(_, is_exact)| *is_exact).map(|(offset, _)| offset), stale, least, stays: records })
    }

    /// The session's channels, and the position from which a client with this offset resumes. `None` when that is unknown.
    pub(super) fn read(self, history: &History, offset: Option<&str>) -> Option<(u64, Vec<Stay>)> {
        let since = match &self.since {
            Some(since) => Some(history.epochs.since(since)?),
            None => None,
        };
        let position = match offset {
            // An offset that only another node knows cannot be placed.
            Some(offset) => history.epochs.position(offset)?.max(since.unwrap_or(0)),
            None => since?,
        };
        if let Some(least) = &self.least
            && position < history.epochs.since(least)?
        {
            return None;
        }
        let stay = |stay: StayRecord| {
            let channel = ChannelName::from(stay.channel.as_str());
            let terms = match stay.terms {
                Some(terms) => Some(terms.read()?),
                None => None,
            };
            Some(Stay { channel, since: history.epochs.since(&stay.since)?, terms, interest: None })
        };
        Some((position, self.stays.into_iter().map(stay).collect::<Option<_>>()?))
    }

    /// The offsets in it, which show how far the node that wrote it had counted.
    pub(super) fn places(&self) -> impl Iterator<Item = &str> {
        let stays = self.stays.iter().map(|stay| stay.since.as_str());
        self.since.as_deref().into_iter().chain(self.least.as_deref()).chain(stays)
    }

    /// The names of bans that would exclude it: removals of its users, or from its channels.
    pub(super) fn ban_names(&self) -> Vec<String> {
        let guarded = || self.stays.iter().filter_map(|stay| Some((stay.channel.as_str(), stay.terms.as_ref()?)));
        let users: BTreeSet<&str> = guarded().filter_map(|(_, terms)| terms.user.as_deref()).collect();
        let channels = guarded().map(|(channel, _)| channel);
        let of_channel =
            |channel| users.iter().map(move |&user| ban_name(Some(user), Some(channel))).chain([ban_name(None, Some(channel))]);
        users.iter().map(|&user| ban_name(Some(user), None)).chain(channels.flat_map(of_channel)).collect()
    }
}

/// The name of a ban: for a user, for a channel, or for a user in a channel.
pub(super) fn ban_name(user: Option<&str>, channel: Option<&str>) -> String {
    serde_json::to_string(&(user, channel)).expect("texts serialize")
}

impl TermsRecord {
    fn new(terms: &Terms) -> Self {
        let member = terms.member.as_ref().map(|member| RawValue::from_string(member.json().to_owned()).expect("members are JSON"));
        let ends = terms.ends.map(|ends| milliseconds(since_1970()) + milliseconds(ends.saturating_duration_since(Instant::now())));
        Self { headers: terms.headers.to_vec(), user: terms.user.clone(), by: terms.by, member, ends }
    }

    fn read(self) -> Option<Terms> {
        let member = self.member.map(|member| Member::parse(member.get())).transpose().ok()?;
        let ends = self.ends.map(|ends| Instant::now() + Duration::from_millis(ends.saturating_sub(milliseconds(since_1970()))));
        let headers = Arc::new(self.headers);
        Some(Terms { ticket: Default::default(), headers, user: self.user, by: self.by, member, ends })
    }
}
