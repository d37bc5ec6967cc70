//! [`Server`]: wires all parts together.
//!
//! Input: a [`Config`]. Output: a bound listener, and everything that runs behind it until shutdown. Binding and running
//! are separate steps, so that an invalid setting or a port in use is reported before anything starts.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::admission::Admission;
use crate::api::dashboard::Dashboard;
use crate::api::token::TokenKeyError;
use crate::api::{self, Api};
use crate::auth::{self, AuthError};
use crate::checks::Checks;
use crate::client::Client;
use crate::cluster::Bus;
use crate::config::{Config, ShutdownConfig};
use crate::hub::{Hub, Socket as _};
use crate::ingress::redis::RedisIngress;
use crate::ingress::redis_server::RedisServer;
use crate::metrics::Metrics;
use crate::net::listen::{Address, ListenError};
use crate::net::tls::{self, Tls};
use crate::proxies::TrustedProxies;
use crate::pusher::Pusher;
use crate::readiness::{Readiness, RedisState};
use crate::redis_client::{Redis, RedisConfigError};
use crate::socket_io::SocketIo;
use crate::store::{self, OpenError};
use crate::webhooks::{WebhookError, Webhooks};

pub(crate) mod body;
mod direct;
pub(crate) mod drain;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
pub mod listen;
mod memory;
pub(crate) mod proxy_protocol;
pub(crate) mod reload;

use listen::Front;
use reload::Parts;

pub use reload::{Reload, unusable_files};

/// The server could not be built or bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Redis settings.
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
    /// Settings under `auth`.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Tokens of the HTTP API.
    #[error(transparent)]
    Token(#[from] TokenKeyError),
    /// The presence store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Webhooks.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
}

/// Counters of a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Clients connected now.
    pub connections: usize,
    /// Events received since the start.
    pub events: u64,
}

/// A server that is bound but not running yet; connections wait in the kernel's backlog.
pub struct Server {
    config: Config,
    listener: TcpListener,
    /// Plain HTTP in addition to https (`httpPort`).
    http: Option<TcpListener>,
    acceptor: Option<tls::Acceptor>,
    reload: Reload,
    redis: Option<RedisIngress<Client>>,
    redis_state: watch::Receiver<RedisState>,
    /// The listener on `metrics.port` with its routes.
    metrics: Option<(TcpListener, Router)>,
    redis_server: Option<RedisServer<Client>>,
    webhooks: Option<Webhooks>,
}

