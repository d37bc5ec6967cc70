//! "Why did my event not arrive?": what is known about a channel and an event, as findings ordered by weight.
//!
//! Input: a channel and optionally an event, as named in Laravel or in the page's script. Output: findings with hints, from the
//! hub's state, the hints that are also logged, and the kept trace entries.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::access::Session;
use super::entry::Entry;
use super::{Dashboard, Settings};
use crate::api::params::Params;
use crate::channel::ChannelName;
use crate::hub::near_miss;
use crate::readiness::RedisState;

/// Maximum number of refusals shown.
const MAX_REFUSALS: usize = 3;

/// How important a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Weight {
    /// By itself a reason why nothing arrives.
    Wrong,
    /// A possible reason.
    Doubt,
    /// As it should be.
    Fine,
    /// Information only.
    Note,
}

/// A known fact.
#[derive(Debug, Serialize)]
struct Finding {
    weight: Weight,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Findings, and whether a page is open, without which nothing is recorded.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    findings: Vec<Finding>,
    watching: bool,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, weight: Weight, text: impl Into<String>, hint: impl Into<String>) {
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self.0.push(Finding { weight, text: text.into(), hint });
    }
}

/// `?channel=private-orders.1&event=OrderShipped`
pub(super) async fn why(_: Session, State(dashboard): State<Dashboard>, params: Params) -> Json<Answer> {
    let channel = params.get("channel").unwrap_or_default().trim();
    let event = params.get("event").unwrap_or_default().trim();
    let settings = dashboard.settings.load_full();
    let mut findings = Findings::default();
    let is_prefix_wrong = prefix(&settings, channel, &mut findings);
    sources(&settings, is_prefix_wrong, &mut findings);
    if !channel.is_empty() {
        name(&settings, channel, &mut findings);
        let count = settings.api.hub.subscription_count_everywhere(&ChannelName::from(channel)).await.value;
        let kept = dashboard.feed.recent(None);
        let has_refusals = refusals(&kept, channel, if count > 0 { Weight::Doubt } else { Weight::Wrong }, &mut findings);
        subscribers(&settings, channel, count, has_refusals, &mut findings);
        dropped(&kept, channel, &mut findings);
        events(&kept, channel, event, is_prefix_wrong, &mut findings);
    }
    findings.0.sort_by_key(|finding| finding.weight as u8);
    Json(Answer { findings: findings.0, watching: dashboard.feed.is_watching() })
}

/// Laravel's prefix, from an event outside the configured prefix whose channel ends with this name.
fn other_prefix<'a>(seen: &'a str, channel: &str) -> Option<&'a str> {
    const GUARDS: [&str; 3] = ["private-encrypted-", "private-", "presence-"];
    let prefix = seen.strip_suffix(channel).filter(|_| !channel.is_empty())?;
    let prefix = GUARDS.iter().find_map(|guard| prefix.strip_suffix(guard)).unwrap_or(prefix);
    // It must end at a word boundary, directly before the channel's name.
    let is_one = prefix.is_empty() || prefix.ends_with(|end: char| !end.is_alphanumeric());
    (is_one && !GUARDS.iter().any(|guard| prefix.contains(guard))).then_some(prefix)
}

/// Reports an event outside the prefix. Returns whether that is certainly why this channel gets nothing, so other leads are wrong.
fn prefix(settings: &Settings, channel: &str, findings: &mut Findings) -> bool {
    let Some(seen) = settings.api.hub.seen_outside_prefix() else { return false };
    let has_events = settings.api.hub.metrics().totals().redis_events > 0;
    let text = format!(
        "an event was published to {seen:?}, outside of databaseConfig.redis.keyPrefix = {:?}, and reaches no client",
        settings.config.database_config.redis.key_prefix
    );
    match other_prefix(seen, channel) {
        Some(prefix) if has_events => findings.add(
            Weight::Doubt,
            text,
            format!("if it is this application's, set databaseConfig.redis.keyPrefix = {prefix:?} and restart"),
        ),
        Some(prefix) => {
            findings.add(Weight::Wrong, text, format!("set databaseConfig.redis.keyPrefix = {prefix:?} and restart"));
            return true;
        }
        None => findings.add(
            if has_events { Weight::Note } else { Weight::Wrong },
            text,
            "if it is this application's, keyPrefix is not Laravel's prefix: \"Check the set-up\" below, or `laravel-echo-server doctor \
             --listen 30`, names the right one",
        ),
    }
    false
}

