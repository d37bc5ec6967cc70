//! Which Redis Laravel broadcasts on. Input: the evaluated `database.redis`, and the name of the connection. Output: the
//! matching keys of `databaseConfig.redis`, each with its source, or why one cannot be read. Pure.

use serde_json::{Value as Json, json};

use super::php::url::{Url, decode};
use super::php::{Array, Asked, Value};
use super::sources::Sources;

/// The first version that broadcasts with a Lua script, to which a connection's prefix does not apply.
const BY_SCRIPT: (u32, u32) = (6, 20);

/// A config key with the value found for it and its source, or why it cannot be read.
pub(super) type Found = (&'static str, Result<(Json, String), String>);

/// The settings of the Redis connection `name`.
pub(super) fn settings(sources: &Sources, name: &str) -> Vec<Found> {
    let redis = sources.database.value.at(&["redis"]);
    let mut keys = Keys { sources, base: vec!["redis", name], found: Vec::new() };
    let cluster = redis.at(&["clusters", name]);
    match redis.at(&[name]) {
        Value::Null if matches!(cluster, Value::Array(_)) => keys.cluster(name, cluster),
        Value::Null => {
            let reason = match redis {
                Value::Null => "there is no `redis`".to_owned(),
                _ => format!("`redis` has no connection `{name}`"),
            };
            keys.unread("host", &reason);
        }
        Value::Unknown(why) => keys.unread("host", why),
        connection @ Value::Array(array) if array.known().any(|item| item.key == "0") => keys.servers(connection, array),
        connection => keys.server(&with_url(connection)),
    }
    keys.prefix(name);
    keys.found
}

struct Keys<'a> {
    sources: &'a Sources,
    /// The path of the connection in the config.
    base: Vec<&'a str>,
    found: Vec<Found>,
}

