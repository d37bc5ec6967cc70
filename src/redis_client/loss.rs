//! [`Loss`]: why Redis cannot be used. Input: an error of a connection. Output: its text for the log, and a [`Cause`] with a hint that
//! the log and `doctor` share and a sentence for those who may not learn host names.

use redis::{ErrorKind, RedisError};

use crate::net::tls::refused_certificate;

/// Why Redis cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// What was said, for the log. It may name hosts.
    pub reason: String,
    /// The kind of it.
    pub cause: Cause,
}

/// The kinds of reasons why Redis cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It does not answer, or has closed the connection.
    Unreachable,
    /// It asks for a password, and none is configured.
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
    /// Without an error of Redis: it stays silent, or hangs up.
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
    /// The kind of an error that a connection, or its first command, failed with.
    #[must_use]
    pub fn of(error: &RedisError) -> Self {
        const UNTRUSTED: &str = "name your authority in `databaseConfig.redis.tls.ca`, or set `tls.rejectUnauthorized` to false there";
        match error.code() {
            Some("NOAUTH") => Self::NoPassword,
            Some("WRONGPASS") => Self::WrongPassword,
            Some("NOPERM") => Self::NoPermission,
            _ => match error.to_string() {
                text if text.contains("certificate") => Self::Certificate(refused_certificate(&text).unwrap_or(UNTRUSTED)),
                _ if error.kind() == ErrorKind::AuthenticationFailed => Self::WrongPassword,
                text if text.contains("Parse error") => Self::NotRedis,
                _ => Self::Unreachable,
            },
        }
    }

    /// What is wrong, without the names of hosts.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "the connection to Redis is lost",
            Self::NoPassword => "Redis asks for a password (NOAUTH)",
            Self::WrongPassword => "Redis refuses the password or the user (WRONGPASS)",
            Self::NoPermission => "the Redis user lacks a permission (NOPERM)",
            Self::Certificate(_) => "the certificate of Redis is not accepted",
            Self::NotRedis => "what answers at that address does not speak Redis' protocol",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "does it run (`redis-cli ping`), and is this its address in `databaseConfig.redis`, as seen from this machine (or container)?"
            }
            Self::NoPassword => "set `databaseConfig.redis.password`, REDIS_PASSWORD in Laravel's .env",
            Self::WrongPassword => {
                "check `databaseConfig.redis.password` (and `username`) against requirepass or the ACL; Laravel's is REDIS_PASSWORD in .env"
            }
            Self::NoPermission => "the ACL user needs `&*` (all channels) and `+psubscribe +subscribe +unsubscribe +publish +ping`",
            Self::Certificate(hint) => hint,
            Self::NotRedis => {
                "another program listens there, such as an HTTP server: set `databaseConfig.redis.host` and `port` to those of Redis, \
                 and `databaseConfig.redis.tls` if that port speaks TLS"
            }
        }
    }
}
