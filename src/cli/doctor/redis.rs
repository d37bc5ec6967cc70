//! Checks of Redis: whether it responds, accepts the credentials and subscriptions, has the same time, and its events have
//! the configured prefix. Sentinels and clusters are checked first, to find the server for these checks.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use laravel_echo_server::clock::since_1970;
use laravel_echo_server::config::{Config, Database, RedisConfig};
use laravel_echo_server::redis_client::topology::{explained, without_passwords};
use laravel_echo_server::redis_client::{self, Cause, Loss};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError};

use super::names;
use super::report::Report;
use crate::cli::laravel::Project;
use crate::cli::laravel::broadcaster::Way;

mod cluster;
mod sentinel;

/// Timeout for connecting.
const CONNECT: Duration = Duration::from_secs(5);

/// With a larger difference in seconds, tokens may appear to be expired or not valid yet.
const CLOCK: u64 = 5;

/// Maximum number of channel names collected while listening.
const MAX_NAMES: usize = 1000;

/// Runs all checks; a failed one skips those that depend on it.
pub(super) async fn examine(config: &Config, project: &Project, listen: Duration, report: &mut Report) {
    let settings = &config.database_config.redis;
    prefix(&settings.key_prefix, project, report);
    address(config, project, report);
    let brings_events = config.subscribers.redis;
    if !brings_events {
        let sources = if config.redis_server.enabled { "HTTP and the built-in endpoint (`redisServer`)" } else { "HTTP only" };
        report.ok("redis", format!("`subscribers.redis` is false: events come over {sources}"));
    }
    let own = &config.redis_server;
    if brings_events && own.enabled && settings.url.is_none() && settings.port == own.port && is_here(&settings.host, &own.host) {
        let message = "`databaseConfig.redis` is this server's own endpoint (`redisServer`): it would subscribe to itself";
        return report.problem("redis", message, "[subscribers] redis = false");
    }
    // With `database = "redis"` members are kept there as well.
    if !brings_events && config.database != Database::Redis {
        return;
    }
    let server = if !settings.sentinels.is_empty() {
        sentinel::master(settings, report).await
    } else if !settings.cluster.is_empty() {
        cluster::node(settings, report).await
    } else {
        Some(settings.clone())
    };
    let Some(server) = server else { return };
    let Some(Open { client, mut connection, address, .. }) = examine_server(&server, report).await else { return };
    if settings.cluster.is_empty() {
        cluster::lone_node(config, &mut connection, &address, report).await;
    }
    if config.database == Database::Redis {
        members(&mut connection, settings, &address, report).await;
    }
    if !brings_events {
        return;
    }
    match events(&client, &settings.key_prefix, listen).await {
        Ok(heard) => {
            let (status, message, fix) = names::judge(&settings.key_prefix, &heard, listen, project);
            report.add("events", status, message, fix);
        }
        Err(error) => report.problem("events", format!("PSUBSCRIBE is refused: {}", Loss::from(&error).reason), fix_of(&error, settings)),
    }
}

/// Whether a host is the same as the endpoint's on this machine.
fn is_here(host: &str, endpoint: &str) -> bool {
    matches!(host, "localhost" | "::1") || host.starts_with("127.") || host == endpoint
}

/// Checks a server; `None` if it cannot be used.
async fn examine_server(settings: &RedisConfig, report: &mut Report) -> Option<Open> {
    let mut open = match open(settings).await {
        Ok(open) => open,
        Err(Fault { message, fix }) => {
            report.problem("redis", message, fix);
            return None;
        }
    };
    let address = &open.address;
    match redis::cmd("TIME").query_async::<(u64, u64)>(&mut open.connection).await {
        Ok((seconds, _)) => {
            report.ok("redis", format!("{address} answers"));
            clock(seconds, report);
        }
        Err(error) if error.code() == Some("NOPERM") => report.ok("redis", format!("{address} answers")),
        Err(error) => {
            let Fault { message, fix } = fault(&error, address, settings);
            report.problem("redis", message, fix);
            return None;
        }
    }
    open.tell_of_password("redis", "password", report);
    Some(open)
}

