//! Warnings about valid but unwise settings. Input: a resolved [`Config`]. Output: warnings for the start, each with key and fix.

use super::schema::numbered;
use super::validate::{is_loopback, may_be_guarded, may_begin_with};
use super::{ChannelAuth, ChannelRule, Config, Database, SameSite, WebhookEvent, Whispers};
use crate::channel::{CACHED_PREFIXES, Pattern};

/// Minimum bytes of a secret that signs tokens: the size of the smallest hash (RFC 7518, 3.2).
const SECRET: usize = 32;

/// Ping times below this many milliseconds are unlikely to be intended.
const SHORT_PING: u64 = 100;

/// Warnings about valid settings.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let jwt = &config.auth.jwt;
    let is_shared = jwt.algorithm.as_ref().is_some_and(|algorithm| algorithm.starts_with("HS"));
    let ours = jwt.secret.iter().filter(|_| is_shared).map(|secret| ("auth.jwt.secret".to_owned(), secret));
    let keyed = config.clients.iter().enumerate();
    let theirs = keyed.filter_map(|(index, client)| Some((format!("clients[{}].jwt", index + 1), client.jwt.as_ref()?)));
    let short = ours.chain(theirs).filter(|(_, secret)| secret.expose().len() < SECRET);
    let warning = |(key, bytes)| {
        format!(
            "`{key}` has {bytes} bytes: from one token, attackers can find a secret of less than {SECRET} bytes, and sign their own \
             tokens; set the output of `openssl rand -base64 48` here and in the application"
        )
    };
    let short = short.map(|(key, secret)| (key, secret.expose().len())).map(warning);
    short
        .chain(no_source(config))
        .chain(asks_itself(config))
        .chain(pings(config))
        .chain(cookie(config))
        .chain(sqlite(config))
        .chain(channels(config))
        .chain(prefixed(config))
        .collect()
}

/// Nothing that could bring events.
fn no_source(config: &Config) -> Option<String> {
    let sources = &config.subscribers;
    let has_api = sources.http && !config.clients.is_empty();
    let api =
        if sources.http { "run `laravel-echo-server client:add`" } else { "set `subscribers.http` to true, with an entry of `clients`," };
    (!sources.redis && !has_api && !config.redis_server.enabled).then(|| {
        format!(
            "no event can reach this server: set `subscribers.redis` to true to listen to Laravel's Redis, or `redisServer.enabled` to \
             let Laravel publish here without one, or {api} to publish over HTTP"
        )
    })
}

/// An `authHost` that is this server.
fn asks_itself(config: &Config) -> Option<String> {
    let is_here = |host: &str| {
        let own = config.host.as_deref().unwrap_or_default();
        is_loopback(host) || host.eq_ignore_ascii_case(own)
    };
    let leads_here = |text: &&String| {
        let scheme = if text.contains("://") { "" } else { "http://" };
        let Ok(uri) = format!("{scheme}{text}").parse::<http::Uri>() else { return false };
        uri.host().is_some_and(is_here) && uri.port_u16() == Some(config.port)
    };
    let host = config.auth_host.iter().find(leads_here)?;
    Some(format!("`authHost` is {host:?}, which is this server itself: set it to the address of the Laravel application"))
}

/// Ping times in seconds instead of milliseconds: clients would be pinged constantly, or be disconnected at the first delay.
fn pings(config: &Config) -> Option<String> {
    let times = [("pingInterval", config.socketio.ping_interval), ("pingTimeout", config.socketio.ping_timeout)];
    let (key, millis) = times.into_iter().find(|(_, millis)| *millis < SHORT_PING)?;
    Some(format!("`socketio.{key}` is {millis} ms, because its unit is milliseconds: for {millis} seconds write {}", millis * 1_000))
}

/// Rules that open private channels to anyone, rules that never apply, and webhook events without a target.
fn channels(config: &Config) -> impl Iterator<Item = String> {
    let patterns: Vec<_> = config.channels.iter().map(|rule| Pattern::new(&rule.pattern)).collect();
    config.channels.iter().enumerate().flat_map(move |(index, rule)| {
        let number = index + 1;
        let is_open = rule.auth == Some(ChannelAuth::None);
        let open = is_open.then(|| {
            format!(
                "`channels[{number}].auth` is \"none\": anyone may join {:?} and read what is sent there, although the name says private",
                rule.pattern
            )
        });
        let first = patterns[..index].iter().position(|earlier| earlier.covers(&patterns[index]));
        let hidden = first.map(|first| {
            format!(
                "`channels[{number}]` is never reached: {:?} of `channels[{}]` matches everything that {:?} does, and the first match \
                 applies; put the narrower rule first",
                config.channels[first].pattern,
                first + 1,
                rule.pattern
            )
        });
        let is_sent = |event| config.all_webhooks().any(|webhook| webhook.config.events.contains(event));
        let unsent = rule.webhooks.iter().flatten().find(|event| !is_sent(event)).map(|event| {
            format!(
                "`channels[{number}].webhooks` (pattern {:?}) has {:?}, but no target gets it: add it to `events` of a `[[webhooks]]`",
                rule.pattern,
                event.as_str()
            )
        });
        let never = rule.webhooks.iter().flatten().find_map(|event| Some((event, never_sent(rule, *event)?))).map(|(event, why)| {
            format!(
                "`channels[{number}].webhooks` (pattern {:?}) has {:?}, which is never sent for these channels: {why}",
                rule.pattern,
                event.as_str()
            )
        });
        [open, hidden, never.or(unsent)].into_iter().flatten().collect::<Vec<_>>()
    })
}

