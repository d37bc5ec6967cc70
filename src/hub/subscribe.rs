//! Joining and leaving channels, and the requests to the application about it. Members are handled in
//! [`presence`](super::presence).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::presence::member_of;
use super::session::{Basis, Join, Promise, Session};
use super::{Hub, Message, Observation, Push, Socket};
use crate::auth::{AuthRequest, Denied, Grant, GrantedBy, Reason, SubscribeHeaders, bytes_of};
use crate::channel::{ChannelKind, ChannelName, user_of};
use crate::event::SocketId;
use crate::metrics::Refusal;
use crate::warn_throttled;

/// The hint of [`Refusal::Users`].
pub(crate) const USERS: &str = "this socket is in the channel and subscribes again and again; each time it is sent all members, and all are told \
    if its user has changed: find the page that subscribes in a loop";

/// Errors and the log show this many bytes of a channel name that is too long.
const SHOWN_OF_A_LONG_NAME: usize = 200;

/// Maximum bytes of the names and values of one subscribe's headers: nginx accepts as much for a whole request, so hardly any
/// application accepts more. They are kept while the application is asked.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The part of a name that errors and the log show.
pub(super) fn shown(name: &str) -> &str {
    &name[..name.floor_char_boundary(SHOWN_OF_A_LONG_NAME)]
}

/// What entitles a socket to join a guarded channel.
#[derive(Debug)]
pub enum Right {
    /// Ask the application, with the headers of this subscribe (Echo's `auth.headers`).
    Ask(SubscribeHeaders),
    /// The client brought a grant that the application has signed.
    Brought(Grant),
}

impl From<SubscribeHeaders> for Right {
    fn from(headers: SubscribeHeaders) -> Self {
        Self::Ask(headers)
    }
}

/// How long members stay after their connection has ended.
#[derive(Debug, Default)]
pub(super) struct Grace {
    /// At least this long: a user who is back by then with another socket has not been away.
    pub(super) least: Duration,
    /// Until this is cancelled: the client may resume its session.
    pub(super) kept: Option<CancellationToken>,
}

impl Grace {
    pub(super) async fn over(&self) {
        let kept = async {
            if let Some(kept) = &self.kept {
                kept.cancelled().await;
            }
        };
        let least = async {
            if !self.least.is_zero() {
                tokio::time::sleep(self.least).await;
            }
        };
        tokio::join!(least, kept);
    }
}

impl<S: Socket> Hub<S> {
    /// A socket asks to join a channel, which `right` entitles it to.
    ///
    /// A public channel is joined before this returns, unless this node must subscribe to it in Redis first; for other channels the
    /// application is asked in the background. A refusal is sent to the client as `subscription_error(channel, status)`;
    /// Socket.IO clients are told of success in presence channels only.
    pub fn subscribe(self: &Arc<Self>, id: SocketId, channel: &str, right: impl Into<Right>) {
        let Some(session) = self.session(id).filter(|_| !self.closing.is_cancelled()) else { return };
        let limits = self.limits.load();
        if !session.socket.allowance().may_subscribe() {
            return self.refuse(&session, channel, 429, Refusal::SubscribeRate);
        }
        if channel.len() as u64 > limits.channel_name {
            return self.refuse(&session, shown(channel), 414, Refusal::ChannelName);
        }
        let channel = ChannelName::from(channel);
        let is_guarded = self.is_guarded(channel.as_str());
        let right = match right.into() {
            Right::Ask(_) if user_of(channel.as_str()).is_some() => Err((403, Refusal::Unauthorized)),
            Right::Ask(headers) if is_guarded => may_ask(&session, &channel, &headers).map(|()| (headers, None)),
            Right::Ask(headers) => Ok((headers, None)),
            Right::Brought(grant) => still_valid(&session, &channel, grant).map(|grant| (Vec::new(), Some(grant))),
        };
        let (headers, brought) = match right {
            Ok((headers, brought)) => (Arc::new(headers), brought),
            Err((status, cause)) => return self.refuse(&session, channel.as_str(), status, cause),
        };
        let removals = self.removals.count();
        let begun = session.state().begin(&channel, limits.subscriptions);
        let Ok(ticket) = begun else {
            return self.refuse(&session, channel.as_str(), 429, Refusal::Subscriptions);
        };
        // Before the application is asked, so that Redis and the application are waited for at the same time.
        if let Some(interest) = self.interests.as_ref().and_then(|interests| interests.declare(&channel)) {
            session.state().keep(&channel, ticket, interest);
        }
        let (hub, join) = (Arc::clone(self), Join { session, channel, ticket });
        if is_guarded {
            self.tasks.spawn(async move {
                match brought {
                    None => hub.authorize(&join, removals, &headers).await,
                    Some(grant) => hub.admit(&join, removals, &headers, grant, None).await,
                }
            });
            return;
        }
        match self.pending(&join.channel) {
            None => self.let_in(&join),
            Some(heard) => {
                self.tasks.spawn(async move {
                    // An error means that Redis was lost; every subscriber misses what is sent until it is back.
                    let _ = heard.await;
                    hub.let_in(&join);
                });
            }
        }
    }

