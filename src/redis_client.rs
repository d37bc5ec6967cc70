//! Connections to Redis as configured in `databaseConfig.redis`.
//!
//! Input: [`RedisConfig`], with the option names of ioredis. Output: a [`redis::Client`] for one server, or [`Redis`] for
//! a server, a Sentinel setup or a cluster, and an address without credentials for logs.

use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};

use crate::config::{RedisConfig, RedisNode};

mod loss;
pub(crate) mod reconnecting;
mod rights;
pub mod topology;

pub use loss::{Cause, Loss};
pub use reconnecting::{QueryError, ReconnectingClient};
pub use topology::{Connection, Redis};

/// A lasting outage is logged again after this time, for logs that are read hours later, and at once for another cause: after a
/// restart, Redis may require a password and somebody has to act.
pub(crate) const REMINDER_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// A connection whose peer has not responded for about this long counts as dead.
#[cfg(target_os = "linux")]
const DEAD_AFTER: Duration = Duration::from_secs(20);
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(3);

/// Invalid settings under `databaseConfig.redis`.
#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    /// The address, URL or certificate.
    #[error("databaseConfig.redis: invalid address, URL or certificate")]
    Address(#[from] redis::RedisError),
    /// The certificate authority.
    #[error("databaseConfig.redis.tls.ca: cannot read `{}`", crate::config::secrets::shown_path(.path))]
    Ca {
        /// The configured path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A client for one Redis server; it does not connect yet.
///
/// # Errors
/// [`RedisConfigError`] for an invalid address, URL or certificate.
pub fn client(config: &RedisConfig) -> Result<redis::Client, RedisConfigError> {
    let info = connection_info(config)?.set_tcp_settings(tcp_settings());
    let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    match certificates(config)? {
        Some(certificates) if is_tls => Ok(redis::Client::build_with_tls(info, certificates)?),
        _ => Ok(redis::Client::open(info)?),
    }
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
    // Windows Server 2016 and Wine do not have this option, and the connection would fail.
    #[cfg(not(windows))]
    let keepalive = keepalive.with_retries(3);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    // On other systems only keepalive detects a dead peer.
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(DEAD_AFTER);
    settings
}

/// The certificate authority of `tls.ca`.
fn certificates(config: &RedisConfig) -> Result<Option<TlsCertificates>, RedisConfigError> {
    let Some(path) = &config.tls.ca else { return Ok(None) };
    let root_cert = crate::files::read(path).map_err(|source| RedisConfigError::Ca { path: path.clone(), source })?;
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) }))
}

fn connection_info(config: &RedisConfig) -> Result<ConnectionInfo, redis::RedisError> {
    if let Some(url) = &config.url {
        let info = url.expose().into_connection_info()?;
        return Ok(match info.addr().clone() {
            ConnectionAddr::TcpTls { host, port, tls_params, .. } if !config.tls.reject_unauthorized => {
                info.set_addr(ConnectionAddr::TcpTls { host, port, insecure: true, tls_params })
            }
            _ => info,
        });
    }
    let address = match &config.path {
        Some(path) => ConnectionAddr::Unix(path.into()),
        None if config.tls.enabled => ConnectionAddr::TcpTls {
            host: config.host.clone(),
            port: config.port,
            insecure: !config.tls.reject_unauthorized,
            tls_params: None,
        },
        None => ConnectionAddr::Tcp(config.host.clone(), config.port),
    };
    let info = address.into_connection_info()?;
    let mut settings = info.redis_settings().clone().set_db(config.db);
    if let Some(username) = config.username.as_ref().filter(|username| !username.is_empty()) {
        settings = settings.set_username(username);
    }
    if let Some(password) = config.password.as_ref().filter(|password| !password.expose().is_empty()) {
        settings = settings.set_password(password.expose());
    }
    Ok(info.set_redis_settings(settings))
}

/// The address of a client, without credentials: `127.0.0.1:6379` or the path of a Unix socket.
#[must_use]
pub fn address(client: &redis::Client) -> String {
    client.get_connection_info().addr().to_string()
}

/// The pattern of all channels with this prefix.
#[must_use]
pub fn pattern(key_prefix: &str) -> String {
    glob(key_prefix, &['*']) + "*"
}

/// Escapes glob characters of Redis and those in `more`.
pub(crate) fn glob(text: &str, more: &[char]) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '?' | '[' | ']' | '\\') || more.contains(&character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// The ACL user, from `username` or `url`.
fn username(config: &RedisConfig) -> Option<String> {
    connection_info(config).ok()?.redis_settings().username().map(str::to_owned)
}

/// `redis-cli` with the address of this Redis; with sentinels or a cluster, of the first configured node.
fn cli(config: &RedisConfig) -> String {
    let of = |node: &RedisNode| RedisConfig { host: node.host.clone(), port: node.port, url: None, path: None, ..config.clone() };
    let first = config.sentinels.first().or(config.cluster.first()).map(of);
    let info = connection_info(first.as_ref().unwrap_or(config));
    match info.as_ref().map(ConnectionInfo::addr) {
        Ok(ConnectionAddr::Tcp(host, port)) => format!("redis-cli -h {host} -p {port}"),
        Ok(ConnectionAddr::TcpTls { host, port, insecure, .. }) => {
            let trust = match &config.tls.ca {
                _ if *insecure => " --insecure".to_owned(),
                Some(ca) => format!(" --cacert {}", ca.display()),
                None => String::new(),
            };
            format!("redis-cli -h {host} -p {port} --tls{trust}")
        }
        Ok(ConnectionAddr::Unix(path)) => format!("redis-cli -s {}", path.display()),
        _ => "redis-cli".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RedisTls, value::Secret};

    #[test]
    fn any_certificate_is_taken_where_the_settings_say_so() {
        for (url, reject_unauthorized, expected) in [
            ("rediss://redis.test:6380/0", true, Some(false)),
            ("rediss://redis.test:6380/0", false, Some(true)),
            ("redis://redis.test:6380/0", false, None),
        ] {
            let tls = RedisTls { reject_unauthorized, ..RedisTls::default() };
            let info = connection_info(&RedisConfig { url: Some(Secret(url.to_owned())), tls, ..RedisConfig::default() }).unwrap();
            let insecure = match info.addr() {
                ConnectionAddr::TcpTls { insecure, .. } => Some(*insecure),
                _ => None,
            };
            assert_eq!(insecure, expected, "{url}");
        }
    }

    #[test]
    fn the_same_redis_is_asked_for_a_sign_of_life() {
        let of = |settings: serde_json::Value| cli(&serde_json::from_value(settings).unwrap());
        let node = serde_json::json!([{ "host": "10.0.0.1", "port": 26379 }]);
        for (settings, expected) in [
            (serde_json::json!({}), "redis-cli -h 127.0.0.1 -p 6379"),
            (serde_json::json!({ "path": "/run/redis.sock" }), "redis-cli -s /run/redis.sock"),
            (serde_json::json!({ "url": "redis://:secret@redis.test:6380/2" }), "redis-cli -h redis.test -p 6380"),
            (
                serde_json::json!({ "host": "r", "tls": { "enabled": true, "ca": "/ca.pem" } }),
                "redis-cli -h r -p 6379 --tls --cacert /ca.pem",
            ),
            (serde_json::json!({ "sentinels": node, "name": "m" }), "redis-cli -h 10.0.0.1 -p 26379"),
        ] {
            assert_eq!(of(settings.clone()), expected, "{settings}");
        }
    }
}
