//! [`Access`]: whether a client may publish. Input: `redisServer.username` and `password`, and what a client sends.

use subtle::ConstantTimeEq as _;

use crate::config::RedisServerConfig;
use crate::config::value::Secret;

/// The user of Redis clients that send no name.
const DEFAULT_USER: &str = "default";

/// The user name and password that clients must send; no password means open access.
pub(super) struct Access {
    username: String,
    password: Option<Secret>,
}

impl Access {
    pub(super) fn new(options: &RedisServerConfig) -> Self {
        let username = options.username.clone().filter(|name| !name.is_empty());
        let password = options.password.clone().filter(|password| !password.expose().is_empty());
        Self { username: username.unwrap_or_else(|| DEFAULT_USER.to_owned()), password }
    }

    pub(super) fn is_open(&self) -> bool {
        self.password.is_none()
    }

    /// `AUTH password` sends no name; the password alone is enough then.
    pub(super) fn allows(&self, username: Option<&[u8]>, password: &[u8]) -> bool {
        let Some(expected) = &self.password else { return true };
        let is_user = username.is_none_or(|name| bool::from(name.ct_eq(self.username.as_bytes())));
        is_user & expected.is(password)
    }
}