    /// Adds a socket to a channel that anyone may join.
    fn let_in(self: &Arc<Self>, join: &Join<S>) {
        let is_in = self.enter_and_tell(join);
        if is_in && self.is_guarded(join.channel.as_str()) {
            // The rules have changed meanwhile: the channel is guarded now.
            self.turn_out(join.session.socket.id(), &join.channel);
        }
    }

    /// Resolves once this node is subscribed to the channel in Redis. A socket that enters only then misses no event, and no
    /// member who joins on another node while the member list is on its way.
    fn pending(&self, channel: &ChannelName) -> Option<oneshot::Receiver<()>> {
        self.interests.as_ref()?.pending(channel.as_str())
    }

    /// A socket leaves a channel, or cancels its subscribe.
    pub fn unsubscribe(self: &Arc<Self>, id: SocketId, channel: &str) {
        let Some(session) = self.session(id) else {
            return;
        };
        let was_in = session.state().leave(channel);
        if was_in {
            self.left(&channel.into(), id, "unsubscribed");
        }
    }

    /// Asks the application and acts on its answer. The request is cancelled when the socket disconnects or unsubscribes.
    async fn authorize(self: &Arc<Self>, join: &Join<S>, removals: u64, headers: &Arc<SubscribeHeaders>) {
        let Join { session, channel, ticket } = join;
        let (id, asked) = (session.socket.id(), Instant::now());
        let end = session.state().end_of(channel, *ticket);
        let question = end.run_until_cancelled(self.ask(session, channel, headers, false));
        let Some(Some(answer)) = self.closing.run_until_cancelled(question).await else {
            return;
        };
        if self.options.dev_mode {
            match &answer {
                Ok(_) => info!("{id} authenticated for: {channel}"),
                Err(_) => info!("{id} could not be authenticated to {channel}"),
            }
        }
        match answer {
            Ok(grant) => self.admit(join, removals, headers, grant, Some(asked.elapsed())).await,
            Err(denied) => self.fail(join, &denied),
        }
    }

    /// Asks the application; `is_again`: the socket is in the channel already.
    pub(super) async fn ask(
        &self,
        session: &Session<S>,
        channel: &ChannelName,
        headers: &[(String, String)],
        is_again: bool,
    ) -> Result<Grant, Denied> {
        let socket = &session.socket;
        let (handshake, peer) = (socket.handshake(), socket.peer());
        let by = self.auth_of(channel.as_str());
        let request = AuthRequest { socket: socket.id(), channel, headers, handshake, peer, by, is_again };
        self.authorizer.authorize(request).await
    }

