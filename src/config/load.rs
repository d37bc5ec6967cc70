//! Puts the settings together. Input: a TOML file or the original's JSON, `.env` files and the environment over it.
//! Output: a validated [`Config`] with what the operator should know about it; nothing is printed here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::env::{Environment, Origin};
use super::{Config, schema, validate};

mod alone;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod legacy;

/// The file that is looked for first.
pub const TOML_FILE: &str = "laravel-echo-server.toml";

/// The original's file, looked for next.
pub const JSON_FILE: &str = "laravel-echo-server.json";

/// All keys with their defaults and a comment, as it stands in the repository.
pub const DEFAULTS: &str = include_str!("../../laravel-echo-server.toml");

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Folder of the config file; the working directory if none is given.
    pub dir: Option<PathBuf>,
    /// The config file, relative to `dir`.
    pub config: Option<PathBuf>,
    /// Read no file and take the defaults.
    pub defaults: bool,
}

/// How a config file is written.
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

/// The settings and how they came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings, validated.
    pub config: Config,
    /// The file, unless the defaults were asked for.
    pub path: Option<PathBuf>,
    /// What the operator should be told.
    pub warnings: Vec<String>,
    /// Source of each value that is not a default, by key path.
    pub sources: BTreeMap<String, Source>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No file at the place that was named, or at the usual places.
    #[error(
        "The config file could not be found.\n  looked for: {}\n  `laravel-echo-server init` writes one, `--dir` and `--config` say where one is, \
         `start --defaults` runs without one",
        list(.0)
    )]
    NotFound(Vec<PathBuf>),
    /// The file is there, but cannot be read or is not TOML or JSON.
    #[error("There was a problem reading the config file.\n  {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place.
        reason: String,
    },
    /// A value is of the wrong kind.
    #[error("`{key}` is {value}, expected {expected}\n  set in {source_text}")]
    WrongValue {
        /// Key path.
        key: String,
        /// The value as it was written; secrets are masked.
        value: String,
        /// What was expected.
        expected: String,
        /// The file or variable.
        source_text: String,
    },
    /// The values are well formed but cannot work.
    #[error(transparent)]
    Invalid(#[from] validate::Problems),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Finds and reads the settings of the process: file, `.env` beside it, `.env` of the working directory, environment.
///
/// # Errors
/// See [`LoadError`].
pub fn load(options: &LoadOptions) -> Result<Loaded, LoadError> {
    let found = find(options)?;
    let beside = found.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let environment = Environment::read(&[beside, Path::new("")]);
    load_with(options, &environment)
}

/// [`load`] with the environment given.
///
/// # Errors
/// See [`LoadError`].
pub fn load_with(options: &LoadOptions, environment: &Environment) -> Result<Loaded, LoadError> {
    let Some(path) = find(options)? else { return resolve(None, Vec::new(), environment) };
    let warnings = ignored_neighbour(options, &path).into_iter().collect();
    let (tree, format) = read(&path)?;
    resolve(Some((path, tree, format)), warnings, environment)
}

/// The settings of a file, if there is one, and of the environment.
fn resolve(file: Option<(PathBuf, Value, Format)>, warnings: Vec<String>, environment: &Environment) -> Result<Loaded, LoadError> {
    let (path, tree, format) = match file {
        Some((path, tree, format)) => (Some(path), tree, format),
        None => (None, Value::Object(Map::new()), Format::Toml),
    };
    let mut layers = Layers { tree, sources: BTreeMap::new(), warnings };
    if let Some(path) = &path {
        layers.take_file(path);
    }
    layers.take_environment(environment)?;
    if path.is_none() {
        alone::fill_in(&mut layers);
    }
    legacy::fill_in(&mut layers, format);
    let mut config = layers.config()?;
    legacy::relax(&mut config, &mut layers, format);
    validate::check(&config)?;
    Ok(Loaded { config, path, warnings: layers.warnings, sources: layers.sources })
}

/// The file the options lead to.
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
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(Some(path.clone())),
        None => Err(LoadError::NotFound(candidates)),
    }
}

/// Two files side by side are easily edited in the wrong place.
fn ignored_neighbour(options: &LoadOptions, path: &Path) -> Option<String> {
    let neighbour = path.with_file_name(JSON_FILE);
    let both = options.config.is_none() && path.file_name()? == TOML_FILE && neighbour.is_file();
    both.then(|| format!("{} is not read, because {} is there", neighbour.display(), path.display()))
}

/// JSON if the name or, with another name, the first character says so.
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
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) => Err(LoadError::Unreadable { path: path.to_owned(), reason: error.to_string() }),
    }
}

