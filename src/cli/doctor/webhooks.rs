//! Checks of webhooks: whether each target accepts a delivery. Input: the settings. Output, if requested: a signed delivery
//! without events to each URL, and writes to Redis that leave no trace, if webhooks use it.

use laravel_echo_server::config::{Config, WebhookTarget};
use laravel_echo_server::webhooks::post::Post;
use laravel_echo_server::webhooks::{label, redis_trials};

use super::report::Report;

/// A delivery without events.
const EMPTY: &str = r#"{"time_ms":0,"events":[]}"#;

/// Checks every target.
pub(super) async fn examine(config: &Config, delivers: bool, report: &mut Report) {
    let targets: Vec<_> = config.all_webhooks().collect();
    if !delivers {
        if !targets.is_empty() {
            report
                .ok("webhooks", format!("{} targets; run `doctor --webhooks` to send each a test delivery without events", targets.len()));
        }
        return;
    }
    if targets.is_empty() {
        return report.ok("webhooks", "no targets are configured");
    }
    for webhook in targets.iter().filter(|webhook| webhook.config.target == WebhookTarget::Http) {
        let label = label(webhook);
        let post = match Post::new(webhook, config) {
            Ok(post) => post,
            Err(error) => {
                report.problem("webhooks", format!("{:#}", anyhow::Error::from(error)), "check `auth.tls.ca`");
                continue;
            }
        };
        match post.send(EMPTY.to_owned()).await {
            Ok(()) => report.ok("webhooks", format!("{label} accepts deliveries")),
            Err(error) => report.problem("webhooks", format!("{label}: {error}"), error.hint()),
        }
    }
    for (label, outcome) in redis_trials(config).await {
        match outcome {
            Ok(()) => report.ok("webhooks", format!("{label} accepts writes")),
            Err(error) => report.problem("webhooks", format!("{label}: {error}"), error.hint()),
        }
    }
}