    /// Lets a socket with a grant in. `removals` is how many removals there had been when it subscribed; `took` is how long the
    /// application took to answer, or `None` for a grant that the client brought.
    async fn admit(self: &Arc<Self>, join: &Join<S>, removals: u64, headers: &Arc<SubscribeHeaders>, grant: Grant, took: Option<Duration>) {
        let channel = &join.channel;
        if let Some(heard) = self.pending(channel) {
            // An error means that Redis was lost, as above.
            let _ = heard.await;
        }
        let (user, member) = match channel.kind() {
            ChannelKind::Public | ChannelKind::Private => {
                (grant.user.clone().or_else(|| member_of(&grant).ok().map(|member| member.user().into())), None)
            }
            ChannelKind::Presence => match member_of(&grant) {
                Ok(member) => (Some(Arc::from(member.user())), Some(member)),
                Err(error) => {
                    let hint = "the callback in routes/channels.php must return an array with the user's data, as in: return ['id' => $user->id, 'name' => $user->name];";
                    warn_throttled!(class = 500, key = channel.as_str(), %channel, %error, hint, "presence channel refused: the answer does not name the user");
                    let denied = Denied::new(500).because(format!("the answer does not name the user: {error}"), hint);
                    return self.fail(join, &denied);
                }
            },
        };
        // The user may have been removed since the subscribe, in which case the answer is outdated.
        if self.is_removed(join, removals, user.as_deref()) {
            return;
        }
        let is_in = match &member {
            None => self.enter_and_tell(join),
            Some(member) => self.enter_presence(join, member.clone()).await,
        };
        if is_in {
            let (socket, by) = (join.session.socket.id(), if took.is_none() { GrantedBy::Signature } else { grant.by });
            self.observers.tell(|| Observation::Granted { channel: channel.as_str(), socket, by, user: user.as_deref(), took });
            let basis = Basis { headers, user: user.clone(), by, member };
            self.accept(join, basis, grant.ends);
            // From here on a removal finds the subscription; one that came while the socket was joining did not.
            self.is_removed(join, removals, user.as_deref());
        }
    }

    /// The subscribe failed: tells the client, unless it has unsubscribed.
    pub(super) fn fail(self: &Arc<Self>, join: &Join<S>, denied: &Denied) {
        if join.refuse() {
            self.refuse_because(&join.session, join.channel.as_str(), denied.status, Refusal::Unauthorized, denied.reason.as_deref());
        }
    }

    pub(super) fn refuse(self: &Arc<Self>, session: &Session<S>, channel: &str, status: u16, cause: Refusal) {
        self.refuse_because(session, channel, status, cause, None);
    }

    fn refuse_because(self: &Arc<Self>, session: &Session<S>, channel: &str, status: u16, cause: Refusal, reason: Option<&Reason>) {
        self.metrics.refusal(cause);
        let socket = session.socket.id();
        self.observers.tell(|| Observation::Refused { channel, socket, cause, status: Some(status), reason });
        debug!(socket_id = %socket, channel, status, cause = cause.as_str(), "subscribe refused");
        let hint = match (cause, cause.limit()) {
            (Refusal::Members, _) => Some(self.rules.load().of(channel).full()),
            (Refusal::Users, _) => Some(USERS.to_owned()),
            (_, Some(key)) => Some(format!("a subscribe exceeds `{key}`: raise it if the page is not at fault")),
            (_, None) => None,
        };
        if let Some(hint) = hint {
            self.tell_of_limit(socket, channel, cause, &hint);
        }
        self.emit(&session.socket, &Push::new(Message::Refused { channel, status }));
    }

    /// Logs that a rule refused a client's request: each time in devMode, otherwise throttled.
    pub(super) fn tell_of_limit(&self, id: SocketId, channel: &str, cause: Refusal, hint: &str) {
        // The label of the metric, so that the one leads to the other.
        let (class, cause) = (cause as u16, cause.as_str());
        if self.options.dev_mode {
            info!(socket_id = %id, channel, cause, hint, "refused");
        } else {
            warn_throttled!(class = class, key = channel, socket_id = %id, channel, cause, hint, "refused");
        }
    }

    /// Adds a socket to a public or private channel, and tells it so.
    fn enter_and_tell(self: &Arc<Self>, join: &Join<S>) -> bool {
        let is_in = self.enter_and_show(join, || {
            let subscribed = Message::Subscribed { channel: join.channel.as_str(), members: None, shows_sockets: false };
            self.emit(&join.session.socket, &Push::new(subscribed));
        });
        if is_in {
            self.count_changed(&join.channel);
        }
        is_in
    }

