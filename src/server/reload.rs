//! [`Reload`]: applies new settings to a running server.
//!
//! Input: a validated [`Config`]. Output: certificates, origins, proxies, limits, channel rules, the HTTP API with its clients and
//! headers, all replaced together or not at all; and the names of changed keys that need a restart.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::listen::Front;
use super::{BindError, listen};
use crate::admission::Admission;
use crate::api::dashboard::{self, Dashboard};
use crate::api::{self, Api};
use crate::auth;
use crate::client::Client;
use crate::config::{Config, DashboardConfig, Limits, RedisServerConfig, RedisServerTls, SocketIoConfig, Subscribers, schema};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::net::tls::Tls;
use crate::proxies::TrustedProxies;
use crate::pusher::{self, Pusher};
use crate::readiness::Readiness;
use crate::redis_client::Redis;
use crate::socket_io::SocketIo;
use crate::socket_io::gate::Gate;

/// The parts of a server that remain when its settings change.
pub(super) struct Parts {
    pub(super) hub: Arc<Hub<Client>>,
    pub(super) socket_io: SocketIo,
    pub(super) pusher: Pusher,
    pub(super) admission: Arc<Admission>,
    pub(super) proxies: TrustedProxies,
    /// The certificates of https and of the built-in Redis endpoint, where TLS is enabled.
    pub(super) tls: Vec<Arc<Tls>>,
    /// Cancelled when shutdown begins.
    pub(super) draining: CancellationToken,
    pub(super) readiness: Readiness,
    /// Present with `dashboard.enabled`.
    pub(super) dashboard: Option<Dashboard>,
    /// Routes that do not come from the settings.
    pub(super) extra: Router,
}

impl Parts {
    /// Builds a front for settings that the other parts use as well.
    fn front(&self, config: &Config) -> Result<Front, BindError> {
        let gate = Gate::new(config, self.socket_io.clone(), Arc::clone(&self.admission), self.proxies.clone());
        let pusher = pusher::gate::Gate::new(config, self.pusher.clone(), Arc::clone(&self.admission), self.proxies.clone());
        let api = Api::new(config, Arc::clone(&self.hub), self.readiness.clone())?;
        let mut router = api::router(config, api.clone()).merge(self.extra.clone());
        router = router.merge(self.dashboard.as_ref().map_or_else(dashboard::off, Dashboard::routes));
        if let Some(dashboard) = &self.dashboard {
            dashboard.take(config, api);
        }
        Ok(Front { gates: Some((gate, pusher)), router })
    }
}

/// Applies new settings to a running server; clones refer to the same server.
#[derive(Clone)]
pub struct Reload(Arc<Inner>);

struct Inner {
    parts: Parts,
    service: listen::Service,
    /// The settings in force; keys that need a restart have their old values.
    config: Mutex<Config>,
}

impl Reload {
    pub(super) fn new(parts: Parts, config: Config) -> Result<Self, BindError> {
        let service = Arc::new(ArcSwap::from_pointee(parts.front(&config)?));
        Ok(Self(Arc::new(Inner { parts, service, config: Mutex::new(config) })))
    }

