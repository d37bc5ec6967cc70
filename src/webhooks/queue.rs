//! [`QueuePush`]: deliveries as jobs of Laravel.
//!
//! Input: the body of a delivery. Output: an entry of `<prefix>queues:<name>`, in the format that `Illuminate\Queue\RedisQueue`
//! reads since Laravel 5.3 (`src/Illuminate/Queue/RedisQueue.php`, `Jobs/Job.php`): Laravel's container creates the configured
//! class and calls its method with the job and `data`. `data.body` is the body as a string, because Laravel retries jobs through
//! Lua in Redis, which would change empty lists and large numbers in JSON.

use serde_json::json;

use super::post::DeliveryError;
use crate::config::{Config, WebhookConfig};
use crate::redis_client::{ReconnectingClient, Redis, RedisConfigError};

/// Pushes like Laravel: a job, and a notification for blocking workers (`block_for`). Versions before 5.8 never remove
/// notifications, so there are never more of them than jobs.
const PUSH: &str = "
redis.call('RPUSH', KEYS[1], ARGV[1])
if redis.call('LLEN', KEYS[2]) < redis.call('LLEN', KEYS[1]) then redis.call('RPUSH', KEYS[2], 1) end";

/// Pushes an empty entry and removes it again, in one atomic step, so that no worker sees it.
const TRY: &str = "
for _, key in ipairs(KEYS) do
  redis.call('RPUSH', key, '')
  redis.call('RPOP', key)
end";

/// Pushes deliveries onto one queue.
pub(super) struct QueuePush {
    client: ReconnectingClient,
    key: String,
    job: String,
}

impl QueuePush {
    /// The queue of the entry.
    ///
    /// # Errors
    /// [`RedisConfigError`] when the Redis settings are invalid.
    pub(super) fn new(entry: &WebhookConfig, config: &Config) -> Result<Self, RedisConfigError> {
        let redis = &config.database_config.redis;
        Ok(Self {
            client: ReconnectingClient::new(Redis::new(redis)?, "webhook queue", "webhooks cannot be pushed onto Laravel's queue"),
            key: format!("{}queues:{}", redis.key_prefix, entry.queue),
            job: entry.job.clone().unwrap_or_default(),
        })
    }

    /// Pushes a body.
    ///
    /// # Errors
    /// [`DeliveryError::Redis`] when Redis did not accept it.
    pub(super) async fn send(&self, body: &str) -> Result<(), DeliveryError> {
        self.eval(PUSH, &[payload(&self.job, body)]).await
    }

    /// Checks whether it can push; leaves the queue unchanged.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(super) async fn try_it(&self) -> Result<(), DeliveryError> {
        self.eval(TRY, &[]).await
    }

    async fn eval(&self, script: &str, arguments: &[String]) -> Result<(), DeliveryError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(script).arg(2).arg(&self.key).arg(format!("{}:notify", self.key)).arg(arguments);
        let outcome = self.client.query::<redis::Value>(&pipeline).await.map(drop);
        outcome.map_err(|error| DeliveryError::Redis { reason: error.full_text(), hint: self.client.hint(&error) })
    }
}

/// The entry of the queue.
fn payload(job: &str, body: &str) -> String {
    let class = job.split('@').next().unwrap_or(job);
    let data = json!({ "body": body });
    json!({ "uuid": uuid(), "displayName": class, "job": job, "maxTries": null, "timeout": null, "data": data, "id": random_id(), "attempts": 0 })
        .to_string()
}

/// A random id, of the same length as Laravel's `Str::random(32)`.
fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A random UUID (version 4).
fn uuid() -> String {
    let random = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{random:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_what_laravel_pops() {
        let payload: serde_json::Value = serde_json::from_str(&payload(r"App\Jobs\Echo@handle", r#"{"events":[]}"#)).unwrap();
        assert_eq!(payload["job"], r"App\Jobs\Echo@handle");
        assert_eq!(payload["displayName"], r"App\Jobs\Echo");
        assert_eq!(payload["data"]["body"], r#"{"events":[]}"#);
        assert_eq!(payload["attempts"], 0);
        let uuid = payload["uuid"].as_str().unwrap();
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
    }
}
