//! [`Loss`]: why Redis cannot be used. Input: an error of the Redis client. Output: the words that the log and `doctor` share, and a
//! [`Cause`] with a hint, and a sentence without host names for `/ready`.

use redis::{ErrorKind, RedisError, ServerError};

use super::{cli, rights};
use crate::config::RedisConfig;
use crate::net::tls::Trust;

/// Why Redis cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The error for the log. It may contain host names.
    pub reason: String,
    /// The kind of error.
    pub cause: Cause,
}

/// The kinds of errors that make Redis unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It does not respond, or has closed the connection.
    Unreachable,
    /// Its host name cannot be resolved.
    UnknownHost,
    /// The sentinels watch no master with the configured name.
    UnknownMaster,
    /// It does not have the configured database.
    NoDatabase,
    /// It requires a password, but none is configured.
    NoPassword,
    /// It refuses the password or the user.
    WrongPassword,
    /// The user lacks a permission.
    NoPermission,
    /// Its certificate is not accepted, with a hint.
    Certificate(&'static str),
    /// What answers at that address does not speak Redis' protocol.
    NotRedis,
    /// It is a replica, and takes no writes.
    ReadOnly,
    /// It responds, but cannot serve commands now: it loads its data, has lost its master, or its cluster has.
    NotReady,
    /// It has no memory left.
    Full,
    /// It refuses writes because it cannot save them.
    Disk,
}

impl Loss {
    /// Redis is silent or has closed the connection, without an error.
    pub(crate) fn unreachable(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), cause: Cause::Unreachable }
    }
}

impl From<&RedisError> for Loss {
    fn from(error: &RedisError) -> Self {
        let cause = Cause::of(error);
        let detail = answer(error).and_then(|answer| answer.details().map(str::to_owned)).or_else(|| error.detail().map(str::to_owned));
        let reason = match (cause, detail) {
            // The operating system's own words say more; the client puts others around them.
            (Cause::Unreachable | Cause::Certificate(_), detail) => detail.unwrap_or_else(|| error.to_string()),
            (Cause::WrongPassword | Cause::NoPermission | Cause::NotReady, Some(detail)) => format!("{}: {detail}", cause.sentence()),
            _ => cause.sentence().to_owned(),
        };
        Self { reason, cause }
    }
}

/// The error that Redis answered with, to the first of several commands.
pub(super) fn answer(error: &RedisError) -> Option<ServerError> {
    error.clone().into_server_errors()?.first().map(|(_, answer)| answer.clone())
}

impl Cause {
    /// The kind of an error of a connection or its first command.
    #[must_use]
    pub fn of(error: &RedisError) -> Self {
        let answer = answer(error);
        match answer.as_ref().map(ServerError::code).or_else(|| error.code()) {
            Some("NOAUTH") => Self::NoPassword,
            Some("WRONGPASS") => Self::WrongPassword,
            Some("NOPERM") => Self::NoPermission,
            Some("READONLY") => Self::ReadOnly,
            Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN") => Self::NotReady,
            Some("OOM") => Self::Full,
            Some("MISCONF") => Self::Disk,
            _ if error.kind() == ErrorKind::AuthenticationFailed => Self::WrongPassword,
            _ if error.kind() == ErrorKind::MasterNameNotFoundBySentinel => Self::UnknownMaster,
            _ => match error.to_string() {
                // What scripts may not do, and the first connection to a cluster, have other codes.
                text if text.contains("ACL failure") || text.contains("executing the script can't") => Self::NoPermission,
                text if text.contains("used memory > 'maxmemory'") => Self::Full,
                text if text.contains("Password authentication failed") => Self::WrongPassword,
                text if text.contains("Parse error") => Self::NotRedis,
                text if text.contains("DB index is out of range") => Self::NoDatabase,
                text if text.contains("lookup address") => Self::UnknownHost,
                text => Trust::REDIS.hint(&text).map_or(Self::Unreachable, Self::Certificate),
            },
        }
    }

