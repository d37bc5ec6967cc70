//! Channel names and what kind of channel they name: the only place that knows the prefixes.
//!
//! Input: names from clients, Redis and HTTP. Output: [`ChannelName`], used as the key of everything about a channel.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Name of a channel as Laravel and Echo use it, such as `news`, `private-orders.1` or `presence-room`.
///
/// Names are a namespace of their own: one that equals a socket's id is a channel like any other.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Who may join a channel and what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// Anybody may join.
    Public,
    /// The Laravel application is asked first.
    Private,
    /// As private, and everyone sees who else is here.
    Presence,
}

impl ChannelName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind of channel.
    ///
    /// Compat: a name that *contains* `private-` or `presence-` anywhere needs authorisation
    /// (`src/channels/channel.ts:153`, unanchored). With a Redis prefix that is not configured, Laravel's private
    /// events arrive as `laravel_database_private-x`, which anybody could join otherwise. It keeps members only when
    /// it *starts* with `presence-` (`src/channels/channel.ts:146`).
    #[must_use]
    pub fn kind(&self) -> ChannelKind {
        kind_of(&self.0)
    }
}

/// The kind of channel that a name stands for; see [`ChannelName::kind`].
#[must_use]
pub fn kind_of(name: &str) -> ChannelKind {
    if name.starts_with("presence-") {
        ChannelKind::Presence
    } else if name.contains("private-") || name.contains("presence-") || name.starts_with(USER_PREFIX) {
        ChannelKind::Private
    } else {
        ChannelKind::Public
    }
}

/// Channels of single users (Pusher's `sendToUser`): only who is signed in as the user gets in, whatever Laravel says.
const USER_PREFIX: &str = "#server-to-user-";

/// The user whose own channel this is.
#[must_use]
pub fn user_of(name: &str) -> Option<&str> {
    name.strip_prefix(USER_PREFIX)
}

/// How the names of channels begin whose last event is kept for who subscribes.
pub const CACHED_PREFIXES: [&str; 4] = ["cache-", "private-cache-", "presence-cache-", "private-encrypted-cache-"];

/// Whether the last event of the channel is kept for who subscribes.
#[must_use]
pub fn is_cached(name: &str) -> bool {
    CACHED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl ChannelKind {
    /// Whether the Laravel application decides who may join.
    #[must_use]
    pub const fn is_guarded(self) -> bool {
        !matches!(self, Self::Public)
    }

    /// `public`, `private` or `presence`: the label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Presence => "presence",
        }
    }
}

impl From<&str> for ChannelName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for ChannelName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

/// Maps keyed by channel can be looked up by text.
impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for ChannelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A text with `*` standing for any run of characters, as in `flatChannels` and `allowedOrigins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern from its text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` fits.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let Some(mut text) = text.strip_prefix(head) else {
            return false;
        };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return text.ends_with(part);
            }
            // The leftmost place is as good as any: what follows may start anywhere behind it.
            match text.find(part) {
                Some(at) => text = &text[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_original() {
        for (name, kind) in [
            ("news", ChannelKind::Public),
            ("Private-orders", ChannelKind::Public),
            ("private-orders.1", ChannelKind::Private),
            ("laravel_database_private-orders", ChannelKind::Private),
            ("laravel_database_presence-room", ChannelKind::Private),
            ("presence-room", ChannelKind::Presence),
            ("presence-private-x", ChannelKind::Presence),
        ] {
            assert_eq!(ChannelName::from(name).kind(), kind, "{name}");
        }
    }

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, text, fits) in [
            ("news", "news", true),
            ("news", "news2", false),
            ("public.*", "public.a.b", true),
            ("public.*", "public", false),
            ("*", "", true),
            ("*.b*c", "a.b.b.c", true),
            ("*.b*c", "a.b.d", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), fits, "{pattern} {text}");
        }
    }
}
