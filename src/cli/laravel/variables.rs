//! The environment as Laravel sees it. Input: the process environment, and the `.env` file that Laravel uses. Output: the
//! text of each variable and where it was set.
//!
//! This parses the file like phpdotenv 5. The server's own variables in it (`LARAVEL_ECHO_SERVER_…`) are parsed like the
//! original did, in [`laravel_echo_server::config::env`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use laravel_echo_server::files;

use super::php;

/// The variables of a `.env` file and the process.
#[derive(Debug, Default)]
pub(super) struct Variables {
    process: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    /// The file, if there is one.
    pub(super) path: Option<PathBuf>,
    /// Why Laravel or this program cannot read it.
    pub(super) error: Option<String>,
}

impl Variables {
    /// Reads the file that Laravel uses in `dir`: `.env.production` if APP_ENV is production and the file exists, else `.env`.
    pub(super) fn read(dir: &Path, process: BTreeMap<String, String>) -> Self {
        let special = process.get("APP_ENV").map(|text| php::native(text).string().unwrap_or_default());
        let special = special.filter(|name| !name.is_empty()).map(|name| dir.join(format!(".env.{name}")));
        let path = special.filter(|path| path.is_file()).unwrap_or_else(|| dir.join(".env"));
        let mut variables = Self { process, ..Self::default() };
        match files::read(&path) {
            Ok(bytes) => {
                variables.take(&String::from_utf8_lossy(&bytes));
                variables.path = Some(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => variables.error = Some(format!("`{}` cannot be read: {error}", path.display())),
        }
        variables
    }

    /// The text of a variable and where it was set; `Err` if the `.env` file cannot be read.
    pub(super) fn get(&self, name: &str) -> Result<Option<(String, String)>, String> {
        if let Some(value) = self.process.get(name) {
            return Ok(Some((value.clone(), "the environment".to_owned())));
        }
        if let Some(value) = self.file.get(name) {
            let path = self.path.as_ref().map_or_else(|| ".env".to_owned(), |path| path.display().to_string());
            return Ok(Some((value.clone(), path)));
        }
        self.error.clone().map_or(Ok(None), Err)
    }

    /// The value of `env()`; null if it is not set or cannot be read.
    pub(super) fn env(&self, name: &str) -> php::Value {
        self.get(name).ok().flatten().map_or(php::Value::Null, |(text, _)| php::native(&text))
    }

    /// Reads the lines of a file in order, so that `${X}` refers to an earlier line.
    fn take(&mut self, text: &str) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for entry in entries(text) {
            let (name, value) = match entry.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (entry.trim(), None),
            };
            match self.assignment(name, value) {
                Ok(Some((name, value))) => {
                    self.file.insert(name, value);
                }
                Ok(None) => {}
                Err(reason) => {
                    let line = entry.lines().next().unwrap_or_default();
                    let shown = line.split_once('=').map_or(line, |(name, _)| name);
                    self.error.get_or_insert(format!("Laravel cannot read its .env: {reason} at `{}`", shown.trim()));
                }
            }
        }
    }

    fn assignment(&self, name: &str, value: Option<&str>) -> Result<Option<(String, String)>, &'static str> {
        let name = match name.strip_prefix("export") {
            Some(rest) if name.len() > 8 && rest.starts_with(|c: char| c.is_ascii_whitespace()) => rest.trim_start(),
            _ => name,
        };
        let is_quoted = name.len() > 2 && ['"', '\''].iter().any(|quote| name.starts_with(*quote) && name.ends_with(*quote));
        let name = if is_quoted { &name[1..name.len() - 1] } else { name };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) {
            return Err("an invalid name");
        }
        let Some(value) = value else { return Ok(None) };
        Ok(Some((name.to_owned(), self.value(value)?)))
    }

    /// The value after `=`: the state machine of phpdotenv's `EntryParser`.
    fn value(&self, text: &str) -> Result<String, &'static str> {
        let mut chars = text.char_indices().peekable();
        let mut out = String::new();
        let quote = match chars.peek() {
            Some((_, quote @ ('"' | '\''))) => Some(*quote),
            _ => None,
        };
        if quote.is_some() {
            chars.next();
        }
        let mut closed = false;
        while let Some((index, c)) = chars.next() {
            match (c, quote) {
                _ if closed && c == '#' => break,
                _ if closed && c.is_ascii_whitespace() => {}
                _ if closed => return Err("unexpected whitespace"),
                (c, Some(quote)) if c == quote => closed = true,
                ('#', None) => return Ok(out),
                (c, None) if c.is_ascii_whitespace() => closed = true,
                ('\\', Some('"')) => out.push(match chars.next() {
                    Some((_, c @ ('"' | '\\' | '$'))) => c,
                    Some((_, 'n')) => '\n',
                    Some((_, 'r')) => '\r',
                    Some((_, 't')) => '\t',
                    Some((_, 'f')) => '\u{c}',
                    Some((_, 'v')) => '\u{b}',
                    Some(_) => return Err("an unexpected escape sequence"),
                    None => return Err("a missing closing quote"),
                }),
                ('$', None | Some('"')) => match self.nested(&text[index..]) {
                    Some((value, len)) => {
                        out.push_str(&value);
                        while chars.next_if(|(at, _)| *at < index + len).is_some() {}
                    }
                    None => out.push('$'),
                },
                (c, _) => out.push(c),
            }
        }
        if quote.is_some() && !closed { Err("a missing closing quote") } else { Ok(out) }
    }

    /// The value of `${NAME}` at the start of the text, and its length in bytes. `None` leaves an unset one unchanged.
    fn nested(&self, text: &str) -> Option<(String, usize)> {
        let name = text.strip_prefix("${")?;
        let name = &name[..name.find('}')?];
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
        let value = self.process.get(name).or_else(|| self.file.get(name)).filter(|_| is_name)?;
        Some((value.clone(), name.len() + 3))
    }
}

/// The entries of a file: single lines, or several if a quoted value spans lines.
fn entries(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut entries = Vec::new();
    let mut open: Option<String> = None;
    for line in text.split('\n') {
        let starts = line.contains("=\"") && !closes(line, true);
        let entry = match open.take() {
            Some(before) => format!("{before}\n{line}"),
            None if starts => line.to_owned(),
            None => {
                let bare = line.trim();
                if !bare.is_empty() && !bare.starts_with('#') {
                    entries.push(line.to_owned());
                }
                continue;
            }
        };
        if closes(line, starts) { entries.push(entry) } else { open = Some(entry) }
    }
    entries
}

/// Whether a quoted value ends on this line; with `starts`, the opening quote on it does not count.
fn closes(line: &str, starts: bool) -> bool {
    if line == "\"" {
        return true;
    }
    let line = line.replace("\\\\", "");
    let quotes = line.as_bytes().windows(2).filter(|pair| pair[0] != b'\\' && pair[1] == b'"').count();
    if starts { quotes > 1 } else { quotes >= 1 }
}

#[cfg(test)]
mod tests;