/// A server that accepts the connection.
struct Open {
    client: redis::Client,
    connection: MultiplexedConnection,
    address: String,
    /// It refuses the configured password, because it needs none.
    needs_no_password: bool,
}

impl Open {
    /// Warns about a password that the server ignores.
    fn tell_of_password(&self, check: &'static str, key: &str, report: &mut Report) {
        if self.needs_no_password {
            let message = format!("{} needs no password, but one is configured; the server goes on without it", self.address);
            report.warning(check, message, format!("remove `{key}` from `databaseConfig.redis`, or set one in Redis (requirepass)"));
        }
    }
}

/// Why a server cannot be used, and how to fix it.
struct Fault {
    message: String,
    fix: String,
}

/// Connects to the server of `host` and `port`, `path` or `url`; without a password if Redis needs none, like the
/// server itself.
async fn open(settings: &RedisConfig) -> Result<Open, Fault> {
    let client = redis_client::client(settings)
        .map_err(|error| Fault { message: error.to_string(), fix: "check `databaseConfig.redis`".to_owned() })?;
    let address = redis_client::address(&client);
    match tokio::time::timeout(CONNECT, client.get_multiplexed_async_connection()).await {
        Ok(Ok(connection)) => Ok(Open { client, connection, address, needs_no_password: false }),
        Ok(Err(error)) => {
            let others = if error.kind() == ErrorKind::AuthenticationFailed { without_passwords(settings) } else { Vec::new() };
            for settings in others {
                let Ok(mut open) = Box::pin(open(&settings)).await else { continue };
                // If it needs another password, it accepts the connection, but refuses commands.
                if redis::cmd("PING").exec_async(&mut open.connection).await.is_ok() {
                    return Ok(Open { needs_no_password: true, ..open });
                }
            }
            Err(fault(&explained(&client, error).await, &address, settings))
        }
        Err(_) => Err(Fault {
            message: format!("{address} does not answer within {} seconds", CONNECT.as_secs()),
            fix: Cause::Unreachable.hint(settings),
        }),
    }
}

/// A connection that failed.
fn fault(error: &RedisError, address: &str, settings: &RedisConfig) -> Fault {
    let Loss { reason, cause } = error.into();
    let message = match cause.is_refusal() {
        true => format!("{address} refuses the connection: {reason}"),
        false => format!("cannot connect to Redis at {address}: {reason}"),
    };
    Fault { message, fix: fix_of(error, settings) }
}

/// Checks that Redis lets this user write where members are kept; nothing is left there.
async fn members(connection: &mut MultiplexedConnection, settings: &RedisConfig, address: &str, report: &mut Report) {
    let key = format!("{}laravel-echo:doctor", settings.key_prefix);
    let tried = redis::cmd("EVAL").arg("redis.call('SET', KEYS[1], '', 'PX', 1)").arg(1).arg(&key).exec_async(connection).await;
    let Err(error) = tried else { return };
    let Loss { reason, cause } = Loss::from(&error);
    // Another node of a Redis Cluster may have that key, which is no fault.
    if cause != Cause::Unreachable {
        report.problem("redis", format!("{address} refuses the keys of presence members: {reason}"), fix_of(&error, settings));
    }
}

/// Checks that the configured prefix is that of the Laravel project around the config file, if it publishes to Redis.
fn prefix(configured: &str, project: &Project, report: &mut Report) {
    const KEY: &str = "databaseConfig.redis.keyPrefix";
    if project.broadcaster.as_ref().is_some_and(|broadcaster| broadcaster.way() != Way::Redis) {
        return;
    }
    if let Some(unread) = project.unread.iter().find(|unread| unread.key == KEY) {
        let message = format!("Laravel's prefix could not be read: {}; `{KEY}` is {configured:?}", unread.reason);
        return report.warning("prefix", message, format!("compare it with `{}`", project.show_redis_options()));
    }
    let Some(found) = project.findings.iter().find(|finding| finding.key == KEY) else { return };
    let (value, place) = (found.value.as_str().unwrap_or_default(), &found.place);
    if value == configured {
        return report.ok("prefix", format!("{configured:?} is Laravel's ({place})"));
    }
    report.problem(
        "prefix",
        format!("`{KEY}` is {configured:?}, Laravel's is {value:?} ({place})"),
        format!("[databaseConfig.redis] keyPrefix = {value:?}"),
    );
}

