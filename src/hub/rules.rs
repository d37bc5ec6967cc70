//! [`Rules`]: how channels behave. The one place where a channel's name decides its behaviour.
//!
//! Input: `flatChannels` and `[[channels]]`. Output: the [`Rule`] of a channel, looked up once per event or whisper, and at
//! each step of a subscribe, since rules may change meanwhile. Without rules, a lookup only checks two empty lists.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{Hub, Keep, Socket};
use crate::channel::{ChannelKind, ChannelName, Pattern, kind_of};
use crate::config::{ChannelAuth, ChannelRule, Config, Deliver, WebhookEvent, Whispers};

/// How long events for new subscribers are kept, unless the rule says otherwise.
const LAST_FOR: Duration = Duration::from_secs(10 * 60);

/// All rules.
#[derive(Debug)]
pub(crate) struct Rules {
    flat: Vec<Pattern>,
    by_pattern: Vec<(Pattern, Behaviour)>,
    other: Behaviour,
}

/// What a rule says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Who may whisper.
    pub whispers: Whispers,
    /// How events wait for slow clients.
    pub deliver: Deliver,
    /// How many of the last events a new subscriber receives.
    pub last: usize,
    /// The maximum age of these events.
    pub last_for: Duration,
    /// Maximum number of users in a presence channel; 0: any number.
    pub max_members: usize,
    /// Who decides who may join; `None`: tokens if they are configured, else the application.
    pub auth: Option<ChannelAuth>,
    /// Which webhook events are sent; `None`: those that are sent for channels without a rule.
    pub webhooks: Option<Vec<WebhookEvent>>,
}

/// How one channel behaves.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    name: &'a str,
    /// The pattern of the first rule that matches.
    pattern: Option<&'a str>,
    /// Whether its events also go to all sockets.
    pub is_flat: bool,
    /// The behaviour of the first rule that matches.
    pub behaviour: &'a Behaviour,
}

impl From<&ChannelRule> for Behaviour {
    fn from(rule: &ChannelRule) -> Self {
        let number = |number: Option<u32>| usize::try_from(number.unwrap_or(0)).unwrap_or(usize::MAX);
        Self {
            whispers: rule.whispers.unwrap_or_default(),
            deliver: rule.deliver.unwrap_or_default(),
            last: number(rule.last),
            last_for: rule.last_for.unwrap_or(LAST_FOR),
            max_members: number(rule.max_members),
            auth: rule.auth,
            webhooks: rule.webhooks.clone(),
        }
    }
}

impl Rules {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            flat: config.flat_channels.iter().map(|text| Pattern::new(text)).collect(),
            by_pattern: config.channels.iter().map(|rule| (Pattern::new(&rule.pattern), rule.into())).collect(),
            other: Behaviour::default(),
        }
    }

    /// How a channel behaves.
    pub(crate) fn of<'a>(&'a self, channel: &'a str) -> Rule<'a> {
        let first = self.by_pattern.iter().find(|(pattern, _)| pattern.matches(channel));
        let (pattern, behaviour) = first.map_or((None, &self.other), |(pattern, behaviour)| (Some(pattern.as_str()), behaviour));
        let is_flat = self.flat.iter().any(|pattern| pattern.matches(channel)) && kind_of(channel) == ChannelKind::Public;
        Rule { name: channel, pattern, is_flat, behaviour }
    }

    /// Whether any channel's events go to all sockets.
    pub(super) const fn has_flat(&self) -> bool {
        !self.flat.is_empty()
    }

    /// Patterns of channels whose events are needed here even without subscribers.
    pub(super) fn heard_always(&self) -> Vec<Pattern> {
        let last = self.by_pattern.iter().filter(|(_, behaviour)| behaviour.last > 0).map(|(pattern, _)| pattern);
        self.flat.iter().chain(last).cloned().collect()
    }
}

