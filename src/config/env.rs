//! Environment variables; no other module reads them. Input: the process environment and `.env` files. Output: values for
//! config keys, which [`super::load`] applies over the file.
//!
//! Every key has the variable `LARAVEL_ECHO_SERVER_` + its path in capitals (`auth.tls.verify` is
//! `LARAVEL_ECHO_SERVER_AUTH_TLS_VERIFY`); the original's twelve names (`src/cli/cli.ts:29-42`) work as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{schema, secrets};
use crate::files;

mod dotenv;
mod images;

/// The prefix of all variables.
pub const PREFIX: &str = "LARAVEL_ECHO_SERVER_";

/// How many levels of `${VAR}` are expanded; more count as a cycle.
const MAX_EXPANSIONS: u8 = 8;

/// A misspelled name may differ from a known one in one letter per this many, at most in two.
const NEAR: usize = 6;

/// Irregular names, without the prefix, and their keys.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("DEBUG", "devMode"),
    ("PROTO", "protocol"),
    ("SSL_CERT", "sslCertPath"),
    ("SSL_KEY", "sslKeyPath"),
    ("SSL_CHAIN", "sslCertChainPath"),
    ("SSL_PASS", "sslPassphrase"),
    ("REDIS_PREFIX", "databaseConfig.redis.keyPrefix"),
    ("REDIS_TLS", "databaseConfig.redis.tls.enabled"),
];

/// Where a variable was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The environment of the process.
    Process,
    /// A `.env` file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("the environment"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A value for a config key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Override {
    pub(super) path: String,
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// All variables; the first layer that sets a variable wins.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    layers: Vec<(Origin, BTreeMap<String, String>)>,
    /// Warnings about files that could not be read.
    warnings: Vec<String>,
}

