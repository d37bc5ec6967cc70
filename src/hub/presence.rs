//! Members of presence channels: joins, leaves, and the messages about them, on a single node and among nodes.
//!
//! Input: sockets with a grant, and sockets that leave; changes and lists from other nodes ([`sync`]). Output: members in the
//! [`PresenceStore`](crate::store::PresenceStore), member lists for sockets that join, and joins and leaves for the others, which
//! in large channels are told in [`batches`].
//!
//! With the members in this process, the store's answers are announced as they arrive: the lock of the channel keeps them in order.
//! Redis may lose members and have those of other nodes, and among nodes the same change returns from it to every node, in any order
//! relative to the lists. So what clients have been told is kept as a [`Roster`](roster::Roster), and its changes are announced.

use std::sync::Arc;

use tracing::{debug, error};

use super::session::Join;
use super::subscribe::Grace;
use super::{Hub, Message, Observation, Push, Socket};
use crate::auth::{Denied, Grant};
use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::metrics::Refusal;
use crate::store::{Left, Member, MemberError, Members, StoreError, users_of};

mod batches;
mod leaves;
mod locks;
mod maintenance;
mod roster;
mod sync;

pub(super) use batches::Batches;
use leaves::FLAPS;
pub(super) use leaves::{CALM, LARGE_CHANNEL, Leaves};
pub(super) use locks::ChannelLocks;
use roster::MemberChange;
pub(super) use sync::SharedPresence;

/// Status for a client that wants to join a full presence channel: it conflicts with the members who are there.
const FULL: u16 = 409;

/// Status for a client that keeps joining a large channel as a different user.
const TOO_OFTEN: u16 = 429;

impl<S: Socket> Hub<S> {
    /// Adds a socket to a presence channel: sends it the member list, and announces it to the others. Returns whether it is in
    /// afterwards.
    pub(super) async fn enter_presence(self: &Arc<Self>, join: &Join<S>, member: Member) -> bool {
        let Join { session, channel, .. } = join;
        let id = session.socket.id();
        if self.leaves.count(channel, id) >= FLAPS {
            // An unsubscribe during this wait voids the ticket, and nothing is announced.
            self.closing.run_until_cancelled(tokio::time::sleep(CALM)).await;
        }
        let _order = self.presence_locks.lock(channel).await;
        if !join.is_current() {
            return false;
        }
        if let Some(shared) = &self.shared {
            shared.rosters.open(channel);
        }
        // If the socket was in before and disconnects from here on, its leave gets the lock after this join.
        let was_in = session.is_in(channel.as_str());
        if was_in && self.leaves.count(channel, id) >= FLAPS {
            // It asks for the list again and again, or joins as a different user each time.
            self.turn_away(join, TOO_OFTEN, Refusal::Users);
            return false;
        }
        let most = self.rules.load().of(channel.as_str()).behaviour.max_members;
        if !was_in && most > 0 && self.is_full_for(channel, &member, most).await {
            self.turn_away(join, FULL, Refusal::Members);
            return false;
        }
        let is_listed = most > 0 || self.shared.as_ref().is_none_or(|shared| shared.rosters.needs_list(channel));
        let joined = match self.store.join(channel, id, member.clone(), is_listed).await {
            Ok(joined) => joined,
            Err(error) => {
                error!(%channel, %error, "could not store a presence member");
                self.prune(channel);
                self.fail(join, &Denied::new(500));
                return false;
            }
        };
        let is_overfull = || joined.members.as_ref().is_some_and(|members| users_of(members).len() > most);
        if !was_in && most > 0 && joined.is_first && is_overfull() {
            // A user joined on another node at the same moment.
            if let Err(error) = self.store.leave(channel, id).await {
                error!(%channel, %error, "could not remove a presence member");
            }
            self.turn_away(join, FULL, Refusal::Members);
            return false;
        }
        if was_in && self.is_large(channel) {
            // Counts as having left and joined: it gets another list, and for the others it may be another user.
            self.leave_presence_after(channel.clone(), id, Grace::default());
        }
        if let Some(shared) = &self.shared {
            return self.enter_shared(shared, join, &member, &joined, was_in).await;
        }
        let has_entered = self.enter_and_list(join, || joined.members.unwrap_or_default());
        if let Some(gone) = &joined.replaced {
            self.announce_leaving(channel, gone, Some(id));
        }
        if has_entered || was_in {
            if joined.is_first {
                self.announce(channel, &MemberChange::Joining(id, member), Some(id));
            }
        } else {
            // It left meanwhile. The others know of the user only if it was here before.
            match self.store.leave(channel, id).await {
                Ok(Left::Gone(member)) if !joined.is_first => self.announce_leaving(channel, &member, None),
                Ok(_) => {}
                Err(error) => error!(%channel, %error, "could not remove a presence member"),
            }
        }
        has_entered
    }

