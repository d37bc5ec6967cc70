//! [`Shield`]: keeps a crowd of clients from overloading the application.
//!
//! Input: [`AuthRequest`]s from the hub. Output: calls of an [`Application`], at most `auth.maxConcurrent` per host at a
//! time. Other calls queue for at most `auth.queueTimeout`, and sockets take turns. Equal calls share one request, in the
//! turn of the first. While an application does not respond, the server sends one probe at a time to find out whether it is
//! back, and all calls wait.
//!
//! A call lives as long as a subscribe waits for its answer: when the last of them is cancelled, the call leaves the queue
//! or its request is aborted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use reqwest::Url;
use tokio::time::Instant;

use super::{AuthRequest, Authorizer, Denied, Grant, bytes_of};
use crate::channel::ChannelName;
use crate::config::{AuthConfig, ChannelAuth};
use crate::event::SocketId;
use crate::metrics::Metrics;
use crate::metrics::auth::SavedBy;
use crate::warn_throttled;

mod breaker;
mod cache;
mod fair_semaphore;
mod host_limiter;
mod wait_budget;

use cache::Cache;
use host_limiter::{Busy, HostLimiter};
use wait_budget::WaitBudget;

/// Maximum number of hosts with a limiter; beyond it, limiters without calls are dropped. It is bounded because wildcards
/// in `authHost` let pages choose host names.
const MAX_HOSTS: usize = 1000;

/// The channel that probes ask for; no application has it.
const PROBE_CHANNEL: &str = "private-laravel-echo-server-probe";

/// The answer for clients whose call was rejected or timed out in the queue.
const BUSY: Denied = Denied::new(503);

/// Where a callback goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The entry of `authHost`, as a base URL.
    pub host: String,
    /// The whole URL.
    pub url: Url,
}

impl Target {
    /// `endpoint` on `host`; `None` if that is not a valid URL.
    #[must_use]
    pub(crate) fn new(host: &str, endpoint: &str) -> Option<Self> {
        let url = format!("{host}{endpoint}").parse().ok()?;
        Some(Self { host: host.to_owned(), url })
    }
}

/// A callback, ready to be sent. Equal calls get equal answers.
#[derive(PartialEq, Eq)]
pub(crate) struct Call {
    /// Where to send it.
    pub target: Arc<Target>,
    /// The channel.
    pub channel: ChannelName,
    /// The socket's id, if `auth.sendSocketId` applies.
    pub socket: Option<SocketId>,
    /// All headers but those of the body, sorted by name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether this is a probe, for which a refusal is as good as a grant.
    pub is_probe: bool,
}

impl Call {
    /// A call to `target` about `channel`.
    #[must_use]
    pub(crate) fn new(target: Arc<Target>, channel: ChannelName, headers: HeaderMap) -> Self {
        let mut headers: Vec<_> = headers.into_iter().filter_map(|(name, value)| Some((name?, value))).collect();
        headers.sort_unstable_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        Self { target, channel, socket: None, headers, is_probe: false }
    }
}

/// Hashes the same fields as a derived implementation, but in few large writes, which is faster. Each is preceded by its
/// length, because clients choose names and values and must not be able to construct different calls with equal hash input.
impl Hash for Call {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut piece = |bytes: &[u8]| {
            state.write_usize(bytes.len());
            state.write(bytes);
        };
        piece(self.target.url.as_str().as_bytes());
        piece(self.channel.as_str().as_bytes());
        piece(&self.socket.map_or(0, SocketId::number).to_ne_bytes());
        for (name, value) in &self.headers {
            piece(name.as_str().as_bytes());
            piece(value.as_bytes());
        }
    }
}

/// The result of a callback.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The application granted the channel.
    Granted(Grant),
    /// The application refused, or failed with an error status.
    Refused(Denied),
    /// There was no response.
    Unanswered {
        /// The connection failed before any part of a response was received, so a retry does no harm.
        may_retry: bool,
        /// What went wrong.
        cause: String,
        /// How to fix it.
        hint: String,
    },
}

