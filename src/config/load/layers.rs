//! Merges the layers of settings. Input: the tree of a file, then variables over it, then rules for missing values.
//! Output: the typed [`Config`], with the source of each value.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::Source;
use crate::config::env::{self, BadVariable, Environment};
use crate::config::validate::{Problem, Problems};
use crate::config::{Config, schema, secrets};

/// The values so far and their sources.
pub(super) struct Layers {
    pub(super) tree: Value,
    pub(super) sources: BTreeMap<String, Source>,
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    pub(super) fn take_file(&mut self, path: &Path) {
        self.warnings.extend(schema::remarks(&self.tree));
        literal_variables(&self.tree, "", path, &mut self.warnings);
        let defaults = serde_json::to_value(Config::default()).expect("the default Config serialises");
        drop_unset(&mut self.tree, &defaults);
        for key in schema::paths() {
            if is_written(&self.tree, &key) {
                self.sources.insert(key, Source::File(path.to_owned()));
            }
        }
    }

    pub(super) fn take_environment(&mut self, environment: &Environment, has_file: bool) -> Result<(), Problems> {
        let overrides = environment.overrides(&mut self.warnings).map_err(|bad| {
            let problem = |bad: BadVariable| Problem {
                key: bad.name,
                entry: None,
                // The value may contain keys and passwords.
                value: "malformed".to_owned(),
                expected: bad.expected.to_owned(),
                remedy: bad.remedy,
                source: Some(bad.origin.to_string()),
            };
            Problems(bad.into_iter().map(problem).collect())
        })?;
        for item in overrides {
            let source = Source::Variable { name: item.name, origin: item.origin };
            self.set(&item.path, item.value, source);
        }
        for item in environment.of_images(|key| self.sources.contains_key(key), has_file, &mut self.notes, &mut self.warnings) {
            let source = Source::Variable { name: item.name, origin: item.origin };
            self.set(&item.path, item.value, source);
        }
        Ok(())
    }

    pub(super) fn set(&mut self, path: &str, value: Value, source: Source) {
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

    /// The typed settings, or all values of the wrong type, each with its key, its text and its source.
    pub(super) fn config(&self) -> Result<Config, Problems> {
        let (mut tree, shape) = (self.tree.clone(), schema::shape());
        let mut found: Vec<Problem> = Vec::new();
        for (key, expected) in schema::misplaced(&tree) {
            let value = if schema::at(&tree, &key).is_some_and(Value::is_array) { "a list" } else { "a single table" };
            found.push(self.problem(&key, value.to_owned(), expected));
            replace(&mut tree, &shape, &key);
        }
        loop {
            let error = match serde_path_to_error::deserialize(&tree) {
                Ok(config) if found.is_empty() => return Ok(config),
                Ok(_) => break,
                Err(error) => error,
            };
            let (key, message) = (error.path().to_string(), error.inner().to_string());
            // Continue with a valid value in place of this one, to find further errors.
            let is_replaced = match message.split('`').nth(1) {
                Some(field) if message.starts_with("missing field") => replace(&mut tree, &shape, &format!("{key}.{field}")),
                Some(_) if message.starts_with("unknown field") => remove(&mut tree, &key),
                _ => replace(&mut tree, &shape, &key),
            };
            let is_new = found.iter().all(|problem| problem.key != key);
            if is_new {
                found.push(self.type_problem(&key, &message));
            }
            if !is_new || !is_replaced {
                break;
            }
        }
        Err(Problems(found).with_entries(&self.tree))
    }

    /// The problem for an error of serde.
    fn type_problem(&self, key: &str, message: &str) -> Problem {
        if let Some(expected) = unknown_key(key, message) {
            return self.problem(key, "unknown".to_owned(), expected);
        }
        let expected = expected(message);
        // Tables and lists may have secrets in them, and so may what stands in place of one.
        let is_whole = matches!(expected.as_str(), schema::TABLE | schema::LIST);
        let value = match schema::at(&self.tree, key) {
            Some(_) if secrets::is_secret(key) => "of the wrong kind".into(),
            Some(Value::Object(_)) if message.starts_with("missing") => "incomplete".into(),
            Some(value @ (Value::Object(_) | Value::Array(_))) => secrets::kind_of(value),
            Some(value) if is_whole => secrets::kind_of(value),
            Some(value) => value.to_string().into(),
            None => "not usable".into(),
        };
        let mut problem = self.problem(key, value.into_owned(), expected);
        // The warning about such a text is not shown beside an error.
        if schema::at(&self.tree, key).and_then(Value::as_str).is_some_and(names_a_variable) {
            problem.remedy = Some(format!("variables are not expanded in a config file: {}", instead_of_variable(key)));
        }
        problem
    }

    fn problem(&self, key: &str, value: String, expected: String) -> Problem {
        Problem { key: key.to_owned(), entry: None, value, expected, remedy: None, source: Some(self.source_of(key)) }
    }

    /// The source of a key that was set, or of the free-form table that it is in.
    pub(super) fn own_source(&self, key: &str) -> Option<&Source> {
        let plain = plain(key);
        self.sources.get(plain).or_else(|| self.sources.get(plain.rsplit_once('.')?.0))
    }

    /// The source of a key, or of the table that it is in.
    fn source_of(&self, key: &str) -> String {
        let plain = plain(key);
        let own = self.own_source(key);
        let within = || self.sources.iter().find(|(path, _)| path.starts_with(plain)).map(|(_, source)| source);
        let file = || self.sources.values().find(|source| matches!(source, Source::File(_)));
        own.or_else(within).or_else(file).map_or_else(|| "the configuration".to_owned(), Source::to_string)
    }
}

/// Warns about values such as `${VAR}` or `env('VAR')`, because variables are not expanded in files.
fn literal_variables(tree: &Value, key: &str, file: &Path, warnings: &mut Vec<String>) {
    match tree {
        Value::Object(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                literal_variables(value, &key, file, warnings);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                literal_variables(value, &format!("{key}[{index}]"), file, warnings);
            }
        }
        Value::String(text) if text.contains("${") && secrets::is_secret(key) || names_a_variable(text) => {
            let file = file.display();
            let shown = if secrets::is_secret(key) { String::new() } else { format!(", {:?}", secrets::without_secrets(text)) };
            let (shown_key, instead) = (schema::numbered(key), instead_of_variable(key));
            warnings.push(format!(
                "`{shown_key}` in {file} is used as written{shown}: variables are only replaced in the environment and in .env; {instead}"
            ));
        }
        Value::String(text) if key == "databaseConfig.redis.host" && text.contains("://") => {
            let scheme = text.split("://").next().unwrap_or_default();
            let instead = if scheme == "tls" {
                "leave out `tls://` and set `databaseConfig.redis.tls` to true"
            } else {
                "write it as `databaseConfig.redis.url`"
            };
            let shown = secrets::without_secrets(text);
            warnings.push(format!("`{key}` is {shown:?}, which is not a host name or an address: {instead}"));
        }
        _ => {}
    }
}

