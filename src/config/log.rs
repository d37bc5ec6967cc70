//! Settings: what is logged and how: `[log]`.
//!
//! Input: the table as [`load`](super::load) finds it. Output: a part of [`Config`](super::Config), and the parser of filters, which
//! `RUST_LOG` uses as well.

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The valid forms of a filter, for error messages.
pub(crate) const FILTER_FORM: &str = "error, warn, info, debug, trace, off, or pairs such as `info,laravel_echo_server=debug`";

/// The prefix of the targets of this server's log lines.
const OWN: &str = "laravel_echo_server";

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter such as `info,laravel_echo_server=debug`; case-insensitive.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// Format of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Parses a filter: a level, or comma-separated levels and `target=level` pairs. A plain level applies to this server; libraries log
/// at most warnings.
///
/// # Errors
/// How to fix it, if [`FILTER_FORM`] does not say so: a filter that matches nothing would silently switch the log off.
pub(crate) fn filter(text: &str) -> Result<Targets, Option<String>> {
    if let Some(level) = level(text.trim()) {
        return Ok(Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(OWN, level));
    }
    let mut targets = Targets::new();
    let mut is_about_us = false;
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((target, word)) = part.split_once('=') else {
            targets = targets.with_default(level(part).ok_or(None)?);
            is_about_us = true;
            continue;
        };
        let (target, level) = (target.trim(), level(word.trim()).ok_or(None)?);
        if target.contains('-') {
            return Err(Some(format!("targets are spelled with underscores: `{}`", target.replace('-', "_"))));
        }
        if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':')) {
            return Err(None);
        }
        is_about_us |= OWN.starts_with(target) || target.strip_prefix(OWN).is_some_and(|rest| rest.starts_with("::"));
        targets = targets.with_target(target, level);
    }
    if is_about_us {
        return Ok(targets);
    }
    Err(Some(format!("it has no level for `{OWN}`, whose log would be off: put a level first, as in `info,{}`", text.trim())))
}

/// A level by its name; numbers, which some tools use for levels, are treated as mistakes.
fn level(word: &str) -> Option<LevelFilter> {
    word.parse().ok().filter(|_| word.starts_with(|first: char| first.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_level_does_not_open_the_libraries() {
        for (text, ours, theirs) in [
            ("debug", LevelFilter::DEBUG, LevelFilter::WARN),
            ("INFO", LevelFilter::INFO, LevelFilter::WARN),
            ("error", LevelFilter::ERROR, LevelFilter::ERROR),
            ("off", LevelFilter::OFF, LevelFilter::OFF),
            ("Info, redis=TRACE", LevelFilter::INFO, LevelFilter::TRACE),
            ("warn,laravel_echo_server::auth=debug", LevelFilter::WARN, LevelFilter::WARN),
        ] {
            let filter = filter(text).unwrap();
            let level = |target| {
                let levels =
                    [tracing::Level::TRACE, tracing::Level::DEBUG, tracing::Level::INFO, tracing::Level::WARN, tracing::Level::ERROR];
                levels.into_iter().find(|level| filter.would_enable(target, level)).map_or(LevelFilter::OFF, LevelFilter::from_level)
            };
            assert_eq!((level("laravel_echo_server::hub"), level("redis::aio")), (ours, theirs), "{text}");
        }
    }

    #[test]
    fn a_filter_that_would_silence_the_server_is_refused() {
        for text in
            ["verbose", "", "3", "info/foo", "laravel_echo_server[span]=debug", "laravel_echo_server=loud", "info,laravel_echo_server"]
        {
            assert!(filter(text).is_err(), "{text}");
        }
        assert_eq!(
            filter("laravel-echo-server=debug").unwrap_err().as_deref(),
            Some("targets are spelled with underscores: `laravel_echo_server`")
        );
        let foreign = filter("redis=debug").unwrap_err().unwrap();
        assert!(foreign.ends_with("as in `info,redis=debug`"), "{foreign}");
        for text in ["laravel_echo_server=debug", "laravel_echo_server::auth=debug", "off,laravel=info"] {
            assert!(filter(text).is_ok(), "{text}");
        }
    }
}
