//! [`Observer`]: receives what happens in the hub, for the dashboard and for webhooks.
//!
//! Input: what the hub does. Output: [`Observation`]s to the attached observers; without any, none is created.

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

/// What has happened. Things that happen to one channel at the same moment may be reported in another order: an observer that
/// needs a channel's current state has to ask the hub for it.
#[derive(Debug, Clone, Copy)]
pub enum Observation<'a> {
    /// A client has connected.
    Connected {
        /// Its socket.
        socket: SocketId,
    },
    /// A client has disconnected; it has left its channels, each with an observation of its own.
    Disconnected {
        /// Its socket.
        socket: SocketId,
        /// Why.
        reason: CloseReason,
    },
    /// A socket joined a channel.
    Subscribed {
        /// The channel.
        channel: &'a str,
        /// The socket.
        socket: SocketId,
        /// Sockets of this node in the channel afterwards; 1: the channel was empty here before.
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
    /// A client was not admitted.
    TurnedAway {
        /// The rule.
        cause: Refusal,
        /// The origin of its page, if the browser sent it.
        origin: Option<&'a str>,
    },
    /// A request of a client was refused.
    Refused {
        /// The channel.
        channel: &'a str,
        /// The socket.
        socket: SocketId,
        /// The rule.
        cause: Refusal,
        /// For a subscribe, the status that the client is told.
        status: Option<u16>,
        /// What the application answered, or why it could not be reached, where that is the cause.
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
        /// The user's id, if it is known.
        user: Option<&'a str>,
        /// The time from the request to the answer; `None` for a grant that the client brought.
        took: Option<Duration>,
    },
    /// A user joined a presence channel, as clients of this node are told; in a cluster every node with clients in the channel
    /// observes it.
    Joined {
        /// The channel.
        channel: &'a str,
        /// The user.
        member: &'a Member,
    },
    /// A user's last socket left a presence channel: as clients of this node are told, or by this node with no client in the channel here.
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
        /// How many sockets it was queued for.
        delivered: usize,
        /// How many sockets do not get it, because they do not keep up.
        dropped: usize,
        /// Whether the socket that the event leaves out was in the channel.
        has_left_out: bool,
    },
    /// A message was sent to no one: it is not an event, or cannot be one.
    Dropped {
        /// The channel, if it is known.
        channel: Option<&'a str>,
        /// Where it came from.
        source: Source,
        /// Why.
        why: &'a str,
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
    /// A client resumed its session, and was sent what it had missed.
    Returned {
        /// Its socket, the same as before.
        socket: SocketId,
        /// Events that it had missed.
        replayed: usize,
    },
    /// A client could not resume its session and starts a new one: not all that it missed is kept.
    Afresh {
        /// The socket that it had.
        socket: SocketId,
    },
    /// Earlier events may have been missed: clients that were away start a new session.
    Gap,
    /// A socket subscribed to a cache channel that has no event.
    CacheMiss {
        /// The channel.
        channel: &'a str,
    },
}

/// Receives what happens. Called in the middle of the hub's work: it must neither block nor call the hub.
pub trait Observer: Send + Sync {
    /// Something has happened.
    fn observe(&self, observation: &Observation<'_>);

    /// Whether it may ever want events that no socket here is subscribed to. Asked when it is attached.
    fn wants_unheard(&self) -> bool {
        false
    }

    /// Whether it wants this event, to a channel that no socket here is subscribed to; most of these are meant for other nodes,
    /// and are not parsed otherwise.
    fn wants_unheard_in(&self, _channel: &str) -> bool {
        self.wants_unheard()
    }
}

/// All observers of a hub.
pub(super) struct Observers {
    /// Whether there is any; read at each event, so that having none costs nothing.
    any: AtomicBool,
    /// Whether any wants events that no socket is subscribed to.
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

    pub(super) fn has_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub(super) fn want_unheard_in(&self, channel: &str) -> bool {
        self.wants_unheard.load(Ordering::Relaxed) && self.list.load().iter().any(|observer| observer.wants_unheard_in(channel))
    }

    /// Tells all observers what has happened.
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
    /// Counts a client that is not admitted, and tells the observers.
    pub fn turned_away(&self, cause: Refusal, headers: &http::HeaderMap) {
        self.metrics.refusal(cause);
        self.observers.tell(|| {
            let origin = headers.get(http::header::ORIGIN).and_then(|origin| origin.to_str().ok());
            Observation::TurnedAway { cause, origin }
        });
    }

    /// From now on `observer` is told what happens.
    pub fn attach(&self, observer: &Arc<dyn Observer>) {
        self.observers.change(|list| list.push(Arc::clone(observer)));
    }

    /// From now on `observer` is told nothing.
    pub fn detach(&self, observer: &Arc<dyn Observer>) {
        self.observers.change(|list| list.retain(|known| !Arc::ptr_eq(known, observer)));
    }
}
