//! The names of all keys, derived from [`Config`] itself, so that a key is declared in one place only.
//!
//! Input: a parsed file. Output: key paths such as `databaseConfig.redis.port` for variable names and `config check`, and a
//! warning about each unknown key of a file, with the most similar known one.

use serde_json::{Map, Value};

use super::value::{Seconds, Secret};
use super::{ApiClient, ChannelAuth, ChannelRule, Config, Deliver, RedisNode, WebhookConfig, Whispers};

/// What is expected of keys that have keys of their own, and of those with several values.
pub(super) const TABLE: &str = "a table of settings";
pub(super) const LIST: &str = "a list";

/// Options of socket.io and engine.io 2 to 4 that the original supports and that have no effect here.
const SOCKETIO_WITHOUT_EFFECT: &[&str] = &[
    "adapter",
    "allowEIO3",
    "allowRequest",
    "allowUpgrades",
    "cleanupEmptyChildNamespaces",
    "connectTimeout",
    "connectionStateRecovery",
    "cookieHttpOnly",
    "cookiePath",
    "destroyUpgrade",
    "destroyUpgradeTimeout",
    "handlePreflightRequest",
    "initialPacket",
    "parser",
    "serveClient",
    "upgradeTimeout",
    "wsEngine",
];

/// Options of ioredis 4 that have no effect here: this server reconnects and resubscribes by its own rules.
const REDIS_WITHOUT_EFFECT: &[&str] = &[
    "autoResendUnfulfilledCommands",
    "autoResubscribe",
    "commandTimeout",
    "connectTimeout",
    "connectionName",
    "disconnectTimeout",
    "dropBufferSupport",
    "enableAutoPipelining",
    "enableOfflineQueue",
    "enableReadyCheck",
    "enableTLSForSentinelMode",
    "family",
    "keepAlive",
    "lazyConnect",
    "maxRetriesPerRequest",
    "natMap",
    "noDelay",
    "preferredSlaves",
    "readOnly",
    "reconnectOnError",
    "retryStrategy",
    "role",
    "sentinelRetryStrategy",
    "sentinelTLS",
    "sentinelUsername",
    "showFriendlyErrorStack",
    "stringNumbers",
    "updateSentinels",
];

/// Common wrong names of keys, and the right ones.
const MEANT: &[(&str, &str)] = &[
    ("databaseConfig.keyPrefix", "databaseConfig.redis.keyPrefix"),
    ("databaseConfig.prefix", "databaseConfig.redis.keyPrefix"),
    ("databaseConfig.redis.database", "databaseConfig.redis.db"),
    ("databaseConfig.redis.options", "databaseConfig.redis.keyPrefix"),
    ("databaseConfig.redis.prefix", "databaseConfig.redis.keyPrefix"),
    ("prefix", "databaseConfig.redis.keyPrefix"),
    ("redis", "databaseConfig.redis"),
    ("redis.prefix", "databaseConfig.redis.keyPrefix"),
    ("socketio.host", "host"),
    ("socketio.port", "port"),
];

/// A [`Config`] with one item in every list of tables, as JSON: its shape is the shape of a config file.
pub(crate) fn shape() -> Value {
    let mut sample = Config::default();
    let webhook = WebhookConfig {
        app_id: Some(String::new()),
        key: Some(Secret::default()),
        secret: Some(Secret::default()),
        job: Some(String::new()),
        ..WebhookConfig::default()
    };
    sample.clients.push(ApiClient {
        app_id: String::new(),
        key: Secret::default(),
        secret: Some(Secret::default()),
        require_signature: false,
        jwt: Some(Secret::default()),
        webhooks: vec![webhook.clone()],
    });
    sample.webhooks.push(webhook);
    let node = RedisNode { host: String::new(), port: 6379 };
    sample.database_config.redis.sentinels.push(node.clone());
    sample.database_config.redis.cluster.push(node);
    sample.channels.push(ChannelRule {
        pattern: String::new(),
        whispers: Some(Whispers::Members),
        deliver: Some(Deliver::All),
        last: Some(0),
        last_for: Some(std::time::Duration::ZERO),
        max_members: Some(0),
        auth: Some(ChannelAuth::Callback),
        webhooks: Some(Vec::new()),
    });
    sample.socketio.origins = Some(Vec::new());
    serde_json::to_value(sample).expect("a Config serialises to JSON: its map keys are texts")
}

