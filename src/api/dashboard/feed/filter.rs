//! [`Filter`]: which entries a page shows. Input: its parameters, and what an entry is about. Output: yes or no.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::queue::MAX_ENTRIES;
use crate::api::dashboard::entry::{About, Group};
use crate::channel::ChannelName;
use crate::client::Client;
use crate::event::SocketId;
use crate::hub::Hub;

/// The filter of a page.
#[derive(Debug, Default)]
pub(in crate::api::dashboard) struct Filter {
    /// Bits of [`Group`]; 0 means all.
    groups: u16,
    channel: Option<NameFilter>,
    who: Option<Who>,
}

#[derive(Debug)]
enum NameFilter {
    Whole(String),
    Part(String),
}

/// A user or a socket, with its current sockets or user.
#[derive(Debug)]
struct Who {
    text: String,
    now: ArcSwap<(Vec<SocketId>, Vec<ChannelName>)>,
}

impl Filter {
    /// `groups` is a list such as `delivered,refusals`, empty for all; `channel` is a part of a name, or a full name after `=`;
    /// `who` is the id of a user or of a socket.
    pub(in crate::api::dashboard) fn new(groups: &str, channel: &str, who: &str) -> Self {
        let wanted = Group::ALL.iter().filter(|(name, _)| groups.split(',').any(|group| group == *name));
        let name = match channel.strip_prefix('=') {
            Some(whole) => Some(NameFilter::Whole(whole.to_owned())),
            None if channel.is_empty() => None,
            None => Some(NameFilter::Part(channel.to_lowercase())),
        };
        Self {
            groups: wanted.fold(0, |bits, (_, group)| bits | 1 << *group as u16),
            channel: name,
            who: (!who.is_empty()).then(|| Who { text: who.to_owned(), now: ArcSwap::default() }),
        }
    }

    /// Looks up the current sockets or user of `who`.
    pub(super) fn refresh(&self, hub: &Hub<Client>) {
        let Some(who) = &self.who else { return };
        let ids = SocketId::parse(&who.text).map_or_else(|| hub.sockets_of(&who.text, MAX_ENTRIES), |id| vec![id]);
        let mut channels = Vec::new();
        for stay in ids.iter().filter_map(|id| hub.inspect(*id)).flat_map(|view| view.channels) {
            if stay.is_joined && !channels.contains(&stay.channel) {
                channels.push(stay.channel);
            }
        }
        who.now.store(Arc::new((ids, channels)));
    }

    pub(super) fn takes(&self, group: Group, (channel, socket, user): About<'_>) -> bool {
        if self.groups != 0 && self.groups & 1 << group as u16 == 0 {
            return false;
        }
        let fits = match &self.channel {
            None => true,
            Some(NameFilter::Whole(name)) => channel == Some(name),
            Some(NameFilter::Part(part)) => channel.is_some_and(|channel| channel.to_lowercase().contains(part)),
        };
        fits && self.who.as_ref().is_none_or(|who| {
            let now = who.now.load();
            let (sockets, channels) = &**now;
            user == Some(&who.text)
                || socket.is_some_and(|socket| sockets.contains(&socket))
                || socket.is_none() && channel.is_some_and(|channel| channels.iter().any(|known| known.as_str() == channel))
        })
    }

    /// Whether it is for exactly this channel.
    pub(super) fn is_for(&self, channel: &str) -> bool {
        matches!(&self.channel, Some(NameFilter::Whole(name)) if name == channel)
    }
}
