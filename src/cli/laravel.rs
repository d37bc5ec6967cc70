//! The Laravel project around the config file. Input: its folder. Output: the settings that can be known from it, each with
//! the place it was found at, those that cannot be known, and where it broadcasts to.

use std::path::Path;

use laravel_echo_server::config::RedisServerConfig;
use laravel_echo_server::config::env::Environment;
use serde_json::Value as Json;

#[cfg(unix)]
mod ask;
#[cfg(not(unix))]
#[path = "laravel/ask_nobody.rs"]
mod ask;
pub(super) mod broadcaster;
mod php;
pub(super) mod pusher;
mod redis;
mod sources;
mod variables;

use broadcaster::Broadcaster;
use php::Value;
use sources::Sources;

/// A setting and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// Config key.
    pub(super) key: &'static str,
    pub(super) value: Json,
    /// File and name.
    pub(super) place: String,
}

/// A setting that the project has and that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    /// Config key.
    pub(super) key: &'static str,
    pub(super) reason: String,
}

/// What the project says.
#[derive(Debug, Default)]
pub(super) struct Project {
    pub(super) findings: Vec<Finding>,
    pub(super) unread: Vec<Unread>,
    /// Where events go, if that can be known.
    pub(super) broadcaster: Option<Broadcaster>,
    /// Where the driver `pusher` or `reverb` publishes, if Laravel broadcasts by one of these.
    pub(super) pusher: Option<pusher::Connection>,
    /// What keeps Laravel, or us, from reading it.
    pub(super) errors: Vec<String>,
}

/// The Redis connection that Laravel takes where none is named.
const DEFAULT_CONNECTION: &str = "default";

impl Project {
    /// Reads the project in `dir`; nothing is found where there is none.
    pub(super) fn read(dir: &Path) -> Self {
        let mut project = Self::default();
        let process = Environment::of_process();
        if let Some(sources) = Sources::read(dir, process.variables()) {
            project.take(&sources);
        }
        project
    }

    fn take(&mut self, sources: &Sources) {
        self.errors.extend(sources.errors.iter().cloned());
        self.app_url(sources);
        match Broadcaster::of(sources) {
            Ok(Some(broadcaster)) => self.broadcaster = Some(broadcaster),
            Ok(None) => self.broadcaster = Broadcaster::of_variables(sources),
            Err(why) => self.errors.push(format!("where Laravel broadcasts to could not be read: {why} in {}", sources.broadcasting.file)),
        }
        self.pusher = self.broadcaster.as_ref().and_then(|broadcaster| pusher::Connection::of(sources, broadcaster));
        let connection = self.broadcaster.as_ref().and_then(Broadcaster::redis_connection).unwrap_or(DEFAULT_CONNECTION).to_owned();
        for (key, found) in redis::settings(sources, &connection) {
            match found {
                Ok((value, place)) => self.findings.push(Finding { key, value, place }),
                Err(reason) => self.unread.push(Unread { key, reason }),
            }
        }
    }

    /// The value found for a config key.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.findings.iter().find(|finding| finding.key == key).map(|finding| &finding.value)
    }

    /// The text found for a config key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Json::as_str)
    }

    /// Whether Laravel publishes to what is, or looks like, this server's own endpoint in place of a Redis: on a connection
    /// for that alone, as cache and queue on the default one need a Redis.
    pub(super) fn publishes_to(&self, endpoint: &RedisServerConfig) -> bool {
        let is_here = |host: &str| matches!(host, "localhost" | "::1" | "[::1]") || host.starts_with("127.") || host == endpoint.host;
        self.broadcaster.as_ref().and_then(Broadcaster::redis_connection).is_some_and(|name| name != DEFAULT_CONNECTION)
            && self.text("databaseConfig.redis.port").and_then(|port| port.parse().ok()) == Some(endpoint.port.0)
            && self.text("databaseConfig.redis.host").is_some_and(is_here)
    }

    fn app_url(&mut self, sources: &Sources) {
        match sources.app.value.at(&["url"]) {
            Value::Text(url) if !url.is_empty() => {
                let (_, place) = sources.app.place(&["url"]);
                self.findings.push(Finding { key: "authHost", value: url.trim_end_matches('/').into(), place });
            }
            Value::Unknown(why) => self.unread.push(Unread { key: "authHost", reason: format!("{why} in {}", sources.app.file) }),
            _ => {}
        }
    }
}

/// Scheme, host and port of a URL, as browsers send it in `Origin`.
pub(super) fn origin_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty())?;
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    Some(format!("{scheme}://{}", host.strip_suffix(default_port).unwrap_or(host)).to_lowercase())
}

/// Whether a URL is that of this machine without a port, which is what APP_URL says until somebody sets it.
pub(super) fn is_bare_localhost(url: &str) -> bool {
    matches!(url.trim_end_matches('/'), "http://localhost" | "http://127.0.0.1")
}

/// What `allowedOrigins` has to hold for the pages of an application at this URL. On the developer's own machine they
/// are opened under more names and ports: `artisan serve` takes 8000, whatever APP_URL says.
pub(super) fn origins_of(url: &str) -> Vec<String> {
    let Some(origin) = origin_of(url) else { return Vec::new() };
    let is_local = |host: &str| host == "localhost" || host.starts_with("127.") || host == "[::1]";
    let Some((scheme, host)) = origin.split_once("://") else { return vec![origin] };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if !is_local(name) {
        // A leading dot stands for all subdomains in `authHost`.
        return vec![if host.starts_with('.') { format!("{scheme}://*{host}") } else { origin }];
    }
    let mut names = vec!["localhost", "127.0.0.1"];
    if !names.contains(&name) {
        names.push(name);
    }
    names.iter().flat_map(|name| [format!("{scheme}://{name}"), format!("{scheme}://{name}:*")]).collect()
}

#[cfg(test)]
mod tests;
