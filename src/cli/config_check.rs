//! `config check`: validates and shows the settings. Input: file and environment, as read by `start`. Output: every key
//! with its value and source; secrets are masked.

use std::process::ExitCode;

use clap::Args;
use laravel_echo_server::config::load::{self, Loaded, Source};
use laravel_echo_server::config::{Config, schema, secrets};
use laravel_echo_server::server;
use serde_json::{Map, Value, json};

use super::output::{self, BAD, FAINT, STRONG, paint};
use super::{ConfigSource, config_file};

/// Flags of `config check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    source: ConfigSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Omit keys that have their default value
    #[arg(long)]
    changed: bool,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut loaded = load::load(&self.source.options())?;
        let unusable = unusable_files(&loaded.config);
        let is_usable = unusable.is_empty();
        loaded.warnings.extend(unusable);
        let rows: Vec<_> = rows(&loaded).into_iter().filter(|row| !self.changed || row.is_changed).collect();
        if self.json {
            output::line(format!("{:#}", as_json(&loaded, rows)));
        } else {
            print(&loaded, &rows, is_usable);
        }
        Ok(if is_usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Warnings for files that `start` could not use on this machine, as this user.
fn unusable_files(config: &Config) -> Vec<String> {
    // Reading a key takes a crypto provider; nothing else in this process chooses one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let errors = server::unusable_files(config).into_iter().map(anyhow::Error::new);
    errors.map(|error| format!("`start` would fail here: {error:#}")).collect()
}

struct Row {
    path: String,
    value: Value,
    source: Option<Source>,
    /// Whether the value differs from the default.
    is_changed: bool,
}

fn rows(loaded: &Loaded) -> Vec<Row> {
    let mut resolved = serde_json::to_value(&loaded.config).expect("a Config serialises to JSON");
    let defaults = serde_json::to_value(Config::default()).expect("the default Config serialises to JSON");
    let row = |path: String| {
        let value = path.split('.').fold(&mut resolved, |table, key| &mut table[key]).take();
        let is_changed = value != *path.split('.').fold(&defaults, |table, key| &table[key]);
        Row { value: masked(&path, value), source: loaded.sources.get(&path).cloned(), is_changed, path }
    };
    schema::paths().into_iter().map(row).collect()
}

/// The value with every secret in it masked.
fn masked(path: &str, value: Value) -> Value {
    match value {
        Value::String(text) if !text.is_empty() && secrets::is_secret(path) => secrets::HIDDEN.into(),
        Value::String(text) => secrets::without_secrets(&text).into(),
        Value::Array(items) => items.into_iter().map(|item| masked(path, item)).collect(),
        Value::Object(table) => {
            let table = table.into_iter().map(|(key, value)| (key.clone(), masked(&format!("{path}.{key}"), value)));
            Value::Object(table.collect())
        }
        other => other,
    }
}

fn print(loaded: &Loaded, rows: &[Row], is_usable: bool) {
    let width = rows.iter().map(|row| row.path.len()).max().unwrap_or(0);
    for row in rows {
        let value = match &row.value {
            Value::Null => paint(FAINT, "unset"),
            value => paint(STRONG, config_file::toml_value(value)),
        };
        let source = row.source.as_ref().map_or_else(|| paint(FAINT, "default"), Source::to_string);
        output::line(format!("{:width$}  {value}  ({source})", row.path));
    }
    loaded.notes.iter().for_each(|note| output::line(paint(FAINT, note)));
    loaded.warnings.iter().for_each(output::warning);
    let what = loaded.path.as_ref().map_or_else(String::new, |path| format!(" {}", path.display()));
    if is_usable {
        output::done(format!("The configuration{what} is valid."));
    } else {
        output::line(paint(BAD, format!("✖  The configuration{what} cannot be used here: see the warnings.")));
    }
}

fn as_json(loaded: &Loaded, rows: Vec<Row>) -> Value {
    let values = rows.into_iter().map(|row| {
        let source = row.source.map_or_else(|| "default".to_owned(), |source| source.to_string());
        (row.path, json!({"value": row.value, "source": source}))
    });
    json!({
        "file": loaded.path,
        "notes": loaded.notes,
        "warnings": loaded.warnings,
        "values": values.collect::<Map<_, _>>(),
    })
}
