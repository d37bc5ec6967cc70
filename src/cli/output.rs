//! Output for people: plain lines on stdout, warnings and errors on stderr. Colours are used only on a terminal. A server whose
//! log is JSON writes all of it into the log, for programs that read both streams.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};

/// Success.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Warnings.
pub(crate) const CAUTION: Style = AnsiColor::Yellow.on_default();
/// Failures.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Names and values to emphasise.
pub(crate) const STRONG: Style = Style::new().bold();
/// Less important text.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// `text` in a style; the style is stripped when the output is not a terminal.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Whether lines and errors go into the log.
static GOES_INTO_LOG: AtomicBool = AtomicBool::new(false);

/// From here on, lines and errors go into the log.
pub(crate) fn go_into_log() {
    GOES_INTO_LOG.store(true, Ordering::Relaxed);
}

fn goes_into_log() -> bool {
    GOES_INTO_LOG.load(Ordering::Relaxed)
}

/// Prints a line.
pub(crate) fn line(text: impl Display) {
    if goes_into_log() {
        return tracing::info!("{}", in_one_line(&anstream::adapter::strip_str(&text.to_string()).to_string()));
    }
    // A closed pipe (`start | head`) must not end the server.
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Prints a completed step, with the original's check mark.
pub(crate) fn done(text: impl Display) {
    if goes_into_log() {
        return line(text);
    }
    line(format!("{}  {text}", paint(GOOD, '✔')));
}

/// Prints a warning.
pub(crate) fn warning(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{} {text}", paint(CAUTION, "Warning:"));
}

/// Prints why the command failed, with all causes.
pub(crate) fn error(error: &anyhow::Error) {
    if goes_into_log() {
        return tracing::error!("{}", in_one_line(&format!("{error:#}")));
    }
    let _ = writeln!(anstream::stderr(), "{} {error:#}", paint(BAD, "Error:"));
}

/// Joins a message of several lines into one line for the log.
pub(crate) fn in_one_line(text: &str) -> String {
    let mut line = String::new();
    for part in text.lines().map(str::trim).filter(|part| !part.is_empty()) {
        match line.chars().last() {
            None => {}
            Some(':') => line.push(' '),
            Some(_) => line.push_str("; "),
        }
        line.push_str(part);
    }
    line
}

/// Prints a question whose answer is read from the same line.
pub(crate) fn question(text: &str) -> std::io::Result<()> {
    let mut stdout = anstream::stdout();
    write!(stdout, "{} {text}: ", paint(GOOD, '?'))?;
    stdout.flush()
}
