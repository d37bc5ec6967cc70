//! [`Webhooks`]: tells the application what happens in channels, in Pusher's form.
//!
//! ```text
//!   Hub ─▶ feed ─▶ tracker ─▶ outbox ─▶ sender ─▶ post: the application's URL
//!        marks     what was    what      batches,
//!                  told, and   waits     retries
//!                  is true now
//! ```
//!
//! Input: the hub's [`Observation`](crate::hub::Observation)s, which only mark channels and users as changed. Output: signed
//! deliveries. What is told of who is where is the difference between what was told last and what is true when it is looked at,
//! so it cannot be told in the wrong order. Whispers and the like are told as they happen.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::hub::{Hub, Observer, Socket};
use crate::metrics::Metrics;

mod books;
mod complaints;
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
use complaints::Complaints;
use feed::Feed;
use memory::Local;
use target::Target;
use truth::Here;

pub use target::{WebhookError, label};
pub use trial::redis_trials;

/// Changes are collected for so long before they are looked at, and told together.
const BATCH_TIME: Duration = Duration::from_millis(50);

/// Most events of one delivery, as Pusher's.
const BATCH: usize = 100;

/// Most bytes of one delivery, unless one event is larger; far below PHP's `post_max_size`.
const BATCH_BYTES: usize = 1_000_000;

/// Time to write to the log what is given up at the end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Tells the application what happens in channels.
pub struct Webhooks {
    feed: Arc<Feed>,
    tasks: JoinSet<()>,
    /// Cancelled when nothing more happens, and what is left is to be told.
    last: CancellationToken,
    /// Cancelled when there is no more time.
    stop: CancellationToken,
}

impl Webhooks {
    /// Begins to tell what happens in `hub`. `None` when there is nobody to tell.
    ///
    /// # Errors
    /// [`WebhookError`] when the certificates for deliveries cannot be used.
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
            let (complaints, grace, retry_for) = (Complaints::default(), delivery.grace, delivery.retry_for);
            let common = shared::Common { books, truth, feed, targets, metrics, complaints, grace, retry_for };
            shared::start(common, &mut tasks, &last);
        } else {
            Local::start(config, truth, &feed, targets, metrics, &mut tasks, (&last, &stop));
        }
        Ok(Some(Self { feed, tasks, last, stop }))
    }

    /// Tells what is left, for at most `time`. To be called when everybody has left the hub.
    pub async fn end(mut self, time: Duration) {
        self.last.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(time, ended).await.is_err() {
            self.stop.cancel();
            // What is left to do takes no time, unless Redis does not answer.
            let ended = async { while self.tasks.join_next().await.is_some() {} };
            if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
                self.tasks.shutdown().await;
            }
        }
        self.feed.close();
    }
}