    /// Adds routes.
    pub(super) fn with_routes(self, routes: Router) -> Self {
        let Ok(mut inner) = Arc::try_unwrap(self.0).map_err(|_| ()) else {
            unreachable!("routes are added before anything runs");
        };
        inner.parts.extra = inner.parts.extra.merge(routes.clone());
        let Front { gates, router } = &**inner.service.load();
        inner.service.store(Arc::new(Front { gates: gates.clone(), router: router.clone().merge(routes) }));
        Self(Arc::new(inner))
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    pub(super) fn service(&self) -> listen::Service {
        Arc::clone(&self.0.service)
    }

    /// Applies everything that can change at runtime: clients, limits, channel rules, origins, proxies, certificates and headers.
    /// Connections stay open. Returns the changed keys that need a restart and keep their old values.
    ///
    /// # Errors
    /// When something in `config` is invalid, now or after a restart; then nothing changes.
    pub fn reload(&self, config: &Config) -> Result<Vec<String>, BindError> {
        if let Some(error) = unusable_files(config).into_iter().next() {
            return Err(error);
        }
        let mut current = self.0.config.lock();
        let parts = &self.0.parts;
        let effective = effective(&current, config);
        let front = parts.front(&effective)?;
        let fresh = parts.tls.iter().map(|tls| tls.read(&effective)).collect::<Result<Vec<_>, _>>()?;
        parts.tls.iter().zip(fresh).for_each(|(tls, fresh)| tls.take(fresh));
        parts.hub.set_limits(&effective.limits);
        parts.hub.set_rules(&effective);
        parts.admission.set_limits(&effective.limits);
        parts.proxies.set(&effective.trust_proxies);
        self.0.service.store(Arc::new(front));
        let later = differing(&effective, config);
        *current = effective;
        Ok(later)
    }
}

/// Reads every file that a start with these settings would read, also those used only after a restart. Returns what it would fail on.
#[must_use]
pub fn unusable_files(config: &Config) -> Vec<BindError> {
    // With proxies and metrics that are thrown away.
    let (proxies, metrics) = (TrustedProxies::new(&config.trust_proxies), Arc::new(Metrics::new()));
    let checks = [
        Tls::new(config).map(drop).map_err(BindError::from),
        Tls::redis_server(config).map(drop).map_err(BindError::from),
        auth::open(config, &proxies, &metrics).map(drop).map_err(BindError::from),
        Redis::new(&config.database_config.redis).map(drop).map_err(BindError::from),
    ];
    checks.into_iter().filter_map(Result::err).collect()
}

/// The settings in force after a server with `old` reloads `new`: the new values for keys that can change at runtime, the
/// old ones for all others.
fn effective(old: &Config, new: &Config) -> Config {
    // If TLS was removed from the config, the old certificate files stay in use until the restart.
    let ssl = if new.ssl_cert_path.is_empty() || new.ssl_key_path.is_empty() { old } else { new };
    let endpoint = if new.redis_server.tls.enabled { new } else { old };
    Config {
        clients: new.clients.clone(),
        headers: new.headers.clone(),
        api_origin_allow: new.api_origin_allow.clone(),
        allowed_origins: new.allowed_origins.clone(),
        channels: new.channels.clone(),
        trust_proxies: new.trust_proxies.clone(),
        ssl_cert_path: ssl.ssl_cert_path.clone(),
        ssl_key_path: ssl.ssl_key_path.clone(),
        ssl_cert_chain_path: ssl.ssl_cert_chain_path.clone(),
        ssl_passphrase: ssl.ssl_passphrase.clone(),
        // `socketio.origins` was merged into `allowedOrigins`.
        socketio: SocketIoConfig { origins: new.socketio.origins.clone(), ..old.socketio.clone() },
        dashboard: DashboardConfig { enabled: old.dashboard.enabled, ..new.dashboard.clone() },
        subscribers: Subscribers { http: new.subscribers.http, ..old.subscribers.clone() },
        redis_server: RedisServerConfig {
            tls: RedisServerTls { enabled: old.redis_server.tls.enabled, ..endpoint.redis_server.tls.clone() },
            ..old.redis_server.clone()
        },
        limits: Limits {
            // Client queues get their size at start.
            client_queue: old.limits.client_queue,
            client_queue_bytes: old.limits.client_queue_bytes,
            ..new.limits.clone()
        },
        ..old.clone()
    }
}

/// The keys whose values differ.
fn differing(one: &Config, other: &Config) -> Vec<String> {
    let tree = |config: &Config| serde_json::to_value(config).unwrap_or(Value::Null);
    let (one, other) = (tree(one), tree(other));
    schema::paths().into_iter().filter(|path| schema::at(&one, path) != schema::at(&other, path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::config::value::Secret;

    /// Reloads `new` over `old`: the settings in force, and the keys that need a restart.
    fn reloaded(old: &Config, new: &Config) -> (Config, Vec<String>) {
        let effective = effective(old, new);
        let mut named = differing(&effective, new);
        named.sort();
        (effective, named)
    }

    #[test]
    fn keys_that_take_a_restart_are_named_and_keep_their_values() {
        let mut old = Config::default();
        (old.ssl_cert_path, old.ssl_key_path) = ("/crt".to_owned(), "/key".to_owned());
        let mut new = old.clone();
        new.limits.connections = 5;
        new.ssl_passphrase = Secret("x".to_owned());
        new.trust_proxies.push("::1".to_owned());
        new.headers.insert("x-served-by".to_owned(), "one".to_owned());
        assert_eq!(reloaded(&old, &new), (new.clone(), vec![]));
        let live = new.clone();
        new.port = 7000;
        new.limits.client_queue = 5;
        new.auth.timeout *= 2;
        new.socketio.path = "/ws".to_owned();
        new.redis_server.tls.enabled = true;
        new.redis_server.tls.cert_path = "/c".to_owned();
        new.subscribers = Subscribers { http: false, redis: false, ..new.subscribers };
        let (effective, named) = reloaded(&old, &new);
        let later = ["auth.timeout", "limits.clientQueue", "port", "redisServer.tls.enabled", "socketio.path", "subscribers.redis"];
        assert_eq!(named, later);
        let mut expected = live;
        expected.redis_server.tls.cert_path = "/c".to_owned();
        expected.subscribers.http = false;
        assert_eq!(effective, expected);
    }

    #[test]
    fn tls_that_is_given_up_has_its_files_until_the_restart() {
        let mut old = Config { protocol: Protocol::Https, ..Config::default() };
        (old.ssl_cert_path, old.ssl_key_path) = ("/crt".to_owned(), "/key".to_owned());
        old.redis_server.tls.enabled = true;
        old.redis_server.tls.cert_path = "/own".to_owned();
        let (effective, named) = reloaded(&old, &Config::default());
        assert_eq!(effective, old);
        assert_eq!(named, ["protocol", "redisServer.tls.certPath", "redisServer.tls.enabled", "sslCertPath", "sslKeyPath"]);
    }

    #[test]
    fn what_takes_a_restart_is_named_until_there_is_one() {
        let old = Config::default();
        let new = Config { auth_endpoint: "/other".to_owned(), ..old.clone() };
        let (first, named) = reloaded(&old, &new);
        assert_eq!(named, ["authEndpoint"]);
        assert_eq!(reloaded(&first, &new).1, ["authEndpoint"]);
        assert_eq!(reloaded(&first, &old), (old.clone(), vec![]));
    }
}
