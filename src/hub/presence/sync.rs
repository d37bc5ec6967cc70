//! Presence channels whose members Redis keeps: applies what other nodes change, and catches up on what may have been missed.
//!
//! Input: changes that the store PUBLISHes and every node receives, and lists from the store. Output: what is new in them, for
//! this node's clients, each change once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error};

use super::super::session::Join;
use super::super::{Hub, Observation, Socket};
use super::roster::{MemberChange, Roster, Rosters};
use crate::channel::{ChannelKind, ChannelName, kind_of};
use crate::config::PresenceConfig;
use crate::event::{Event, SocketId};
use crate::store::{Joined, Left, Member, Members};

/// What this node's clients have been told about members on all nodes.
pub(in crate::hub) struct SharedPresence {
    pub(super) rosters: Rosters,
    /// How long every node may take to put back members that Redis lost: their return must not look like news.
    settling: Duration,
    /// Until then a list may lack members who are present.
    settled: Mutex<Instant>,
}

impl SharedPresence {
    pub(in crate::hub) fn new(config: &PresenceConfig) -> Self {
        // One heartbeat until the last node has noticed, and half of one for its work.
        let settling = config.heartbeat() * 3 / 2;
        Self { rosters: Rosters::default(), settling, settled: Mutex::new(Instant::now()) }
    }

    fn settled(&self) -> Instant {
        *self.settled.lock()
    }

    /// From now on lists may be incomplete. Returns until when.
    fn unsettle(&self) -> Instant {
        let until = Instant::now() + self.settling;
        *self.settled.lock() = until;
        self.rosters.doubt_all();
        until
    }

    /// Applies a list. `is_here`: whether a user is in the channel though the list lacks them. Returns the changes to announce.
    fn take_up(&self, roster: &mut Roster, version: u64, members: &Members, is_here: impl Fn(&str) -> bool) -> Vec<MemberChange> {
        if version == 0 {
            roster.add_here(members)
        } else if Instant::now() < self.settled() {
            roster.apply_partial(version, members)
        } else {
            roster.apply_snapshot(version, members, is_here)
        }
    }
}

impl<S: Socket> Hub<S> {
    /// Whether other nodes' changes of a channel are applied, even without sockets in it: one may be about to join.
    pub(in crate::hub) fn follows(&self, channel: &str) -> bool {
        self.nodes.is_some() && kind_of(channel) == ChannelKind::Presence
    }

    /// Applies a change that a node made to a presence channel; `version` is the channel's version with that change. `false`:
    /// this is no such change, or this is a single node, which announces its changes itself.
    pub(in crate::hub) fn apply_change(self: &Arc<Self>, event: &Event<'_>, version: u64) -> bool {
        let Some(shared) = self.shared.as_ref().filter(|_| self.nodes.is_some()) else { return false };
        let news = |member| match (&*event.name, event.except) {
            ("presence:joining", Some(socket)) => Some(MemberChange::Joining(socket, member)),
            ("presence:leaving", _) => Some(MemberChange::Leaving(member)),
            _ => None,
        };
        let Some(news) = Member::parse(event.data.get()).ok().and_then(news) else { return false };
        shared.rosters.visit(event.channel, |roster| {
            if let Some(news) = roster.apply(version, news) {
                // A socket may be told of itself: it was thought gone, and is back.
                self.take_news(&event.channel.into(), &news, None);
            }
        });
        true
    }

    /// The end of a join, where Redis keeps the members. Telling the others, sending the list to the new socket and adding it to the
    /// room are one step with respect to changes from other nodes. `was_in`: the socket was in before, so that if it has gone
    /// meanwhile, its leave follows.
    pub(super) async fn enter_shared(
        self: &Arc<Self>,
        shared: &SharedPresence,
        join: &Join<S>,
        member: &Member,
        joined: &Joined,
        was_in: bool,
    ) -> bool {
        let Join { session, channel, .. } = join;
        if joined.has_lost {
            self.catch_up();
        }
        let id = session.socket.id();
        let has_entered = shared.rosters.enter(channel, |roster| {
            // Among nodes the store has told of it, with a version.
            let (told, gone) = if self.nodes.is_some() { (joined.replaced.as_ref(), None) } else { (None, joined.replaced.as_ref()) };
            let mut news: Vec<_> = gone.and_then(|gone| self.leave_alone(roster, channel, gone)).into_iter().collect();
            news.extend(match &joined.members {
                Some(members) => shared.take_up(roster, joined.version, members, |user| self.is_here(channel, user)),
                None => roster.join_here(joined.version, id, member, told),
            });
            for news in &news {
                self.take_news(channel, news, Some(id));
            }
            // A user who left and returned before this node saw the leave is news only to observers: other nodes may have seen
            // the leave.
            let is_told = news.iter().any(|news| matches!(news, MemberChange::Joining(socket, _) if *socket == id));
            if joined.is_first && !is_told {
                self.observers.tell(|| Observation::Joined { channel: channel.as_str(), member });
            }
            self.enter_and_list(join, || roster.show())
        });
        if !has_entered {
            // It left meanwhile.
            if !was_in {
                match self.store.leave(channel, id).await {
                    Ok(Left::Gone(member)) => self.announce_leaving(channel, &member, None),
                    Ok(_) => {}
                    Err(error) => error!(%channel, %error, "could not remove a presence member"),
                }
            }
            self.prune(channel);
        }
        has_entered
    }

