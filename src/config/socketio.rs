//! Settings: options of the engine: `[socketio]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::fmt;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::value::{self, As, ByteSize, OneOrMany, Toggle, forms};

/// Engine options under the names of socket.io 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SocketIoConfig {
    /// Path of the endpoint.
    pub path: String,
    /// Milliseconds between heartbeats.
    #[serde(deserialize_with = "value::integer")]
    pub ping_interval: u64,
    /// Milliseconds to wait for the reply to a heartbeat.
    #[serde(deserialize_with = "value::integer")]
    pub ping_timeout: u64,
    /// Maximum size of a client's message, on both transports.
    #[serde(with = "As::<ByteSize>")]
    pub max_http_buffer_size: u64,
    /// `polling`, `websocket` or both.
    #[serde(with = "As::<OneOrMany>")]
    pub transports: Vec<String>,
    /// The cookie with the session id on polling handshakes (for sticky sessions): its name, a table, or `false`.
    #[serde(with = "As::<SessionCookie>")]
    pub cookie: Option<Cookie>,
    /// Compress responses to polls with gzip: `true`, `false`, or `{ threshold = 1024 }`.
    #[serde(with = "As::<Compression>")]
    pub http_compression: Option<u64>,
    /// Compress events for websockets that support it, once for all of them: `true`, `false`, or `{ threshold = 1024 }`.
    #[serde(with = "As::<Compression>")]
    pub per_message_deflate: Option<u64>,
    /// Maximum packets in the response to a poll (0: all queued packets). python-socketio accepts at most 16.
    #[serde(deserialize_with = "value::integer")]
    pub max_poll_packets: u64,
    /// socket.io 2's origins (`"*:*"`, space separated); `allowedOrigins` wins when it is given.
    #[serde(with = "As::<Option<OneOrMany>>")]
    pub origins: Option<Vec<String>>,
    /// Folder with `socket.io.js` to serve.
    pub client_path: Option<PathBuf>,
}

impl Default for SocketIoConfig {
    fn default() -> Self {
        Self {
            path: "/socket.io".into(),
            ping_interval: 25_000,
            ping_timeout: 20_000,
            max_http_buffer_size: 1_000_000,
            transports: ["polling", "websocket"].map(str::to_owned).into(),
            cookie: Some(Cookie::named("io")),
            http_compression: Compression::default().0,
            per_message_deflate: Compression::default().0,
            max_poll_packets: 0,
            origins: None,
            client_path: None,
        }
    }
}

/// The session cookie; `false` in the file means none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionCookie(pub(super) Option<Cookie>);

/// A cookie, with the options that the original gives to npm's `cookie`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// `Path`.
    pub path: String,
    /// `SameSite`; browsers treat a missing one as lax.
    #[serde(deserialize_with = "same_site", skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
    /// `Secure`.
    #[serde(with = "As::<Toggle>")]
    pub secure: bool,
    /// `HttpOnly`.
    #[serde(with = "As::<Toggle>")]
    pub http_only: bool,
    /// `Domain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `Max-Age` in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
}

impl Default for Cookie {
    fn default() -> Self {
        let (path, http_only) = ("/".into(), true);
        Self { name: "io".into(), path, same_site: None, secure: false, http_only, domain: None, max_age: None }
    }
}

impl Cookie {
    /// The cookie when only its name is configured.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), same_site: Some(SameSite::Strict), ..Self::default() }
    }

    /// The `Set-Cookie` header for a session.
    #[must_use]
    pub fn render(&self, session: impl fmt::Display) -> String {
        let mut text = format!("{}={session}", self.name);
        let mut add = |part: &str| {
            text.push_str("; ");
            text.push_str(part);
        };
        if let Some(seconds) = self.max_age {
            add(&format!("Max-Age={seconds}"));
        }
        if let Some(domain) = &self.domain {
            add(&format!("Domain={domain}"));
        }
        if !self.path.is_empty() {
            add(&format!("Path={}", self.path));
        }
        if self.http_only {
            add("HttpOnly");
        }
        if self.secure {
            add("Secure");
        }
        match self.same_site {
            Some(SameSite::Strict) => add("SameSite=Strict"),
            Some(SameSite::Lax) => add("SameSite=Lax"),
            Some(SameSite::None) => add("SameSite=None"),
            None => {}
        }
        text
    }
}

