//! Validates channel rules. Input: `[[channels]]`. Output: problems, each with what to write instead.

use super::{Found, MAX_TIME, quoted};
use crate::channel::{ChannelKind, Pattern, kind_of};
use crate::config::channels::MAX_LAST;
use crate::config::value::Seconds;
use crate::config::{ChannelAuth, ChannelRule, Config, Deliver, Whispers};

impl Found {
    pub(super) fn channels(&mut self, config: &Config) {
        for (index, rule) in config.channels.iter().enumerate() {
            let key = |name: &str| format!("channels[{index}].{name}");
            self.pattern(&key("pattern"), &rule.pattern);
            self.last(rule, key);
            self.rights(rule, config.auth.jwt.algorithm.is_some(), key);
            if rule.max_members.is_some_and(|most| most > 0) && !may_begin_with(&rule.pattern, "presence-") {
                self.refuse(key("maxMembers"), shown(rule.max_members.as_ref()), "a pattern that begins with `presence-`")
                    .fix("only presence channels have members; remove `maxMembers`, or move it to a separate rule for presence channels");
            }
        }
    }

    /// The pattern of a rule, or one that selects channels elsewhere.
    pub(super) fn pattern(&mut self, key: &str, pattern: &str) {
        let rest = Pattern::new(pattern).widened();
        if pattern.is_empty() || rest.contains(['{', '}']) {
            self.refuse(key, quoted(pattern), "names of channels, `*` for any text, `{name}` for one segment")
                .fix("for example \"private-doc.*\" or \"private-doc.{id}\"; a name in braces has letters, digits and `_`");
        }
    }

    fn last(&mut self, rule: &ChannelRule, key: impl Fn(&str) -> String) {
        let last = rule.last.unwrap_or(0);
        if last > MAX_LAST {
            self.refuse(key("last"), last, format!("at most {MAX_LAST}"));
        }
        if last > 0 && rule.deliver == Some(Deliver::Volatile) {
            self.refuse(key("last"), last, "none with `deliver = \"volatile\"`, whose events are not kept")
                .fix("remove `last`, or set `deliver = \"latest\"`: it sends the last event of each name to new subscribers");
        }
        if let Some(time) = rule.last_for {
            if last == 0 {
                self.refuse(key("lastFor"), Seconds(time), "`last` to be set as well")
                    .fix("set `last = 20` for the last 20 events, or remove `lastFor`");
            } else if time.is_zero() || time > MAX_TIME {
                self.refuse(key("lastFor"), Seconds(time), "a duration such as `10m`");
            }
        }
    }

    fn rights(&mut self, rule: &ChannelRule, has_tokens: bool, key: impl Fn(&str) -> String) {
        let is_public = !may_be_guarded(&rule.pattern);
        let whispers = rule.whispers.filter(|whispers| *whispers != Whispers::Off);
        if is_public && whispers.is_some() {
            self.refuse(key("whispers"), shown(whispers.as_ref()), "a pattern with `private-` or `presence-`")
                .fix("whispers only work in private and presence channels; remove `whispers`");
        }
        match rule.auth {
            Some(ChannelAuth::None) => {
                if !Pattern::new(&rule.pattern).head().starts_with("private-") {
                    self.refuse(key("auth"), shown(rule.auth.as_ref()), "a pattern that begins with `private-`").fix(
                        "\"none\" opens private channels to anyone; channels without `private-` or `presence-` in their names are open \
                         already, and members of presence channels have to be known",
                    );
                }
                if whispers.is_some() {
                    self.refuse(key("whispers"), shown(whispers.as_ref()), "\"off\" or none with `auth = \"none\"`")
                        .fix("the senders in a channel that anyone may join are unknown; remove `whispers`");
                }
            }
            Some(auth) if is_public => {
                self.refuse(key("auth"), shown(Some(&auth)), "a pattern with `private-` or `presence-`")
                    .fix("a channel is guarded by its name: broadcast on `new PrivateChannel(…)`, and join it with `Echo.private(…)`");
            }
            Some(ChannelAuth::Jwt) if !has_tokens => {
                self.refuse(key("auth"), shown(rule.auth.as_ref()), "`auth.jwt` to be set")
                    .fix("set `auth.jwt.algorithm` with its key, or write `auth = \"callback\"`: without keys no token can be verified");
            }
            _ => {}
        }
    }
}

/// Whether the pattern may match a channel that needs authorisation.
pub(in crate::config) fn may_be_guarded(pattern: &str) -> bool {
    let pattern = Pattern::new(pattern);
    pattern.head().is_empty() || may_begin_with(pattern.as_str(), "private-") || kind_of(pattern.as_str()) != ChannelKind::Public
}

/// Whether the pattern may match a channel that begins with `begin`.
pub(in crate::config) fn may_begin_with(pattern: &str, begin: &str) -> bool {
    let pattern = Pattern::new(pattern);
    let (head, is_whole) = (pattern.head(), pattern.head().len() == pattern.as_str().len());
    head.starts_with(begin) || !is_whole && begin.starts_with(head)
}

/// A value as written in the settings.
fn shown(value: Option<&impl serde::Serialize>) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}
