//! Writes config files. Input: text, or values for keys. Output: the file, replaced atomically, or the commented TOML of
//! the repository with those values filled in.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use laravel_echo_server::config::load::DEFAULTS;
use serde_json::Value;

/// The mode of a new file: it may contain passwords and keys, and the server may run as another user in its group.
#[cfg(unix)]
const NEW_FILE_MODE: u32 = 0o640;

/// Replaces the file at `path` atomically: a reader sees the old text or the new one. Mode and owner are kept. On Windows the
/// new file inherits the permissions of its folder.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let writing = || format!("writing `{}`", path.display());
    // Follow a symlink, so that it is not replaced by a file.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let old = target.metadata().ok();
    let name = target.file_name().with_context(writing)?.to_string_lossy();
    let temporary = target.with_file_name(format!(".{name}.{:016x}.tmp", rand::random::<u64>()));
    let mut file = create(&temporary).with_context(writing)?;
    let written = (|| {
        if let Some(old) = &old {
            keep_rights(&file, old)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &target)
    })();
    if written.is_err() && temporary.exists() {
        std::fs::remove_file(&temporary).with_context(writing)?;
    }
    written.with_context(writing)
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(NEW_FILE_MODE).open(path)
}

#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<File> {
    File::create_new(path)
}

/// Gives the file the owner and mode of the old one.
#[cfg(unix)]
fn keep_rights(file: &File, old: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    // Only root can change the owner; for other users, keeping the mode has to be enough.
    if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
        match std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid())) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o7777))
}

#[cfg(not(unix))]
const fn keep_rights(_file: &File, _old: &Metadata) -> io::Result<()> {
    Ok(())
}

/// The start of the paragraph in the shipped file that explains why it needs no Redis.
const WITHOUT_REDIS: &str = "# Two keys differ from their defaults";

/// The commented TOML with all defaults, to be filled in.
pub(super) struct Template {
    lines: Vec<String>,
}

impl Template {
    pub(super) fn new() -> Self {
        let mut lines: Vec<String> = DEFAULTS.lines().map(str::to_owned).collect();
        if let Some(start) = lines.iter().position(|line| line.starts_with(WITHOUT_REDIS)) {
            let paragraph = lines[start..].iter().position(|line| line == "#").unwrap_or(0);
            lines.drain(start..=start + paragraph);
        }
        let mut template = Self { lines };
        // The shipped file works without Redis. A file for a project starts with the original's defaults instead.
        template.set("subscribers.redis", &true.into());
        template.set("redisServer.enabled", &false.into());
        template
    }

    /// Sets a key, uncommenting it if necessary; `false` if there is no such key.
    pub(super) fn set(&mut self, path: &str, value: &Value) -> bool {
        let Some(line) = self.line_of(path) else { return false };
        self.lines[line] = pair(path.rsplit('.').next().unwrap_or(path), value);
        true
    }

    /// Writes a comment above a key.
    pub(super) fn remark(&mut self, path: &str, text: &str) {
        if let Some(line) = self.line_of(path) {
            self.lines.insert(line, format!("# {text}"));
        }
    }

    /// The line of a key, which may be commented out.
    fn line_of(&self, path: &str) -> Option<usize> {
        let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
        let (start, end) = self.table(table)?;
        let names_key = |line: &String| line.strip_prefix('#').unwrap_or(line).split_once('=').is_some_and(|(name, _)| name.trim() == key);
        Some(start + self.lines[start..end].iter().position(names_key)?)
    }

    /// The range of lines of the table `name`: after its header, up to the next header.
    fn table(&self, name: &str) -> Option<(usize, usize)> {
        let is_header = |line: &String| line.starts_with('[') || line.starts_with("#[");
        let start = if name.is_empty() { 0 } else { self.lines.iter().position(|line| *line == format!("[{name}]"))? + 1 };
        let len = self.lines[start..].iter().position(is_header).unwrap_or(self.lines.len() - start);
        Some((start, start + len))
    }

    /// Replaces the example at the end of the file with these clients.
    pub(super) fn set_clients(&mut self, clients: &[Value]) {
        let Some(start) = self.example("clients", clients) else { return };
        self.lines.truncate(start);
        self.lines.extend(tables("clients", clients));
        self.lines.pop();
    }

    /// Replaces the example of a webhook with these webhooks.
    pub(super) fn set_webhooks(&mut self, webhooks: &[Value]) {
        let Some(start) = self.example("webhooks", webhooks) else { return };
        let len = self.lines[start..].iter().position(String::is_empty).map_or(self.lines.len() - start, |len| len + 1);
        self.lines.splice(start..start + len, tables("webhooks", webhooks));
    }

    /// Inserts channel rules before their examples.
    pub(super) fn set_channels(&mut self, rules: &[Value]) {
        let Some(start) = self.example("channels", rules) else { return };
        self.lines.splice(start..start, tables("channels", rules));
    }

    /// The line at which the example of a list of tables begins, unless there is nothing to write there.
    fn example(&self, name: &str, items: &[Value]) -> Option<usize> {
        let header = format!("#[[{name}]]");
        self.lines.iter().position(|line| *line == header).filter(|_| !items.is_empty())
    }

