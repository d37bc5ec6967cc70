//! Watchlists of Pusher's protocol: a user who has signed in is told which of the users on its list are signed in too.
//!
//! Input: sign-ins and the ends of connections, here and, through the other nodes, elsewhere. Output: [`Message::Watched`] to
//! those who watch. With several nodes each regularly compares what it knows with the others, so that the users of a node that
//! died do not stay signed in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Hub, Message, Push, Socket};
use crate::cluster::control::{self, Question};
use crate::event::SocketId;

/// How often the other nodes are asked about the users that are watched here.
const COMPARE_INTERVAL: Duration = Duration::from_secs(30);
/// Users per request.
const BATCH: usize = 500;

/// Who is signed in on this node, and who watches whom.
#[derive(Debug, Default)]
pub(super) struct Watchlists(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// The number of connections of each user who is signed in here.
    signed_in: HashMap<Arc<str>, usize>,
    watched: HashMap<Arc<str>, Watched>,
}

/// A user who is watched by sockets of this node.
#[derive(Debug, Default)]
struct Watched {
    by: HashSet<SocketId>,
    /// Whether the user is signed in anywhere; `None` until that is known.
    is_online: Option<bool>,
}

/// What a connection has to undo when it ends.
#[derive(Debug)]
pub(super) struct SignedIn {
    pub(super) user: Arc<str>,
    pub(super) watches: Vec<Arc<str>>,
}

impl Watchlists {
    /// Returns whether the user was not signed in here before.
    pub(super) fn add(&self, socket: SocketId, signed_in: &SignedIn) -> bool {
        let mut table = self.0.lock();
        for user in &signed_in.watches {
            table.watched.entry(Arc::clone(user)).or_default().by.insert(socket);
        }
        let count = table.signed_in.entry(Arc::clone(&signed_in.user)).or_default();
        *count += 1;
        *count == 1
    }

    /// Returns whether the user is no longer signed in here.
    fn remove(&self, socket: SocketId, signed_in: &SignedIn) -> bool {
        let mut table = self.0.lock();
        for user in &signed_in.watches {
            if let Some(watched) = table.watched.get_mut(user) {
                watched.by.remove(&socket);
                if watched.by.is_empty() {
                    table.watched.remove(user);
                }
            }
        }
        let Some(count) = table.signed_in.get_mut(&signed_in.user) else { return false };
        *count -= 1;
        let is_gone = *count == 0;
        if is_gone {
            table.signed_in.remove(&signed_in.user);
        }
        is_gone
    }

    /// Stores whether a user is signed in; returns the sockets to tell.
    fn set(&self, user: &str, is_online: bool) -> Vec<SocketId> {
        let mut table = self.0.lock();
        let Some(watched) = table.watched.get_mut(user).filter(|watched| watched.is_online != Some(is_online)) else { return Vec::new() };
        watched.is_online = Some(is_online);
        watched.by.iter().copied().collect()
    }

    /// Stores what the nodes answered about users, unless a newer change has arrived. Returns who of them is signed in, and who is not.
    fn learn<'a>(&self, users: &'a [Arc<str>], found: &HashSet<String>) -> (Vec<&'a str>, Vec<&'a str>) {
        let mut table = self.0.lock();
        users.iter().map(|user| &**user).partition(|user| match table.watched.get_mut(*user) {
            Some(watched) => *watched.is_online.get_or_insert(found.contains(*user)),
            None => found.contains(*user),
        })
    }

    fn is_signed_in(&self, user: &str) -> bool {
        self.0.lock().signed_in.contains_key(user)
    }

    /// Those of `users` who are signed in here, each with the number of its connections.
    pub(super) fn counts(&self, users: &[String]) -> Vec<(String, usize)> {
        let table = self.0.lock();
        users.iter().filter_map(|user| Some((user.clone(), *table.signed_in.get(user.as_str())?))).collect()
    }

    fn watched(&self) -> Vec<String> {
        self.0.lock().watched.keys().map(|user| (**user).to_owned()).collect()
    }
}

impl<S: Socket> Hub<S> {
    /// A socket has proven who its user is, independent of channels, and wants to watch these other users.
    pub fn sign_in(self: &Arc<Self>, id: SocketId, user: &str, watches: &[String]) {
        let Some(session) = self.session(id) else { return };
        let watches: Vec<Arc<str>> = watches.iter().map(|user| user.as_str().into()).collect();
        let is_first = session
            .state()
            .sign_in(SignedIn { user: user.into(), watches: watches.clone() }, |signed_in| self.watchlists.add(id, signed_in));
        if is_first == Some(true) {
            self.changed(user, true);
        }
        if is_first.is_some() && !watches.is_empty() {
            self.show_watched(session.socket.clone(), watches);
        }
    }