    /// Adds a socket to a channel's room, announces that with `tell`, and sends the earlier events that the socket is to get;
    /// nothing newer is sent before those. Returns whether it is in afterwards.
    pub(super) fn enter_and_show(self: &Arc<Self>, join: &Join<S>, tell: impl FnOnce()) -> bool {
        let Join { session, channel, .. } = join;
        let rules = self.rules.load();
        let rule = rules.of(channel.as_str());
        let last = rule.has_last().then(|| self.last());
        let was_in = last.is_some() && session.is_in(channel.as_str());
        if !self.enter(join) {
            return false;
        }
        tell();
        let is_shown = last.is_some_and(|last| !was_in && self.show_last(session, &rule, channel.as_str(), &last));
        if !is_shown {
            self.show_cached(&session.socket, channel);
        }
        true
    }

    /// Adds a socket to a channel's room, if it still wants to join. Both happen under the session's lock, so that a disconnect
    /// either comes first and voids the ticket, or comes later and finds the socket in the room.
    fn enter(&self, join: &Join<S>) -> bool {
        let Join { session, channel, ticket } = join;
        let id = session.socket.id();
        let since = self.recovery.as_ref().map_or(0, |recovery| recovery.history().epochs.number());
        let count = {
            let mut state = session.state();
            match state.finish(channel, *ticket, since) {
                None => return false,
                Some(false) => return true,
                Some(true) => self.rooms.join(channel, session.socket.clone()),
            }
        };
        self.came_in(channel, id, count);
        self.touch(id);
        if self.options.dev_mode {
            info!("{id} joined channel: {channel}");
        }
        true
    }

    /// A socket has entered a channel's room, which has `count` sockets now.
    pub(super) fn came_in(&self, channel: &ChannelName, id: SocketId, count: usize) {
        self.metrics.subscribed(channel.kind());
        self.observers.tell(|| Observation::Subscribed { channel: channel.as_str(), socket: id, count });
    }

    /// A socket's session has left a channel: removes the socket from the room, and its member.
    pub(super) fn left(self: &Arc<Self>, channel: &ChannelName, id: SocketId, reason: &'static str) {
        self.left_after(channel, id, reason, Grace::default());
    }

    /// Like [`Self::left`], but the member is removed after `grace`.
    pub(super) fn left_after(self: &Arc<Self>, channel: &ChannelName, id: SocketId, reason: &'static str, grace: Grace) {
        let count = self.rooms.leave(channel, id);
        self.touch(id);
        self.metrics.unsubscribed(channel.kind());
        self.observers.tell(|| Observation::Unsubscribed { channel: channel.as_str(), socket: id, reason, count });
        self.count_changed(channel);
        if self.options.dev_mode {
            info!("{id} left channel: {channel} ({reason})");
        }
        if channel.kind() == ChannelKind::Presence {
            self.leave_presence_after(channel.clone(), id, grace);
        }
    }
}

/// The grant that a client brought, if it still counts, with what the application said when it signed it.
fn still_valid<S>(session: &Session<S>, channel: &ChannelName, grant: Grant) -> Result<Grant, (u16, Refusal)> {
    let state = session.state();
    if !state.may_bring(channel) {
        return Err((403, Refusal::Unauthorized));
    }
    // A signature does not say when the grant expires.
    match state.promised(channel) {
        Some(Promise { ends: Some(ends), .. }) if ends <= Instant::now() => Err((401, Refusal::Unauthorized)),
        Some(Promise { user, ends }) => Ok(Grant { user: user.or(grant.user), ends, ..grant }),
        None => Ok(grant),
    }
}

/// Whether the application may be asked with these headers, which are kept as long as the subscription lasts.
fn may_ask<S>(session: &Session<S>, channel: &ChannelName, headers: &SubscribeHeaders) -> Result<(), (u16, Refusal)> {
    let bytes = bytes_of(headers);
    if bytes > MAX_HEADER_BYTES {
        let hint = "check what the page puts into auth.headers of Echo; a token takes a few KB at most";
        warn_throttled!(class = 431, key = channel.as_str(), %channel, bytes, most = MAX_HEADER_BYTES, hint, "subscribe refused: its auth.headers are too large");
        return Err((431, Refusal::Headers));
    }
    if !session.state().has_room_for(headers) {
        let hint = "send the same auth.headers with every subscribe";
        warn_throttled!(class = 432, key = channel.as_str(), %channel, hint, "subscribe refused: the different auth.headers of this socket are too large in total");
        return Err((431, Refusal::Headers));
    }
    Ok(())
}
