//! Channel names and the kind of channel each one names: the only place that knows the prefixes.
//!
//! Input: names from clients, Redis and HTTP. Output: [`ChannelName`], used as the key of everything about a channel.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Name of a channel as Laravel and Echo use it, such as `news`, `private-orders.1` or `presence-room`.
///
/// Channels have a namespace of their own: one that is named like a socket's id is an ordinary channel.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Who may join a channel, and whether it keeps members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// Anyone may join.
    Public,
    /// The Laravel application decides who may join.
    Private,
    /// As private, and subscribers see who else is in the channel.
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
    /// Compat: a name that *contains* `private-` or `presence-` anywhere needs authorisation (`src/channels/channel.ts:153`,
    /// unanchored). With a Redis prefix that is not configured, Laravel's private events arrive as
    /// `laravel_database_private-x`, which anyone could join otherwise. A channel keeps members only when its name *starts*
    /// with `presence-` (`src/channels/channel.ts:146`).
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

/// Prefix of a single user's channel (Pusher's `sendToUser`): only sockets signed in as that user may join, whatever Laravel says.
const USER_PREFIX: &str = "#server-to-user-";

/// The user that this channel belongs to, if it is a single user's channel.
#[must_use]
pub fn user_of(name: &str) -> Option<&str> {
    name.strip_prefix(USER_PREFIX)
}

/// Prefixes of cache channels, whose last event is kept for new subscribers.
pub const CACHED_PREFIXES: [&str; 4] = ["cache-", "private-cache-", "presence-cache-", "private-encrypted-cache-"];

/// Whether this is a cache channel, whose last event is kept for new subscribers.
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

    /// `public`, `private` or `presence`, as in the labels of metrics.
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

/// Lets maps keyed by channel be looked up by text.
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

/// A pattern with wildcards: `*` matches any run of characters, `{name}` matches one segment: one or more characters without a
/// dot, as in Laravel's routes/channels.php. `flatChannels`, `allowedOrigins`, `channels` and tokens all use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// Whether the pattern contains a segment, `{name}`.
    has_segments: bool,
}

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Run,
    Segment,
}

impl Pattern {
    /// A pattern from its text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), has_segments: pieces(text).any(|piece| piece == Piece::Segment) }
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern with `*` in place of each segment: it matches everything that this one does, and more.
    #[must_use]
    pub fn widened(&self) -> String {
        if !self.has_segments {
            return self.text.clone();
        }
        let text = |piece| match piece {
            Piece::Text(text) => text,
            Piece::Run | Piece::Segment => "*",
        };
        pieces(&self.text).map(text).collect()
    }

    /// The literal text before the first wildcard.
    #[must_use]
    pub fn head(&self) -> &str {
        match pieces(&self.text).next() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// Whether every text that matches `other` matches this pattern too. It may say `false` where `true` is right; for names
    /// without control characters it never says `true` wrongly.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let sample = |run: &str| -> String {
            let text = |piece| match piece {
                Piece::Text(text) => text,
                Piece::Run => run,
                Piece::Segment => "\u{1}",
            };
            pieces(&other.text).map(text).collect()
        };
        ["", "\u{1}", "\u{1}.\u{2}"].iter().all(|run| self.matches(&sample(run)))
    }

    /// Whether the pattern matches the whole of `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        if self.has_segments {
            return self.matches_segments(text);
        }
        let Some((head, rest)) = self.text.split_once('*') else {
            return self.text == text;
        };
        let Some(mut text) = text.strip_prefix(head) else {
            return false;
        };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return text.ends_with(part);
            }
            // The leftmost match is as good as any other: the rest may start anywhere after it.
            match text.find(part) {
                Some(at) => text = &text[at + part.len()..],
                None => return false,
            }
        }
        true
    }

    /// Tracks every offset where each piece may end instead of backtracking: a hostile name costs its length squared per piece at most.
    fn matches_segments(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let mut ends = vec![false; bytes.len() + 1];
        ends[0] = true;
        for piece in pieces(&self.text) {
            let mut next = vec![false; ends.len()];
            for start in (0..ends.len()).filter(|&start| ends[start]) {
                match piece {
                    Piece::Text(part) => {
                        if bytes[start..].starts_with(part.as_bytes()) {
                            next[start + part.len()] = true;
                        }
                    }
                    Piece::Run => {
                        next[start..].fill(true);
                        break;
                    }
                    Piece::Segment => {
                        let length = bytes[start..].iter().position(|&byte| byte == b'.').unwrap_or(bytes.len() - start);
                        next[start + 1..=start + length].fill(true);
                    }
                }
            }
            ends = next;
        }
        ends[bytes.len()]
    }
}

/// Splits a pattern into pieces. Braces around anything but letters, digits and `_` are literal text.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(behind) = rest.strip_prefix('*') {
            rest = behind;
            return Some(Piece::Run);
        }
        if let Some(length) = segment(rest) {
            rest = &rest[length..];
            return Some(Piece::Segment);
        }
        let is_special = |(at, character): &(usize, char)| *at > 0 && (*character == '*' || segment(&rest[*at..]).is_some());
        let end = rest.char_indices().find(is_special).map_or(rest.len(), |(at, _)| at);
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(Piece::Text(piece))
    })
}

/// The length of the `{name}` that a text starts with, if it does.
fn segment(text: &str) -> Option<usize> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some(name.len() + 2)
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

    #[test]
    fn a_segment_stands_for_one_name() {
        for (pattern, text, fits) in [
            ("private-doc.{id}", "private-doc.1", true),
            ("private-doc.{id}", "private-doc.", false),
            ("private-doc.{id}", "private-doc.1.2", false),
            ("private-{a}.{b}", "private-doc.\u{17e}", true),
            ("{a}.*.z", "x.y.z", true),
            ("{a}.*.z", "x.z", false),
            ("*{a}", "anything", true),
            ("*{a}", "a.", false),
            ("{a b}", "{a b}", true),
            ("{}", "{}", true),
            ("{", "{", true),
            ("a{", "a{", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), fits, "{pattern} {text}");
        }
        assert_eq!(Pattern::new("a.{b}.*{c}").widened(), "a.*.**");
        assert_eq!(Pattern::new("private-doc.{id}").head(), "private-doc.");
    }

    #[test]
    fn a_pattern_covers_what_is_narrower() {
        for (one, other, covers) in [
            ("*", "private-*", true),
            ("private-*", "private-doc.{id}", true),
            ("private-doc.{id}", "private-doc.*", false),
            ("private-doc.*", "private-*", false),
            ("*.*", "*", false),
            ("a", "a", true),
            ("a*", "{x}", false),
        ] {
            assert_eq!(Pattern::new(one).covers(&Pattern::new(other)), covers, "{one} {other}");
        }
    }
}