impl Reply {
    /// Whether the application is unavailable: no response, or a 502 to 504 from a proxy or maintenance mode.
    fn is_outage(&self) -> bool {
        match self {
            Self::Granted(_) => false,
            Self::Refused(denied) => matches!(denied.status, 502..=504),
            Self::Unanswered { .. } => true,
        }
    }
}

/// The application that the shield protects.
#[async_trait]
pub(crate) trait Application: Send + Sync + 'static {
    /// Builds the call for a request without sending it.
    ///
    /// # Errors
    /// [`Denied`] when no `authHost` applies.
    fn prepare(&self, request: AuthRequest<'_>) -> Result<Call, Denied>;

    /// Sends a call.
    async fn ask(&self, call: &Call) -> Reply;
}

type Answer = Result<Grant, Denied>;
type SingleFlight = Shared<BoxFuture<'static, Answer>>;

/// An [`Authorizer`] that limits its calls of an [`Application`].
pub(crate) struct Shield<A>(Arc<Inner<A>>);

struct Inner<A> {
    application: A,
    max_concurrent: usize,
    queue_timeout: Duration,
    limiters: Mutex<HashMap<String, Arc<HostLimiter>>>,
    /// Calls without an answer yet, each with a unique number.
    open: Mutex<Open>,
    budget: WaitBudget,
    cache: Option<Cache>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Open {
    questions: HashMap<Arc<Call>, (u64, WeakShared<BoxFuture<'static, Answer>>)>,
    next: u64,
}

impl<A: Application> Shield<A> {
    /// Wraps `application`.
    #[must_use]
    pub(crate) fn new(config: &AuthConfig, application: A, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            application,
            max_concurrent: config.max_concurrent as usize,
            queue_timeout: config.queue_timeout,
            limiters: Mutex::default(),
            open: Mutex::default(),
            budget: WaitBudget::default(),
            cache: (!config.cache_ttl.is_zero()).then(|| Cache::new(config.cache_ttl)),
            metrics,
        }))
    }

    /// The shared future of an equal call in progress, or of this one.
    fn share(&self, call: Arc<Call>, asker: SocketId) -> SingleFlight {
        let inner = &self.0;
        let mut open = inner.open.lock();
        let Open { questions, next } = &mut *open;
        let place = questions.entry(Arc::clone(&call));
        if let Entry::Occupied(asked) = &place
            && let Some(question) = asked.get().1.upgrade()
        {
            inner.metrics.auth.saved(SavedBy::Sharing);
            return question;
        }
        let number = *next;
        *next += 1;
        let entry = OpenEntry { inner: Arc::clone(inner), call, number };
        let question = async move { entry.inner.ask(&entry.call, asker).await }.boxed().shared();
        place.insert_entry((number, question.downgrade().expect("it is not done before it is polled")));
        question
    }
}

#[async_trait]
impl<A: Application> Authorizer for Shield<A> {
    async fn authorize(&self, request: AuthRequest<'_>) -> Answer {
        if request.by == Some(ChannelAuth::Jwt) {
            // A reload added a rule with `auth = "jwt"`, but keys are only read at start.
            let (channel, hint) = (request.channel, "restart the server: `auth.jwt` was not set when it started");
            warn_throttled!(class = 0, key = channel.as_str(), %channel, hint, "subscribe refused: only tokens can grant this channel, and there is no key to verify them");
            return Err(BUSY);
        }
        let call = Arc::new(self.0.application.prepare(request)?);
        // A recheck needs a fresh answer: cached and shared ones may predate the reason for it.
        let cache = self.0.cache.as_ref().filter(|_| !request.is_again);
        if let Some(answer) = cache.and_then(|cache| cache.get(&call)) {
            self.0.metrics.auth.saved(SavedBy::Cache);
            return answer;
        }
        let Some(_waiting) = self.0.budget.join(request.socket, bytes_of(request.headers)) else {
            return Err(self.0.refused(&call, Busy::QueueFull));
        };
        if request.is_again {
            return self.0.ask(&call, request.socket).await;
        }
        self.share(call, request.socket).await
    }

    fn removed(&self, _: Option<&str>, channel: Option<&ChannelName>) {
        if let Some(cache) = &self.0.cache {
            cache.forget(channel);
        }
        // Who asks from now on needs an answer from after the removal. Those who wait keep their question, and the hub refuses them.
        self.0.open.lock().questions.clear();
    }
}

