//! Settings: options of the engine: `[socketio]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config).

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::value::{self, ByteSize, OneOrMany, Toggle};

/// Engine options under the names of socket.io 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SocketIoConfig {
    /// Path of the endpoint.
    pub path: String,
    /// Milliseconds between heartbeats.
    #[serde(deserialize_with = "value::integer")]
    pub ping_interval: u64,
    /// Milliseconds to wait for the answer to a heartbeat.
    #[serde(deserialize_with = "value::integer")]
    pub ping_timeout: u64,
    /// Largest message a client may send, on both transports.
    pub max_http_buffer_size: ByteSize,
    /// `polling`, `websocket` or both.
    pub transports: OneOrMany,
    /// The cookie with the session id on polling handshakes (for sticky sessions): its name, a table, or `false`.
    pub cookie: SessionCookie,
    /// Answers to polls in gzip: `true`, `false`, or `{ threshold = 1024 }`.
    pub http_compression: Compression,
    /// Events to websockets that take it, compressed once for all: `true`, `false`, or `{ threshold = 1024 }`.
    pub per_message_deflate: Compression,
    /// Most packets in the answer to a poll (0: all that wait). python-socketio takes 16.
    #[serde(deserialize_with = "value::integer")]
    pub max_poll_packets: u64,
    /// socket.io 2's origins (`"*:*"`, space separated); `allowedOrigins` wins when it is given.
    pub origins: Option<OneOrMany>,
    /// Folder with `socket.io.js` to serve.
    pub client_path: Option<PathBuf>,
}

impl Default for SocketIoConfig {
    fn default() -> Self {
        Self {
            path: "/socket.io".into(),
            ping_interval: 25_000,
            ping_timeout: 20_000,
            max_http_buffer_size: ByteSize(1_000_000),
            transports: OneOrMany::many(["polling", "websocket"]),
            cookie: SessionCookie(Some(Cookie::named("io"))),
            http_compression: Compression::default(),
            per_message_deflate: Compression::default(),
            max_poll_packets: 0,
            origins: None,
            client_path: None,
        }
    }
}

/// The session cookie; `false` in the file means none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCookie(pub Option<Cookie>);

/// A cookie, with the options that the original gives to npm's `cookie`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// `Path`.
    pub path: String,
    /// `SameSite`; browsers take none for lax.
    #[serde(deserialize_with = "value::same_site", skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
    /// `Secure`.
    pub secure: Toggle,
    /// `HttpOnly`.
    pub http_only: Toggle,
    /// `Domain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `Max-Age` in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
}

impl Default for Cookie {
    fn default() -> Self {
        let (path, http_only) = ("/".into(), Toggle(true));
        Self { name: "io".into(), path, same_site: None, secure: Toggle(false), http_only, domain: None, max_age: None }
    }
}

impl Cookie {
    /// As it is when only its name is given.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), same_site: Some(SameSite::Strict), ..Self::default() }
    }

    /// What `Set-Cookie` says for a session.
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
        if self.http_only.0 {
            add("HttpOnly");
        }
        if self.secure.0 {
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

/// With requests of which pages a cookie goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Of the same site alone.
    Strict,
    /// And when a link leads here.
    Lax,
    /// Of all, if the cookie is `Secure`.
    None,
}

/// What is compressed from so many bytes on; `None`: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression(pub Option<u64>);

impl Default for Compression {
    /// The threshold of Engine.IO.
    fn default() -> Self {
        Self(Some(1024))
    }
}

impl Compression {
    /// Bytes from which on something is compressed.
    #[must_use]
    pub const fn threshold(self) -> Option<u64> {
        self.0
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