impl Keys<'_> {
    fn place(&self, key: &str) -> String {
        // If there is a URL, it is the source of all values.
        let url: Vec<_> = self.base.iter().copied().chain(["url"]).collect();
        let own: Vec<_> = self.base.iter().copied().chain([key]).collect();
        let has_url = self.sources.database.value.at(&url).truth().unwrap_or(true);
        self.sources.database.place(if has_url { &url } else { &own }).1
    }

    fn unread(&mut self, key: &'static str, why: &str) {
        self.found.push((full(key), Err(format!("{why} in {}", self.sources.database.file))));
    }

    fn put(&mut self, key: &'static str, value: impl Into<Json>, place: String) {
        self.found.push((full(key), Ok((value.into(), place))));
    }

    /// One server: host and port, or a Unix socket.
    fn server(&mut self, connection: &Value) {
        let (host, scheme, path) =
            (connection.at(&["host"]).string(), connection.at(&["scheme"]).string(), connection.at(&["path"]).string());
        let address = host.as_deref().unwrap_or_default();
        let (prefix, bare) = address.split_once("://").unwrap_or(("", address));
        let is_socket = bare.starts_with('/');
        let socket = match (&scheme, &path) {
            _ if is_socket => Some(bare),
            (Ok(scheme), Ok(path)) if scheme.eq_ignore_ascii_case("unix") && !path.is_empty() => Some(path.as_str()),
            _ => None,
        };
        if let Some(socket) = socket {
            let place = self.place(if is_socket { "host" } else { "path" });
            self.put("path", socket, place);
        } else {
            match &host {
                Ok(_) if bare.is_empty() => {}
                Ok(_) => {
                    let place = self.place("host");
                    self.put("host", bare, place);
                }
                Err(why) => self.unread("host", why),
            }
            self.port(connection.at(&["port"]));
            let is_tls = |name: &str| ["tls", "ssl", "rediss"].iter().any(|tls| name.eq_ignore_ascii_case(tls));
            match &scheme {
                Err(why) if prefix.is_empty() => self.unread("tls.enabled", why),
                Ok(scheme) if is_tls(scheme) || is_tls(prefix) => {
                    let place = self.place(if prefix.is_empty() { "scheme" } else { "host" });
                    self.put("tls.enabled", true, place.clone());
                    self.certificates(connection, &place);
                }
                _ => {}
            }
        }
        // A username only counts together with a password, and Laravel treats an empty password as none.
        let password = connection.at(&["password"]);
        for (key, value) in [("username", connection.at(&["username"])), ("password", password)] {
            match value.truth() {
                Err(why) => self.unread(key, &why),
                Ok(true) if password.truth() != Ok(false) => {
                    let place = self.place(key);
                    self.text(key, value, place);
                }
                Ok(_) => {}
            }
        }
        match connection.at(&["database"]) {
            Value::Null => {}
            value => match value.int() {
                Ok(number) => {
                    let place = self.place("database");
                    self.put("db", number.to_string(), place);
                }
                Err(why) => self.unread("db", &why),
            },
        }
    }

    fn text(&mut self, key: &'static str, value: &Value, place: String) {
        match value.string() {
            Ok(text) => self.put(key, text, place),
            Err(why) => self.unread(key, &why),
        }
    }

    fn port(&mut self, port: &Value) {
        match port.int() {
            // Null means the default; 0 and -1 are used with Unix sockets.
            Ok(..=0) => {}
            Ok(port) => {
                let place = self.place("port");
                self.put("port", port.to_string(), place);
            }
            Err(why) => self.unread("port", &why),
        }
    }

    /// A list of servers: the sentinels of Predis.
    fn servers(&mut self, connection: &Value, list: &Array) {
        let option = |keys: &[&'static str]| {
            let own = connection.at(&[&["options"], keys].concat()).clone();
            let shared = || self.sources.database.value.at(&[&["redis", "options"], keys].concat()).clone();
            if own == Value::Null { shared() } else { own }
        };
        let (name, password) = (option(&["service"]), option(&["parameters", "password"]));
        if option(&["replication"]) != Value::text("sentinel") {
            return self.unread(
                "host",
                "the connection is a list of servers: for a Redis Cluster set `cluster`, for sentinels `sentinels` and `name`",
            );
        }
        let place = self.sources.database.place(&self.base).1;
        match listed(list).iter().map(|server| node(server, 26379)).collect::<Result<Vec<_>, String>>() {
            Ok(nodes) => self.put("sentinels", nodes.into_iter().map(|(node, _)| node).collect::<Vec<_>>(), place.clone()),
            Err(why) => self.unread("sentinels", &why),
        }
        self.text("name", &name, place.clone());
        match password.truth() {
            Ok(false) => {}
            Ok(true) => self.text("password", &password, place),
            Err(why) => self.unread("password", &why),
        }
    }

    /// Reads the stream options of phpredis (`context`) and Predis (`ssl`).
    fn certificates(&mut self, connection: &Value, place: &str) {
        for keys in [&["context"][..], &["context", "stream"], &["context", "ssl"], &["ssl"]] {
            let options = connection.at(keys);
            let verifies = ["verify_peer", "verify_peer_name"].iter().all(|key| *options.at(&[key]) != Value::Bool(false));
            if !verifies {
                self.put("tls.rejectUnauthorized", false, place.to_owned());
            }
            if let Value::Text(ca) = options.at(&["cafile"]) {
                self.put("tls.ca", ca.clone(), place.to_owned());
            }
        }
    }

    fn cluster(&mut self, name: &str, cluster: &Value) {
        let Value::Array(servers) = cluster else { return };
        let place = self.sources.database.place(&["redis", "clusters", name]).1;
        let servers = listed(servers);
        let nodes = servers.iter().map(|server| node(server, 6379));
        match nodes.collect::<Result<Vec<_>, String>>() {
            Ok(nodes) => {
                if nodes.iter().any(|(_, is_tls)| *is_tls) {
                    self.put("tls.enabled", true, place.clone());
                }
                self.put("cluster", nodes.into_iter().map(|(node, _)| node).collect::<Vec<_>>(), place.clone());
            }
            Err(why) => self.unread("cluster", &why),
        }
        let options = self.sources.database.value.at(&["redis", "clusters", "options", "password"]).clone();
        let own = servers.first().map_or(Value::Null, |server| server.at(&["password"]).clone());
        let password = if options == Value::Null { own } else { options };
        match password.truth() {
            Ok(true) => self.text("password", &password, place),
            Ok(false) => {}
            Err(why) => self.unread("password", &why),
        }
    }

    /// The prefix of published channels.
    fn prefix(&mut self, name: &str) {
        let redis = self.sources.database.value.at(&["redis"]);
        let all = vec!["redis", "options", "prefix"];
        // Before 6.20 the Redis client added its own prefix to each channel, and a connection could have a different one.
        let is_old = self.sources.version.is_some_and(|version| version < BY_SCRIPT);
        let own = [vec!["redis", name, "options", "prefix"], all.clone(), vec!["redis", name, "prefix"]];
        let keys = if is_old {
            let is_predis = *redis.at(&["client"]) != Value::text("phpredis");
            let mut places = own.iter().take(if is_predis { 2 } else { 3 });
            places.find(|keys| self.sources.database.value.at(keys) != &Value::Null).cloned().unwrap_or(all)
        } else {
            all
        };
        match self.sources.database.value.at(&keys).string() {
            _ if *redis == Value::Null => self.unread("keyPrefix", "there is no `redis`"),
            Ok(prefix) => {
                let place = self.sources.database.place(&keys).1;
                self.put("keyPrefix", prefix, place);
            }
            Err(why) => self.unread("keyPrefix", &why),
        }
    }
}

