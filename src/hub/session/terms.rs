//! [`Terms`]: what a subscription of a guarded channel is based on. Input: grants. Output: who is in, by whose word, and until when.

use std::sync::Arc;

use tokio::time::Instant;

use super::Ticket;
use crate::auth::{GrantedBy, SubscribeHeaders};
use crate::store::Member;

/// What a subscription is based on, and what it takes to ask for it again.
#[derive(Debug, Clone)]
pub(in crate::hub) struct Terms {
    pub(in crate::hub) ticket: Ticket,
    /// Headers of the last subscribe that was granted.
    pub(in crate::hub) headers: Arc<SubscribeHeaders>,
    /// The user's id, if it is known.
    pub(in crate::hub) user: Option<Arc<str>>,
    /// Who gave the grant.
    pub(in crate::hub) by: GrantedBy,
    /// The member, in a presence channel.
    pub(in crate::hub) member: Option<Member>,
    /// When the grant expires, if it does.
    pub(in crate::hub) ends: Option<Instant>,
}

/// The application's answer for a channel for which it gave the client a signature.
#[derive(Debug, Clone)]
pub(in crate::hub) struct Promise {
    pub(in crate::hub) user: Option<Arc<str>>,
    pub(in crate::hub) ends: Option<Instant>,
}

impl Terms {
    /// The client brought the grant itself, so no one can be asked to renew it.
    pub(in crate::hub) fn is_brought(&self) -> bool {
        self.by == GrantedBy::Signature
    }

    /// Whether the grant has not expired.
    pub(in crate::hub) fn holds(&self, now: Instant) -> bool {
        self.ends.is_none_or(|ends| ends > now)
    }
}

/// What a new grant says about the subscription.
#[derive(Debug)]
pub(in crate::hub) struct Basis<'a> {
    pub(in crate::hub) headers: &'a Arc<SubscribeHeaders>,
    pub(in crate::hub) user: Option<Arc<str>>,
    pub(in crate::hub) by: GrantedBy,
    pub(in crate::hub) member: Option<Member>,
}

impl<'a> Basis<'a> {
    /// The same as before.
    pub(in crate::hub) fn of(terms: &'a Terms) -> Self {
        Self { headers: &terms.headers, user: terms.user.clone(), by: terms.by, member: terms.member.clone() }
    }
}