/// Reports whether events can arrive at all.
fn sources(settings: &Settings, is_prefix_wrong: bool, findings: &mut Findings) {
    let readiness = &settings.api.readiness;
    let totals = settings.api.hub.metrics().totals();
    match &*readiness.redis.borrow() {
        RedisState::Lost(loss) => findings.add(
            Weight::Wrong,
            format!("the connection to Redis is lost, so no events come from there: {}", loss.reason),
            format!("the server reconnects by itself; {}", loss.cause.hint(&settings.config.database_config.redis)),
        ),
        RedisState::Connecting => findings.add(
            Weight::Wrong,
            "Redis has not been reached yet, so no events come from there",
            "check databaseConfig.redis and that Redis runs",
        ),
        RedisState::Up if is_prefix_wrong => {}
        RedisState::Up if totals.redis_events == 0 => findings.add(
            Weight::Doubt,
            "no event has come from Redis since the server started",
            format!(
                "does Laravel broadcast with BROADCAST_CONNECTION=redis to this Redis, does its queue worker run, and is its prefix \
                 databaseConfig.redis.keyPrefix = {:?}? `laravel-echo-server doctor` compares both",
                settings.config.database_config.redis.key_prefix
            ),
        ),
        RedisState::Up => findings.add(Weight::Fine, "Redis is connected, and events have come from it", ""),
        RedisState::Off if !settings.config.redis_server.enabled => findings.add(
            Weight::Note,
            "subscribers.redis is false: events come only through the HTTP API",
            if settings.config.subscribers.http { "" } else { "subscribers.http is false, too: no event can arrive" },
        ),
        RedisState::Off => findings.add(
            Weight::Note,
            "subscribers.redis is false: events come through the HTTP API and the built-in Redis endpoint",
            "Laravel's REDIS_HOST and REDIS_PORT have to be those of redisServer",
        ),
    }
    if totals.malformed_events > 0 {
        findings.add(
            Weight::Doubt,
            format!("{} messages since the start were not valid Laravel events", totals.malformed_events),
            "see the log for what was wrong with them",
        );
    }
}

/// Reports a name that clients do not use.
fn name(settings: &Settings, channel: &str, findings: &mut Findings) {
    let prefix = &settings.config.database_config.redis.key_prefix;
    if !prefix.is_empty()
        && let Some(rest) = channel.strip_prefix(prefix)
    {
        findings.add(
            Weight::Wrong,
            format!("the name begins with the Redis prefix {prefix:?}, which clients never see"),
            format!("clients and broadcastOn() use {rest:?}"),
        );
    }
}

/// Reports how many sockets are subscribed.
fn subscribers(settings: &Settings, channel: &str, count: usize, has_refusals: bool, findings: &mut Findings) {
    if count > 0 {
        let sockets = if count == 1 { "1 socket is".to_owned() } else { format!("{count} sockets are") };
        return findings.add(Weight::Fine, format!("{sockets} subscribed to {channel:?}"), "");
    }
    match settings.api.hub.nearest(channel) {
        Some((joined, hint)) => {
            findings.add(Weight::Wrong, format!("no client is subscribed to {channel:?}, but some are in {joined:?}"), hint);
        }
        // The finding about the refusal explains it.
        None if has_refusals => findings.add(Weight::Wrong, format!("no client is subscribed to {channel:?}"), ""),
        None => findings.add(
            Weight::Wrong,
            format!("no client is subscribed to {channel:?}"),
            "is the page open, connected, and does it call Echo.channel(), Echo.private() or Echo.join() with this name? Echo adds \
             private- and presence- itself. Refusals are known only since a page of the dashboard is open: load the page of the client again",
        ),
    }
}

