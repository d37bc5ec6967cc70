//! Output for people: plain lines on stdout, warnings and errors on stderr. Colours are used only on a terminal.

use std::fmt::Display;
use std::io::Write as _;

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

/// Prints a line.
pub(crate) fn line(text: impl Display) {
    // A closed pipe (`start | head`) must not end the server.
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Prints a completed step, with the original's check mark.
pub(crate) fn done(text: impl Display) {
    line(format!("{}  {text}", paint(GOOD, '✔')));
}

/// Prints a warning.
pub(crate) fn warning(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{} {text}", paint(CAUTION, "Warning:"));
}

/// Prints why the command failed, with all causes.
pub(crate) fn error(error: &anyhow::Error) {
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
