//! [`Reload`]: other settings for a server that runs.
//!
//! Input: a validated [`Config`]. Output: certificates, origins, proxies, limits, the HTTP API with its clients and
//! headers, all swapped at once or not at all; and the names of changed keys that take a restart.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::Router;
use serde_json::Value;
use socketioxide::layer::SocketIoLayer;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::gate::{self, Gate};
use super::listen::Front;
use super::tls::Tls;
use super::websocket::WebSockets;
use super::{BindError, listen};
use crate::api::{self, Api, Readiness};
use crate::config::{Config, schema};
use crate::egress::ClientSocket;
use crate::egress::socket_io::ClosedSessions;
use crate::hub::Hub;
use crate::proxies::TrustedProxies;

/// Keys that take effect without a restart; a dot at the end stands for all keys below.
const LIVE: [&str; 16] = [
    "clients",
    "headers",
    "limits.",
    "apiOriginAllow.",
    "allowedOrigins",
    "socketio.origins",
    "trustProxies",
    "sslCertPath",
    "sslKeyPath",
    "sslCertChainPath",
    "sslPassphrase",
    "redisServer.tls.certPath",
    "redisServer.tls.keyPath",
    "redisServer.tls.chainPath",
    "redisServer.tls.passphrase",
    "subscribers.http",
];

/// Keys below those that do not: the engine's queues have their size from the start.
const NOT_LIVE: [&str; 2] = ["limits.clientQueue", "limits.clientQueueBytes"];

/// The parts of a server that stay when its settings change.
pub(super) struct Parts {
    pub(super) hub: Arc<Hub<ClientSocket>>,
    pub(super) engine: SocketIoLayer,
    pub(super) websockets: WebSockets,
    pub(super) closed: Arc<ClosedSessions>,
    pub(super) admission: Arc<Admission>,
    pub(super) proxies: Arc<ArcSwap<TrustedProxies>>,
    /// The certificates of https and of the built-in Redis endpoint, where they are spoken.
    pub(super) tls: Vec<Arc<Tls>>,
    /// Cancelled when the end begins.
    pub(super) draining: CancellationToken,
    pub(super) readiness: Readiness,
    /// Routes that do not come from the settings.
    pub(super) extra: Router,
}

impl Parts {
    /// Everything that answers requests.
    fn front(&self, config: &Config) -> Result<Front, BindError> {
        let gate = Gate::new(config, Arc::clone(&self.hub), self.websockets.clone(), Arc::clone(&self.closed), Arc::clone(&self.admission));
        let router = api::router(config, Api::new(config, Arc::clone(&self.hub), self.readiness.clone())?)
            .layer(self.engine.clone())
            .layer(axum::middleware::from_fn_with_state(gate.clone(), gate::gate));
        Ok(Front { gate: Some(gate), router: router.merge(self.extra.clone()) })
    }
}

/// Gives a running server other settings; clones belong to the same server.
#[derive(Clone)]
pub struct Reload(Arc<Inner>);

struct Inner {
    parts: Parts,
    service: listen::Service,
    /// The settings in force, where those that take a restart are still the old ones.
    config: Mutex<Config>,
}

impl Reload {
    pub(super) fn new(parts: Parts, config: Config) -> Result<Self, BindError> {
        let service = Arc::new(ArcSwap::from_pointee(parts.front(&config)?));
        Ok(Self(Arc::new(Inner { parts, service, config: Mutex::new(config) })))
    }

    /// Answers these routes, too.
    pub(super) fn with_routes(self, routes: Router) -> Self {
        let Ok(mut inner) = Arc::try_unwrap(self.0).map_err(|_| ()) else {
            unreachable!("routes are added before anything runs");
        };
        inner.parts.extra = inner.parts.extra.merge(routes.clone());
        let Front { gate, router } = &**inner.service.load();
        inner.service.store(Arc::new(Front { gate: gate.clone(), router: router.clone().merge(routes) }));
        Self(Arc::new(inner))
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    pub(super) fn service(&self) -> listen::Service {
        Arc::clone(&self.0.service)
    }

    /// Takes all that can change while the server runs: clients, limits, origins, proxies, certificates and headers.
    /// Connections go on. Returns the changed keys that take a restart, which keep their old values.
    ///
    /// # Errors
    /// When something in `config` cannot be used; then everything stays as it was.
    pub fn reload(&self, config: &Config) -> Result<Vec<String>, BindError> {
        let mut current = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = &self.0.parts;
        let front = parts.front(config)?;
        let fresh = parts.tls.iter().map(|tls| tls.read(config)).collect::<Result<Vec<_>, _>>()?;
        parts.tls.iter().zip(fresh).for_each(|(tls, fresh)| tls.take(fresh));
        parts.hub.set_limits(&config.limits);
        parts.admission.set_limits(&config.limits);
        parts.proxies.store(Arc::new(TrustedProxies::new(&config.trust_proxies.0)));
        self.0.service.store(Arc::new(front));
        let later = later(&current, config);
        *current = config.clone();
        Ok(later)
    }
}

/// Keys whose values differ and take a restart.
fn later(old: &Config, new: &Config) -> Vec<String> {
    let tree = |config: &Config| serde_json::to_value(config).unwrap_or(Value::Null);
    let (old, new) = (tree(old), tree(new));
    let is_live = |path: &str| LIVE.iter().any(|live| *live == path || live.ends_with('.') && path.starts_with(live));
    let differs = |path: &str| schema::at(&old, path) != schema::at(&new, path);
    let paths = schema::paths().into_iter().filter(|path| differs(path));
    paths.filter(|path| !is_live(path) || NOT_LIVE.contains(&path.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::{Port, Secret};

    #[test]
    fn keys_that_take_a_restart_are_named() {
        let old = Config::default();
        let mut new = old.clone();
        new.limits.connections = 5;
        new.ssl_passphrase = Secret("x".to_owned());
        new.trust_proxies.0.push("::1".to_owned());
        assert_eq!(later(&old, &new), [] as [&str; 0]);
        new.port = Port(7000);
        new.limits.client_queue = 5;
        new.auth.timeout.0 *= 2;
        let mut named = later(&old, &new);
        named.sort();
        assert_eq!(named, ["auth.timeout", "limits.clientQueue", "port"]);
    }

    #[test]
    fn live_keys_exist() {
        let paths = schema::paths();
        for live in LIVE.iter().chain(&NOT_LIVE) {
            assert!(paths.iter().any(|path| path == live || live.ends_with('.') && path.starts_with(live)), "{live}");
        }
    }
}