/// Whether two names mean the same channel, allowing for common mistakes in names.
fn is_about(known: &str, channel: &str) -> bool {
    known == channel || near_miss(channel, known).is_some() || near_miss(known, channel).is_some()
}

/// Reports refusals about the channel. Returns whether there are any.
fn refusals(kept: &[Arc<Entry>], channel: &str, weight: Weight, findings: &mut Findings) -> bool {
    let of_channel = kept.iter().rev().filter(|entry| entry.kind() == "refused");
    let of_channel = of_channel.filter(|entry| entry.channel.as_deref().is_some_and(|known| is_about(known, channel)));
    let mut told = Vec::new();
    for entry in of_channel {
        let known = entry.channel.as_deref().unwrap_or_default();
        let socket = entry.socket.map(|socket| socket.to_string()).unwrap_or_default();
        let status = entry.status.map(|status| format!(" with {status}")).unwrap_or_default();
        let answer = entry.answer.as_deref().map(|answer| format!(": {answer}")).unwrap_or_default();
        // Repeated attempts of one page are reported once.
        if told.contains(&(known, entry.socket)) {
            continue;
        }
        told.push((known, entry.socket));
        let text = format!("socket {socket} was refused {known:?}{status}{answer}");
        findings.add(weight, text, entry.hint.as_deref().unwrap_or_default());
        if told.len() >= MAX_REFUSALS {
            break;
        }
    }
    !told.is_empty()
}

/// The call of Echo's `listen()` for an event of this name.
fn listen_call(name: &str) -> String {
    match name.strip_prefix("App\\Events\\") {
        Some(class) => format!(".listen('{}', …)", class.replace('\\', ".")),
        None if name.contains('\\') => format!(".listen('.{}', …)", name.replace('\\', "\\\\")),
        None => format!(".listen('.{name}', …), with the dot"),
    }
}

/// The last part of a class or of a name with dots.
fn last_part(name: &str) -> &str {
    name.rsplit(['\\', '.']).next().unwrap_or(name)
}

/// Reports messages to the channel, and to one that is not known, that were sent to no one.
fn dropped(kept: &[Arc<Entry>], channel: &str, findings: &mut Findings) {
    for wanted in [Some(channel), None] {
        let mut told = Vec::new();
        let of_channel = kept.iter().rev().filter(|entry| entry.kind() == "dropped" && entry.channel.as_deref() == wanted);
        for why in of_channel.filter_map(|entry| entry.why.as_deref()) {
            if told.len() >= MAX_REFUSALS {
                break;
            }
            if told.contains(&why) {
                continue;
            }
            told.push(why);
            if wanted.is_some() {
                findings.add(Weight::Wrong, format!("a message to {channel:?} was dropped: {why}"), "");
            } else {
                findings.add(Weight::Doubt, format!("a message was dropped before its channel was known: {why}"), "");
            }
        }
    }
}