impl Server {
    /// Builds all parts and binds the listener.
    ///
    /// # Errors
    /// [`BindError`] for invalid settings, and for an address that cannot be bound.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        Self::bind_to(config, Vec::new()).await
    }

    /// As [`Self::bind`], with sockets that are listening already, passed by systemd for example: the first for `port`, the
    /// second for `httpPort`. Missing ones are bound.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn bind_to(config: Config, sockets: Vec<std::net::TcpListener>) -> Result<Self, BindError> {
        // One crypto provider for all TLS. An error only means that a program that embeds the server has installed one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let metrics = Arc::new(Metrics::new());
        let tls = Tls::new(&config)?;
        let acceptor = tls.as_ref().map(Tls::acceptor).transpose()?;
        let redis_tls = Tls::redis_server(&config)?;
        let redis_acceptor = redis_tls.as_ref().map(Tls::acceptor).transpose()?;
        let store = store::open(&config).await?;
        let proxies = TrustedProxies::new(&config.trust_proxies);
        let authorizer = auth::open(&config, &proxies, &metrics)?;
        let hub = Hub::new(&config, Arc::clone(&authorizer), store, Bus::open(&config)?, Arc::clone(&metrics));

        let wants_redis = config.subscribers.redis;
        let (state, redis_state) = watch::channel(if wants_redis { RedisState::Connecting } else { RedisState::Off });
        let redis = if wants_redis {
            let redis = &config.database_config.redis;
            Some(RedisIngress::new(Redis::new(redis)?, &redis.key_prefix, Arc::clone(&hub), state))
        } else {
            None
        };

        let draining = CancellationToken::new();
        let webhooks = Webhooks::start(&config, &hub, hub.metrics())?;
        let (redis_now, has_session_key) = (redis_state.clone(), hub.has_session_key());
        let readiness = Readiness { redis: redis_now, has_session_key, draining: draining.clone(), started: Instant::now() };
        let api = Api::new(&config, Arc::clone(&hub), readiness.clone())?;
        let dashboard = Dashboard::new(&config, api, proxies.clone());
        let metrics = metrics_listener(&config, &hub, &readiness, dashboard.as_ref()).await?;
        let redis_server = match config.redis_server.enabled {
            true => Some(RedisServer::bind(&config, Arc::clone(&hub), redis_acceptor).await?),
            false => None,
        };
        let parts = Parts {
            socket_io: SocketIo::new(&config, Arc::clone(&hub)),
            pusher: Pusher::new(&config, Arc::clone(&hub), authorizer),
            hub,
            admission: Admission::new(&config.limits),
            proxies,
            tls: [tls, redis_tls].into_iter().flatten().collect(),
            draining,
            readiness,
            dashboard,
            extra: Router::new(),
        };
        let reload = Reload::new(parts, config.clone())?;
        let mut sockets = sockets.into_iter();
        let listener = listen(Address::main(&config), sockets.next()).await?;
        let http = match Address::http(&config) {
            Some(address) => Some(listen(address, sockets.next()).await?),
            None => None,
        };
        Ok(Self { listener, http, acceptor, reload, redis, redis_state, metrics, redis_server, webhooks, config })
    }

    /// Adds routes. They take precedence over the API and require no key.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.reload = self.reload.with_routes(routes);
        self
    }

    /// Shows the results of these checks on the dashboard, if it is enabled.
    #[must_use]
    pub fn with_checks(self, checks: Checks) -> Self {
        if let Some(dashboard) = &self.reload.parts().dashboard {
            dashboard.with_checks(checks);
        }
        self
    }

    /// The address that the server listens on.
    ///
    /// # Panics
    /// Never: a bound listener has an address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound listener has an address")
    }

    /// The address for plain HTTP in addition to https, if `httpPort` is set.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Watches whether events can arrive from Redis.
    #[must_use]
    pub fn redis_state(&self) -> watch::Receiver<RedisState> {
        self.redis_state.clone()
    }

    /// Reads the server's counters while it runs.
    pub fn figures(&self) -> impl Fn() -> Figures + Send + use<> {
        let hub = Arc::clone(&self.reload.parts().hub);
        move || Figures { connections: hub.connections(), events: hub.metrics().events_received() }
    }

    /// A handle that applies new settings while the server runs.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Cancelled when shutdown begins, and load balancers should stop sending clients here.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.reload.parts().draining.clone()
    }

    /// Serves until `shutdown` is cancelled, then shuts down in order within `shutdown.timeout`.
    ///
    /// # Panics
    /// If an ingress or a listener has panicked, after an orderly shutdown: a restarted server is better than one that runs
    /// without receiving anything. Clients are closed in a way that makes them reconnect.
    pub async fn run(self, shutdown: CancellationToken) {
        let parts = self.reload.parts();
        let stop = listen::Stop { accepting: parts.draining.clone(), serving: CancellationToken::new() };
        let stop_redis = CancellationToken::new();
        let mut ingresses = JoinSet::new();
        if let Some(ingress) = self.redis {
            ingresses.spawn(ingress.run(stop_redis.clone()));
        }
        if let Some(ingress) = self.redis_server {
            ingresses.spawn(ingress.run(stop_redis.clone()));
        }
        parts.hub.keep_store();
        parts.hub.run_bus();
        let mut listening = JoinSet::new();
        listening.spawn(memory::watch(Arc::clone(&parts.hub), stop.serving.clone()));
        for tls in &parts.tls {
            listening.spawn(Arc::clone(tls).watch(stop.serving.clone()));
        }
        if let Some(dashboard) = parts.dashboard.clone() {
            listening.spawn(dashboard.clone().follow_nodes(stop.serving.clone()));
            listening.spawn(dashboard.keep_figures(stop.serving.clone()));
        }
        for (listener, acceptor) in [(Some(self.listener), self.acceptor), (self.http, None)] {
            if let Some(listener) = listener {
                let settings = listen::Settings::new(&self.config, acceptor, parts.proxies.clone());
                listening.spawn(listen::serve(listener, self.reload.service(), settings, stop.clone()));
            }
        }
        if let Some((listener, router)) = self.metrics {
            // Served until the very end, so that probes and dashboards can observe the shutdown.
            let settings = listen::Settings::new(&self.config, None, parts.proxies.clone());
            let stop = listen::Stop { accepting: stop.serving.clone(), serving: stop.serving.clone() };
            listening.spawn(listen::serve(listener, Arc::new(ArcSwap::from_pointee(Front { gates: None, router })), settings, stop));
        }

        let fault = tokio::select! {
            () = shutdown.cancelled() => None,
            fault = fault(&mut ingresses) => Some(fault),
            fault = fault(&mut listening) => Some(fault),
        };
        if fault.is_some() {
            error!("a part of this server has failed; ending, to be restarted; please report the panic above");
        }
        info!("stopping: removing presence members, asking clients to reconnect");
        parts.admission.drain();
        parts.draining.cancel();
        let ShutdownConfig { drain: time, timeout } = self.config.shutdown;
        let ending = async {
            // Leaves at least half of the time for `end`.
            drain::drain(&parts.hub, time.min(timeout / 2)).await;
            end(parts, ingresses, listening, self.webhooks, (timeout / 3, &stop_redis, &stop.serving)).await;
        };
        if tokio::time::timeout(timeout, ending).await.is_err() {
            warn!("shutdown.timeout has passed; aborting the remaining tasks");
        }
        if let Some(fault) = fault {
            resume_unwind(fault);
        }
    }
}