/// Why an event of webhooks never happens in the channels of a rule.
fn never_sent(rule: &ChannelRule, event: WebhookEvent) -> Option<&'static str> {
    let pattern = rule.pattern.as_str();
    let may_begin_with = |begin: &&str| may_begin_with(pattern, begin);
    match event {
        WebhookEvent::Connected | WebhookEvent::Disconnected => {
            Some("it belongs to no channel, so rules do not apply to it: add it to `events` of a `[[webhooks]]`")
        }
        WebhookEvent::MemberAdded | WebhookEvent::MemberRemoved if !may_begin_with(&"presence-") => {
            Some("only channels that begin with `presence-` have members; `channel_occupied` and `channel_vacated` are sent for all")
        }
        WebhookEvent::SubscriptionCount if Pattern::new(pattern).head().starts_with("presence-") => {
            Some("presence channels have `member_added` and `member_removed` instead")
        }
        WebhookEvent::CacheMiss if !CACHED_PREFIXES.iter().any(may_begin_with) => Some("only cache channels, such as `cache-…`, cause it"),
        WebhookEvent::ClientEvent if !may_be_guarded(pattern) => Some("only private and presence channels take whispers"),
        WebhookEvent::ClientEvent if rule.whispers == Some(Whispers::Off) => Some("`whispers` is \"off\" in this rule"),
        WebhookEvent::ClientEvent if rule.auth == Some(ChannelAuth::None) => Some("whispers are off with `auth = \"none\"`"),
        _ => None,
    }
}

/// Patterns that have Redis's prefix, which is not part of the names of channels.
fn prefixed(config: &Config) -> impl Iterator<Item = String> {
    let prefix = config.database_config.redis.key_prefix.as_str();
    let rules = config.channels.iter().enumerate().map(|(index, rule)| (format!("channels[{}].pattern", index + 1), &rule.pattern));
    let flat = config.flat_channels.iter().map(|pattern| ("flatChannels".to_owned(), pattern));
    let of_webhooks = config.all_webhooks().flat_map(|webhook| {
        let path = numbered(&webhook.path());
        webhook.config.channels.iter().map(move |pattern| (format!("{path}.channels"), pattern))
    });
    let all = rules.chain(flat).chain(of_webhooks);
    all.filter(move |(_, pattern)| !prefix.is_empty() && pattern.starts_with(prefix)).map(move |(key, pattern)| {
        let rest = &pattern[prefix.len()..];
        format!(
            "`{key}` is {pattern:?}, but the prefix {prefix:?} of `databaseConfig.redis.keyPrefix` is not part of the names of channels: \
             write {rest:?}"
        )
    })
}

/// The original's store, which means memory here.
fn sqlite(config: &Config) -> Option<String> {
    (config.database == Database::Sqlite).then(|| {
        "`database` is \"sqlite\": presence members are kept in memory, and no file is written; set it to `memory` to hide this".to_owned()
    })
}

