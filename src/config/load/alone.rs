//! Defaults for a start without a config file, on a machine that may have no Redis.
//! Input: the values of the environment. Output: the built-in endpoint is enabled, unless variables configure a Redis.

use super::{Layers, Source};

const RULE: Source = Source::Rule("no config file, and no variable about Redis");

/// Keys that configure a Redis; one with a trailing dot stands for all keys below it.
const ABOUT_REDIS: [&str; 5] = ["databaseConfig.redis.", "subscribers.redis", "redisServer.enabled", "cluster.enabled", "database"];

/// Enables the built-in endpoint.
pub(super) fn fill_in(layers: &mut Layers) {
    let is_about_redis =
        |key: &String| ABOUT_REDIS.iter().any(|about| if about.ends_with('.') { key.starts_with(about) } else { key == about });
    if !layers.sources.keys().any(is_about_redis) {
        layers.set("redisServer.enabled", true.into(), RULE);
        layers.set("subscribers.redis", false.into(), RULE);
    }
}
