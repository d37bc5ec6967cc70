//! [`ReconnectingClient`]: a connection for commands, made again when it breaks.
//!
//! Input: pipelines. Output: their answers, or an error within a bounded time: a moment's outage is waited for, a
//! longer one fails what is asked at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind};
use tokio::sync::{Mutex, Notify};
use tracing::{info, warn};

use super::loss::{Cause, Loss};
use super::topology::{ANSWER_TIMEOUT, Connection, Redis};

/// How long an outage may last before what is asked fails: as long as Redis takes for a restart or a failover of the
/// quick kind, and no longer than a visitor waits for a page.
const OUTAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to connect.
pub(crate) const RETRY: Duration = Duration::from_millis(250);
/// Between two looks whether somebody has connected.
const POLL: Duration = Duration::from_millis(50);

/// A connection for commands.
pub struct ReconnectingClient {
    /// What cannot be done without Redis, for the log.
    purpose: &'static str,
    redis: Redis,
    state: Mutex<State>,
    /// Counts connections: what was written over an older one may be lost.
    generation: AtomicU64,
    /// Told when a connection breaks.
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
    /// The causes that were warned about.
    told: Vec<Cause>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No connection can be had. Nothing was done.
    #[error("Redis is away: {}", .0.reason)]
    Away(Loss),
    /// The connection broke. It is not known whether it was done.
    #[error("the connection to Redis broke")]
    Broken(#[source] RedisError),
    /// Redis took too long. It is not known whether it was done.
    #[error("Redis did not answer in time")]
    Late(#[source] RedisError),
    /// Redis refused.
    #[error("Redis refused")]
    Refused(#[source] RedisError),
}

impl QueryError {
    /// With its cause, for an error that keeps text alone.
    #[must_use]
    pub fn full_text(&self) -> String {
        match self {
            Self::Away(_) => self.to_string(),
            Self::Broken(cause) | Self::Late(cause) | Self::Refused(cause) => format!("{self}: {}", sentence(cause)),
        }
    }
}

/// Redis's own sentence about the first command that it refused, else what the client says.
fn sentence(error: &RedisError) -> String {
    let refused = error.clone().into_server_errors();
    let first = refused.as_deref().and_then(<[_]>::first).map(|(_, refusal)| refusal.to_string());
    first.unwrap_or_else(|| error.to_string())
}

/// What to do about a command that Redis refused with these words.
fn refusal_hint(words: &str) -> Result<&'static str, Cause> {
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    // Scripts say in words of their own what their user may not do.
    if says(&["NOPERM", "NoPerm", "ACL failure", "executing the script can't"]) {
        Err(Cause::NoPermission)
    } else if says(&["OOM", "used memory > 'maxmemory'"]) {
        Ok("Redis is full: `redis-cli info memory`; raise its `maxmemory`, or remove what fills it")
    } else if says(&["MISCONF"]) {
        Ok("Redis cannot write to its disk; its log says why")
    } else {
        Ok("Redis answers, and does not do it: the reason says why")
    }
}

impl ReconnectingClient {
    /// A connection that is made when it is first used. `purpose` says what cannot be done without it.
    #[must_use]
    pub fn new(redis: Redis, purpose: &'static str) -> Self {
        Self { purpose, redis, state: Mutex::default(), generation: AtomicU64::new(0), broken: Notify::new() }
    }

    /// Changes with every new connection.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether the last try to connect failed.
    pub async fn is_down(&self) -> bool {
        self.state.lock().await.outage.is_some()
    }

    /// Whether commands for different channels go to different servers.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.redis.is_cluster()
    }

    /// What to do about an error of [`Self::query`].
    #[must_use]
    pub fn hint(&self, error: &QueryError) -> String {
        let cause = match error {
            QueryError::Away(loss) => loss.cause,
            QueryError::Broken(error) | QueryError::Late(error) => Cause::of(error),
            QueryError::Refused(error) => match refusal_hint(&sentence(error)) {
                Ok(hint) => return hint.to_owned(),
                Err(cause) => cause,
            },
        };
        self.redis.hint(cause)
    }

    /// Asks, and reads the answers of the pipeline's commands as one tuple or list.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, QueryError> {
        let (mut connection, generation) = self.connection().await?;
        match pipeline.query_async(&mut connection).await {
            Ok(answer) => Ok(answer),
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

    /// `None`: not now, but there is hope.
    async fn try_connection(&self) -> Result<Option<(Connection, u64)>, QueryError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok(Some((connection.clone(), self.generation())));
        }
        if state.outage.as_ref().is_none_or(|outage| outage.tried.elapsed() >= RETRY) {
            match self.redis.connect().await {
                Ok(connection) => {
                    if state.outage.take().is_some() {
                        info!(redis = self.redis.address(), "Redis is back");
                    }
                    state.connection = Some(connection.clone());
                    return Ok(Some((connection, self.generation.fetch_add(1, Ordering::AcqRel) + 1)));
                }
                Err(error) => self.note_outage(&mut state, &error, Duration::ZERO),
            }
        }
        match &state.outage {
            Some(outage) if outage.since.elapsed() >= OUTAGE_TIMEOUT => Err(QueryError::Away(outage.loss.clone())),
            _ => Ok(None),
        }
    }

    /// `before`: how long the outage has lasted already if this is the first sign of it.
    fn note_outage(&self, state: &mut State, error: &RedisError, before: Duration) {
        let now = Instant::now();
        let loss = Loss::from(error);
        let (since, mut told) = match state.outage.take() {
            Some(outage) => (outage.since, outage.told),
            None => (now.checked_sub(before).unwrap_or(now), Vec::new()),
        };
        if !told.contains(&loss.cause) {
            let hint = self.redis.hint(loss.cause);
            warn!(redis = self.redis.address(), reason = loss.reason, hint, "{} until Redis is back", self.purpose);
            told.push(loss.cause);
        }
        state.outage = Some(Outage { since, tried: now, loss, told });
    }

    /// The connection of this generation is of no use any more.
    async fn discard(&self, generation: u64, error: &RedisError) {
        let mut state = self.state.lock().await;
        if state.connection.is_some() && self.generation() == generation {
            state.connection = None;
            if error.is_timeout() {
                self.note_outage(&mut state, error, ANSWER_TIMEOUT);
            }
            self.broken.notify_one();
        }
    }
}

/// Whether Redis answered, and will answer the next question: the connection is fine.
fn is_refusal(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => !matches!(
            kind,
            // These come while a failover or a restart is under way.
            ServerErrorKind::BusyLoading | ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown
        ),
        ErrorKind::Extension | ErrorKind::UnexpectedReturnType | ErrorKind::Client => true,
        _ => false,
    }
}
