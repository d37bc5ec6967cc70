//! [`redis_trials`]: checks whether webhooks can write to Redis. Input: the settings. Output: the result of each check, which leaves
//! no data in Redis.

use std::sync::Arc;

use super::books::Books;
use super::post::DeliveryError;
use super::queue::QueuePush;
use super::target::label;
use crate::config::{Config, WebhookTarget};
use crate::redis_client::RedisConfigError;

/// Tries the queue of each `target = "queue"`, and the keys of webhooks themselves if they use Redis.
pub async fn redis_trials(config: &Config) -> Vec<(String, Result<(), DeliveryError>)> {
    let mut trials = Vec::new();
    for webhook in config.all_webhooks().filter(|webhook| webhook.config.target == WebhookTarget::Queue) {
        let outcome = match QueuePush::new(webhook.config, config) {
            Ok(queue) => queue.try_it().await,
            Err(error) => Err(unusable(&error)),
        };
        trials.push((label(&webhook), outcome));
    }
    if config.webhooks_use_redis() && config.all_webhooks().next().is_some() {
        let outcome = match Books::open(config, Arc::new([])) {
            Ok(books) => {
                let outcome = books.try_it().await;
                outcome.map_err(|error| DeliveryError::Redis { reason: error.full_text(), hint: books.hint(&error) })
            }
            Err(error) => Err(unusable(&error)),
        };
        trials.push(("the Redis that keeps events".to_owned(), outcome));
    }
    trials
}

fn unusable(error: &RedisConfigError) -> DeliveryError {
    DeliveryError::Redis { reason: error.to_string(), hint: "check `databaseConfig.redis`".to_owned() }
}