impl Rule<'_> {
    /// The kind of the channel.
    #[must_use]
    pub fn kind(&self) -> ChannelKind {
        kind_of(self.name)
    }

    /// Whether joining the channel needs a grant.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.behaviour.auth != Some(ChannelAuth::None) && self.kind().is_guarded()
    }

    /// Whether webhooks that are sent `event` are sent it for this channel.
    pub(crate) fn tells(&self, event: WebhookEvent) -> bool {
        self.behaviour.webhooks.as_ref().is_none_or(|events| events.contains(&event))
    }

    /// Whether the receivers of a whisper are told who sent it.
    pub(super) fn stamps(&self) -> bool {
        self.behaviour.whispers == Whispers::Stamped && self.is_guarded()
    }

    /// The hint that the log gives when a channel has as many users as its rule allows.
    pub(super) fn full(&self) -> String {
        let (most, pattern) = (self.behaviour.max_members, self.pattern.unwrap_or_default());
        format!("the channel is full: maxMembers = {most} of the rule {pattern:?} in `channels`; raise it to admit more users")
    }

    /// Whether events are kept for new subscribers.
    pub(super) const fn has_last(&self) -> bool {
        self.behaviour.last > 0
    }

    /// How an event waits for a slow client; `key` identifies events of one name.
    pub(super) fn keep(&self, key: impl FnOnce() -> u64) -> Keep {
        match self.behaviour.deliver {
            Deliver::All => Keep::All,
            Deliver::Latest => Keep::Latest(key()),
            Deliver::Volatile => Keep::Volatile(key()),
        }
    }
}

impl<S: Socket> Hub<S> {
    /// The current rules, which follow later changes.
    pub(crate) fn rules(&self) -> Arc<ArcSwap<Rules>> {
        Arc::clone(&self.rules)
    }

    /// Whether joining a channel needs a grant.
    #[must_use]
    pub fn is_guarded(&self, channel: &str) -> bool {
        self.rules.load().of(channel).is_guarded()
    }

    /// Who decides who may join a channel, if a rule says so.
    #[must_use]
    pub fn auth_of(&self, channel: &str) -> Option<ChannelAuth> {
        self.rules.load().of(channel).behaviour.auth
    }

    /// Applies new rules. Sockets stay in their channels, except where a channel was open and needs a grant now.
    pub fn set_rules(self: &Arc<Self>, config: &Config) {
        let new = Arc::new(Rules::new(config));
        let old = self.rules.swap(Arc::clone(&new));
        self.last().retain(|channel| new.of(channel).has_last() || new.of(channel).behaviour.deliver == Deliver::Latest);
        let is_closed_now = |name: &ChannelName| new.of(name.as_str()).is_guarded() && !old.of(name.as_str()).is_guarded();
        for (channel, _) in self.rooms.channels(is_closed_now) {
            for id in self.sockets_in(channel.as_str(), usize::MAX) {
                self.turn_out(id, &channel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(config: serde_json::Value) -> Rules {
        Rules::new(&serde_json::from_value(config).unwrap())
    }

    #[test]
    fn the_first_pattern_that_fits_counts() {
        let rules = rules(json!({
            "flatChannels": ["news.*"],
            "channels": [
                { "pattern": "private-doc.{id}", "last": 20 },
                { "pattern": "private-*", "whispers": "off", "last": "3", "lastFor": "1m" },
                { "pattern": "news.{topic}", "deliver": "latest" },
            ],
        }));
        let last = |name| rules.of(name).behaviour.last;
        assert_eq!((last("private-doc.1"), last("private-doc.1.2"), last("news.1")), (20, 3, 0));
        assert_eq!(rules.of("private-doc.1").behaviour.last_for, LAST_FOR);
        assert_eq!(rules.of("private-other").behaviour.last_for, Duration::from_secs(60));
        let flat = rules.of("news.sport");
        assert!(flat.is_flat && flat.behaviour.deliver == Deliver::Latest);
        assert!(!rules.of("news.private-x").is_flat);
        assert_eq!(rules.of("elsewhere").behaviour, &Behaviour::default());
        let always: Vec<_> = rules.heard_always().iter().map(|pattern| pattern.as_str().to_owned()).collect();
        assert_eq!(always, ["news.*", "private-doc.{id}", "private-*"]);
    }

    #[test]
    fn a_full_channel_is_told_with_its_rule() {
        let rules = rules(json!({ "channels": [{ "pattern": "presence-room.{id}", "maxMembers": 50 }] }));
        let hint = rules.of("presence-room.7").full();
        assert!(hint.contains("maxMembers = 50 of the rule \"presence-room.{id}\""), "{hint}");
    }

    #[test]
    fn a_channel_that_is_open_is_as_private_as_its_name_in_all_else() {
        let rules = rules(json!({ "channels": [{ "pattern": "private-feed.*", "auth": "none" }] }));
        let open = rules.of("private-feed.1");
        assert_eq!((open.kind(), open.is_guarded()), (ChannelKind::Private, false));
        assert!(rules.of("private-other").is_guarded());
        assert!(!rules.of("news").is_guarded());
    }
}