    /// The connection of a user has ended.
    pub(super) fn signed_out(self: &Arc<Self>, id: SocketId, signed_in: &SignedIn) {
        if !self.watchlists.remove(id, signed_in) {
            return;
        }
        if self.nodes.is_none() {
            return self.changed(&signed_in.user, false);
        }
        let (hub, user) = (Arc::clone(self), Arc::clone(&signed_in.user));
        self.tasks.spawn(async move {
            let asking = hub.signed_in_everywhere(vec![(*user).to_owned()]);
            if let Some(Some(found)) = hub.closing.run_until_cancelled(asking).await
                && found.is_empty()
            {
                hub.changed(&user, false);
            }
        });
    }

    /// Tells all nodes that a user has come online or gone offline.
    fn changed(self: &Arc<Self>, user: &str, is_online: bool) {
        self.tell_all(|| control::Message::User { user: user.to_owned(), is_online }, || self.apply_user_state(user, is_online));
    }

    /// Tells this node's sockets that watch the user.
    pub(super) fn apply_user_state(self: &Arc<Self>, user: &str, is_online: bool) {
        if !is_online && self.watchlists.is_signed_in(user) {
            // The user came back while another node asked.
            return self.changed(user, true);
        }
        let watchers = self.watchlists.set(user, is_online);
        let users = [user];
        let (online, offline): (&[&str], &[&str]) = if is_online { (&users, &[]) } else { (&[], &users) };
        let push = Push::new(Message::Watched { online, offline });
        for socket in watchers.into_iter().filter_map(|id| self.socket(id)) {
            self.emit(&socket, &push);
        }
    }

    /// Tells a socket that has just signed in which of the users that it watches are online.
    fn show_watched(self: &Arc<Self>, socket: S, watches: Vec<Arc<str>>) {
        let users: Vec<String> = watches.iter().map(|user| (**user).to_owned()).collect();
        if self.nodes.is_none() {
            let found = self.watchlists.counts(&users).into_iter().map(|(user, _)| user).collect();
            return self.tell_watched(&socket, &watches, &found);
        }
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            let Some(found) = hub.closing.run_until_cancelled(hub.ask_nodes(Question::SignedIn(users))).await else { return };
            hub.tell_watched(&socket, &watches, &found.value.into_keys().collect());
        });
    }

    fn tell_watched(self: &Arc<Self>, socket: &S, watches: &[Arc<str>], found: &HashSet<String>) {
        let (online, offline) = self.watchlists.learn(watches, found);
        self.emit(socket, &Push::new(Message::Watched { online: &online, offline: &offline }));
    }

    /// Those of `users` who are signed in on any node; `None` when a node did not answer in time.
    async fn signed_in_everywhere(self: &Arc<Self>, users: Vec<String>) -> Option<HashSet<String>> {
        let found = self.ask_nodes(Question::SignedIn(users)).await;
        (!found.is_partial).then(|| found.value.into_keys().collect())
    }

    /// Regularly compares what is known about watched users with the other nodes; never returns.
    pub(super) async fn keep_watch(self: &Arc<Self>) {
        loop {
            tokio::time::sleep(COMPARE_INTERVAL).await;
            for users in self.watchlists.watched().chunks(BATCH) {
                let Some(found) = self.signed_in_everywhere(users.to_vec()).await else { continue };
                for user in users {
                    self.apply_user_state(user, found.contains(user));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed_in(user: &str, watches: &[&str]) -> SignedIn {
        SignedIn { user: user.into(), watches: watches.iter().map(|user| (*user).into()).collect() }
    }

    #[test]
    fn who_comes_first_and_who_goes_last_is_news() {
        let lists = Watchlists::default();
        let (one, two) = (SocketId::new(1, 1), SocketId::new(1, 2));
        let ann = signed_in("ann", &["bob"]);
        assert!(lists.add(one, &ann) && !lists.add(two, &ann));
        assert_eq!(lists.counts(&["ann".to_owned(), "bob".to_owned()]), [("ann".to_owned(), 2)]);
        let mut told = lists.set("bob", true);
        told.sort_unstable_by_key(ToString::to_string);
        assert_eq!(told, [one, two]);
        assert!(lists.set("bob", true).is_empty() && lists.set("carol", true).is_empty());
        assert!(!lists.remove(one, &ann) && lists.remove(two, &ann));
        assert!(lists.watched().is_empty() && lists.set("bob", false).is_empty());
    }

    #[test]
    fn what_was_heard_while_the_nodes_were_asked_is_newer_than_their_answer() {
        let lists = Watchlists::default();
        lists.add(SocketId::new(1, 1), &signed_in("ann", &["bob", "carol"]));
        lists.set("bob", true);
        let users = ["bob".into(), "carol".into()];
        assert_eq!(lists.learn(&users, &HashSet::new()), (vec!["bob"], vec!["carol"]));
    }
}
