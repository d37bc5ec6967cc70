//! [`Loss`]: why Redis cannot be used. Input: a connection error. Output: its text for the log, and a [`Cause`] with a hint that the
//! log and `doctor` share, and a sentence without host names for `/ready`.

use redis::{ErrorKind, RedisError};

use crate::net::tls::refused_certificate;

/// Why Redis cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The error for the log. It may contain host names.
    pub reason: String,
    /// The kind of error.
    pub cause: Cause,
}

/// The kinds of errors that make Redis unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It does not respond, or has closed the connection.
    Unreachable,
    /// Its host name cannot be resolved.
    UnknownHost,
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
        let reason = if cause == Cause::NotRedis { cause.sentence().to_owned() } else { error.to_string() };
        Self { reason, cause }
    }
}

impl Cause {
    /// The kind of an error of a connection or its first command.
    #[must_use]
    pub fn of(error: &RedisError) -> Self {
        const UNTRUSTED: &str = "set `databaseConfig.redis.tls.ca` to your authority, or `tls.rejectUnauthorized` to false there";
        match error.code() {
            Some("NOAUTH") => Self::NoPassword,
            Some("WRONGPASS") => Self::WrongPassword,
            Some("NOPERM") => Self::NoPermission,
            _ => match error.to_string() {
                text if text.contains("certificate") => Self::Certificate(refused_certificate(&text).unwrap_or(UNTRUSTED)),
                _ if error.kind() == ErrorKind::AuthenticationFailed => Self::WrongPassword,
                text if text.contains("Parse error") => Self::NotRedis,
                text if text.contains("DB index is out of range") => Self::NoDatabase,
                text if text.contains("lookup address") => Self::UnknownHost,
                _ => Self::Unreachable,
            },
        }
    }

    /// What is wrong, without host names.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "the connection to Redis is lost",
            Self::UnknownHost => "the host name of Redis cannot be resolved",
            Self::NoDatabase => "Redis does not have the configured database",
            Self::NoPassword => "Redis asks for a password (NOAUTH)",
            Self::WrongPassword => "Redis refuses the password or the user (WRONGPASS)",
            Self::NoPermission => "the Redis user lacks a permission (NOPERM)",
            Self::Certificate(_) => "the certificate of Redis is not accepted",
            Self::NotRedis => "the server at that address does not speak the Redis protocol",
        }
    }

    /// Whether Redis responded with a refusal.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::NoPassword | Self::WrongPassword | Self::NoPermission | Self::NoDatabase)
    }

    /// How to fix it. `ping` is a command that pings the same Redis, see [`ping_command`](super::ping_command).
    #[must_use]
    pub fn hint(self, ping: &str) -> String {
        let hint = match self {
            Self::Unreachable => {
                return format!(
                    "is it running (`{ping}`), is this its address in `databaseConfig.redis`, as seen from this machine (or container), \
                     and does `databaseConfig.redis.tls` match that port?"
                );
            }
            Self::UnknownHost => {
                "is `databaseConfig.redis.host` spelled right, and known on this machine (or in this container: same network)?"
            }
            Self::NoDatabase => {
                "set `databaseConfig.redis.db` to an existing database (0 to 15, unless its `databases` says otherwise) and restart; \
                 events arrive regardless of it"
            }
            Self::NoPassword => {
                "set `databaseConfig.redis.password` to the value of REDIS_PASSWORD in Laravel's .env, and restart laravel-echo-server"
            }
            Self::WrongPassword => {
                "check `databaseConfig.redis.password` (and `username`) against requirepass or the ACL; Laravel's is REDIS_PASSWORD in .env"
            }
            Self::NoPermission => {
                "in Redis: `ACL SETUSER <user> ~<keyPrefix>laravel-echo:* ~<keyPrefix>*:members ~<keyPrefix>queues:* &* +@read +@write \
                 +@scripting +@pubsub +@connection +@transaction +time +info`"
            }
            Self::Certificate(hint) => hint,
            Self::NotRedis => {
                "another program listens there, such as an HTTP server: set `databaseConfig.redis.host` and `port` to those of Redis, \
                 and `databaseConfig.redis.tls` if that port speaks TLS"
            }
        };
        hint.to_owned()
    }
}