/// Waits for a panic in one of the tasks. A task that returns normally is fine.
async fn fault(tasks: &mut JoinSet<()>) -> Box<dyn Any + Send> {
    loop {
        match tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => return panic,
                Err(error) => debug!(%error, "a part of the server was dropped"),
            },
            None => std::future::pending().await,
        }
    }
}

/// Uses a socket that is listening already, or binds the address.
async fn listen(address: Address, socket: Option<std::net::TcpListener>) -> Result<TcpListener, ListenError> {
    match socket {
        Some(socket) => address.take(socket),
        None => address.bind().await,
    }
}

/// The separate listener for `/metrics` and the dashboard, if `metrics.port` is set.
async fn metrics_listener(
    config: &Config,
    hub: &Arc<Hub<Client>>,
    readiness: &Readiness,
    dashboard: Option<&Dashboard>,
) -> Result<Option<(TcpListener, Router)>, ListenError> {
    let Some(address) = Address::metrics(config) else { return Ok(None) };
    let router = api::metrics::router(Arc::clone(hub), readiness.clone());
    let router = dashboard.map(Dashboard::routes).into_iter().fold(router, Router::merge);
    Ok(Some((address.bind().await?, router)))
}

/// Shuts down in this order: stop receiving events; remove presence members; stop serving requests; close clients, without
/// the Socket.IO disconnect packet, after which they would not reconnect; send the remaining webhooks.
async fn end(
    parts: &Parts,
    mut ingresses: JoinSet<()>,
    mut listening: JoinSet<()>,
    webhooks: Option<Webhooks>,
    (webhooks_time, stop_redis, stop_serving): (Duration, &CancellationToken, &CancellationToken),
) {
    stop_redis.cancel();
    while ingresses.join_next().await.is_some() {}
    parts.hub.close().await;
    stop_serving.cancel();
    parts.hub.each_socket(Client::close);
    tokio::join!(parts.socket_io.close(), parts.pusher.close());
    if let Some(webhooks) = webhooks {
        webhooks.end(webhooks_time).await;
    }
    while listening.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
