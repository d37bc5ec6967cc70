//! Loads the settings. Input: a TOML file or the original's JSON, with `.env` files and the environment over it. Output: a
//! validated [`Config`] with warnings for the operator; nothing is printed here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::env::{Environment, Origin};
use super::{Config, advice, schema, secrets, validate};
use crate::files;

mod alone;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod layers;
mod legacy;
mod original;

use layers::Layers;

/// The file that is looked for first.
pub const TOML_FILE: &str = "laravel-echo-server.toml";

/// The original's file, looked for next.
pub const JSON_FILE: &str = "laravel-echo-server.json";

/// The file from the repository: all keys with their defaults and a comment.
pub const DEFAULTS: &str = include_str!("../../laravel-echo-server.toml");

/// Where to look for the config file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Folder of the config file; the working directory if none is given.
    pub dir: Option<PathBuf>,
    /// The config file, relative to `dir`.
    pub config: Option<PathBuf>,
    /// Read no file and use the defaults.
    pub defaults: bool,
}

/// The format of a config file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The format of this server.
    Toml,
    /// That of the original.
    Json,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The config file.
    File(PathBuf),
    /// A variable, set in `origin`.
    Variable {
        /// Its name.
        name: String,
        /// Where it was set.
        origin: Origin,
    },
    /// The rule in words, for a value that follows from another one or from the file's format.
    Rule(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable { name, origin } => write!(f, "{name} in {origin}"),
            Self::Rule(rule) => f.write_str(rule),
        }
    }
}

/// The settings and their sources.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings, validated.
    pub config: Config,
    /// The file, unless defaults were requested.
    pub path: Option<PathBuf>,
    /// What the operator may want to know, and need not change.
    pub notes: Vec<String>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
    /// Source of each value that is not a default, by key path.
    pub sources: BTreeMap<String, Source>,
}

