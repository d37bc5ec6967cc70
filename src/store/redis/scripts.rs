//! The data model in Redis: key names, the scripts that change a channel or an index, and the format of entries.
//!
//! A channel is two hashes with one hash tag: `sockets` maps a socket to its entry, `users` maps a user to the count
//! of its sockets. An entry is `<place> <node> <length> <user><member JSON>`; places are versions of the channel,
//! which grow with every change, so that sorting by place gives the order of joining.

use redis::Pipeline;

use crate::channel::ChannelName;
use crate::event::SocketId;
use crate::store::{Member, Members, StoreError};
use crate::warn_throttled;

const JOIN: &str = concat!(include_str!("shared.lua"), include_str!("join.lua"));
const LEAVE: &str = concat!(include_str!("shared.lua"), include_str!("leave.lua"));
const INDEX: &str = include_str!("index.lua");

/// The field of `sockets` that holds the version instead of a socket.
const VERSION: &str = "version";

/// Key names, all under the configured prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    /// Whether changes are PUBLISHed to the channel for other nodes.
    publishes: bool,
}

impl Keys {
    pub(super) fn new(prefix: &str, publishes: bool) -> Self {
        Self { prefix: prefix.to_owned(), publishes }
    }

    fn channel(&self, channel: &ChannelName, part: &str) -> String {
        format!("{}laravel-echo:{{{channel}}}:{part}", self.prefix)
    }

    fn topic(&self, channel: &ChannelName) -> String {
        if self.publishes { format!("{}{channel}", self.prefix) } else { String::new() }
    }

    /// The original's readable list.
    pub(super) fn mirror(&self, channel: &ChannelName) -> String {
        format!("{}{channel}:members", self.prefix)
    }

    /// The set of all nodes.
    pub(super) fn nodes(&self) -> String {
        format!("{}laravel-echo:nodes", self.prefix)
    }

    /// The key that exists as long as the node is alive.
    pub(super) fn lease(&self, node: &str) -> String {
        format!("{}laravel-echo:node:{{{node}}}:lease", self.prefix)
    }

    /// The set of channels the node may have members in.
    pub(super) fn index(&self, node: &str) -> String {
        format!("{}laravel-echo:node:{{{node}}}:channels", self.prefix)
    }

    /// Appends the command that adds a channel to a node's index. Its reply is whether the channel was added, which is
    /// the case if the node's lease exists.
    pub(super) fn add_to_index(&self, pipeline: &mut Pipeline, node: &str, channel: &ChannelName) {
        pipeline.cmd("EVAL").arg(INDEX).arg(2).arg(self.lease(node)).arg(self.index(node)).arg(channel.as_str());
    }

    /// Appends the query for everyone in a channel; its reply is parsed by [`members`].
    pub(super) fn list(&self, pipeline: &mut Pipeline, channel: &ChannelName) {
        pipeline.cmd("HGETALL").arg(self.channel(channel, "sockets"));
    }

    /// Appends the query for the number of sockets of each of these users in a channel; nil for users without any.
    pub(super) fn users(&self, pipeline: &mut Pipeline, channel: &ChannelName, users: &[&str]) {
        pipeline.cmd("HMGET").arg(self.channel(channel, "users")).arg(users);
    }

    /// Appends the query whether a socket is in a channel.
    pub(super) fn has(&self, pipeline: &mut Pipeline, channel: &ChannelName, socket: SocketId) {
        pipeline.cmd("HEXISTS").arg(self.channel(channel, "sockets")).arg(socket.to_string());
    }

    /// Appends the query for a channel's version; nil when the channel is empty.
    pub(super) fn version(&self, pipeline: &mut Pipeline, channel: &ChannelName) {
        pipeline.cmd("HGET").arg(self.channel(channel, "sockets")).arg(VERSION);
    }

    /// Appends a join.
    pub(super) fn join(&self, pipeline: &mut Pipeline, join: &Join<'_>) {
        self.script(pipeline, JOIN, join.channel);
        pipeline.arg(join.socket.to_string()).arg(join.member.user()).arg(join.node).arg(join.member.json());
        pipeline.arg(join.mode.as_str()).arg(self.topic(join.channel));
        pipeline.arg(join.witness.map(|socket| socket.to_string()).unwrap_or_default());
    }

    /// Appends a leave.
    pub(super) fn leave(&self, pipeline: &mut Pipeline, channel: &ChannelName, socket: SocketId, condition: Condition<'_>) {
        self.script(pipeline, LEAVE, channel);
        let (expected, user, node) = match condition {
            Condition::None => ("", "", ""),
            Condition::Entry(entry) => (entry, "", ""),
            Condition::LostAnswer(member) => ("", member.user(), ""),
            Condition::Node(node) => ("", "", node),
        };
        pipeline.arg(socket.to_string()).arg(expected).arg(user).arg(self.topic(channel)).arg(node);
    }