    /// What is wrong, without host names.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "the connection to Redis is lost",
            Self::UnknownHost => "the host name of Redis cannot be resolved",
            Self::UnknownMaster => "the sentinels watch no master of the configured name",
            Self::NoDatabase => "Redis does not have the configured database",
            Self::NoPassword => "Redis asks for a password (NOAUTH)",
            Self::WrongPassword => "Redis refuses the password or the user (WRONGPASS)",
            Self::NoPermission => "the Redis user lacks a permission (NOPERM)",
            Self::Certificate(_) => "the certificate of Redis is not accepted",
            Self::NotRedis => "the server at that address does not speak the Redis protocol",
            Self::ReadOnly => "Redis is a read-only replica (READONLY)",
            Self::NotReady => "Redis is not ready",
            Self::Full => "Redis is full (OOM): its `maxmemory` is reached",
            Self::Disk => "Redis cannot write to its disk (MISCONF): its log says why",
        }
    }

    /// Whether Redis responded with a refusal.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::NoPassword | Self::WrongPassword | Self::NoPermission | Self::NoDatabase | Self::Full | Self::Disk)
    }

    /// How to fix it, for the Redis of these settings.
    #[must_use]
    pub fn hint(self, config: &RedisConfig) -> String {
        let hint = match self {
            Self::Unreachable => {
                return format!(
                    "is it running (`{} ping`), is this its address in `databaseConfig.redis`, as seen from this machine (or container), \
                     and does `databaseConfig.redis.tls` match that port?",
                    cli(config)
                );
            }
            Self::UnknownHost => {
                "is `databaseConfig.redis.host` spelled right, and known on this machine (or in this container: same network)?"
            }
            Self::UnknownMaster => "set `databaseConfig.redis.name` to the name in `sentinel monitor` of sentinel.conf",
            Self::NoDatabase => {
                "set `databaseConfig.redis.db` to an existing database (0 to 15, unless its `databases` says otherwise) and restart; \
                 events are the same in all of them"
            }
            Self::NoPassword if !config.sentinels.is_empty() => {
                "set `databaseConfig.redis.password`, or if a sentinel asks for it `databaseConfig.redis.sentinelPassword`; \
                 `laravel-echo-server doctor` says which"
            }
            Self::WrongPassword if !config.sentinels.is_empty() => {
                "check `databaseConfig.redis.password` (and `username`), and that of the sentinels, `databaseConfig.redis.sentinelPassword`; \
                 `laravel-echo-server doctor` says which is refused"
            }
            Self::NoPassword => {
                "set `databaseConfig.redis.password` to the value of REDIS_PASSWORD in Laravel's .env, and restart laravel-echo-server"
            }
            Self::WrongPassword => {
                "check `databaseConfig.redis.password` (and `username`) against requirepass or the ACL; Laravel's is REDIS_PASSWORD in .env"
            }
            Self::NoPermission => {
                return format!("as an administrator of Redis (`--user`, `--pass`): `{}`", rights::command(config, &cli(config)));
            }
            Self::Certificate(hint) => hint,
            Self::NotRedis => {
                "another program listens there, such as an HTTP server: set `databaseConfig.redis.host` and `port` to those of Redis, \
                 and `databaseConfig.redis.tls` if that port speaks TLS"
            }
            Self::ReadOnly if !config.sentinels.is_empty() => {
                "the sentinels still name a server that is no master any more; laravel-echo-server asks them again by itself"
            }
            Self::ReadOnly => {
                return format!(
                    "after a failover set `databaseConfig.redis.host` to the new master (`{} info replication` names it) and restart; with \
                     `databaseConfig.redis.sentinels` that is found by itself",
                    cli(config)
                );
            }
            Self::NotReady => "it loads its data, or waits for its master or its cluster; its log says how far it is",
            Self::Full => {
                return format!("`{} info memory` says what it uses; raise its `maxmemory`, or remove what fills it", cli(config));
            }
            Self::Disk => {
                return format!("`{} info persistence` shows the last save; make room on its disk, or let it write there", cli(config));
            }
        };
        hint.to_owned()
    }
}