/// The servers of a list, with their URLs applied.
fn listed(servers: &Array) -> Vec<Value> {
    servers.known().filter(|item| item.key.parse::<u32>().is_ok()).map(|item| with_url(&item.value)).collect()
}

/// Host and port of a server in a list, and whether it uses TLS.
fn node(server: &Value, default_port: i64) -> Result<(Json, bool), String> {
    let host = server.at(&["host"]).string()?;
    let (prefix, host) = host.split_once("://").unwrap_or(("", &host));
    let is_tls = ["tls", "ssl", "rediss"].contains(&prefix) || server.at(&["scheme"]) == &Value::text("tls");
    let port = match server.at(&["port"]).int()? {
        0 => default_port,
        port => port,
    };
    Ok((json!({ "host": host, "port": port }), is_tls))
}

/// The full path of a key of `databaseConfig.redis`.
fn full(key: &'static str) -> &'static str {
    match key {
        "host" => "databaseConfig.redis.host",
        "port" => "databaseConfig.redis.port",
        "username" => "databaseConfig.redis.username",
        "password" => "databaseConfig.redis.password",
        "db" => "databaseConfig.redis.db",
        "path" => "databaseConfig.redis.path",
        "cluster" => "databaseConfig.redis.cluster",
        "sentinels" => "databaseConfig.redis.sentinels",
        "name" => "databaseConfig.redis.name",
        "tls.enabled" => "databaseConfig.redis.tls.enabled",
        "tls.rejectUnauthorized" => "databaseConfig.redis.tls.rejectUnauthorized",
        "tls.ca" => "databaseConfig.redis.tls.ca",
        _ => "databaseConfig.redis.keyPrefix",
    }
}

/// A connection with the parts of its `url` applied, like Laravel's `ConfigurationUrlParser` does.
fn with_url(connection: &Value) -> Value {
    let (mut array, url) = match connection {
        Value::Array(array) => (array.clone(), array.get("url").clone()),
        Value::Text(_) => (Array::default(), connection.clone()),
        other => return other.clone(),
    };
    let text = match (url.truth(), url.string()) {
        (Ok(false), _) => return Value::Array(array),
        (Ok(true), Ok(text)) => text,
        (Err(why), _) | (_, Err(why)) => return Value::Unknown(why),
    };
    let Some(url) = Url::parse(&text) else { return Value::Unknown("the URL of the connection is malformed".to_owned()) };
    let mut put = |key: &str, value: Value| {
        if value != Value::Null {
            array.put(key.to_owned(), value, Asked::default());
        }
    };
    let scheme = url.scheme.map(|scheme| match scheme {
        "redis" => "tcp",
        "rediss" => "tls",
        other => other,
    });
    if let Some(scheme @ ("tcp" | "tls")) = scheme.map(str::to_ascii_lowercase).as_deref() {
        put("scheme", Value::text(scheme));
    }
    let decoded = |text: &str| typed(&decode(text));
    if let Some(path) = url.path.map(decode).filter(|path| path.len() > 1 || !path.starts_with('/')) {
        put("database", typed(&path[1..]));
    }
    put("host", url.host.map_or(Value::Null, decoded));
    put("port", url.port.map_or(Value::Null, |port| Value::Int(port.into())));
    put("username", url.user.map_or(Value::Null, decoded));
    put("password", url.pass.map_or(Value::Null, decoded));
    for (key, value) in form_urlencoded::parse(url.query.unwrap_or_default().as_bytes()) {
        put(&key, typed(&value));
    }
    Value::Array(array)
}

/// Laravel parses each part as JSON if possible: a password of digits becomes a number, `null` becomes null.
fn typed(text: &str) -> Value {
    serde_json::from_str::<Json>(text).map_or_else(|_| Value::text(text), Value::from)
}
