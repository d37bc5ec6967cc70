//! [`ReconnectingClient`]: a connection for commands that reconnects when it breaks.
//!
//! Input: pipelines. Output: their replies, or an error within a bounded time: queries wait during a short outage, and
//! fail at once during a longer one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind};
use tokio::sync::{Mutex, Notify};
use tracing::field::display;
use tracing::{info, warn};

use super::REMINDER_INTERVAL;
use super::loss::{Cause, Loss, answer};
use super::topology::{ANSWER_TIMEOUT, Connection, Redis};
use crate::telemetry::reminders::Reminders;

/// How long an outage may last before queries fail: long enough for a restart or a quick failover of Redis, and no
/// longer than a visitor waits for a page.
const OUTAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two attempts to connect.
pub(crate) const RETRY: Duration = Duration::from_millis(250);
/// Interval for checking whether another query has connected.
const POLL: Duration = Duration::from_millis(50);

/// A connection for commands that reconnects when it breaks.
pub struct ReconnectingClient {
    /// What it is for, in one or two words for the log: a server has several of these.
    name: &'static str,
    /// What does not work without Redis, for the log.
    without: &'static str,
    /// What else can be done about a Redis that is not there.
    instead: Option<&'static str>,
    redis: Redis,
    state: Mutex<State>,
    /// Counts connections: data written over an older one may be lost.
    generation: AtomicU64,
    /// Redis accepts connections, but has refused the last commands as a server that is not ready: the outage ends when some succeed.
    is_doubtful: AtomicBool,
    /// Notified when a connection breaks.
    pub broken: Notify,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    outage: Option<Outage>,
}

struct Outage {
    since: Instant,
    tried: Instant,
    loss: Loss,
    reminders: Reminders<Cause>,
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no connection. Nothing was executed.
    #[error("no connection to Redis: {}", .0.reason)]
    Away(Loss),
    /// The connection broke. It is unknown whether the commands were executed.
    #[error("the connection to Redis broke")]
    Broken(#[source] RedisError),
    /// Redis took too long. It is unknown whether the commands were executed.
    #[error("Redis did not answer in time")]
    Late(#[source] RedisError),
    /// Redis refused the commands.
    #[error("Redis refused")]
    Refused(#[source] RedisError),
}

impl QueryError {
    /// The error with its cause, for errors that only keep text.
    #[must_use]
    pub fn full_text(&self) -> String {
        match self {
            Self::Away(_) => self.to_string(),
            Self::Refused(cause) if Cause::of(cause).is_refusal() => Loss::from(cause).reason,
            Self::Broken(cause) | Self::Late(cause) | Self::Refused(cause) => format!("{self}: {}", sentence(cause)),
        }
    }
}

/// Redis's own message about the first refused command, or else the client's message.
fn sentence(error: &RedisError) -> String {
    answer(error).map_or_else(|| error.to_string(), |answer| answer.to_string())
}

/// What to do about an answer that is no fault of the connection, the user or the machine of Redis.
const OTHER_REFUSAL: &str = "Redis responds, but refuses the command: the reason says why";

impl ReconnectingClient {
    /// A client that connects on first use. `name` says what it is for, `without` what does not work without it.
    #[must_use]
    pub fn new(redis: Redis, name: &'static str, without: &'static str) -> Self {
        let (state, generation, is_doubtful, broken) = (Mutex::default(), AtomicU64::new(0), AtomicBool::new(false), Notify::new());
        Self { name, without, instead: None, redis, state, generation, is_doubtful, broken }
    }

    /// The same client, with something else to do about a Redis that is not there.
    #[must_use]
    pub fn or_instead(self, instead: Option<&'static str>) -> Self {
        Self { instead, ..self }
    }

    /// The address of Redis, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        self.redis.address()
    }

    /// Changes with every new connection.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether the last attempt to connect failed, or Redis is not ready for commands.
    pub async fn is_down(&self) -> bool {
        self.state.lock().await.outage.is_some()
    }

    /// Whether commands for different channels go to different servers.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.redis.is_cluster()
    }

    /// How to fix an error of [`Self::query`].
    #[must_use]
    pub fn hint(&self, error: &QueryError) -> String {
        let cause = match error {
            QueryError::Away(loss) => loss.cause,
            QueryError::Broken(error) | QueryError::Late(error) => Cause::of(error),
            QueryError::Refused(error) => match Cause::of(error) {
                cause if cause.is_refusal() => cause,
                _ => return OTHER_REFUSAL.to_owned(),
            },
        };
        self.hint_about(cause)
    }

    fn hint_about(&self, cause: Cause) -> String {
        let hint = self.redis.hint(cause);
        match self.instead.filter(|_| matches!(cause, Cause::Unreachable | Cause::UnknownHost)) {
            Some(instead) => format!("{instead}; or, if it should be there: {hint}"),
            None => hint,
        }
    }

    /// Executes a pipeline, and reads the replies of its commands as one tuple or list.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, QueryError> {
        let (mut connection, generation) = self.connection().await?;
        match pipeline.query_async(&mut connection).await {
            Ok(answer) => {
                self.note_success().await;
                Ok(answer)
            }
            Err(error) if is_refusal(&error) => Err(QueryError::Refused(error)),
            Err(error) => {
                self.discard(generation, &error).await;
                Err(if error.is_timeout() { QueryError::Late(error) } else { QueryError::Broken(error) })
            }
        }
    }