impl Environment {
    /// The process environment, then the `.env` of each directory in turn.
    ///
    /// An unreadable file is skipped with a warning (without one in the original): Laravel's `.env` often belongs to
    /// another user, and everything in it can be set elsewhere.
    #[must_use]
    pub fn read(directories: &[&Path]) -> Self {
        let mut environment = Self::of_process();
        let mut seen = Vec::new();
        for directory in directories {
            let path = directory.join(".env");
            let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
            if seen.contains(&identity) {
                continue;
            }
            seen.push(identity);
            match files::read(&path) {
                Ok(bytes) => environment.push_file(path, &String::from_utf8_lossy(&bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => environment.warnings.push(format!("`{}` cannot be read and is ignored: {error}", path.display())),
            }
        }
        environment
    }

    /// Only the process environment.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut environment = Self::default();
        environment.push(Origin::Process, variables);
        environment
    }

    /// Whether it says where the application or its Redis is, or who may publish, by this server's names or those of an image of the
    /// original: enough to start without a file. A port or a debug mode alone is not.
    #[must_use]
    pub fn suffices(&self) -> bool {
        let is_enough = |item: &Override| matches!(&*item.path, "authHost" | "clients") || item.path.starts_with("databaseConfig.redis.");
        let of_images = self.of_images(|_| false, false, &mut Vec::new(), &mut Vec::new());
        // Invalid variables count too: the start that follows reports them.
        self.overrides(&mut Vec::new()).map_or(true, |own| own.iter().chain(&of_images).any(is_enough))
    }

    /// Every variable, unexpanded.
    #[must_use]
    pub fn variables(&self) -> BTreeMap<String, String> {
        let layers = self.layers.iter().rev().flat_map(|(_, variables)| variables);
        layers.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Adds a layer below the existing ones.
    pub fn push(&mut self, origin: Origin, variables: impl IntoIterator<Item = (String, String)>) {
        self.layers.push((origin, variables.into_iter().collect()));
    }

    /// Adds the text of a `.env` file below the existing layers.
    pub(super) fn push_file(&mut self, path: PathBuf, text: &str) {
        self.push(Origin::File(path), dotenv::parse(text));
    }

    /// The value of a variable and where it was set. An empty one counts as not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<(&str, &Origin)> {
        self.layers.iter().find_map(|(origin, variables)| {
            let value = variables.get(name).filter(|value| !value.is_empty())?;
            Some((value.as_str(), origin))
        })
    }

    /// The value with every `${VAR}` expanded; `None` if the variable is not set or the result is empty.
    pub fn expanded(&self, name: &str, warnings: &mut Vec<String>) -> Option<(String, &Origin)> {
        let (text, origin) = self.get(name)?;
        let mut gaps = Vec::new();
        let value = self.expand(name, text, MAX_EXPANSIONS, &mut gaps);
        warnings.extend(gaps.into_iter().map(|gap| format!("{gap}; that part is left empty")));
        // Laravel's default .env has REDIS_PASSWORD=null, which means none.
        (!value.is_empty() && value != "null" && value != "(null)").then_some((value, origin))
    }

    /// Compat: the original replaces the whole value with the variable's; here the text around it is kept, and what is left empty
    /// is added to `gaps`.
    fn expand(&self, name: &str, text: &str, depth: u8, gaps: &mut Vec<String>) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let Some(len) = rest[start..].find('}') else { break };
            out.push_str(&rest[..start]);
            let inner = &rest[start + 2..start + len];
            match self.get(inner) {
                Some((value, _)) if depth > 0 => out.push_str(&self.expand(name, value, depth - 1, gaps)),
                Some(_) => gaps.push(format!("`{name}` refers to itself through `${{{inner}}}`")),
                None => gaps.push(format!("`{name}` refers to `${{{inner}}}`, which is not set")),
            }
            rest = &rest[start + len + 1..];
        }
        out + rest
    }

    /// The values for config keys, and warnings about misspelled names.
    pub(super) fn overrides(&self, warnings: &mut Vec<String>) -> Result<Vec<Override>, Vec<BadVariable>> {
        warnings.extend_from_slice(&self.warnings);
        let names = names();
        let shape = schema::shape();
        let (mut overrides, mut bad) = (Vec::new(), Vec::new());
        for (name, path) in &names {
            let Some((text, origin)) = self.get(name) else { continue };
            let bad_variable = |expected, remedy| BadVariable { name: name.clone(), origin: origin.clone(), expected, remedy };
            let mut gaps = Vec::new();
            if has_secret(path, text) {
                self.expand(name, text, MAX_EXPANSIONS, &mut gaps);
            }
            gaps.dedup();
            if !gaps.is_empty() {
                bad.push(bad_variable(WHOLE_SECRET, Some(gaps.join("\n    "))));
                continue;
            }
            let Some((text, _)) = self.expanded(name, warnings) else { continue };
            let text = without_blanks(path, &text);
            if text.is_empty() {
                continue;
            }
            let kind = schema::at(&shape, path).unwrap_or(&Value::Null);
            match to_value(kind, text) {
                Ok(value) => overrides.push(Override { path: path.clone(), name: name.clone(), origin: origin.clone(), value }),
                Err(expected) => bad.push(bad_variable(expected, None)),
            }
        }
        if !bad.is_empty() {
            return Err(bad);
        }
        warnings.extend(self.strangers(&names));
        // A key can have two names: the one in the layer with precedence is applied last.
        overrides.sort_by_key(|item| std::cmp::Reverse(self.layers.iter().position(|(origin, _)| *origin == item.origin)));
        Ok(overrides)
    }

    /// The values of the variables of the original's Docker images, for keys that nothing else sets.
    pub(super) fn of_images(
        &self,
        is_set: impl Fn(&str) -> bool,
        has_file: bool,
        notes: &mut Vec<String>,
        warnings: &mut Vec<String>,
    ) -> Vec<Override> {
        let shape = schema::shape();
        let value = |path: &str, text: &str| to_value(schema::at(&shape, path).unwrap_or(&Value::Null), text).ok();
        images::overrides(self, is_set, has_file, value, (notes, warnings))
    }

    /// Warns about variables with the prefix whose name is similar to a known one. Others are ignored: applications use
    /// variables such as `LARAVEL_ECHO_SERVER_URL` for themselves.
    fn strangers(&self, names: &BTreeMap<String, String>) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut seen = BTreeSet::new();
        for (origin, variables) in &self.layers {
            for name in variables.keys() {
                let Some(rest) = name.strip_prefix(PREFIX) else { continue };
                if names.contains_key(name) || images::knows(name) || is_service_link(rest) || !seen.insert(name) {
                    continue;
                }
                let distance = |known: &str| strsim::damerau_levenshtein(name, known);
                let near = names.keys().map(|known| (distance(known), known)).min();
                // A table instead of its `enabled`, or an abbreviated name: CLUSTER, REDIS_PASS.
                let is_longer = |known: &&String| {
                    let more = known.strip_prefix(name.as_str()).unwrap_or_default();
                    more == "_ENABLED" || rest.contains('_') && !more.is_empty() && !more.starts_with('_')
                };
                let longer = || names.keys().find(is_longer);
                let near = near.filter(|(distance, _)| *distance <= (rest.len() / NEAR).clamp(1, 2)).map(|(_, known)| known);
                if let Some(near) = near.or_else(longer) {
                    warnings.push(format!("`{name}` in {origin} matches no config key, did you mean `{near}`?"));
                }
            }
        }
        warnings
    }
}

/// Trims the text: env files with CRLF or with comments leave whitespace at its end. Secrets and the prefix may contain
/// spaces at the ends, so only line ends are removed from them.
fn without_blanks<'a>(path: &str, text: &'a str) -> &'a str {
    if secrets::is_secret(path) || path == "databaseConfig.redis.keyPrefix" { text.trim_end_matches(['\r', '\n']) } else { text.trim() }
}