/// With which pages' requests a browser sends a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Only those of the same site.
    Strict,
    /// Those of the same site, and when a link is followed.
    Lax,
    /// Those of all sites, if the cookie is `Secure`.
    None,
}

/// The minimum size in bytes of what is compressed; `None`: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compression(pub(super) Option<u64>);

impl Default for Compression {
    /// The threshold of Engine.IO.
    fn default() -> Self {
        Self(Some(1024))
    }
}

forms!(Compression(Option<u64>), SessionCookie(Option<Cookie>));

impl<'de> Deserialize<'de> for SessionCookie {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(false) | Value::Null => Ok(Self(None)),
            Value::String(name) if name.is_empty() || name == "false" => Ok(Self(None)),
            Value::String(name) => Ok(Self(Some(Cookie::named(&name)))),
            table @ Value::Object(_) => serde_json::from_value(table).map(|cookie| Self(Some(cookie))).map_err(D::Error::custom),
            other => Err(D::Error::custom(format!("invalid value `{other}`, expected a cookie name, a table or false"))),
        }
    }
}

impl<'de> Deserialize<'de> for SameSite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("strict") => Ok(Self::Strict),
            Some("lax") => Ok(Self::Lax),
            Some("none") => Ok(Self::None),
            _ if value == Value::Bool(true) => Ok(Self::Strict),
            _ => Err(D::Error::custom(format!("invalid value `{value}`, expected `strict`, `lax` or `none`"))),
        }
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match &value {
            Value::Bool(true) | Value::Null => Ok(Self::default()),
            Value::Bool(false) => Ok(Self(None)),
            Value::String(text) if matches!(text.as_str(), "true" | "") => Ok(Self::default()),
            Value::String(text) if text == "false" => Ok(Self(None)),
            // Other zlib options have no effect here.
            Value::Object(options) => match options.get("threshold") {
                None => Ok(Self::default()),
                Some(threshold) => match threshold.as_u64().or_else(|| threshold.as_str()?.parse().ok()) {
                    Some(bytes) => Ok(Self(Some(bytes))),
                    None => Err(D::Error::custom(format!("invalid threshold `{threshold}`, expected a number of bytes"))),
                },
            },
            _ => Err(D::Error::custom(format!("invalid value `{value}`, expected true, false or a table with a threshold in bytes"))),
        }
    }
}

impl Serialize for Compression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => serializer.serialize_bool(false),
            Some(_) if *self == Self::default() => serializer.serialize_bool(true),
            Some(threshold) => serde_json::json!({ "threshold": threshold }).serialize(serializer),
        }
    }
}

impl Serialize for SessionCookie {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => serializer.serialize_bool(false),
            Some(cookie) if *cookie == Cookie::named(&cookie.name) => serializer.serialize_str(&cookie.name),
            Some(cookie) => cookie.serialize(serializer),
        }
    }
}

/// A `SameSite` value; `false` means none.
fn same_site<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SameSite>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null | Value::Bool(false) => Ok(None),
        value => serde_json::from_value(value).map(Some).map_err(D::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cookie_is_what_the_table_says() {
        for (given, expected) in [
            (json!("io"), Some("io=S; Path=/; HttpOnly; SameSite=Strict")),
            (
                json!({ "name": "io", "sameSite": "none", "secure": true, "path": "/" }),
                Some("io=S; Path=/; HttpOnly; Secure; SameSite=None"),
            ),
            (json!({ "name": "x", "sameSite": true }), Some("x=S; Path=/; HttpOnly; SameSite=Strict")),
            (
                json!({ "name": "x", "sameSite": "Lax", "httpOnly": false, "domain": "a.test", "maxAge": 60 }),
                Some("x=S; Max-Age=60; Domain=a.test; Path=/; SameSite=Lax"),
            ),
            (json!({ "sameSite": false }), Some("io=S; Path=/; HttpOnly")),
            (json!(false), None),
            (json!(""), None),
        ] {
            let cookie: SessionCookie = serde_json::from_value(given.clone()).unwrap();
            assert_eq!(cookie.0.as_ref().map(|cookie| cookie.render("S")).as_deref(), expected, "{given}");
            let again: SessionCookie = serde_json::from_value(serde_json::to_value(&cookie).unwrap()).unwrap();
            assert_eq!(again, cookie, "it is written as it is read");
        }
        assert!(serde_json::from_value::<SessionCookie>(json!({ "name": "x", "sameSite": "some" })).is_err());
    }
}