    /// Fills in the `headers` table, whose keys are header names.
    pub(super) fn set_headers<'a>(&mut self, headers: impl Iterator<Item = (&'a String, &'a Value)>) {
        let Some((start, _)) = self.table("headers") else { return };
        self.lines.splice(start..start, headers.map(|(name, value)| pair(name, value)).collect::<Vec<_>>());
    }

    /// Adds a comment below the introduction.
    pub(super) fn note(&mut self, text: &str) {
        let end = self.lines.iter().position(String::is_empty).unwrap_or(0);
        let lines = std::iter::once("#".to_owned()).chain(text.lines().map(|line| format!("# {line}")));
        self.lines.splice(end..end, lines.collect::<Vec<_>>());
    }

    pub(super) fn text(&self) -> String {
        self.lines.join("\n") + "\n"
    }
}

/// The lines of a list of tables, each followed by an empty line.
fn tables(name: &str, items: &[Value]) -> Vec<String> {
    let table = |item: &Value| {
        let pairs = item.as_object().into_iter().flatten().map(|(key, value)| pair(key, value));
        [format!("[[{name}]]")].into_iter().chain(pairs).chain([String::new()]).collect::<Vec<_>>()
    };
    items.iter().flat_map(table).collect()
}

fn pair(key: &str, value: &Value) -> String {
    format!("{} = {}", toml_key(key), toml_value(value))
}

fn toml_key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if is_bare { key.to_owned() } else { toml_value(&key.into()) }
}

/// A JSON value as TOML on one line.
pub(super) fn toml_value(value: &Value) -> String {
    match value {
        // TOML has no null; an empty string stands for "not set".
        Value::Null => "\"\"".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(table) if table.is_empty() => "{}".to_owned(),
        Value::Object(table) => {
            let pairs: Vec<_> = table.iter().map(|(key, value)| pair(key, value)).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::String(text) => toml_edit::Value::from(text.as_str()).to_string(),
        other => other.to_string(),
    }
}

/// JSON with the same indentation as `like`.
pub(super) fn json_text(value: &Value, like: &str) -> String {
    let indent = like.lines().find_map(|line| {
        let rest = line.trim_start_matches([' ', '\t']);
        (rest.starts_with('"') && rest.len() < line.len()).then(|| &line[..line.len() - rest.len()])
    });
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.unwrap_or("\t").as_bytes());
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("JSON values serialise to memory");
    let mut text = String::from_utf8(bytes).expect("JSON is UTF-8");
    if like.is_empty() || like.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use laravel_echo_server::config::{Config, schema};
    use serde_json::json;

    fn parsed(template: &Template) -> Value {
        toml::from_str(&template.text()).unwrap()
    }

    #[test]
    fn every_single_key_can_be_filled_in() {
        let defaults = serde_json::to_value(Config::default()).unwrap();
        for path in schema::paths().iter().filter(|path| !matches!(path.as_str(), "channels" | "clients" | "headers" | "webhooks")) {
            let mut template = Template::new();
            let value = path.split('.').fold(&defaults, |table, key| &table[key]);
            assert!(template.set(path, value), "{path}");
            let tree = parsed(&template);
            let got = path.split('.').fold(&tree, |table, key| &table[key]);
            assert!(got == value || value.is_null(), "{path}: {got}");
        }
        assert!(!Template::new().set("flavour", &json!(1)));
        assert!(!Template::new().set("auth.flavour", &json!(1)));
    }

    #[test]
    fn untouched_it_is_the_defaults() {
        let template = Template::new();
        let config: Config = serde_json::from_value(parsed(&template)).unwrap();
        assert_eq!(config, Config::default());
        assert!(!template.text().contains("differ"));
    }

    #[test]
    fn clients_headers_and_notes_are_filled_in() {
        let mut template = Template::new();
        template.set_clients(&[json!({"appId": "a\"b", "key": "k"}), json!({"appId": "c", "key": "d"})]);
        template.set_channels(&[json!({"pattern": "a.*", "last": 5}), json!({"pattern": "b", "webhooks": ["member_added"]})]);
        template.set_headers(json!({"X-A": "b", "odd key": "c"}).as_object().unwrap().iter());
        template.note("one\ntwo");
        let tree = parsed(&template);
        assert_eq!(tree["clients"], json!([{"appId": "a\"b", "key": "k"}, {"appId": "c", "key": "d"}]));
        assert_eq!(tree["channels"], json!([{"pattern": "a.*", "last": 5}, {"pattern": "b", "webhooks": ["member_added"]}]));
        assert_eq!(tree["headers"], json!({"X-A": "b", "odd key": "c"}));
        assert!(template.text().contains("#\n# one\n# two\n\n"));
    }

    #[test]
    fn json_keeps_its_indentation() {
        for text in ["{\n\t\"a\": 1\n}", "{\n    \"a\": [\n        1\n    ]\n}\n", "{\n  \"b\": 1,\n  \"a\": {}\n}\n"] {
            assert_eq!(json_text(&serde_json::from_str(text).unwrap(), text), text);
        }
    }
}
