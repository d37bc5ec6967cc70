//! Asks questions. Input: a terminal, lines from a pipe, or the defaults. Output: the answers.

use std::cell::Cell;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;
use dialoguer::theme::{ColorfulTheme, SimpleTheme, Theme};
use dialoguer::{Confirm, Input, Select};
use laravel_echo_server::config::env;

/// The source of the answers.
pub(super) enum Prompt {
    /// A user at a terminal.
    Terminal(Box<dyn Theme>),
    /// Lines on stdin; an empty line, or the end of input after the first line, selects the default.
    Lines(Lines),
    /// No one: every answer is the default.
    Nobody,
}

impl Prompt {
    /// The prompt that fits how the process was started.
    pub(super) fn open(no_interaction: bool) -> Self {
        if no_interaction {
            Self::Nobody
        } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            let plain = env::no_color();
            Self::Terminal(if plain { Box::new(SimpleTheme) } else { Box::new(ColorfulTheme::default()) })
        } else {
            Self::Lines(Lines::default())
        }
    }

    /// Whether questions are actually asked.
    pub(super) const fn is_answered(&self) -> bool {
        !matches!(self, Self::Nobody)
    }

    /// Asks for text until `check` accepts it.
    pub(super) fn text(&self, question: &str, default: &str, check: impl Fn(&str) -> Result<(), String>) -> anyhow::Result<String> {
        match self {
            Self::Terminal(theme) => {
                let input = Input::<String>::with_theme(theme.as_ref()).with_prompt(question).allow_empty(true);
                let input = if default.is_empty() { input } else { input.default(default.to_owned()) };
                input.validate_with(|text: &String| check(text)).interact_text().context("asking")
            }
            Self::Lines(lines) => loop {
                let Some(line) = lines.next(&format!("{question} [{default}]"), default)? else { return Ok(default.to_owned()) };
                let answer = if line.is_empty() { default.to_owned() } else { line };
                match check(&answer) {
                    Ok(()) => return Ok(answer),
                    Err(reason) => super::output::warning(reason),
                }
            },
            Self::Nobody => Ok(default.to_owned()),
        }
    }

    /// Asks for yes or no.
    pub(super) fn confirm(&self, question: &str, default: bool) -> anyhow::Result<bool> {
        match self {
            Self::Terminal(theme) => {
                // Otherwise the Enter that users type after `y` would answer the next question.
                let confirm = Confirm::with_theme(theme.as_ref()).with_prompt(question).default(default).wait_for_newline(true);
                confirm.interact().context("asking")
            }
            Self::Lines(lines) => loop {
                let (choice, usual) = if default { ("Y/n", "yes") } else { ("y/N", "no") };
                match lines.next(&format!("{question} [{choice}]"), usual)?.unwrap_or_default().to_ascii_lowercase().as_str() {
                    "" => return Ok(default),
                    "y" | "yes" | "true" => return Ok(true),
                    "n" | "no" | "false" => return Ok(false),
                    other => super::output::warning(format!("`{other}` is not a valid answer, expected y or n")),
                }
            },
            Self::Nobody => Ok(default),
        }
    }

    /// Asks for one of `options`; the first is the default.
    pub(super) fn choose<'a>(&self, question: &str, options: &[&'a str]) -> anyhow::Result<&'a str> {
        match self {
            Self::Terminal(theme) => {
                let select = Select::with_theme(theme.as_ref()).with_prompt(question).items(options).default(0);
                Ok(options[select.interact().context("asking")?])
            }
            Self::Lines(lines) => loop {
                let answer = lines.next(&format!("{question} [{}]", options.join("/")), options[0])?.unwrap_or_default();
                match options.iter().find(|option| answer.is_empty() || option.eq_ignore_ascii_case(&answer)) {
                    Some(option) => return Ok(option),
                    None => super::output::warning(format!("`{answer}` is not a valid answer, expected one of {}", options.join(", "))),
                }
            },
            Self::Nobody => Ok(options[0]),
        }
    }
}

/// The lines of stdin.
#[derive(Debug, Default)]
pub(super) struct Lines {
    has_begun: Cell<bool>,
}

impl Lines {
    /// One line without its line end; `None`, after printing the default that is used, when there are no more.
    ///
    /// # Errors
    /// If stdin had no line at all: a script without answers should not get a configuration that nobody chose.
    fn next(&self, question: &str, default: &str) -> anyhow::Result<Option<String>> {
        super::output::question(question)?;
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).context("reading the answer")?;
        if read > 0 {
            self.has_begun.set(true);
            // Input from a pipe is not echoed, so the line of the question has to be ended here.
            std::io::stdout().write_all(b"\n").context("writing")?;
            return Ok(Some(line.trim().to_owned()));
        }
        super::output::line(if self.has_begun.get() { format!("{default} (the default: no more answers)") } else { String::new() });
        anyhow::ensure!(
            self.has_begun.get(),
            "there is no terminal to ask in: run this in one, or with `-n` (`laravel-echo-server init -n`) to use the flags, the Laravel \
             project, and defaults for the rest"
        );
        Ok(None)
    }
}