/// Every key that holds a value, as a dotted path; a list or a free table counts as one value.
pub fn paths() -> Vec<String> {
    fn collect(table: &Map<String, Value>, prefix: &str, into: &mut Vec<String>) {
        for (key, value) in table {
            let path = join(prefix, key);
            match value {
                Value::Object(inner) if !inner.is_empty() => collect(inner, &path, into),
                _ => into.push(path),
            }
        }
    }
    let mut paths = Vec::new();
    if let Value::Object(table) = shape() {
        collect(&table, "", &mut paths);
    }
    paths
}

/// The JSON pointer of a key such as `clients[0].key`.
pub(crate) fn pointer(path: &str) -> String {
    format!("/{}", path.replace(['.', '['], "/").replace(']', ""))
}

/// The value of a key such as `clients[0].key`.
pub(crate) fn at<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    tree.pointer(&pointer(path))
}

/// `clients[0].key` counted from 1: `clients[1].key`.
pub(crate) fn numbered(path: &str) -> String {
    let mut parts = path.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let number = part.split_once(']').and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest)));
        text += &number.map_or_else(|| format!("[{part}"), |(index, rest)| format!("[{}]{rest}", index + 1));
    }
    text
}

/// The identifying key of a list entry, if it has one: `pattern "private-*"` for `channels[0].last`.
pub(crate) fn entry_name(tree: &Value, path: &str) -> Option<String> {
    let (list, rest) = path.split_once('[')?;
    let (index, key) = rest.split_once(']')?;
    let name = match list {
        "channels" => "pattern",
        "clients" => "appId",
        _ => return None,
    };
    let text = tree.get(list)?.get(index.parse::<usize>().ok()?)?.get(name)?.as_str()?;
    (key.strip_prefix('.') != Some(name)).then(|| format!("{name} {text:?}"))
}

/// Calls `visit` with the path of each value that has a counterpart in the shape, the value, and the counterpart.
fn each(given: &Value, known: &Value, path: &str, visit: &mut impl FnMut(&str, &Value, &Value)) {
    visit(path, given, known);
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            let both = given.iter().filter_map(|(key, value)| Some((key, value, known.get(key)?)));
            both.for_each(|(key, value, known)| each(value, known, &join(path, key), visit));
        }
        (Value::Array(items), Value::Array(known)) => {
            let Some(known) = known.first() else { return };
            items.iter().enumerate().for_each(|(index, item)| each(item, known, &format!("{path}[{index}]"), visit));
        }
        _ => {}
    }
}

/// Tables in place of a list of tables and vice versa, with what was expected: in TOML they differ by one pair of brackets.
pub(crate) fn misplaced(tree: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    each(tree, &shape(), "", &mut |path, given, known| {
        let plain = || path.split('.').map(|key| key.split('[').next().unwrap_or(key)).collect::<Vec<_>>().join(".");
        let expected = match (given, known) {
            (Value::Object(_), Value::Array(known)) if known.first().is_some_and(Value::is_object) => {
                format!("a list of tables: in TOML `[[{0}]]` above each, instead of `[{0}]`", plain())
            }
            (Value::Array(_), Value::Object(known)) if !known.is_empty() && path.ends_with(']') => TABLE.to_owned(),
            (Value::Array(_), Value::Object(known)) if !known.is_empty() => {
                format!("one table: in TOML `[{0}]`, instead of `[[{0}]]`", plain())
            }
            _ => return,
        };
        found.push((path.to_owned(), expected));
    });
    found
}

/// Seconds above which a number without a unit was most likely meant as milliseconds.
const MANY_SECONDS: f64 = 1000.0;

/// Warns of each duration that is a large number without a unit: the original and Node use milliseconds, this server seconds.
pub(crate) fn odd_units(tree: &Value) -> Vec<String> {
    let mut found = Vec::new();
    each(tree, &shape(), "", &mut |path, given, known| {
        let is_time = known.as_str().is_some_and(|known| known.parse::<Seconds>().is_ok_and(|time| time.to_string() == *known));
        let number = given.as_f64().or_else(|| given.as_str()?.parse().ok());
        if let Some(number) = number.filter(|number| is_time && *number >= MANY_SECONDS) {
            let shown = numbered(path);
            found.push(format!(
                "`{shown}` is {number} seconds, because numbers without a unit are seconds: write \"{number}ms\" or \"{number}s\""
            ));
        }
    });
    found
}