/// Keeps a call in [`Open`] until it is answered or cancelled.
struct OpenEntry<A> {
    inner: Arc<Inner<A>>,
    call: Arc<Call>,
    number: u64,
}

impl<A> Drop for OpenEntry<A> {
    fn drop(&mut self) {
        let mut open = self.inner.open.lock();
        // If this call was cancelled, an equal one with another number may have replaced it already.
        if let Entry::Occupied(entry) = open.questions.entry(Arc::clone(&self.call))
            && entry.get().0 == self.number
        {
            entry.remove();
        }
    }
}

impl<A: Application> Inner<A> {
    fn limiter(&self, host: &str) -> Arc<HostLimiter> {
        let mut limiters = self.limiters.lock();
        if let Some(limiter) = limiters.get(host) {
            return Arc::clone(limiter);
        }
        if limiters.len() >= MAX_HOSTS {
            limiters.retain(|_, limiter| Arc::strong_count(limiter) > 1);
        }
        let limiter = HostLimiter::new(host, self.max_concurrent, Arc::clone(&self.metrics));
        limiters.insert(host.to_owned(), Arc::clone(&limiter));
        limiter
    }

    /// Waits for a turn, sends the call, and retries once where that is harmless.
    async fn ask(&self, call: &Arc<Call>, asker: SocketId) -> Answer {
        let limiter = self.limiter(&call.target.host);
        let deadline = Instant::now() + self.queue_timeout;
        let pass = loop {
            match limiter.enter(asker, deadline).await {
                Ok(pass) if pass.is_probe() => {
                    let reply = self.application.ask(&probe(&call.target)).await;
                    pass.report(reply.is_outage());
                }
                Ok(pass) => break pass,
                Err(busy) => {
                    return Err(self.refused(call, busy));
                }
            }
        };
        let generation = self.cache.as_ref().map_or(0, Cache::generation);
        let mut reply = self.application.ask(call).await;
        if matches!(reply, Reply::Unanswered { may_retry: true, .. }) {
            self.metrics.auth.retries.inc();
            reply = self.application.ask(call).await;
        }
        pass.report(reply.is_outage());
        self.settle(call, reply, generation)
    }

    fn settle(&self, call: &Arc<Call>, reply: Reply, generation: u64) -> Answer {
        let answer = match reply {
            Reply::Granted(grant) => Ok(grant),
            Reply::Refused(denied) => Err(denied),
            Reply::Unanswered { cause, hint, .. } => {
                let channel = &call.channel;
                warn_throttled!(class = 0, key = channel.as_str(), %channel, url = %call.target.url, cause, hint, "Error authenticating client");
                return Err(Denied::new(0).because(cause, hint));
            }
        };
        if let Some(cache) = &self.cache {
            cache.put(call, &answer, generation);
        }
        answer
    }

    fn refused(&self, call: &Call, busy: Busy) -> Denied {
        self.metrics.auth.busy(busy);
        let (channel, host) = (&call.channel, &call.target.host);
        let slow =
            "the application is too slow for this rate of subscribes; raise auth.maxConcurrent if it can handle more, or auth.queueTimeout";
        let (kind, what, hint) = match busy {
            Busy::QueueFull => (0, "too many subscribes are waiting for the application", None),
            Busy::QueueTimeout => (1, "its turn did not come within auth.queueTimeout", Some(slow)),
            Busy::Outage => (2, "the application did not recover within auth.queueTimeout", None),
        };
        warn_throttled!(class = kind, key = channel.as_str(), %channel, host, hint, "subscribe refused: {what}");
        BUSY.because(what, hint.unwrap_or_default())
    }
}

/// A probe call, without anything that a client has chosen: any response other than an outage shows that the application is
/// back.
fn probe(target: &Arc<Target>) -> Call {
    let headers = [("x-requested-with", "XMLHttpRequest"), ("accept-encoding", "identity")];
    let headers = headers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    Call { is_probe: true, ..Call::new(Arc::clone(target), PROBE_CHANNEL.into(), headers.into_iter().collect()) }
}

#[cfg(test)]
mod tests;