/// Reads the text of a file.
fn parse(path: &Path, text: &str) -> Result<(Value, Format), LoadError> {
    let unreadable = |reason: String| LoadError::Unreadable { path: path.to_owned(), reason };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let format = format_of(path, text);
    let tree = match format {
        Format::Json => serde_json::from_str(text).map_err(|error| unreadable(format!("not valid JSON: {error}")))?,
        Format::Toml => toml::from_str(text).map_err(|error| unreadable(format!("not valid TOML: {}", error.to_string().trim_end())))?,
    };
    match tree {
        Value::Object(_) => Ok((tree, format)),
        _ => Err(unreadable("expected an object of settings at the top".to_owned())),
    }
}

/// The values so far and where they come from.
struct Layers {
    tree: Value,
    sources: BTreeMap<String, Source>,
    warnings: Vec<String>,
}

impl Layers {
    fn take_file(&mut self, path: &Path) {
        self.warnings.extend(schema::remarks(&self.tree));
        let defaults = serde_json::to_value(Config::default()).expect("the default Config serialises");
        drop_unset(&mut self.tree, &defaults);
        for key in schema::paths() {
            if is_written(&self.tree, &key) {
                self.sources.insert(key, Source::File(path.to_owned()));
            }
        }
    }

    fn take_environment(&mut self, environment: &Environment) -> Result<(), LoadError> {
        let overrides = environment.overrides(&mut self.warnings).map_err(|bad| LoadError::WrongValue {
            key: bad.name,
            value: "another text".to_owned(),
            expected: bad.expected.to_owned(),
            source_text: bad.origin.to_string(),
        })?;
        for item in overrides {
            let source = Source::Variable { name: item.name, origin: item.origin };
            self.set(&item.path, item.value, source);
        }
        Ok(())
    }

    fn set(&mut self, path: &str, value: Value, source: Source) {
        let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut self.tree;
        for key in parents.split('.').filter(|key| !key.is_empty()) {
            let Value::Object(object) = table else { return };
            table = object.entry(key).or_insert_with(|| Value::Object(Map::new()));
            if table.is_null() || table.is_boolean() {
                *table = Value::Object(Map::new());
            }
        }
        if let Value::Object(object) = table {
            object.insert(last.to_owned(), value);
            self.sources.insert(path.to_owned(), source);
        }
    }

    /// The typed settings; a value of the wrong kind is reported with its key, its text and its source.
    fn config(&self) -> Result<Config, LoadError> {
        serde_path_to_error::deserialize(&self.tree).map_err(|error| {
            let key = error.path().to_string();
            let message = error.inner().to_string();
            let expected = message.rsplit_once("expected ").map_or(message.as_str(), |(_, expected)| expected);
            let pointer = format!("/{}", key.replace(['.', '['], "/").replace(']', ""));
            let value = match self.tree.pointer(&pointer) {
                Some(_) if schema::is_secret(&key) => "of the wrong kind".to_owned(),
                Some(Value::Object(_)) if message.starts_with("missing") => "incomplete".to_owned(),
                Some(value) => value.to_string(),
                None => "not usable".to_owned(),
            };
            LoadError::WrongValue {
                expected: if message.starts_with("missing") {
                    message.replace("missing field", "a value for")
                } else {
                    expected.to_owned()
                },
                value,
                source_text: self.source_of(&key),
                key,
            }
        })
    }

    /// The source of a key, or of the table it stands in.
    fn source_of(&self, key: &str) -> String {
        let plain = key.split('[').next().unwrap_or(key);
        let own = self.sources.get(plain);
        let within = || self.sources.iter().find(|(path, _)| path.starts_with(plain)).map(|(_, source)| source);
        let file = || self.sources.values().find(|source| matches!(source, Source::File(_)));
        own.or_else(within).or_else(file).map_or_else(|| "the configuration".to_owned(), Source::to_string)
    }
}

/// Whether the tree has the key, or a plain value in place of its table (`tls = true`).
fn is_written(tree: &Value, path: &str) -> bool {
    let mut value = tree;
    for key in path.split('.') {
        match value {
            Value::Object(table) => match table.get(key) {
                Some(inner) => value = inner,
                None => return false,
            },
            _ => return true,
        }
    }
    true
}

/// Takes out what is written down but not set: `null`, and `""` where the default is "none".
fn drop_unset(tree: &mut Value, defaults: &Value) {
    if let Value::Object(table) = tree {
        table.retain(|key, value| {
            let default = defaults.get(key);
            !(value.is_null() || value.as_str() == Some("") && default.is_some_and(Value::is_null))
        });
        for (key, value) in table.iter_mut() {
            drop_unset(value, defaults.get(key).unwrap_or(&Value::Bool(false)));
        }
    }
}

#[cfg(test)]
mod tests;