/// A warning for each key of `tree` that has no effect.
pub(crate) fn remarks(tree: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    if let (Value::Object(given), Value::Object(known)) = (tree, shape()) {
        walk(given, &known, "", &mut remarks);
    }
    remarks
}

fn walk(given: &Map<String, Value>, known: &Map<String, Value>, prefix: &str, remarks: &mut Vec<String>) {
    for (key, value) in given {
        let path = join(prefix, key);
        let Some(expected) = known.get(key) else {
            remarks.push(remark(&path, prefix, key, known));
            if path == "redis" && value.get("prefix").is_some() {
                remarks.push(remark("redis.prefix", &path, "prefix", known));
            }
            continue;
        };
        match (value, expected) {
            // `headers` may have any keys: they are header names.
            (Value::Object(inner), Value::Object(known)) if !known.is_empty() => walk(inner, known, &path, remarks),
            (Value::Array(items), Value::Array(known)) => {
                if let Some(Value::Object(known)) = known.first() {
                    for (index, item) in items.iter().enumerate() {
                        if let Value::Object(item) = item {
                            walk(item, known, &format!("{path}[{index}]"), remarks);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

fn remark(path: &str, prefix: &str, key: &str, siblings: &Map<String, Value>) -> String {
    let without_effect = match prefix {
        "socketio" => SOCKETIO_WITHOUT_EFFECT.contains(&key),
        "databaseConfig.redis" => REDIS_WITHOUT_EFFECT.contains(&key),
        // Other options of Node's `tls.connect`.
        "databaseConfig.redis.tls" => true,
        _ => false,
    };
    let shown = numbered(path);
    if without_effect {
        return format!("`{shown}` is read but has no effect in this server");
    }
    if path == "socketio.cors" {
        return "`socketio.cors` has no effect in this server, as in the original; `allowedOrigins` names the pages that may connect"
            .to_owned();
    }
    let meant = MEANT.iter().find(|(name, _)| *name == path).map(|(_, meant)| (*meant).to_owned());
    match meant.or_else(|| nearest(prefix, key, siblings)) {
        Some(near) => format!("unknown key `{shown}` is ignored; did you mean `{}`?", numbered(&near)),
        None => format!("unknown key `{shown}` is ignored"),
    }
}

/// The known key that was most likely meant: a sibling with a similar name, or a similar name elsewhere.
pub(super) fn nearest(prefix: &str, key: &str, siblings: &Map<String, Value>) -> Option<String> {
    let wanted = key.to_lowercase();
    let close = |name: &str| {
        let distance = strsim::damerau_levenshtein(&wanted, &name.to_lowercase());
        (distance <= 1 + wanted.len() / 5).then_some(distance)
    };
    let beside = siblings.keys().filter_map(|name| Some((close(name)?, name))).min();
    if let Some((_, name)) = beside {
        return Some(join(prefix, name));
    }
    // In other tables only keys that differ by one letter: with more, almost any key would be similar to one of them.
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_lowercase();
    paths().into_iter().filter_map(|path| Some((close(&last(&path)).filter(|distance| *distance <= 1)?, path))).min().map(|(_, path)| path)
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mistyped_key_is_answered_with_the_right_one() {
        assert_eq!(remarks(&json!({"autHost": "x"})), ["unknown key `autHost` is ignored; did you mean `authHost`?"]);
        assert_eq!(
            remarks(&json!({"databaseConfig": {"redis": {"keyprefix": "x"}}})),
            ["unknown key `databaseConfig.redis.keyprefix` is ignored; did you mean `databaseConfig.redis.keyPrefix`?"]
        );
        assert_eq!(
            remarks(&json!({"clients": [{"appId": "a", "key": "b"}, {"appid": "c"}]})),
            ["unknown key `clients[2].appid` is ignored; did you mean `clients[2].appId`?"]
        );
    }

    #[test]
    fn a_key_in_the_wrong_table_is_answered_with_its_place() {
        assert_eq!(
            remarks(&json!({"keyPrefix": "x"})),
            ["unknown key `keyPrefix` is ignored; did you mean `databaseConfig.redis.keyPrefix`?"]
        );
        assert_eq!(remarks(&json!({"flavour": "x"})), ["unknown key `flavour` is ignored"]);
        assert_eq!(remarks(&json!({"auth": {"options": "x"}})), ["unknown key `auth.options` is ignored"], "not `dashboard.actions`");
    }

    #[test]
    fn names_that_people_take_are_answered_with_the_right_key() {
        for (name, meant) in MEANT {
            let tree = name.rsplit('.').fold(json!(1), |value, key| json!({ key: value }));
            let remarks = remarks(&tree);
            let expected = format!("unknown key `{name}` is ignored; did you mean `{meant}`?");
            assert!(remarks.contains(&expected), "{expected} in {remarks:?}");
            let root = shape();
            assert!(at(&root, meant).is_some(), "{meant}");
        }
        let remarks = remarks(&json!({"socketio": {"cors": {"origin": "https://app.test"}}}));
        assert!(matches!(&remarks[..], [one] if one.contains("`allowedOrigins`")), "{remarks:?}");
    }

    #[test]
    fn options_of_the_original_that_do_nothing_are_not_called_unknown() {
        let tree = json!({
            "secureOptions": 67_108_864,
            "socketio": {"serveClient": false},
            "databaseConfig": {"redis": {"family": 4, "tls": {"servername": "x"}}},
            "headers": {"X-Anything": "goes"},
        });
        let remarks = remarks(&tree);
        assert_eq!(remarks.len(), 3, "{remarks:?}");
        assert!(remarks.iter().all(|remark| remark.contains("has no effect")), "{remarks:?}");
    }

    #[test]
    fn paths_are_those_of_the_tables_with_optional_keys() {
        let paths = paths();
        for path in
            ["port", "auth.tls.verify", "auth.jwt.secret", "metrics.port", "databaseConfig.redis.tls.ca", "clients", "headers", "host"]
        {
            assert!(paths.iter().any(|known| known == path), "{path}");
        }
    }

    #[test]
    fn seconds_that_look_like_milliseconds_are_told() {
        let tree = json!({
            "auth": { "timeout": 10_000, "queueTimeout": "30000", "cacheTtl": 300, "kickedFor": "2000s" },
            "channels": [{ "pattern": "a", "lastFor": 600_000 }],
            "socketio": { "pingInterval": 25_000 },
            "port": 6001,
        });
        let found = odd_units(&tree);
        let keys: Vec<_> = found.iter().filter_map(|line| line.split('`').nth(1)).collect();
        assert_eq!(keys, ["auth.timeout", "auth.queueTimeout", "channels[1].lastFor"], "{found:?}");
        assert!(found[0].ends_with("write \"10000ms\" or \"10000s\""), "{found:?}");
    }

    #[test]
    fn entries_of_lists_are_counted_from_1_and_named() {
        assert_eq!(numbered("clients[0].webhooks[9].url"), "clients[1].webhooks[10].url");
        assert_eq!(numbered("headers.x[y"), "headers.x[y");
        let tree = json!({ "channels": [{ "pattern": "a" }, { "pattern": "b.*", "last": 1 }], "clients": [{ "appId": "one" }] });
        assert_eq!(entry_name(&tree, "channels[1].last").as_deref(), Some("pattern \"b.*\""));
        assert_eq!(entry_name(&tree, "clients[0].key").as_deref(), Some("appId \"one\""));
        assert_eq!(entry_name(&tree, "channels[1].pattern"), None, "it is what is wrong");
        assert_eq!(entry_name(&tree, "port"), None);
    }

    #[test]
    fn tables_and_lists_of_tables_are_told_apart() {
        let found = misplaced(&json!({
            "channels": { "pattern": "a" },
            "clients": [{ "webhooks": { "url": "x" } }],
            "auth": [{ "timeout": 1 }],
            "databaseConfig": { "redis": { "sentinels": {} } },
            "flatChannels": ["news"],
            "webhooks": [["url", "x"]],
        }));
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["channels", "clients[0].webhooks", "auth", "databaseConfig.redis.sentinels", "webhooks[0]"]);
        assert_eq!(found[4].1, "a table of settings");
        assert!(found[0].1.contains("`[[channels]]`") && found[1].1.contains("`[[clients.webhooks]]`"), "{found:?}");
        assert!(found[2].1.contains("`[auth]`"), "{found:?}");
    }
}
