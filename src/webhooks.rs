//! [`Webhooks`]: notifies the application of what happens in channels, in Pusher's format.
//!
//! ```text
//!   Hub ─▶ feed ─▶ tracker ─▶ outbox ─▶ sender ─▶ post: the application's URL
//!        marks     compares    queues    batches,
//!                  sent with   events    retries
//!                  current
//! ```
//!
//! Input: the hub's [`Observation`](crate::hub::Observation)s, which only mark channels and users as changed. Output: signed
//! deliveries. Events about occupancy and members are the difference between the state sent last and the current state, so
//! they cannot be sent in the wrong order. Whispers and other client events are sent as they happen.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::hub::{Hub, Observer, Socket};
use crate::metrics::Metrics;
use crate::redis_client::REMINDER_INTERVAL;
use crate::telemetry::reminders::Reminders;

mod books;
mod feed;
mod happening;
mod look;
mod memory;
mod outbox;
pub mod post;
mod queue;
mod sender;
mod shared;
mod target;
mod tracker;
mod trial;
mod truth;

use books::Books;
use feed::Feed;
use memory::Local;
use target::Target;
use truth::Here;

pub use target::{WebhookError, label};
pub use trial::redis_trials;

/// How long changes are collected before they are evaluated and sent together.
const BATCH_TIME: Duration = Duration::from_millis(50);

/// Maximum number of events in one delivery, as in Pusher's.
const BATCH: usize = 100;

/// Maximum bytes of one delivery, unless a single event is larger; far below PHP's `post_max_size`.
const BATCH_BYTES: usize = 1_000_000;

/// What keeps failing for the same reason is logged again after this time.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// How long shutdown waits for undelivered events to be logged.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Notifies the application of what happens in channels.
pub struct Webhooks {
    feed: Arc<Feed>,
    tasks: JoinSet<()>,
    /// Cancelled when nothing more happens, and the remaining events have to be sent.
    last: CancellationToken,
    /// Cancelled when the time for shutdown is over.
    stop: CancellationToken,
}

impl Webhooks {
    /// Starts sending what happens in `hub`. `None` when there are no targets.
    ///
    /// # Errors
    /// [`WebhookError`] for invalid certificates or Redis settings.
    pub fn start<S: Socket>(config: &Config, hub: &Arc<Hub<S>>, metrics: &Arc<Metrics>) -> Result<Option<Self>, WebhookError> {
        let targets = Target::all(config, &hub.rules())?;
        if targets.is_empty() {
            return Ok(None);
        }
        let feed = Arc::new(Feed::new(targets.clone(), Arc::clone(metrics)));
        let observer: Arc<dyn Observer> = Arc::clone(&feed) as Arc<dyn Observer>;
        hub.attach(&observer);
        let mut tasks = JoinSet::new();
        let (last, stop) = (CancellationToken::new(), CancellationToken::new());
        let truth = Here(Arc::clone(hub));
        if config.webhooks_use_redis() {
            let books = Books::open(config, Arc::clone(&targets))?;
            let delivery = &config.webhooks_delivery;
            let (feed, metrics) = (Arc::clone(&feed), Arc::clone(metrics));
            let (grace, retry_for) = (delivery.grace, delivery.retry_for);
            let refusals = Mutex::new(Reminders::every(REMINDER_INTERVAL));
            let common = shared::Common { books, truth, feed, targets, metrics, refusals, grace, retry_for };
            shared::start(common, &mut tasks, &last);
        } else {
            Local::start(config, truth, &feed, targets, metrics, &mut tasks, (&last, &stop));
        }
        Ok(Some(Self { feed, tasks, last, stop }))
    }

    /// Sends the remaining events, for at most `time`. Call this after all clients have left the hub.
    pub async fn end(mut self, time: Duration) {
        self.last.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(time, ended).await.is_err() {
            self.stop.cancel();
            // The tasks only log the rest now, which is quick unless Redis does not respond.
            let ended = async { while self.tasks.join_next().await.is_some() {} };
            if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
                self.tasks.shutdown().await;
            }
        }
        self.feed.close();
    }
}