/// Why the settings could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No file at the given path, or at the default paths.
    #[error(
        "The config file could not be found.\n  looked for: {}\n  `laravel-echo-server init` writes one, `--dir` and `--config` say where one is, \
         `start --defaults` runs without one; in a container variables are enough: LARAVEL_ECHO_SERVER_REDIS_HOST, \
         LARAVEL_ECHO_SERVER_AUTH_HOST or LARAVEL_ECHO_SERVER_CLIENTS",
        list(.0)
    )]
    NotFound(Vec<PathBuf>),
    /// The file exists, but cannot be read or is not valid TOML or JSON.
    #[error("There was a problem reading the config file.\n  {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the position.
        reason: String,
    },
    /// Values have the wrong type, or cannot work.
    #[error(transparent)]
    Invalid(#[from] validate::Problems),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Finds and reads the settings of the process: file, `.env` next to it, `.env` of the working directory, environment.
///
/// No file is needed when none was named and the environment [`suffices`](Environment::suffices), as in a container.
///
/// # Errors
/// See [`LoadError`].
pub fn load(options: &LoadOptions) -> Result<Loaded, LoadError> {
    let found = match find(options) {
        Err(LoadError::NotFound(_)) if options.config.is_none() && options.dir.is_none() && Environment::of_process().suffices() => {
            let mut loaded = load(&LoadOptions { defaults: true, ..LoadOptions::default() })?;
            loaded.notes.insert(0, format!("there is no {TOML_FILE} and no {JSON_FILE} here: all settings come from the environment"));
            if !loaded.config.subscribers.redis && loaded.config.redis_server.enabled {
                let message = "no variable names a Redis: Laravel has to publish to this server's own port (redisServer.port), which by \
                               default other containers cannot reach; set LARAVEL_ECHO_SERVER_REDIS_HOST to listen to Laravel's Redis";
                loaded.warnings.insert(0, message.to_owned());
            }
            return Ok(loaded);
        }
        found => found?,
    };
    let beside = found.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let environment = Environment::read(&[beside, Path::new("")]);
    load_with(options, &environment)
}

/// [`load`] with the given environment.
///
/// # Errors
/// See [`LoadError`].
pub fn load_with(options: &LoadOptions, environment: &Environment) -> Result<Loaded, LoadError> {
    let Some(path) = find(options)? else { return resolve(None, Vec::new(), environment) };
    let warnings = ignored_neighbour(options, &path).into_iter().collect();
    let (tree, format) = read(&path)?;
    let mut loaded = resolve(Some((path, tree, format)), warnings, environment)?;
    loaded.warnings.extend(missing_script(&loaded.config));
    Ok(loaded)
}

/// Warns about a `clientPath` without a script: pages would load a different `socket.io.js` than intended, or none.
fn missing_script(config: &Config) -> Option<String> {
    let folder = config.socketio.client_path.as_ref().filter(|folder| !folder.join("socket.io.js").is_file())?;
    Some(format!(
        "`socketio.clientPath` is \"{}\", where no socket.io.js can be read; the folder `dist` of the npm package socket.io-client has one",
        secrets::shown_path(folder)
    ))
}

/// Resolves the settings of a file, if there is one, and of the environment.
fn resolve(file: Option<(PathBuf, Value, Format)>, warnings: Vec<String>, environment: &Environment) -> Result<Loaded, LoadError> {
    let (path, mut tree, format) = match file {
        Some((path, tree, format)) => (Some(path), tree, format),
        None => (None, Value::Object(Map::new()), Format::Toml),
    };
    let mut warnings = warnings;
    if format == Format::Json {
        original::translate(&mut tree, &mut warnings);
    }
    let mut layers = Layers { tree, sources: BTreeMap::new(), notes: Vec::new(), warnings };
    if let Some(path) = &path {
        layers.take_file(path);
    }
    layers.take_environment(environment, path.is_some())?;
    if path.is_none() {
        alone::fill_in(&mut layers);
    }
    legacy::fill_in(&mut layers, format);
    let odd_units = schema::odd_units(&layers.tree);
    layers.warnings.extend(odd_units);
    let mut config = layers.config()?;
    legacy::relax(&mut config, &mut layers, format);
    validate::check(&config).map_err(|problems| problems.with_sources(|key| layers.own_source(key).map(Source::to_string)))?;
    layers.warnings.extend(advice::warnings(&config));
    Ok(Loaded { config, path, notes: layers.notes, warnings: layers.warnings, sources: layers.sources })
}

/// Finds the config file.
///
/// # Errors
/// [`LoadError::NotFound`].
pub fn find(options: &LoadOptions) -> Result<Option<PathBuf>, LoadError> {
    if options.defaults {
        return Ok(None);
    }
    let dir = options.dir.clone().unwrap_or_default();
    let candidates = match &options.config {
        Some(config) => vec![dir.join(config)],
        None => vec![dir.join(TOML_FILE), dir.join(JSON_FILE)],
    };
    match candidates.iter().find(|path| is_there(path)) {
        Some(path) => Ok(Some(path.clone())),
        None => Err(LoadError::NotFound(candidates)),
    }
}

/// Whether the file exists, or may exist in a folder that cannot be read.
fn is_there(path: &Path) -> bool {
    match path.metadata() {
        Ok(metadata) => metadata.is_file(),
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

/// Warns about an ignored JSON file next to a TOML file, which is easily edited by mistake.
fn ignored_neighbour(options: &LoadOptions, path: &Path) -> Option<String> {
    let neighbour = path.with_file_name(JSON_FILE);
    let both = options.config.is_none() && path.file_name()? == TOML_FILE && neighbour.is_file();
    both.then(|| format!("{} is ignored, because {} exists", neighbour.display(), path.display()))
}

/// The format by the file's extension or, with another extension, by its first character.
#[must_use]
pub fn format_of(path: &Path, text: &str) -> Format {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => Format::Json,
        Some("toml") => Format::Toml,
        _ if text.trim_start().starts_with('{') => Format::Json,
        _ => Format::Toml,
    }
}

/// Reads a file into a tree of values.
///
/// # Errors
/// [`LoadError::Unreadable`].
pub fn read(path: &Path) -> Result<(Value, Format), LoadError> {
    let unreadable = |reason: String| LoadError::Unreadable { path: path.to_owned(), reason };
    let bytes = files::read(path).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(format!("not valid UTF-8: {error}")))?;
    parse(path, &text)
}

/// Parses the text of a file.
fn parse(path: &Path, text: &str) -> Result<(Value, Format), LoadError> {
    let unreadable = |reason: String| LoadError::Unreadable { path: path.to_owned(), reason };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let format = format_of(path, text);
    let tree = match format {
        Format::Json => serde_json::from_str(text).map_err(|error| unreadable(format!("not valid JSON: {error}")))?,
        Format::Toml => toml::from_str(text).map_err(|error| unreadable(format!("not valid TOML: {}", in_one_line(text, &error))))?,
    };
    match tree {
        Value::Object(_) => Ok((tree, format)),
        _ => Err(unreadable("expected an object of settings at the top".to_owned())),
    }
}

/// The error on one line: `line 294, column 8: unclosed array, expected ]`.
fn in_one_line(text: &str, error: &toml::de::Error) -> String {
    let mut message = error.message().lines().collect::<Vec<_>>().join(", ");
    let Some((before, rest)) = error.span().and_then(|span| text.split_at_checked(span.start)) else { return message };
    if message == "duplicate key" {
        let key = &rest[..error.span().map_or(0, |span| span.len().min(rest.len()))];
        message = format!("`{key}` is set twice");
        if let Some(line) = first_of(before, key) {
            message += &format!(", line {line} has it already");
        }
    }
    let (line, column) = (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    format!("line {line}, column {column}: {message}")
}

/// The line with the first occurrence of a duplicate `key`: the header of a table, or a key in the same table.
fn first_of(before: &str, key: &str) -> Option<usize> {
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let is_header = before[start..].trim_start().starts_with('[');
    let lines: Vec<_> = before[..start].lines().map(str::trim).collect();
    let found = if is_header {
        let header = format!("{}{key}", before[start..].trim());
        let is_same = |line: &&str| line.strip_prefix(header.as_str()).is_some_and(|rest| rest.starts_with([']', '.']));
        lines.iter().position(is_same)
    } else {
        let table = lines.iter().rposition(|line| line.starts_with('[')).map_or(0, |header| header + 1);
        let is_same = |line: &&str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', '.']));
        lines[table..].iter().position(is_same).map(|line| table + line)
    };
    found.map(|line| line + 1)
}

#[cfg(test)]
mod tests;
