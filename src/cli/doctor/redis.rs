//! Checks of Redis: it answers, takes the credentials, lets us subscribe, has the same time, and the events on it
//! carry the configured prefix. Sentinels and clusters have checks of their own before, which find the server for these.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use laravel_echo_server::config::{Config, Database, RedisConfig};
use laravel_echo_server::net::tls::refused_certificate;
use laravel_echo_server::redis_client;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError};

use super::names;
use super::report::Report;
use crate::cli::laravel::Project;
use crate::cli::laravel::broadcaster::Way;

mod cluster;
mod sentinel;

/// Time for connecting.
const CONNECT: Duration = Duration::from_secs(5);

/// Clocks further apart than this make tokens look expired, or not valid yet.
const CLOCK: u64 = 5;

/// Names kept while listening.
const MAX_NAMES: usize = 1000;

/// All checks, as far as each makes sense after the one before.
pub(super) async fn examine(config: &Config, project: &Project, listen: Duration, report: &mut Report) {
    let settings = &config.database_config.redis;
    prefix(&settings.key_prefix, project, report);
    let brings_events = config.subscribers.redis.0;
    if !brings_events {
        let sources = if config.redis_server.enabled.0 { "HTTP and the built-in endpoint (`redisServer`)" } else { "HTTP only" };
        report.ok("redis", format!("`subscribers.redis` is false: events come over {sources}"));
    }
    let own = &config.redis_server;
    if brings_events && own.enabled.0 && settings.url.is_none() && settings.port == own.port && is_here(&settings.host, &own.host) {
        let message = "`databaseConfig.redis` is this server's own endpoint (`redisServer`): it would listen to itself";
        return report.problem("redis", message, "[subscribers] redis = false");
    }
    // A cluster of nodes keeps its members there too.
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
    if let Some(server) = server {
        examine_server(&server, brings_events.then_some(listen), report).await;
    }
}

/// Whether an address is that of an endpoint on this machine.
fn is_here(host: &str, endpoint: &str) -> bool {
    matches!(host, "localhost" | "::1") || host.starts_with("127.") || host == endpoint
}

/// What is asked of any server that members are kept on; and, with a time to listen, that events come from.
async fn examine_server(settings: &RedisConfig, listen: Option<Duration>, report: &mut Report) {
    let Open { client, mut connection, address } = match open(settings).await {
        Ok(open) => open,
        Err(Fault { message, mend }) => return report.problem("redis", message, mend),
    };
    match redis::cmd("TIME").query_async::<(u64, u64)>(&mut connection).await {
        Ok((seconds, _)) => {
            report.ok("redis", format!("{address} answers"));
            clock(seconds, report);
        }
        Err(error) if error.code() == Some("NOPERM") => report.ok("redis", format!("{address} answers")),
        Err(error) => return report.problem("redis", format!("{address} answers with an error: {error}"), mend_of(&error)),
    }
    let Some(listen) = listen else { return };
    match events(&client, listen).await {
        Ok(heard) => {
            let (status, message, mend) = names::judge(&settings.key_prefix, &heard, listen);
            report.add("events", status, message, mend);
        }
        Err(error) => report.problem("events", format!("PSUBSCRIBE is refused: {error}"), mend_of(&error)),
    }
}

/// A server that has let us in.
struct Open {
    client: redis::Client,
    connection: MultiplexedConnection,
    address: String,
}

/// A server that has not, and what to do about it.
struct Fault {
    message: String,
    mend: String,
}

/// Connects to the one server that `host` and `port`, `path` or `url` name.
async fn open(settings: &RedisConfig) -> Result<Open, Fault> {
    let client = redis_client::client(settings)
        .map_err(|error| Fault { message: error.to_string(), mend: "check `databaseConfig.redis`".to_owned() })?;
    let address = redis_client::address(&client);
    match tokio::time::timeout(CONNECT, client.get_multiplexed_async_connection()).await {
        Ok(Ok(connection)) => Ok(Open { client, connection, address }),
        Ok(Err(error)) if error.is_connection_refusal() => {
            Err(Fault { message: format!("cannot connect to Redis at {address}: {error}"), mend: mend_of(&error) })
        }
        Ok(Err(error)) => Err(Fault { message: format!("{address} does not let us in: {error}"), mend: mend_of(&error) }),
        Err(_) => Err(Fault { message: format!("{address} does not answer within {} seconds", CONNECT.as_secs()), mend: mend_host() }),
    }
}

/// The configured prefix is the one of the project that the config stands in, where that publishes to a Redis.
fn prefix(configured: &str, project: &Project, report: &mut Report) {
    const KEY: &str = "databaseConfig.redis.keyPrefix";
    if project.broadcaster.as_ref().is_some_and(|broadcaster| broadcaster.way() != Way::Redis) {
        return;
    }
    if let Some(unread) = project.unread.iter().find(|unread| unread.key == KEY) {
        let message = format!("Laravel's could not be read: {}; `{KEY}` is {configured:?}", unread.reason);
        return report.warning("prefix", message, "compare it with `php artisan config:show database.redis.options`");
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

fn clock(theirs: u64, report: &mut Report) {
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let difference = ours.abs_diff(theirs);
    if difference > CLOCK {
        report.warning(
            "clock",
            format!("differs by {difference} seconds from that of Redis"),
            "`timedatectl set-ntp true` on both machines",
        );
    } else {
        report.ok("clock", "agrees with that of Redis");
    }
}

/// The names of the channels that something is published to meanwhile.
async fn events(client: &redis::Client, listen: Duration) -> Result<BTreeSet<String>, RedisError> {
    let mut pubsub = client.get_async_pubsub().await?;
    pubsub.psubscribe("*").await?;
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

fn mend_of(error: &RedisError) -> String {
    match error.code() {
        Some("NOAUTH") => "set `databaseConfig.redis.password`, REDIS_PASSWORD in Laravel's .env".to_owned(),
        Some("WRONGPASS") => "check `databaseConfig.redis.password` (and `username`) against requirepass or the ACL".to_owned(),
        Some("NOPERM") => "the ACL user needs `&*` (all channels) and `+psubscribe +subscribe +unsubscribe +publish +ping`".to_owned(),
        _ if error.to_string().contains("certificate") => refused_certificate(&error.to_string())
            .unwrap_or("name your authority in `databaseConfig.redis.tls.ca`, or set `tls.rejectUnauthorized` to false there")
            .to_owned(),
        _ if error.kind() == ErrorKind::AuthenticationFailed => "check `databaseConfig.redis.password` and `username`".to_owned(),
        _ => mend_host(),
    }
}

fn mend_host() -> String {
    "does it run (`redis-cli ping`), and is this its address in `databaseConfig.redis`, as seen from this machine (or container)?"
        .to_owned()
}
