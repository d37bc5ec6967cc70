//! What is printed for people: plain lines on stdout, warnings and errors on stderr. Colours go where a terminal is.

use std::fmt::Display;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};

/// Colour of what went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Colour of what needs a look.
pub(crate) const CAUTION: Style = AnsiColor::Yellow.on_default();
/// Colour of what failed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Names and values that stand out.
pub(crate) const STRONG: Style = Style::new().bold();
/// What matters less.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// `text` in a style; the style is left out again where nothing shows it.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A line.
pub(crate) fn line(text: impl Display) {
    // A reader that has gone (`start | head`) is no reason to end.
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// A step that is done, with the original's check mark.
pub(crate) fn done(text: impl Display) {
    line(format!("{}  {text}", paint(GOOD, '✔')));
}

/// Something the user should know.
pub(crate) fn warning(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{} {text}", paint(CAUTION, "Warning:"));
}

/// Why the command failed, with all causes.
pub(crate) fn error(error: &anyhow::Error) {
    let _ = writeln!(anstream::stderr(), "{} {error:#}", paint(BAD, "Error:"));
}

/// A message of several lines for the log, which has one line for each.
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

/// A question whose answer is read from the same line.
pub(crate) fn question(text: &str) -> std::io::Result<()> {
    let mut stdout = anstream::stdout();
    write!(stdout, "{} {text}: ", paint(GOOD, '?'))?;
    stdout.flush()
}
