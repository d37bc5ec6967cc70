//! The Laravel project around the config file. Input: its folder. Output: the settings that can be read from it, each with
//! its source, those that cannot be read, and where the project broadcasts to.

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use laravel_echo_server::config::RedisServerConfig;
use laravel_echo_server::config::env::Environment;
use laravel_echo_server::config::validate;
use reqwest::Url;
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

/// A setting of the project that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    /// Config key.
    pub(super) key: &'static str,
    pub(super) reason: String,
}

/// The settings found in a project.
#[derive(Debug, Default)]
pub(super) struct Project {
    pub(super) findings: Vec<Finding>,
    pub(super) unread: Vec<Unread>,
    /// Where events go, if that can be read.
    pub(super) broadcaster: Option<Broadcaster>,
    /// Where the `pusher` or `reverb` driver publishes, if Laravel broadcasts with one of these.
    pub(super) pusher: Option<pusher::Connection>,
    /// The version of Laravel, if it can be found: major and minor number.
    version: Option<(u32, u32)>,
    /// What prevents Laravel or this program from reading the project.
    pub(super) errors: Vec<String>,
}

/// The Redis connection that Laravel uses if none is named.
const DEFAULT_CONNECTION: &str = "default";

impl Project {
    /// Reads the project in `dir`; empty if there is none.
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
        self.version = sources.version;
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

    /// The command that shows the options of Redis as Laravel sees them. `config:show` is newer than Laravel 8.
    pub(super) fn show_redis_options(&self) -> &'static str {
        match self.version {
            Some(version) if version < (10, 0) => "php artisan tinker --execute=\"dump(config('database.redis.options'))\"",
            _ => "php artisan config:show database.redis.options",
        }
    }

    /// The variable that names the broadcast connection.
    pub(super) fn broadcast_variable(&self) -> &str {
        let found = self.broadcaster.as_ref().and_then(Broadcaster::variable);
        found.unwrap_or(match self.version {
            Some(version) if version < (11, 0) => "BROADCAST_DRIVER",
            Some(_) => "BROADCAST_CONNECTION",
            None => "BROADCAST_CONNECTION (or BROADCAST_DRIVER)",
        })
    }

    /// The value found for a config key.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.findings.iter().find(|finding| finding.key == key).map(|finding| &finding.value)
    }

    /// The text found for a config key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Json::as_str)
    }

    /// Whether Laravel publishes to (what looks like) this server's own endpoint instead of a Redis. It must be a separate
    /// connection, because cache and queue need a real Redis on the default one.
    pub(super) fn publishes_to(&self, endpoint: &RedisServerConfig) -> bool {
        let is_here = |host: &str| validate::is_loopback(host) || host == endpoint.host;
        self.broadcaster.as_ref().and_then(Broadcaster::redis_connection).is_some_and(|name| name != DEFAULT_CONNECTION)
            && self.text("databaseConfig.redis.port").and_then(|port| port.parse().ok()) == Some(endpoint.port)
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

/// Whether a URL is this machine without a port, the value of APP_URL until it is set.
pub(super) fn is_bare_localhost(url: &str) -> bool {
    matches!(url.trim_end_matches('/'), "http://localhost" | "http://127.0.0.1")
}

/// Whether a URL names this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(validate::is_loopback))
}

/// Whether a program listens at a URL on this machine.
pub(super) fn is_open(url: &str) -> bool {
    /// More than enough for this machine.
    const TIMEOUT: Duration = Duration::from_secs(1);
    let addresses = Url::parse(url).ok().and_then(|url| url.socket_addrs(|| None).ok()).unwrap_or_default();
    addresses.iter().any(|address| TcpStream::connect_timeout(address, TIMEOUT).is_ok())
}

/// The `allowedOrigins` for the pages of an application at this URL. On a developer's machine, pages are opened under more
/// names and ports: `artisan serve` uses port 8000, whatever APP_URL says.
pub(super) fn origins_of(url: &str) -> Vec<String> {
    let Some(origin) = origin_of(url) else { return Vec::new() };
    let Some((scheme, host)) = origin.split_once("://") else { return vec![origin] };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if !validate::is_loopback(name) {
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