fn events(kept: &[Arc<Entry>], channel: &str, event: &str, is_prefix_wrong: bool, findings: &mut Findings) {
    let is_event = |entry: &&Arc<Entry>| matches!(entry.kind(), "event" | "whisper");
    let of_channel: Vec<_> = kept.iter().rev().filter(is_event).filter(|entry| entry.channel.as_deref() == Some(channel)).collect();
    if of_channel.is_empty() {
        let elsewhere = kept.iter().rev().filter(is_event).find_map(|entry| {
            let known = entry.channel.as_deref()?;
            Some((known, near_miss(known, channel)?))
        });
        match elsewhere {
            Some((known, hint)) => findings.add(Weight::Wrong, format!("events go to {known:?}, and not to {channel:?}"), hint),
            None if is_prefix_wrong => {}
            None => findings.add(
                Weight::Doubt,
                format!("no event has come to {channel:?} while the dashboard was open"),
                "send it now and keep this page open. With queued events (ShouldBroadcast) the queue worker has to run; \
                 ShouldBroadcastNow needs none",
            ),
        }
        return;
    }
    let wanted = event.trim_start_matches('.');
    let exact = of_channel.iter().find(|entry| entry.name.as_deref().is_some_and(|name| name == wanted || name == event));
    let alike = || {
        let is_alike = |name: &str| last_part(name).eq_ignore_ascii_case(last_part(wanted));
        of_channel.iter().find(|entry| entry.name.as_deref().is_some_and(is_alike))
    };
    let found = if event.is_empty() { of_channel.first() } else { exact.or_else(alike) };
    let Some(found) = found else {
        let mut names: Vec<_> = of_channel.iter().filter_map(|entry| entry.name.as_deref()).collect();
        names.dedup();
        names.truncate(3);
        findings.add(
            Weight::Wrong,
            format!("events came to {channel:?}, but none is called \"{event}\": the last ones are {}", names.join(", ")),
            "the name is the class of the event, or what its broadcastAs() returns",
        );
        return;
    };
    let name = found.name.as_deref().unwrap_or_default();
    let delivered = found.delivered.unwrap_or(1);
    if let Some(dropped) = found.dropped {
        findings.add(
            Weight::Wrong,
            format!("\"{name}\" was dropped for {dropped} of the clients subscribed, which do not keep up"),
            "they are disconnected and reconnect, or with `deliver = \"volatile\"` miss it; a larger limits.clientQueue bridges short delays",
        );
    }
    match (delivered, found.has_left_out) {
        (0, _) if found.dropped.is_some() => {}
        (0, true) => findings.add(
            Weight::Wrong,
            format!("\"{name}\" came, and the only one subscribed was the socket that caused it"),
            "toOthers() leaves out the socket whose id is in X-Socket-ID; look from another browser, or broadcast without toOthers()",
        ),
        (0, false) => findings.add(Weight::Wrong, format!("\"{name}\" came when no client was subscribed"), ""),
        (count, left_out) => {
            let others = if left_out { ", all but the one that caused it" } else { "" };
            findings.add(
                Weight::Fine,
                format!("\"{name}\" was delivered to {count}{others}"),
                format!("in Echo it is {}", listen_call(name)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_of_listen_matches_the_name() {
        assert_eq!(listen_call("App\\Events\\OrderShipped"), ".listen('OrderShipped', …)");
        assert_eq!(listen_call("App\\Events\\Orders\\Shipped"), ".listen('Orders.Shipped', …)");
        assert_eq!(listen_call("order.shipped"), ".listen('.order.shipped', …), with the dot");
        assert_eq!(listen_call("Domain\\Shipped"), ".listen('.Domain\\\\Shipped', …)");
    }

    #[test]
    fn the_prefix_of_an_event_is_what_precedes_the_channel() {
        assert_eq!(other_prefix("shop_database_news", "news"), Some("shop_database_"));
        assert_eq!(other_prefix("shop_private-orders.1", "private-orders.1"), Some("shop_"));
        assert_eq!(other_prefix("shop_private-orders.1", "orders.1"), Some("shop_"));
        assert_eq!(other_prefix("news", "news"), Some(""));
        assert_eq!(other_prefix("shop_private-orders.1", "1"), None);
        assert_eq!(other_prefix("sportsnews", "news"), None);
        assert_eq!(other_prefix("shop_news", ""), None);
    }

    #[test]
    fn names_that_differ_by_a_prefix_are_about_one_channel() {
        assert!(is_about("private-orders.1", "orders.1") && is_about("orders.1", "private-orders.1"));
        assert!(is_about("news", "news") && !is_about("news", "sports"));
    }
}