    /// Whether a presence channel has as many users as it may have, and this user is not one of them.
    async fn is_full_for(&self, channel: &ChannelName, member: &Member, most: usize) -> bool {
        // If the store is unreachable, the join that follows reports it.
        let Ok(members) = self.store.members(channel).await else { return false };
        let users = users_of(&members);
        users.len() >= most && !users.contains(member.user())
    }

    fn turn_away(self: &Arc<Self>, join: &Join<S>, status: u16, cause: Refusal) {
        self.prune(&join.channel);
        if join.refuse() {
            self.refuse(&join.session, join.channel.as_str(), status, cause);
        }
    }

    /// Adds a socket to the channel's room, and sends it a list with all members that have been announced or are about to be.
    /// Returns whether it is in afterwards.
    pub(super) fn enter_and_list(self: &Arc<Self>, join: &Join<S>, members: impl FnOnce() -> Members) -> bool {
        let Join { session, channel, .. } = join;
        self.batches.list(channel, session.socket.id());
        self.enter_and_show(join, || {
            let (members, shows_sockets) = (members(), self.options.expose_socket_id);
            let subscribed = Message::Subscribed { channel: channel.as_str(), members: Some(&members), shows_sockets };
            self.emit(&session.socket, &Push::new(subscribed));
        })
    }

    /// Whether each join and leave is sent to many sockets, here or on all nodes.
    fn is_large(&self, channel: &ChannelName) -> bool {
        let everywhere = self.shared.as_ref().and_then(|shared| shared.rosters.count(channel.as_str()));
        everywhere.unwrap_or(0).max(self.rooms.count(channel.as_str())) >= LARGE_CHANNEL
    }

    /// Ends the membership of a socket that has left after `grace`, unless it is back by then. If its join has not been announced
    /// yet, at once, so that it never will be: else one client after another could be announced as a new user.
    pub(super) fn leave_presence_after(self: &Arc<Self>, channel: ChannelName, id: SocketId, mut grace: Grace) {
        // Compat: the original tells all members of every leave and join at once, however often a user comes and goes
        // (`src/channels/presence-channel.ts`).
        let is_calmed = self.is_large(&channel);
        if is_calmed {
            grace.least = grace.least.max(CALM);
            self.leaves.begin(&channel, id);
        }
        let is_unannounced = self.batches.holds_join_of(&channel, id);
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            // Not before: whoever makes a slow client leave may hold the roster.
            hub.doubt_if_empty(&channel);
            if is_unannounced {
                hub.leave_presence_now(&channel, id).await;
            }
            hub.closing.run_until_cancelled(grace.over()).await;
            if is_calmed && !hub.leaves.end(&channel, id) || is_unannounced {
                return;
            }
            // Saved again: the client resumed its session and disconnected again, and the later disconnect ends the membership.
            let is_kept = grace.kept.is_some() && !hub.closing.is_cancelled();
            if is_kept && hub.recovery.as_ref().is_some_and(|recovery| recovery.keeps(id)) {
                return;
            }
            hub.leave_presence_now(&channel, id).await;
        });
    }

    async fn leave_presence_now(self: &Arc<Self>, channel: &ChannelName, id: SocketId) {
        if let Err(error) = self.leave_presence(channel, id).await {
            // The store retries, and logs the cause.
            debug!(%channel, %error, "could not remove a presence member yet");
        }
    }

    /// Removes a socket from the members, and tells the others if it was the user's last one.
    async fn leave_presence(self: &Arc<Self>, channel: &ChannelName, id: SocketId) -> Result<(), StoreError> {
        let _order = self.presence_locks.lock(channel).await;
        self.prune(channel);
        if self.session(id).is_some_and(|session| session.is_in(channel.as_str())) {
            // It came back before this leave got the lock: its new membership must stay.
            return Ok(());
        }
        let left = if self.shares_sessions() { self.store.release(channel, id).await? } else { self.store.leave(channel, id).await? };
        if let Left::Gone(member) = left {
            self.announce_leaving(channel, &member, None);
        }
        Ok(())
    }

    /// Tells clients that this node's change to the store made a user leave. Among nodes the store has PUBLISHed the change, which
    /// announces it when it arrives. Where this node has no client in the channel any more, only the observers are told.
    pub(super) fn announce_leaving(self: &Arc<Self>, channel: &ChannelName, member: &Member, except: Option<SocketId>) {
        match &self.shared {
            None => self.announce(channel, &MemberChange::Leaving(member.clone()), except),
            Some(shared) if !shared.rosters.is_open(channel) => {
                self.observers.tell(|| Observation::Left { channel: channel.as_str(), member });
            }
            Some(shared) if self.nodes.is_none() => shared.rosters.visit(channel.as_str(), |roster| {
                if let Some(news) = self.leave_alone(roster, channel, member) {
                    self.announce(channel, &news, except);
                }
            }),
            Some(_) => {}
        }
    }
}

pub(super) fn member_of(grant: &Grant) -> Result<Member, MemberError> {
    let data = grant.channel_data.as_ref().ok_or(MemberError::Missing)?;
    Member::parse(data.get())
}
