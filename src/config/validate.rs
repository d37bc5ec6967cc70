//! Rules that reject well-formed settings that cannot work or are not safe.
//! Input: a resolved [`Config`]. Output: all problems at once, each with key, value, what was expected and how to fix it.

use std::fmt;
use std::time::Duration;

use super::value::Seconds;
use super::{ApiClient, Config, Database, Protocol, RedisConfig, log};
use crate::proxies::is_network;

mod channels;
mod form;
mod problem;
mod webhooks;

pub(super) use channels::{may_be_guarded, may_begin_with};
pub use form::is_loopback;
use form::{is_auth_endpoint, is_auth_host, is_of_the_api, is_origin, is_path};
use problem::UNSET;

pub use problem::{Problem, Problems};

/// Signature algorithms of `auth.jwt.algorithm`.
pub const JWT_ALGORITHMS: &[&str] =
    &["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// Upper bound of durations, so that adding them to a time cannot overflow.
const MAX_TIME: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Maximum of `limits.clientQueue`; a larger number would be no limit, and more than a queue can count.
const MAX_MESSAGES: u64 = 1_000_000_000;

/// Minimum length of `dashboard.password` in characters.
const MIN_PASSWORD: usize = 12;

/// Rejects settings that cannot work.
///
/// # Errors
/// All problems.
pub fn check(config: &Config) -> Result<(), Problems> {
    let mut found = Found::default();
    found.listening(config);
    found.laravel(config);
    found.sockets(config);
    found.channels(config);
    found.redis(config);
    found.clients(&config.clients);
    found.jwt(config);
    found.limits(config);
    found.headers(config);
    found.webhooks(config);
    if found.0.is_empty() {
        return Ok(());
    }
    let tree = serde_json::to_value(config).unwrap_or_default();
    Err(Problems(found.0).with_entries(&tree))
}

#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn refuse(&mut self, key: impl Into<String>, value: impl fmt::Display, expected: impl Into<String>) -> &mut Problem {
        self.0.push(Problem {
            key: key.into(),
            entry: None,
            value: value.to_string(),
            expected: expected.into(),
            remedy: None,
            source: None,
        });
        self.0.last_mut().expect("one was pushed")
    }

    fn listening(&mut self, config: &Config) {
        if config.protocol == Protocol::Https {
            for (key, path) in [("sslCertPath", &config.ssl_cert_path), ("sslKeyPath", &config.ssl_key_path)] {
                if path.is_empty() {
                    self.refuse(key, "empty", "the path of a PEM file")
                        .fix("`protocol` is https: set both `sslCertPath` and `sslKeyPath`, or `protocol` to http behind a proxy that speaks TLS");
                }
            }
        }
        if let Some(port) = config.http_port {
            if config.protocol == Protocol::Http {
                self.refuse("httpPort", port, "`protocol` to be https")
                    .fix("`port` already serves plain HTTP; `httpPort` is a second port in addition to https");
            } else if port == config.port && port != 0 {
                self.refuse("httpPort", port, "a port other than `port`");
            }
        }
        if config.metrics.port == Some(config.port) {
            self.refuse("metrics.port", config.port, "a port other than `port`")
                .fix("without `metrics.port`, /metrics answers on the main port for callers with a client's key");
        }
        let server = &config.redis_server;
        if server.enabled && server.port == config.port {
            self.refuse("redisServer.port", server.port, "a port other than `port`");
        }
        if server.enabled && server.password.is_none() && !is_loopback(&server.host) {
            self.refuse("redisServer.password", UNSET, "a password, because `redisServer.host` is open to the network")
                .fix("set `redisServer.password`, or `redisServer.host` to \"127.0.0.1\"");
        }
        if server.enabled && server.tls.enabled {
            let (own, tls) = (server.tls.has_files(), &server.tls);
            let (certificate, key) = if own { (&tls.cert_path, &tls.key_path) } else { (&config.ssl_cert_path, &config.ssl_key_path) };
            for (name, path) in [("redisServer.tls.certPath", certificate), ("redisServer.tls.keyPath", key)] {
                if path.is_empty() {
                    self.refuse(name, "empty", "the path of a PEM file").fix(
                        "`redisServer.tls` is on: set `redisServer.tls.certPath` and `redisServer.tls.keyPath`, or `sslCertPath` and \
                         `sslKeyPath` for the same certificate as https",
                    );
                }
            }
        }
        self.dashboard(config);
        if let Err(remedy) = log::filter(&config.log.level) {
            let problem = self.refuse("log.level", quoted(&config.log.level), log::FILTER_FORM);
            problem.remedy = remedy;
        }
    }

    fn dashboard(&mut self, config: &Config) {
        let password = &config.dashboard.password;
        if password.as_ref().is_some_and(|password| password.expose().chars().count() < MIN_PASSWORD) {
            self.refuse("dashboard.password", "too short", format!("{MIN_PASSWORD} characters or more"))
                .fix("anyone who knows it sees every event; `openssl rand -base64 18` generates a good one");
        }
        if config.dashboard.enabled && password.is_none() && config.clients.is_empty() {
            self.refuse("dashboard.password", UNSET, "a password, because there is no entry of `clients` to sign in with")
                .fix("set `dashboard.password`, or add a client with `laravel-echo-server client:add`");
        }
    }

    fn laravel(&mut self, config: &Config) {
        for host in &config.auth_host {
            if !is_auth_host(host) {
                let problem = self.refuse(
                    "authHost",
                    quoted(host),
                    "a URL such as `https://app.example.com`, or `https://.example.com` for all its subdomains",
                );
                if host.contains("env(") || host.contains('$') {
                    problem
                        .fix("variables are not expanded in a config file: write the address itself, or set LARAVEL_ECHO_SERVER_AUTH_HOST");
                }
            }
        }
        let endpoint = &config.auth_endpoint;
        if !is_auth_endpoint(endpoint) {
            let problem = self.refuse("authEndpoint", quoted(endpoint), "a path that starts with a slash, such as `/broadcasting/auth`");
            if endpoint.contains("//") {
                problem.fix("the address before it belongs in `authHost`");
            }
        }
        for (key, value) in [("auth.timeout", config.auth.timeout), ("auth.queueTimeout", config.auth.queue_timeout)] {
            if value.is_zero() {
                self.refuse(key, "0", "a duration such as `10s`");
            }
        }
        if config.auth.max_concurrent == 0 {
            self.refuse("auth.maxConcurrent", "0", "1 or more");
        }
        for name in &config.auth.forward {
            if http::HeaderName::try_from(name.as_str()).is_err() {
                self.refuse("auth.forward", quoted(name), "names of HTTP headers");
            }
        }
    }

    fn sockets(&mut self, config: &Config) {
        let socketio = &config.socketio;
        if socketio.transports.is_empty() {
            self.refuse("socketio.transports", "empty", "`polling`, `websocket` or both");
        }
        for transport in &socketio.transports {
            if !matches!(transport.as_str(), "polling" | "websocket") {
                self.refuse("socketio.transports", quoted(transport), "`polling`, `websocket` or both");
            }
        }
        if !is_path(&socketio.path) {
            self.refuse("socketio.path", quoted(&socketio.path), "a path such as `/socket.io`").fix(
                "start it with a slash, and write it as in a URL: no query, no spaces, no `.` or `..` between slashes, letters other \
                 than a to z as `%C3%A9`; clients need the same value in their option `path`",
            );
        } else if is_of_the_api(&socketio.path, &config.clients) {
            self.refuse("socketio.path", quoted(&socketio.path), "a path that the HTTP API does not use").fix(
                "with it, requests for the API would reach the Socket.IO engine instead; use the default `/socket.io`, or another path",
            );
        }
        if let Some(cookie) = &socketio.cookie {
            let name = &cookie.name;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) {
                self.refuse("socketio.cookie", quoted(name), "the name of a cookie, or false");
            }
            for text in [Some(&cookie.path), cookie.domain.as_ref()].into_iter().flatten() {
                if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
                    self.refuse("socketio.cookie", quoted(text), "a `path` and a `domain` of plain letters, without `;`");
                }
            }
        }
        for pattern in &config.flat_channels {
            if pattern.is_empty() || pattern.contains("private-") || pattern.contains("presence-") {
                self.refuse("flatChannels", quoted(pattern), "names of public channels, `*` for any text")
                    .fix("channels with `private-` or `presence-` in their name need authorisation and are never flat");
            } else {
                self.pattern("flatChannels", pattern);
            }
        }
        for origin in &config.allowed_origins {
            if !is_origin(origin) {
                self.refuse(
                    "allowedOrigins",
                    quoted(origin),
                    "origins such as `https://app.example.com` or `https://*.example.com`, without a path, or `*`",
                );
            }
        }
        for proxy in &config.trust_proxies {
            if !is_network(proxy) {
                self.refuse("trustProxies", quoted(proxy), "addresses such as `10.0.0.7` or networks such as `10.0.0.0/8`");
            }
        }
    }

    fn redis(&mut self, config: &Config) {
        let redis = &config.database_config.redis;
        if config.cluster.enabled && config.database != Database::Redis {
            self.refuse("cluster.enabled", "true", "`database` to be `redis`, where all nodes share the members");
        }
        if config.cluster.enabled && !config.subscribers.redis {
            self.refuse("cluster.enabled", "true", "`subscribers.redis` to be true, because the nodes communicate that way");
        }
        if let Some(url) = &redis.url {
            let scheme = url.expose().split("://").next().unwrap_or_default();
            if !matches!(scheme, "redis" | "rediss" | "unix" | "redis+unix" | "valkey" | "valkeys") || !url.expose().contains("://") {
                self.refuse("databaseConfig.redis.url", "not a Redis URL", "a URL that starts with `redis://`, `rediss://` or `unix://`");
            }
        }
        self.redis_topology(redis);
    }

    fn redis_topology(&mut self, redis: &RedisConfig) {
        let ways = [
            ("cluster", !redis.cluster.is_empty()),
            ("sentinels", !redis.sentinels.is_empty()),
            ("url", redis.url.is_some()),
            ("path", redis.path.is_some()),
        ];
        let given: Vec<_> = ways.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        if let [first, others @ ..] = given.as_slice()
            && !others.is_empty()
        {
            self.refuse(format!("databaseConfig.redis.{first}"), format!("set with `{}`", others.join("`, `")), "one way to reach Redis");
        }
        if !redis.sentinels.is_empty() && redis.name.is_none() {
            self.refuse("databaseConfig.redis.name", UNSET, "the name of the master that the sentinels watch, often `mymaster`");
        }
    }

    fn clients(&mut self, clients: &[ApiClient]) {
        for (index, client) in clients.iter().enumerate() {
            if client.app_id.is_empty() {
                self.refuse(format!("clients[{index}].appId"), "empty", "an id; `laravel-echo-server client:add` creates one");
            }
            if client.key.is_blank() && client.jwt.is_none() {
                self.refuse(format!("clients[{index}].key"), "empty", "a key")
                    .fix(format!("`laravel-echo-server client:add {}` creates a new one", client.app_id));
            }
            if client.require_signature && client.secret.is_none() {
                self.refuse(
                    format!("clients[{index}].secret"),
                    UNSET,
                    "the secret that signatures are verified with, because `requireSignature` is true",
                );
            }
        }
    }

    fn jwt(&mut self, config: &Config) {
        let jwt = &config.auth.jwt;
        let Some(algorithm) = &jwt.algorithm else {
            if jwt.secret.is_some() || jwt.public_key.is_some() || jwt.jwks.is_some() {
                self.refuse("auth.jwt.algorithm", UNSET, format!("one of {}", JWT_ALGORITHMS.join(", ")));
            }
            return;
        };
        if !JWT_ALGORITHMS.contains(&algorithm.as_str()) {
            self.refuse("auth.jwt.algorithm", quoted(algorithm), format!("one of {}", JWT_ALGORITHMS.join(", ")));
        } else if algorithm.starts_with("HS") && jwt.secret.is_none() {
            self.refuse("auth.jwt.secret", UNSET, format!("the secret that {algorithm} tokens are signed with"));
        } else if !algorithm.starts_with("HS") && jwt.public_key.is_none() && jwt.jwks.is_none() {
            self.refuse(
                "auth.jwt.publicKey",
                UNSET,
                format!("the path of the public key that verifies {algorithm} tokens, or `auth.jwt.jwks`"),
            );
        }
    }

    fn limits(&mut self, config: &Config) {
        let (limits, socketio) = (&config.limits, &config.socketio);
        let at_least_one = [
            ("limits.subscriptions", limits.subscriptions),
            ("limits.channelName", limits.channel_name),
            ("limits.eventName", limits.event_name),
            ("limits.subscribesPerSecond", limits.subscribes_per_second.into()),
            ("limits.clientQueue", limits.client_queue),
            ("limits.clientQueueBytes", limits.client_queue_bytes),
            ("limits.apiBody", limits.api_body),
            ("limits.apiChannels", limits.api_channels),
            ("socketio.pingInterval", socketio.ping_interval),
            ("socketio.pingTimeout", socketio.ping_timeout),
            ("socketio.maxHttpBufferSize", socketio.max_http_buffer_size),
        ];
        for (key, _) in at_least_one.iter().filter(|(_, value)| *value == 0) {
            self.refuse(*key, "0", "1 or more");
        }
        if limits.client_queue > MAX_MESSAGES {
            self.refuse("limits.clientQueue", limits.client_queue, format!("at most {MAX_MESSAGES}"));
        }
        let (auth, presence) = (&config.auth, &config.presence);
        let times = [
            ("auth.timeout", auth.timeout),
            ("auth.queueTimeout", auth.queue_timeout),
            ("auth.cacheTtl", auth.cache_ttl),
            ("auth.kickedFor", auth.kicked_for),
            ("presence.lease", presence.lease),
            ("presence.leaveGrace", presence.leave_grace),
            ("webhooksDelivery.grace", config.webhooks_delivery.grace),
            ("webhooksDelivery.timeout", config.webhooks_delivery.timeout),
            ("webhooksDelivery.retryFor", config.webhooks_delivery.retry_for),
            ("shutdown.drain", config.shutdown.drain),
            ("shutdown.timeout", config.shutdown.timeout),
            ("socketio.pingInterval", Duration::from_millis(socketio.ping_interval)),
            ("socketio.pingTimeout", Duration::from_millis(socketio.ping_timeout)),
        ];
        for (key, time) in times.iter().filter(|(_, time)| *time > MAX_TIME) {
            self.refuse(*key, Seconds(*time), "at most 10 years");
        }
        if config.presence.lease.as_secs() == 0 {
            self.refuse("presence.lease", Seconds(config.presence.lease), "one second or more");
        }
    }

    fn headers(&mut self, config: &Config) {
        let cors = &config.api_origin_allow;
        let texts = [
            ("apiOriginAllow.allowOrigin", &cors.allow_origin),
            ("apiOriginAllow.allowMethods", &cors.allow_methods),
            ("apiOriginAllow.allowHeaders", &cors.allow_headers),
        ];
        for (key, text) in texts {
            if http::HeaderValue::try_from(text.as_str()).is_err() {
                self.refuse(key, quoted(text), "one line of plain text");
            }
        }
        for (name, value) in &config.headers {
            if http::HeaderName::try_from(name.as_str()).is_err() || http::HeaderValue::try_from(value.as_str()).is_err() {
                self.refuse(format!("headers.{name}"), quoted(value), "the name of an HTTP header with one line of text");
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests;