/// A cookie that browsers reject.
fn cookie(config: &Config) -> Option<String> {
    let cookie = config.socketio.cookie.as_ref()?;
    let is_dropped = cookie.same_site == Some(SameSite::None) && !cookie.secure;
    is_dropped.then(|| {
        "`socketio.cookie` has sameSite \"none\" without `secure`: browsers drop it; set `secure` to true, and serve over https".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn warnings(settings: serde_json::Value) -> Vec<String> {
        super::warnings(&serde_json::from_value(settings).unwrap())
    }

    #[test]
    fn pings_in_seconds_are_told() {
        assert_eq!(warnings(json!({ "socketio": { "pingInterval": 100, "pingTimeout": 20_000 } })), Vec::<String>::new());
        let found = warnings(json!({ "socketio": { "pingInterval": 25 } }));
        assert!(found.len() == 1 && found[0].ends_with("for 25 seconds write 25000"), "{found:?}");
    }

    #[test]
    fn a_server_without_any_source_of_events_is_told() {
        let client = json!([{ "appId": "a", "key": "k" }]);
        for (settings, told) in [
            (json!({ "subscribers": { "redis": false } }), Some("run `laravel-echo-server client:add`")),
            (json!({ "subscribers": { "redis": false, "http": false }, "clients": client }), Some("set `subscribers.http` to true")),
            (json!({ "subscribers": { "redis": false }, "clients": client }), None),
            (json!({ "subscribers": { "redis": false }, "redisServer": { "enabled": true } }), None),
            (json!({}), None),
        ] {
            let found = warnings(settings.clone());
            assert_eq!(found.len(), usize::from(told.is_some()), "{settings}: {found:?}");
            assert!(told.is_none_or(|told| found[0].contains("no event can reach") && found[0].contains(told)), "{settings}: {found:?}");
        }
    }

    #[test]
    fn sqlite_is_memory_and_says_so() {
        assert!(warnings(json!({ "database": "sqlite" }))[0].contains("kept in memory"));
    }

    #[test]
    fn open_and_hidden_rules_are_told() {
        let channels = |channels: serde_json::Value| warnings(json!({ "channels": channels }));
        let open = channels(json!([{ "pattern": "private-feed.*", "auth": "none" }]));
        assert!(open.len() == 1 && open[0].starts_with("`channels[1].auth` is \"none\": anyone may join \"private-feed.*\""), "{open:?}");
        let hidden = channels(json!([{ "pattern": "private-*" }, { "pattern": "private-doc.{id}", "last": 1 }]));
        assert!(hidden.len() == 1 && hidden[0].starts_with("`channels[2]` is never reached: \"private-*\""), "{hidden:?}");
        assert_eq!(channels(json!([{ "pattern": "private-doc.{id}" }, { "pattern": "private-*" }])), Vec::<String>::new());
        let unsent = channels(json!([{ "pattern": "private-*", "webhooks": ["client_event"] }]));
        assert!(unsent.len() == 1 && unsent[0].contains("\"client_event\", but no target gets it"), "{unsent:?}");
    }

    #[test]
    fn webhook_events_that_a_rule_can_never_cause_are_told() {
        let every = json!([{ "url": "http://app/", "key": "k", "secret": "s", "events": ["channel_occupied", "member_added", "client_event",
            "cache_miss", "subscription_count", "connected"] }]);
        for (pattern, extra, event, is_told) in [
            ("private-doc.*", json!({}), "member_added", true),
            ("presence-room.*", json!({}), "member_added", false),
            ("*", json!({}), "member_added", false),
            ("presence-room.*", json!({}), "subscription_count", true),
            ("pre*", json!({}), "subscription_count", false),
            ("news.*", json!({}), "cache_miss", true),
            ("private-cache-*", json!({}), "cache_miss", false),
            ("news.*", json!({}), "client_event", true),
            ("private-*", json!({ "whispers": "off" }), "client_event", true),
            ("private-*", json!({}), "client_event", false),
            ("private-*", json!({}), "connected", true),
            ("news.*", json!({}), "channel_occupied", false),
        ] {
            let mut rule = json!({ "pattern": pattern, "webhooks": [event] });
            rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let found = warnings(json!({ "channels": [rule], "webhooks": every }));
            assert_eq!(found.len(), usize::from(is_told), "{pattern} {event}: {found:?}");
            assert!(!is_told || found[0].contains("never sent for these channels"), "{pattern} {event}: {found:?}");
        }
    }

    #[test]
    fn patterns_with_the_prefix_of_redis_are_told() {
        let found = warnings(json!({
            "databaseConfig": { "redis": { "keyPrefix": "app_" } },
            "channels": [{ "pattern": "app_private-doc.*", "last": 3 }, { "pattern": "private-*" }],
            "flatChannels": ["app_news", "news"],
            "webhooks": [{ "url": "http://app/", "key": "k", "secret": "s", "channels": ["*", "app_presence-*"] }],
        }));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("`channels[1].pattern` is \"app_private-doc.*\"") && found[0].ends_with("write \"private-doc.*\""));
        assert!(found[1].starts_with("`flatChannels` is") && found[2].starts_with("`webhooks[1].channels` is"), "{found:?}");
        assert_eq!(warnings(json!({ "flatChannels": ["app_news"] })), Vec::<String>::new());
    }

    #[test]
    fn an_auth_host_that_is_this_server_is_told() {
        for (settings, is_told) in [
            (json!({ "authHost": "http://localhost:6001" }), true),
            (json!({ "authHost": ["http://app.test", "127.0.0.1:6001"] }), true),
            (json!({ "authHost": "http://echo.test:7000/x", "host": "echo.test", "port": 7000 }), true),
            (json!({ "authHost": "http://localhost:8000" }), false),
            (json!({ "authHost": "http://app.test:6001" }), false),
            (json!({}), false),
        ] {
            assert_eq!(warnings(settings.clone()).len(), usize::from(is_told), "{settings}");
        }
    }

    #[test]
    fn short_secrets_are_named_and_not_shown() {
        let good = "x".repeat(SECRET);
        let found = warnings(json!({
            "auth": { "jwt": { "algorithm": "HS256", "secret": "tiny" } },
            "clients": [{ "appId": "a", "key": "k", "jwt": good }, { "appId": "b", "key": "k", "jwt": "small" }, { "appId": "c", "key": "k" }],
        }));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("`auth.jwt.secret` has 4 bytes") && !found[0].contains("tiny"), "{found:?}");
        assert!(found[1].starts_with("`clients[2].jwt` has 5 bytes") && !found[1].contains("small"), "{found:?}");
        for jwt in [json!({ "algorithm": "HS256", "secret": good }), json!({ "algorithm": "RS256", "secret": "tiny" }), json!({})] {
            assert_eq!(warnings(json!({ "auth": { "jwt": jwt } })), Vec::<String>::new());
        }
    }
}