    async fn connection(&self) -> Result<(Connection, u64), QueryError> {
        loop {
            if let Some(found) = self.try_connection().await? {
                return Ok(found);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `None` if there is no connection yet, but the outage may be short.
    async fn try_connection(&self) -> Result<Option<(Connection, u64)>, QueryError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok(Some((connection.clone(), self.generation())));
        }
        if state.outage.as_ref().is_none_or(|outage| outage.tried.elapsed() >= RETRY) {
            match self.redis.connect().await {
                // Reads would succeed on a replica, which says nothing about the writes that it has refused.
                Ok(connection) if self.is_still_read_only(&state, &connection).await => {
                    let loss = Loss { reason: Cause::ReadOnly.sentence().to_owned(), cause: Cause::ReadOnly };
                    self.note_outage(&mut state, loss, Duration::ZERO);
                }
                Ok(connection) => {
                    if !self.is_doubtful.load(Ordering::Acquire) {
                        self.end_outage(&mut state);
                    }
                    state.connection = Some(connection.clone());
                    return Ok(Some((connection, self.generation.fetch_add(1, Ordering::AcqRel) + 1)));
                }
                Err(error) => self.note_outage(&mut state, Loss::from(&error), Duration::ZERO),
            }
        }
        match &state.outage {
            Some(outage) if outage.since.elapsed() >= OUTAGE_TIMEOUT => Err(QueryError::Away(outage.loss.clone())),
            _ => Ok(None),
        }
    }

    /// `before`: how long the outage has lasted already, if this is the first sign of it.
    fn note_outage(&self, state: &mut State, loss: Loss, before: Duration) {
        let now = Instant::now();
        let (since, mut reminders) = match state.outage.take() {
            Some(outage) => (outage.since, outage.reminders),
            None => (now.checked_sub(before).unwrap_or(now), Reminders::every(REMINDER_INTERVAL)),
        };
        if reminders.is_due(loss.cause) {
            let (redis, connection, hint) = (self.redis.address(), self.name, self.hint_about(loss.cause));
            let since = display(humantime::format_rfc3339_seconds(SystemTime::now() - since.elapsed()));
            warn!(redis, connection, reason = loss.reason, since, hint, "{} until Redis is back", self.without);
        }
        state.outage = Some(Outage { since, tried: now, loss, reminders });
    }

    /// Drops the connection of this generation.
    async fn discard(&self, generation: u64, error: &RedisError) {
        let mut state = self.state.lock().await;
        if state.connection.is_some() && self.generation() == generation {
            state.connection = None;
            if error.is_timeout() {
                self.note_outage(&mut state, Loss::from(error), ANSWER_TIMEOUT);
            } else if matches!(error.kind(), ErrorKind::Server(_)) {
                // A new connection would succeed, and its commands fail again: without an outage these would follow at once.
                self.is_doubtful.store(true, Ordering::Release);
                self.note_outage(&mut state, Loss::from(error), Duration::ZERO);
            }
            self.broken.notify_one();
        }
    }

    fn end_outage(&self, state: &mut State) {
        if state.outage.take().is_some() {
            info!(redis = self.redis.address(), connection = self.name, "Redis is back");
        }
    }

    /// Commands have succeeded: Redis is ready again if it was not.
    async fn note_success(&self) {
        if self.is_doubtful.load(Ordering::Acquire) {
            let mut state = self.state.lock().await;
            self.is_doubtful.store(false, Ordering::Release);
            self.end_outage(&mut state);
        }
    }

    /// Whether a server that was a read-only replica still is one. One that does not tell is tried.
    async fn is_still_read_only(&self, state: &State, connection: &Connection) -> bool {
        let was_read_only = state.outage.as_ref().is_some_and(|outage| outage.loss.cause == Cause::ReadOnly);
        if !was_read_only || self.is_cluster() {
            return false;
        }
        let mut connection = connection.clone();
        let info = redis::cmd("INFO").arg("replication").query_async::<String>(&mut connection).await;
        info.is_ok_and(|info| info.contains("role:slave") && !info.contains("slave_read_only:0"))
    }
}

/// Whether Redis responded with an error, so that the connection is fine.
fn is_refusal(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => !matches!(
            kind,
            // These occur during a failover or a restart, so reconnect.
            ServerErrorKind::BusyLoading | ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown
        ),
        ErrorKind::Extension | ErrorKind::UnexpectedReturnType | ErrorKind::Client => true,
        _ => false,
    }
}
