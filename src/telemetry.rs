//! Logging: one line per event on stderr. Input: `tracing` events and the `log` settings. Output: text or JSON lines.
//!
//! Text lines look like the original's: `[2026-01-31T12:00:00.000Z] - <message> field=value`; levels other than info
//! have their name after the dash. On a terminal, a [`StatusLine`] may be shown below them.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::time::SystemTime;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use crate::config::env;
use crate::config::log::{FILTER_FORM, filter};
use crate::config::{LogConfig, LogFormat};

pub(crate) mod reminders;
pub(crate) mod throttle;

/// Why logging was not set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` or `log.level` is not a filter.
    #[error("`{name}` is {value:?}, expected {FILTER_FORM}{}", remedy.iter().map(|remedy| format!("\n  {remedy}")).collect::<String>())]
    Filter {
        /// Which of the two.
        name: &'static str,
        /// What it is.
        value: String,
        /// What to write instead, if that is not plain from what was expected.
        remedy: Option<String>,
    },
    /// Logging was set up before.
    #[error("logging is set up already")]
    Twice(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// Writes all events of the process to stderr from now on; with `has_status_line`, above a [`StatusLine`].
///
/// # Errors
/// A filter that cannot be parsed, or a second call.
pub fn init(config: &LogConfig, has_status_line: bool) -> Result<(), TelemetryError> {
    let (name, value) = env::rust_log().map_or_else(|| ("log.level", config.level.clone()), |value| ("RUST_LOG", value));
    let filter = filter(&value).map_err(|remedy| TelemetryError::Filter { name, value, remedy })?;
    let colours = io::stderr().is_terminal() && !env::no_color();
    let stderr = move || Stderr { clears_line: has_status_line };
    let builder = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(stderr).with_ansi(colours);
    // Otherwise tracing reports a line that it cannot write with `eprintln!`, which panics when that fails as well: a full
    // disk or a closed pipe would kill the task that logs.
    let builder = builder.log_internal_errors(false);
    let set = match config.format {
        LogFormat::Text => tracing::subscriber::set_global_default(builder.event_format(TextLine).finish().with(filter)),
        LogFormat::Json => {
            let builder = builder.with_writer(move || JsonLine(stderr()));
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).with_timer(Millis).finish().with(filter))
        }
    };
    set.map_err(TelemetryError::Twice)
}

/// Moves to the start of the terminal's line and erases it.
const CLEAR_LINE: &[u8] = b"\r\x1b[2K";

/// Writes one log line, over the status line if there is one.
struct Stderr {
    clears_line: bool,
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        if std::mem::take(&mut self.clears_line) {
            stderr.write_all(CLEAR_LINE)?;
        }
        stderr.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A line at the bottom of the terminal that is redrawn in place. Log lines overwrite it until the next [`draw`](Self::draw);
/// dropping it erases it.
#[derive(Debug, Default)]
pub struct StatusLine(());

impl StatusLine {
    /// Shows `text`, which should be shorter than the terminal is wide.
    pub fn draw(&self, text: &str) {
        let (faint, plain) = if env::no_color() { ("", "") } else { ("\x1b[2m", "\x1b[0m") };
        // The cursor returns to the start, so that the next output overwrites the line. Errors are ignored: the terminal may
        // have been closed.
        let _ = write!(io::stderr().lock(), "\r\x1b[2K{faint}{text}{plain}\r");
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        let _ = io::stderr().lock().write_all(CLEAR_LINE);
    }
}

/// UTC with milliseconds, like JavaScript's `toISOString`.
struct Millis;

impl FormatTime for Millis {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", humantime::format_rfc3339_millis(SystemTime::now()))
    }
}

struct TextLine;

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writer.write_char('[')?;
        Millis.format_time(&mut writer)?;
        writer.write_str("] - ")?;
        if let Some((colour, word)) = level_word(*event.metadata().level()) {
            if writer.has_ansi_escapes() {
                write!(writer, "\u{1b}[{colour}m{word}\u{1b}[0m ")?;
            } else {
                write!(writer, "{word} ")?;
            }
        }
        let mut line = OneLine(writer.by_ref());
        context.format_fields(Writer::new(&mut line), event)?;
        writeln!(writer)
    }
}

/// The colour and the name of a level; info has none.
const fn level_word(level: Level) -> Option<(u8, &'static str)> {
    match level {
        Level::ERROR => Some((31, "ERROR")),
        Level::WARN => Some((33, "WARN")),
        Level::INFO => None,
        Level::DEBUG => Some((36, "DEBUG")),
        Level::TRACE => Some((35, "TRACE")),
    }
}

/// Escapes log text: channel names and responses come from outside, and line breaks or escape sequences could forge a line.
struct OneLine<W>(W);

impl<W: fmt::Write> fmt::Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_deceptive) {
            let control = rest[at..].chars().next().expect("found one here");
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", control.escape_default())?;
            rest = &rest[at + control.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Escapes what JSON leaves as it is: without this, `docker logs` would show a line differently from its content.
struct JsonLine<W>(W);

impl<W: Write> Write for JsonLine<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = String::with_capacity(bytes.len());
        for char in String::from_utf8_lossy(bytes).chars() {
            if char != '\n' && is_deceptive(char) {
                line.push_str(&format!("\\u{:04x}", u32::from(char)));
            } else {
                line.push(char);
            }
        }
        self.0.write_all(line.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether this character can make a terminal or editor show a line differently from its content: control characters, line
/// and paragraph separators, and characters that change the text direction.
fn is_deceptive(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// Checks the line's timestamp and returns the rest.
    fn line(colours: bool, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_writer(captured.clone())
            .with_ansi(colours)
            .event_format(TextLine)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(captured.0.lock().clone()).unwrap();
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!(time.len(), "[2026-01-31T12:00:00.000Z]".len(), "{time}");
        assert!(time.starts_with("[20") && time.ends_with("Z]"), "{time}");
        rest.to_owned()
    }

    #[test]
    fn info_lines_look_as_those_of_the_original() {
        let text = line(false, || tracing::info!(channel = "news", "{} joined", "abc"));
        assert_eq!(text, "- abc joined channel=\"news\"\n");
    }

    #[test]
    fn other_levels_carry_their_name() {
        assert_eq!(line(false, || tracing::warn!("hot")), "- WARN hot\n");
        assert_eq!(line(true, || tracing::error!("hot")), "- \u{1b}[31mERROR\u{1b}[0m hot\n");
    }

    #[test]
    fn values_from_outside_cannot_forge_a_line() {
        let channel = "news\n[2026] - \u{1b}[2J ü";
        let text = line(true, || tracing::info!("joined {channel} {}", channel.len()));
        assert_eq!(text, "- joined news\\n[2026] - \\x1b[2J ü 21\n");
        let channel = "a\u{202e}b\u{2028}c\u{2066}d";
        assert_eq!(line(false, || tracing::info!("joined {channel}")), "- joined a\\u{202e}b\\u{2028}c\\u{2066}d\n");
    }

    #[test]
    fn json_lines_cannot_be_forged_either() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || JsonLine(writer.clone())).finish();
        let channel = "a\u{202e}b\u{2028}c\u{85}d\u{7f}e\n";
        tracing::subscriber::with_default(subscriber, || tracing::info!(channel, "joined"));
        let text = String::from_utf8(captured.0.lock().clone()).unwrap();
        assert!(text.ends_with("}\n") && text.trim_end().chars().all(|char| !is_deceptive(char)), "{text:?}");
        assert!(text.contains("a\\u202eb\\u2028c\\u0085d\\u007fe\\n"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["channel"], channel);
    }
}
