//! Presence channels among nodes: what other nodes change, and what may have been missed of it.
//!
//! Input: changes that the store PUBLISHes and every node hears, and lists from the store. Output: what is new of them, for the
//! clients of this node, each once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error};

use super::super::nodes::Nodes;
use super::super::session::{Session, Ticket};
use super::super::{Hub, Observation, Socket};
use super::roster::{MemberChange, Roster, Rosters};
use crate::channel::{ChannelKind, ChannelName, kind_of};
use crate::config::PresenceConfig;
use crate::event::{Event, SocketId};
use crate::store::{Joined, Member, Members};

/// What the clients of this node know of members on all nodes.
pub(in crate::hub) struct SharedPresence {
    pub(super) rosters: Rosters,
    /// Time for every node to put back what Redis may have lost: what is put back is not to look like news.
    settling: Duration,
    /// Until then a list may lack somebody who is here.
    settled: Mutex<Instant>,
}

impl SharedPresence {
    pub(in crate::hub) fn new(config: &PresenceConfig) -> Self {
        // A heartbeat until the last node has noticed, and half of one for its work.
        let settling = config.heartbeat() * 3 / 2;
        Self { rosters: Rosters::default(), settling, settled: Mutex::new(Instant::now()) }
    }

    fn settled(&self) -> Instant {
        *self.settled.lock()
    }

    /// From now on lists may lack somebody. Returns until when.
    fn unsettle(&self) -> Instant {
        let until = Instant::now() + self.settling;
        *self.settled.lock() = until;
        until
    }

    /// Takes up a list. What is returned is to be told.
    fn take_up(&self, roster: &mut Roster, version: u64, members: &Members) -> Vec<MemberChange> {
        if version == 0 {
            roster.add_here(members)
        } else if Instant::now() < self.settled() {
            roster.apply_partial(version, members)
        } else {
            roster.apply_snapshot(version, members)
        }
    }
}

impl<S: Socket> Hub<S> {
    /// Whether other nodes' changes of a channel are to be heard, even with nobody in it: somebody may be on the way in.
    pub(in crate::hub) fn follows(&self, channel: &str) -> bool {
        self.nodes.is_some() && kind_of(channel) == ChannelKind::Presence
    }

    /// Takes up a change that a node made to a presence channel; `version` is the channel's by that change. `false`:
    /// this is no such change, or a single node, which makes its changes known itself.
    pub(in crate::hub) fn apply_change(self: &Arc<Self>, event: &Event<'_>, version: u64) -> bool {
        let Some(nodes) = &self.nodes else { return false };
        let news = |member| match (&*event.name, event.except) {
            ("presence:joining", Some(socket)) => Some(MemberChange::Joining(socket, member)),
            ("presence:leaving", _) => Some(MemberChange::Leaving(member)),
            _ => None,
        };
        let Some(news) = Member::parse(event.data.get()).ok().and_then(news) else { return false };
        nodes.presence.rosters.visit(event.channel, |roster| {
            if let Some(news) = roster.apply(version, news) {
                self.tell(&event.channel.into(), &news, None);
            }
        });
        true
    }

    /// Tells everyone in the room but `except`. A socket may hear of itself: it was thought gone, and is back.
    fn tell(self: &Arc<Self>, channel: &ChannelName, news: &MemberChange, except: Option<SocketId>) {
        match news {
            MemberChange::Joining(socket, member) => self.tell_joining(channel, *socket, member, except),
            MemberChange::Leaving(member) => self.tell_leaving(channel, member, except),
        }
    }

    /// The end of a join. What others are told, what the new one is told and that it is in the room happen as one
    /// step, as far as news from other nodes are concerned. `was_in`: it was in before, and has a leave to come if it went
    /// away meanwhile.
    pub(super) async fn enter_among_nodes(
        self: &Arc<Self>,
        nodes: &Nodes,
        session: &Session<S>,
        channel: &ChannelName,
        ticket: Ticket,
        joined: &Joined,
        was_in: bool,
    ) -> bool {
        if joined.has_lost {
            self.catch_up();
        }
        let has_entered = nodes.presence.rosters.enter(channel, |roster| {
            let news = nodes.presence.take_up(roster, joined.version, &joined.members);
            for news in &news {
                self.tell(channel, news, Some(session.socket.id()));
            }
            self.observe_unnoticed(channel, session.socket.id(), joined, &news);
            self.enter_and_show(session, channel, ticket, || self.show_members(session, channel, &roster.list(&joined.members)))
        });
        if !has_entered {
            // It went away meanwhile; the store tells everyone.
            if !was_in && let Err(error) = self.store.leave(channel, session.socket.id()).await {
                error!(%channel, %error, "could not remove a presence member");
            }
            self.prune(channel);
        }
        has_entered
    }

    /// Whoever left a moment ago, unheard here, and is back is no news to clients, but to observers: others may have seen the user gone.
    fn observe_unnoticed(&self, channel: &ChannelName, id: SocketId, joined: &Joined, news: &[MemberChange]) {
        let is_told = news.iter().any(|news| matches!(news, MemberChange::Joining(socket, _) if *socket == id));
        let member = joined.members.iter().find(|(socket, _)| *socket == id);
        if let Some((_, member)) = member.filter(|_| joined.is_first && !is_told) {
            self.observers.tell(|| Observation::Joined { channel: channel.as_str(), member });
        }
    }

    /// Forgets what is known of a channel from other nodes when nobody is in it here. To be called in the channel's turn:
    /// whoever is on its way in has opened the roster already.
    pub(in crate::hub) fn prune(&self, channel: &ChannelName) {
        if let Some(nodes) = &self.nodes {
            nodes.presence.rosters.prune(channel, || self.rooms.count(channel.as_str()) == 0);
        }
    }

    /// MemberChange may have been missed, or the store has lost members: looks up who is in every channel that clients here are
    /// in, once every node has put its own back. Until then nobody is thought gone for not being in a list. A single
    /// node misses nothing.
    pub fn catch_up(self: &Arc<Self>) {
        let Some(until) = self.nodes.as_ref().map(|nodes| nodes.presence.unsettle()) else { return };
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            let catching_up = async {
                let Some(nodes) = &hub.nodes else { return };
                sleep_until(until).await;
                if nodes.presence.settled() > until {
                    // Something else was lost meanwhile, and somebody else looks later.
                    return;
                }
                // First what is here, or its own members would be missing in the lists.
                hub.maintain().await;
                for channel in nodes.presence.rosters.channels() {
                    hub.look_up(nodes, &channel).await;
                }
                debug!("presence channels are up to date with the other nodes");
            };
            hub.closing.run_until_cancelled(catching_up).await
        });
    }

    async fn look_up(self: &Arc<Self>, nodes: &Nodes, channel: &ChannelName) {
        /// Between two tries while the store is away.
        const RETRY: Duration = Duration::from_secs(1);
        loop {
            match self.store.versioned(channel).await {
                Ok((version, members)) => {
                    return nodes.presence.rosters.visit(channel.as_str(), |roster| {
                        for news in nodes.presence.take_up(roster, version, &members) {
                            self.tell(channel, &news, None);
                        }
                    });
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }
}
