//! A start without a file, on a machine that may have nothing else.
//! Input: the values of the environment. Output: the server is its own Redis, unless they speak of one.

use super::{Layers, Source};

const RULE: Source = Source::Rule("no file, and no variable that speaks of a Redis");

/// Keys that speak of a Redis; a dot at the end stands for all below.
const ABOUT_REDIS: [&str; 5] = ["databaseConfig.redis.", "subscribers.redis", "redisServer.enabled", "cluster.enabled", "database"];

/// Turns the built-in endpoint on.
pub(super) fn fill_in(layers: &mut Layers) {
    let is_about_redis =
        |key: &String| ABOUT_REDIS.iter().any(|about| if about.ends_with('.') { key.starts_with(about) } else { key == about });
    if !layers.sources.keys().any(is_about_redis) {
        layers.set("redisServer.enabled", true.into(), RULE);
        layers.set("subscribers.redis", false.into(), RULE);
    }
}