/// Whether the text for a key has a secret in it: passwords of lists, or in the address of the application.
fn has_secret(path: &str, text: &str) -> bool {
    secrets::is_secret(path) || matches!(path, "clients" | "webhooks") || path == "authHost" && text.contains('@')
}

/// What is expected where a part of a secret would be left empty: an empty one would let anyone in.
const WHOLE_SECRET: &str = "every variable in it (`${…}`) to be set";

/// A variable whose text is not the list, table or secret that its key needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadVariable {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) expected: &'static str,
    /// How to fix it, if `expected` does not make that clear.
    pub(super) remedy: Option<String>,
}

/// Whether Kubernetes or Docker links set this for a service named `laravel-echo-server`.
fn is_service_link(rest: &str) -> bool {
    rest.starts_with("SERVICE_HOST")
        || rest.starts_with("SERVICE_PORT")
        || rest.strip_prefix("PORT_").is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()))
}

/// Every name with its key path.
#[must_use]
pub fn names() -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for path in schema::paths() {
        if let Some(key) = path.strip_prefix("databaseConfig.redis.") {
            names.insert(format!("{PREFIX}REDIS_{}", screaming(key)), path.clone());
        }
        names.insert(variable_of(&path), path);
    }
    // Added last: no short name equals the regular name of another key.
    names.extend(SHORT_NAMES.iter().map(|(name, path)| (format!("{PREFIX}{name}"), (*path).to_owned())));
    names
}

/// The variable of a key.
fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", screaming(path))
}

/// The shortest variable of a key, for messages.
pub(super) fn short_variable_of(path: &str) -> String {
    match (SHORT_NAMES.iter().find(|(_, key)| *key == path), path.strip_prefix("databaseConfig.redis.")) {
        (Some((name, _)), _) => format!("{PREFIX}{name}"),
        (None, Some(key)) => format!("{PREFIX}REDIS_{}", screaming(key)),
        (None, None) => variable_of(path),
    }
}

/// `auth.tls.rejectUnauthorized` as `AUTH_TLS_REJECT_UNAUTHORIZED`.
fn screaming(path: &str) -> String {
    let mut name = String::new();
    for c in path.chars() {
        match c {
            '.' => name.push('_'),
            c if c.is_ascii_uppercase() => name.extend(['_', c]),
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

/// Converts text to the kind of value that its key holds. Lists are comma separated; lists of tables are `appId:key` or
/// `host:port` pairs, `headers` are `Name: value` pairs; each of them can also be JSON.
fn to_value(kind: &Value, text: &str) -> Result<Value, &'static str> {
    let json = || serde_json::from_str::<Value>(text).map_err(|_| "valid JSON");
    let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
    match kind {
        Value::Array(_) if text.trim_start().starts_with('[') => json(),
        Value::Object(_) if text.trim_start().starts_with('{') => json(),
        Value::Array(sample) => match sample.first().and_then(Value::as_object) {
            None => Ok(items().collect()),
            Some(table) if table.contains_key("pattern") => Err("a list of tables in JSON, such as [{\"pattern\": \"private-doc.*\"}]"),
            Some(table) if table.contains_key("url") => Err("a list of tables in JSON, such as [{\"url\": \"https://app.test/webhooks\"}]"),
            Some(table) if table.contains_key("appId") => pairs(items(), "appId", "key").ok_or("appId:key pairs, separated by commas"),
            Some(_) => pairs(items(), "host", "port").ok_or("host:port pairs, separated by commas"),
        },
        Value::Object(_) => {
            let headers = items().map(|item| item.split_once(':').map(|(name, value)| (name.trim().to_owned(), json!(value.trim()))));
            headers.collect::<Option<_>>().map(Value::Object).ok_or("`Name: value` pairs, separated by commas")
        }
        _ => Ok(json!(text)),
    }
}

fn pairs<'a>(items: impl Iterator<Item = &'a str>, left: &str, right: &str) -> Option<Value> {
    items.map(|item| item.rsplit_once(':').map(|(a, b)| json!({left: a, right: b}))).collect()
}

/// The filter of `RUST_LOG`, if it is set.
#[must_use]
pub fn rust_log() -> Option<String> {
    set("RUST_LOG")
}

/// Whether the user has turned colours off (<https://no-color.org>).
#[must_use]
pub fn no_color() -> bool {
    set("NO_COLOR").is_some() || set("TERM").is_some_and(|term| term == "dumb")
}

/// What Windows calls this machine.
#[cfg(not(unix))]
#[must_use]
pub fn computer_name() -> Option<String> {
    set("COMPUTERNAME")
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests;