/// Checks that the Laravel project around the config file publishes to the Redis that this server listens to.
fn address(config: &Config, project: &Project, report: &mut Report) {
    if project.broadcaster.as_ref().is_none_or(|broadcaster| broadcaster.way() != Way::Redis) {
        return;
    }
    let (redis, own) = (&config.database_config.redis, &config.redis_server);
    let found = |key: &str| project.findings.iter().find(|finding| finding.key == format!("databaseConfig.redis.{key}"));
    let (host, port) = (found("host"), found("port"));
    let theirs = port.and_then(|port| port.value.as_str()?.parse::<u64>().ok());
    if !config.subscribers.redis {
        if let Some(theirs) = theirs.filter(|theirs| own.enabled && *theirs != u64::from(own.port)) {
            let message =
                format!("Laravel publishes to port {theirs}, this server takes broadcasts on port {} (`redisServer.port`)", own.port);
            let fix = format!("give Laravel's broadcaster a connection with port {}, or set [subscribers] redis = true", own.port);
            report.warning("redis", message, fix);
        }
        return;
    }
    if redis.url.is_some() || !redis.sentinels.is_empty() || !redis.cluster.is_empty() {
        return;
    }
    let named = |host: &str| if host == "localhost" { "127.0.0.1".to_owned() } else { host.to_owned() };
    let other_host = host.and_then(|host| host.value.as_str()).map(named).filter(|theirs| *theirs != named(&redis.host));
    let other_port = theirs.filter(|theirs| *theirs != u64::from(redis.port));
    if other_host.is_none() && other_port.is_none() {
        return;
    }
    let place = if other_port.is_some() { port } else { host }.map_or("", |finding| &finding.place);
    let (their_host, their_port) = (other_host.unwrap_or_else(|| redis.host.clone()), other_port.unwrap_or_else(|| redis.port.into()));
    report.warning(
        "redis",
        format!("Laravel publishes to {their_host}:{their_port} ({place}), this server listens to {}:{}", redis.host, redis.port),
        format!(
            "[databaseConfig.redis] host = {their_host:?}, port = {their_port}; fine as it is if both lead to the same Redis, as between containers"
        ),
    );
}

fn clock(theirs: u64, report: &mut Report) {
    let ours = since_1970().as_secs();
    let difference = ours.abs_diff(theirs);
    if difference > CLOCK {
        report.warning("clock", format!("differs by {difference} seconds from Redis's"), "`timedatectl set-ntp true` on both machines");
    } else {
        report.ok("clock", "agrees with that of Redis");
    }
}

/// Listens for a while and returns the names of the channels with events: of all, or where the Redis user may not do that, of those
/// with the prefix.
async fn events(client: &redis::Client, key_prefix: &str, listen: Duration) -> Result<BTreeSet<String>, RedisError> {
    let mut pubsub = client.get_async_pubsub().await?;
    if pubsub.psubscribe("*").await.is_err() {
        pubsub.psubscribe(redis_client::pattern(key_prefix)).await?;
    }
    let mut names = BTreeSet::new();
    let mut messages = pubsub.on_message();
    let end = tokio::time::Instant::now() + listen;
    while let Ok(Some(message)) = tokio::time::timeout_at(end, messages.next()).await {
        if names.len() < MAX_NAMES {
            names.insert(message.get_channel_name().to_owned());
        }
    }
    Ok(names)
}

fn fix_of(error: &RedisError, settings: &RedisConfig) -> String {
    Cause::of(error).hint(settings)
}