    // EVAL instead of EVALSHA: a NOSCRIPT error in the middle of a pipeline would leave it half executed.
    fn script(&self, pipeline: &mut Pipeline, source: &str, channel: &ChannelName) {
        pipeline.cmd("EVAL").arg(source).arg(2).arg(self.channel(channel, "sockets")).arg(self.channel(channel, "users"));
    }
}

/// The arguments of the join script.
pub(super) struct Join<'a> {
    pub(super) channel: &'a ChannelName,
    pub(super) socket: SocketId,
    pub(super) member: &'a Member,
    pub(super) node: &'a str,
    pub(super) mode: Mode,
    /// Another socket that should be in the channel.
    pub(super) witness: Option<SocketId>,
}

/// Why a socket is put into a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It subscribed.
    Join,
    /// It subscribed, but the reply to the first attempt was lost.
    Again,
    /// It is in the channel already, and Redis may have lost it.
    Assert,
}

impl Mode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Again => "again",
            Self::Assert => "assert",
        }
    }
}

/// The condition for removing a socket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition<'a> {
    /// Remove it unconditionally.
    None,
    /// Remove it if its entry is still this one.
    Entry(&'a str),
    /// Remove it unconditionally; the reply to the first attempt was lost.
    LostAnswer(&'a Member),
    /// Remove it if it still belongs to this node.
    Node(&'a str),
}

/// Fields and values of a channel's `sockets` hash.
pub(super) type Listing = Vec<(String, String)>;

/// A parsed entry of one socket.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    place: u64,
    node: &'a str,
    member: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let (place, node, length, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let member = rest.get(length.parse().ok()?..)?;
        Some(Self { place: place.parse().ok()?, node, member })
    }
}

/// What to do about data of others among ours.
const FOREIGN: &str = "does another program, or another version, write to this key? databaseConfig.redis.keyPrefix keeps them apart";

/// Warns that a join has overwritten or renamed something foreign.
pub(super) fn warn_of_foreign(channel: &ChannelName) {
    warn_throttled!(class = 2, key = channel.as_str(), %channel, hint = FOREIGN, "put aside what another program wrote in the place of presence members");
}

/// Entries of sockets. Foreign entries, such as those of another version or program, are skipped with a warning.
fn entries(listing: &Listing) -> impl Iterator<Item = (SocketId, Entry<'_>, &str)> {
    listing.iter().filter(|(field, _)| field != VERSION).filter_map(|(field, text)| {
        let entry = SocketId::parse(field).zip(Entry::parse(text));
        if entry.is_none() {
            warn_throttled!(class = 0, key = field, field, hint = FOREIGN, "skipped a foreign entry among presence members");
        }
        let (socket, entry) = entry?;
        Some((socket, entry, text.as_str()))
    })
}

/// Members in the order of joining.
pub(super) fn members(listing: &Listing) -> Members {
    let mut found = Vec::with_capacity(listing.len());
    for (socket, entry, _) in entries(listing) {
        match Member::parse(entry.member) {
            Ok(member) => found.push((entry.place, socket, member)),
            Err(error) => warn_throttled!(class = 1, key = &socket, %socket, %error, "skipped a presence member that cannot be read"),
        }
    }
    found.sort_unstable_by_key(|(place, socket, _)| (*place, *socket));
    found.into_iter().map(|(_, socket, member)| (socket, member)).collect()
}

/// Sockets of these nodes, with their raw entries.
pub(super) fn of_nodes<'a>(listing: &'a Listing, nodes: &[String]) -> Result<Vec<(SocketId, &'a str)>, StoreError> {
    let mut found = Vec::new();
    for (socket, entry, text) in entries(listing) {
        if nodes.iter().any(|node| node == entry.node) {
            found.push((socket, text));
        }
    }
    Ok(found)
}

/// The version of a channel; 0 when it is empty.
pub(super) fn version(listing: &Listing) -> u64 {
    let version = listing.iter().find(|(field, _)| field == VERSION);
    version.and_then(|(_, version)| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_users_with_any_character() {
        let entry = Entry::parse("1700000000000001 n0de 6 a b 1ž{\"user_id\":\"a b 1ž\"}");
        assert_eq!(entry, None, "the length counts bytes, as Lua does");
        let entry = Entry::parse("1700000000000001 n0de 7 a b 1ž{\"user_id\":\"a b 1ž\"}").unwrap();
        assert_eq!(entry, Entry { place: 1_700_000_000_000_001, node: "n0de", member: "{\"user_id\":\"a b 1ž\"}" });
    }

    #[test]
    fn keys_of_a_channel_share_a_hash_tag() {
        let keys = Keys::new("app_", true);
        assert_eq!(keys.channel(&"presence-room".into(), "users"), "app_laravel-echo:{presence-room}:users");
        assert_eq!(keys.mirror(&"presence-room".into()), "app_presence-room:members");
        assert_eq!(keys.topic(&"presence-room".into()), "app_presence-room");
        assert_eq!(Keys::new("app_", false).topic(&"presence-room".into()), "");
    }
}
