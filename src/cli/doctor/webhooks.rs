//! Checks of webhooks: whether each target takes a delivery. Input: the settings. Output, when that was asked for: a signed delivery
//! without events to each URL, and writes to Redis that leave nothing, where webhooks use it.

use laravel_echo_server::config::{Config, WebhookTarget};
use laravel_echo_server::webhooks::post::Post;
use laravel_echo_server::webhooks::{label, redis_trials};

use super::report::Report;

/// A delivery that tells nothing.
const EMPTY: &str = r#"{"time_ms":0,"events":[]}"#;

/// Looks at every target.
pub(super) async fn examine(config: &Config, delivers: bool, report: &mut Report) {
    let targets: Vec<_> = config.all_webhooks().collect();
    if !delivers {
        if !targets.is_empty() {
            report.ok("webhooks", format!("{} targets; `doctor --webhooks` tries each, by a delivery without events", targets.len()));
        }
        return;
    }
    if targets.is_empty() {
        return report.ok("webhooks", "no targets are set up");
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
            Ok(()) => report.ok("webhooks", format!("{label} takes deliveries")),
            Err(error) => report.problem("webhooks", format!("{label}: {error}"), error.hint()),
        }
    }
    for (label, outcome) in redis_trials(config).await {
        match outcome {
            Ok(()) => report.ok("webhooks", format!("{label} takes what is written")),
            Err(error) => report.problem("webhooks", format!("{label}: {error}"), error.hint()),
        }
    }
}