    /// Announces what the store or another node says. Who is said to have left and is here is put back, and announced again.
    fn take_news(self: &Arc<Self>, channel: &ChannelName, news: &MemberChange, except: Option<SocketId>) {
        if let MemberChange::Leaving(member) = news {
            self.store.doubt(channel, member.user());
        }
        self.announce(channel, news, except);
    }

    /// Whether a user whom a list of the store lacks is in the channel: Redis may have gone back to older data. Only a single node knows.
    fn is_here(&self, channel: &ChannelName, user: &str) -> bool {
        self.nodes.is_none() && self.store.doubt(channel, user)
    }

    /// A user has left, as the store of a single node says. Returns the change to announce.
    pub(super) fn leave_alone(&self, roster: &mut Roster, channel: &ChannelName, member: &Member) -> Option<MemberChange> {
        // Redis may have lost another socket of the user.
        if self.store.doubt(channel, member.user()) { None } else { roster.leave_here(member) }
    }

    /// Drops the channel's roster when no client of this node is in the channel. Call this while holding the channel's lock: a
    /// socket that is about to join has opened the roster already.
    pub(in crate::hub) fn prune(&self, channel: &ChannelName) {
        if let Some(shared) = &self.shared {
            shared.rosters.prune(channel, || self.rooms.count(channel.as_str()) == 0);
        }
    }

    /// The channel's roster stays until the grace of a member is over, but without a socket in the channel, this node may no longer
    /// receive the channel's changes.
    pub(super) fn doubt_if_empty(&self, channel: &ChannelName) {
        if let Some(shared) = self.shared.as_ref().filter(|_| self.nodes.is_some())
            && self.rooms.count(channel.as_str()) == 0
        {
            shared.rosters.doubt(channel.as_str());
        }
    }

    /// Changes may have been missed, or the store has lost members: fetches the member lists of all channels that clients here
    /// are in, once every node has put its own members back. Until then a user who is missing from a list does not count as
    /// gone.
    pub fn catch_up(self: &Arc<Self>) {
        let Some(until) = self.shared.as_ref().map(SharedPresence::unsettle) else { return };
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            let catching_up = async {
                let Some(shared) = &hub.shared else { return };
                sleep_until(until).await;
                if shared.settled() > until {
                    // Something else was lost meanwhile, and a later call catches up on both.
                    return;
                }
                // This node's members first, or the lists would lack them.
                hub.maintain().await;
                for channel in shared.rosters.channels() {
                    hub.look_up(shared, &channel).await;
                    hub.doubt_if_empty(&channel);
                }
                debug!("presence channels are up to date with the other nodes");
            };
            hub.closing.run_until_cancelled(catching_up).await
        });
    }

    async fn look_up(self: &Arc<Self>, shared: &SharedPresence, channel: &ChannelName) {
        /// Delay between two attempts while the store is unreachable.
        const RETRY: Duration = Duration::from_secs(1);
        loop {
            let looked = {
                // What a single node tells of its own leaves has no version: no list may be older.
                let _order = if self.nodes.is_none() { Some(self.presence_locks.lock(channel).await) } else { None };
                self.store.versioned(channel).await.map(|(version, members)| {
                    shared.rosters.visit(channel.as_str(), |roster| {
                        for news in shared.take_up(roster, version, &members, |user| self.is_here(channel, user)) {
                            self.take_news(channel, &news, None);
                        }
                    });
                })
            };
            if looked.is_ok() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