/// What to do about a variable in a file.
fn instead_of_variable(key: &str) -> String {
    // Not all keys have a variable: entries of lists have none.
    let is_named = env::names().values().any(|path| path == key);
    let or = is_named.then(|| format!(", or leave the key out and set {}", env::short_variable_of(key)));
    format!("write the value itself{}", or.unwrap_or_default())
}

/// Whether the text has a `${VAR}` in it, or is `$VAR`, `env('VAR')` or `process.env.VAR`.
pub(in crate::config) fn names_a_variable(text: &str) -> bool {
    let text = text.trim();
    let is_name = |name: &str| {
        name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
    };
    let mut braced = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    braced.any(is_name) || text.strip_prefix('$').is_some_and(is_name) || text.starts_with("env(") || text.starts_with("process.env.")
}

/// The name of the list in a key such as `clients[0].key`.
fn plain(key: &str) -> &str {
    key.split('[').next().unwrap_or(key)
}

/// Replaces a value of the wrong type, or the value that contains it, with one of the right type; `false` if there is none.
fn replace(tree: &mut Value, shape: &Value, key: &str) -> bool {
    let mut path = schema::pointer(key);
    while let Some((parent, last)) = path.rsplit_once('/') {
        // The shape has one entry per list, which stands for all.
        let of_shape: Vec<_> = path.split('/').map(|step| if step.parse::<usize>().is_ok() { "0" } else { step }).collect();
        if let (Some(good), Some(slot)) = (shape.pointer(&of_shape.join("/")), tree.pointer_mut(parent)) {
            match slot {
                Value::Object(table) => drop(table.insert(last.to_owned(), good.clone())),
                Value::Array(list) => match last.parse().ok().and_then(|index: usize| list.get_mut(index)) {
                    Some(item) => *item = good.clone(),
                    None => return false,
                },
                _ => return false,
            }
            return true;
        }
        path = parent.to_owned();
    }
    false
}

/// Removes an unknown key.
fn remove(tree: &mut Value, key: &str) -> bool {
    let Some((parent, last)) = key.rsplit_once('.') else { return false };
    tree.pointer_mut(&schema::pointer(parent)).and_then(Value::as_object_mut).is_some_and(|table| table.remove(last).is_some())
}

/// The key that was most likely meant by an unknown one.
fn unknown_key(path: &str, message: &str) -> Option<String> {
    let (key, known) = message.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    let siblings: Map<String, Value> = known.split('`').skip(1).step_by(2).map(|name| (name.to_owned(), Value::Null)).collect();
    let prefix = path.rsplit_once('.').map_or(path, |(prefix, _)| prefix);
    let meant = schema::nearest(prefix, key, &siblings).filter(|meant| meant.starts_with(prefix));
    Some(match meant.as_deref().and_then(|meant| meant.rsplit('.').next()) {
        Some(meant) => format!("`{meant}`"),
        None => known.to_owned(),
    })
}

/// What serde expected, in words for users of config files.
pub(super) fn expected(message: &str) -> String {
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("a value for {field}");
    }
    match message.rsplit_once("expected ").map_or(message, |(_, expected)| expected) {
        kind if kind.starts_with("struct ") || kind == "a map" => schema::TABLE.to_owned(),
        "a sequence" => schema::LIST.to_owned(),
        "a string" | "string or map" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "path string" => "a path".to_owned(),
        "i64" | "u64" => "a whole number, 0 or more".to_owned(),
        other => other.to_owned(),
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

/// Removes values that mean "not set": `null`, and `""` where the default is none.
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
