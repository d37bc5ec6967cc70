//! [`Observer`]: who hears what happens in the hub, for the dashboard and for webhooks.
//!
//! Input: what the hub does. Output: [`Observation`]s to whoever watches; with nobody watching not one is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::value::RawValue;

use super::{Hub, Socket};
use crate::auth::{GrantedBy, Reason};
use crate::event::{CloseReason, Event, SocketId};
use crate::metrics::{Refusal, Source};
use crate::store::Member;

/// What has happened. Things that happen at the same moment to one channel may be told in another order than they came
/// in: who needs the truth about a channel asks the hub for it then.
#[derive(Debug, Clone, Copy)]
pub enum Observation<'a> {
    /// A client has connected.
    Connected {
        /// Its socket.
        socket: SocketId,
    },
    /// A client is gone; it has left its channels, each with an observation of its own.
    Disconnected {
        /// Its socket.
        socket: SocketId,
        /// Why.
        reason: CloseReason,
    },
    /// A socket came into a channel.
    Subscribed {
        /// The channel.
        channel: &'a str,
        /// The socket.
        socket: SocketId,
        /// Sockets of this node in the channel afterwards; 1: the channel was empty here.
        count: usize,
    },
    /// A socket left a channel.
    Unsubscribed {
        /// The channel.
        channel: &'a str,
        /// The socket.
        socket: SocketId,
        /// Why, in a few words.
        reason: &'static str,
        /// Sockets of this node in the channel afterwards; 0: the channel is empty here.
        count: usize,
    },
    /// A client did not get in.
    TurnedAway {
        /// The rule.
        cause: Refusal,
        /// The origin of its page, where the browser names one.
        origin: Option<&'a str>,
    },
    /// Something that a client asked for was not done.
    Refused {
        /// The channel.
        channel: &'a str,
        /// The socket.
        socket: SocketId,
        /// The rule.
        cause: Refusal,
        /// Of a subscribe, the status that the client is told.
        status: Option<u16>,
        /// What the application answered, or why it could not be asked, where that is the cause.
        reason: Option<&'a Reason>,
    },
    /// A socket was granted a guarded channel, and is in it.
    Granted {
        /// The channel.
        channel: &'a str,
        /// The socket.
        socket: SocketId,
        /// Who gave the grant.
        by: GrantedBy,
        /// The user's id, where it is known.
        user: Option<&'a str>,
        /// From the question to the answer, where there was one.
        took: Option<Duration>,
    },
    /// A user came into a presence channel, as clients of this node are told; in a cluster every node with clients there hears
    /// of it.
    Joined {
        /// The channel.
        channel: &'a str,
        /// The user.
        member: &'a Member,
    },
    /// The last socket of a user left a presence channel, as clients of this node are told, or by this node with no client left there.
    Left {
        /// The channel.
        channel: &'a str,
        /// The user.
        member: &'a Member,
    },
    /// An event was sent to this node's clients.
    Published {
        /// The event.
        event: &'a Event<'a>,
        /// Where it came from.
        source: Source,
        /// How many sockets took it.
        delivered: usize,
        /// Whether the socket to leave out was in the channel.
        has_left_out: bool,
    },
    /// A client of this node whispered.
    Whispered {
        /// The channel.
        channel: &'a str,
        /// The socket it came from.
        socket: SocketId,
        /// The name, `client-…`.
        name: &'a str,
        /// The data.
        data: &'a RawValue,
        /// In a presence channel, the user.
        user: Option<&'a str>,
    },
    /// A client came back to its session, and was sent what it had missed.
    Returned {
        /// Its socket, the same as before.
        socket: SocketId,
        /// Events that it had missed.
        replayed: usize,
    },
    /// A client came back, and starts afresh: not all that it missed is kept.
    Afresh {
        /// The socket that it had.
        socket: SocketId,
    },
    /// What was sent until now may lack something: clients that were away start afresh.
    Gap,
    /// Somebody subscribed to a cache channel that has no event.
    CacheMiss {
        /// The channel.
        channel: &'a str,
    },
}

/// Who hears what happens. Called in the middle of the hub's work: it must not wait, nor call the hub back.
pub trait Observer: Send + Sync {
    /// Something has happened.
    fn observe(&self, observation: &Observation<'_>);

    /// Whether it may ever want to hear of events that nobody here is subscribed to. Asked when it is attached.
    fn wants_unheard(&self) -> bool {
        false
    }

    /// Whether it wants to hear of this one, to a channel that nobody here is subscribed to; most of them are meant for other
    /// nodes, and are not read otherwise.
    fn wants_unheard_in(&self, _channel: &str) -> bool {
        self.wants_unheard()
    }
}

/// All who watch a hub.
pub(super) struct Observers {
    /// Whether there is any; read at each event, so that nobody costs nothing.
    any: AtomicBool,
    /// Whether any wants events that nobody is subscribed to.
    wants_unheard: AtomicBool,
    list: ArcSwap<Vec<Arc<dyn Observer>>>,
}

impl Observers {
    pub(super) fn new() -> Self {
        Self { any: AtomicBool::new(false), wants_unheard: AtomicBool::new(false), list: ArcSwap::default() }
    }

    fn change(&self, change: impl Fn(&mut Vec<Arc<dyn Observer>>)) {
        self.list.rcu(|list| {
            let mut list = Vec::clone(list);
            change(&mut list);
            list
        });
        let list = self.list.load();
        self.any.store(!list.is_empty(), Ordering::Relaxed);
        self.wants_unheard.store(list.iter().any(|observer| observer.wants_unheard()), Ordering::Relaxed);
    }

    pub(super) fn want_unheard_in(&self, channel: &str) -> bool {
        self.wants_unheard.load(Ordering::Relaxed) && self.list.load().iter().any(|observer| observer.wants_unheard_in(channel))
    }

    /// Tells everyone who watches what has happened.
    pub(super) fn tell<'a>(&self, observation: impl FnOnce() -> Observation<'a>) {
        if self.any.load(Ordering::Relaxed) {
            let observation = observation();
            for observer in self.list.load().iter() {
                observer.observe(&observation);
            }
        }
    }
}

impl<S: Socket> Hub<S> {
    /// Counts a client that does not get in, and tells whoever watches.
    pub fn turned_away(&self, cause: Refusal, headers: &http::HeaderMap) {
        self.metrics.refusal(cause);
        self.observers.tell(|| {
            let origin = headers.get(http::header::ORIGIN).and_then(|origin| origin.to_str().ok());
            Observation::TurnedAway { cause, origin }
        });
    }

    /// From now on `observer` hears what happens.
    pub fn attach(&self, observer: &Arc<dyn Observer>) {
        self.observers.change(|list| list.push(Arc::clone(observer)));
    }

    /// From now on `observer` hears nothing any more.
    pub fn detach(&self, observer: &Arc<dyn Observer>) {
        self.observers.change(|list| list.retain(|known| !Arc::ptr_eq(known, observer)));
    }
}
