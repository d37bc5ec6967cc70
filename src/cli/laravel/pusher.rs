//! Where Laravel's `pusher` or `reverb` driver publishes. Input: that connection in `config/broadcasting.php`, or the
//! variables that it usually reads. Output: the application's id, key and secret, and the server's address, each with its
//! source.

use super::broadcaster::{Broadcaster, Way};
use super::php::Value;
use super::sources::Sources;

/// The default port of `reverb:start`.
const REVERB_PORT: &str = "8080";

/// A setting of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Setting {
    pub(in crate::cli) value: String,
    /// File and name.
    pub(in crate::cli) place: String,
}

/// The connection. `None` values are not set, or cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli) struct Connection {
    /// `pusher` or `reverb`; in upper case it is also the prefix of its variables.
    pub(in crate::cli) driver: String,
    pub(in crate::cli) app_id: Option<Setting>,
    pub(in crate::cli) key: Option<Setting>,
    pub(in crate::cli) secret: Option<Setting>,
    pub(in crate::cli) host: Option<Setting>,
    pub(in crate::cli) port: Option<Setting>,
    pub(in crate::cli) scheme: Option<Setting>,
    /// REVERB_SERVER_PORT: the port of `reverb:start` behind a proxy.
    server_port: Option<Setting>,
}

impl Connection {
    /// `None` if Laravel broadcasts in another way.
    pub(super) fn of(sources: &Sources, broadcaster: &Broadcaster) -> Option<Self> {
        if broadcaster.way() != Way::Http {
            return None;
        }
        let driver = broadcaster.driver()?;
        let name = broadcaster.name();
        // Without `options` in the file, as in Laravel's built-in one, only the variables are used.
        let is_told = matches!(sources.broadcasting.value.at(&["connections", name, "options"]), Value::Array(_));
        let setting = |keys: &[&str], variable: &str| {
            let variable = format!("{}_{variable}", driver.to_uppercase());
            let keys: Vec<_> = ["connections", name].iter().chain(keys).copied().collect();
            let told = sources.broadcasting.value.at(&keys).string().ok().filter(|value| is_told && !value.is_empty());
            match told {
                Some(value) => Some(Setting { value, place: sources.broadcasting.place(&keys).1 }),
                None if is_told => None,
                None => {
                    let (value, place) = sources.variable(&variable).filter(|(value, _)| !value.is_empty())?;
                    Some(Setting { value, place: format!("{variable} in {place}") })
                }
            }
        };
        let server_port = sources.variable("REVERB_SERVER_PORT").filter(|(value, _)| driver == "reverb" && !value.is_empty());
        Some(Self {
            driver: driver.to_owned(),
            app_id: setting(&["app_id"], "APP_ID"),
            key: setting(&["key"], "APP_KEY"),
            secret: setting(&["secret"], "APP_SECRET"),
            host: setting(&["options", "host"], "HOST"),
            port: setting(&["options", "port"], "PORT"),
            scheme: setting(&["options", "scheme"], "SCHEME"),
            server_port: server_port.map(|(value, place)| Setting { value, place }),
        })
    }

    /// Id, key and secret, if all are known.
    pub(in crate::cli) fn application(&self) -> Option<[&str; 3]> {
        Some([&self.app_id.as_ref()?.value, &self.key.as_ref()?.value, &self.secret.as_ref()?.value])
    }

    /// `https` unless the connection says otherwise, as in Laravel.
    pub(in crate::cli) fn scheme(&self) -> &str {
        self.scheme.as_ref().map_or("https", |scheme| &scheme.value)
    }

    pub(in crate::cli) fn port(&self) -> &str {
        let usual = if self.scheme() == "https" { "443" } else { "80" };
        self.port.as_ref().map_or(usual, |port| &port.value)
    }

    /// The port that a replacement for Reverb has to listen on. Behind a TLS proxy it differs from the one that Laravel uses.
    pub(in crate::cli) fn server_port(&self) -> Option<&str> {
        let own = self.server_port.as_ref().map(|port| port.value.as_str());
        let plain = || self.port.as_ref().filter(|_| self.scheme() == "http").map(|port| port.value.as_str());
        own.or_else(plain).or((self.driver == "reverb").then_some(REVERB_PORT))
    }

    /// The name of a variable, such as `REVERB_HOST`.
    pub(in crate::cli) fn variable(&self, name: &str) -> String {
        format!("{}_{name}", self.driver.to_uppercase())
    }
}
