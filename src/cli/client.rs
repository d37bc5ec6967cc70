//! `client:add` and `client:remove`: the applications that may use the HTTP API. Input: the config file as text.
//! Output: the same file with one client more or less; comments, order and unknown keys are preserved.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use data_encoding::HEXLOWER;
use laravel_echo_server::config::load::{self, Format};
use serde_json::{Value, json};

use super::lock_file::{self, Found};
use super::output::{CAUTION, GOOD, STRONG, paint};
use super::{ConfigLocation, config_file, output};

mod toml_clients;

/// Random bytes of an id, as in the original (`src/cli/cli.ts:507`).
const ID_BYTES: usize = 8;

/// Random bytes of a key.
const KEY_BYTES: usize = 16;

/// Flags of `client:add`.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// The id [default: a random one]
    id: Option<String>,
    #[command(flatten)]
    place: ConfigLocation,
}

/// Flags of `client:remove`.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The id
    id: String,
    #[command(flatten)]
    place: ConfigLocation,
}

/// What `client:add` did.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Added,
    Updated,
}

impl Add {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let id = self.id.unwrap_or_else(random_hex::<ID_BYTES>);
        anyhow::ensure!(!id.is_empty(), "the id is empty, expected a name such as `my-app`");
        let key = random_hex::<KEY_BYTES>();
        let file = ConfigFile::read(&self.place)?;
        let (text, change) = file.with_client(&id, &key)?;
        config_file::write(&file.path, &text)?;
        let word = if change == Change::Added { "added" } else { "updated" };
        output::line(paint(GOOD, format!("API Client {word}!")));
        output::line(format!("appId: {}", paint(STRONG, &id)));
        output::line(format!("key: {}", paint(STRONG, &key)));
        say_when(&file.path);
        Ok(ExitCode::SUCCESS)
    }
}

impl Remove {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let file = ConfigFile::read(&self.place)?;
        let text = file.without_client(&self.id)?;
        config_file::write(&file.path, &text)?;
        output::line(paint(GOOD, format!("Client removed: {}", self.id)));
        say_when(&file.path);
        Ok(ExitCode::SUCCESS)
    }
}

/// `BYTES` random bytes in hexadecimal.
pub(super) fn random_hex<const BYTES: usize>() -> String {
    HEXLOWER.encode(&rand::random::<[u8; BYTES]>())
}

/// A new client with a random id and key.
pub(super) fn random_client() -> Value {
    json!({"appId": random_hex::<ID_BYTES>(), "key": random_hex::<KEY_BYTES>()})
}

struct ConfigFile {
    path: PathBuf,
    text: String,
    format: Format,
}

/// Says how to apply the change, if a server is running with this file.
fn say_when(config: &Path) {
    if let Ok(Found::Held(holder)) = lock_file::look(&lock_file::beside(config)) {
        let hang_up = holder.process.map_or_else(|| "SIGHUP".to_owned(), |process| format!("`kill -HUP {process}`"));
        let when = if cfg!(unix) { format!("{hang_up}, or a restart") } else { "a restart".to_owned() };
        output::line(paint(CAUTION, format!("The running server applies the change after {when}.")));
    }
}

impl ConfigFile {
    fn read(place: &ConfigLocation) -> anyhow::Result<Self> {
        let path = load::find(&place.options())?.context("there is no config file")?;
        // Rejects an invalid file, naming the position of the error.
        let (_, format) = load::read(&path)?;
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
        Ok(Self { path, text, format })
    }

    fn with_client(&self, id: &str, key: &str) -> anyhow::Result<(String, Change)> {
        match self.format {
            Format::Toml => toml_clients::add(&self.text, id, key).with_context(|| self.editing()),
            Format::Json => self.edit_json(|clients| match clients.iter_mut().find(|client| is(client, id)) {
                Some(client) => {
                    client["key"] = key.into();
                    Ok(Change::Updated)
                }
                None => {
                    clients.push(json!({"appId": id, "key": key}));
                    Ok(Change::Added)
                }
            }),
        }
    }

    fn without_client(&self, id: &str) -> anyhow::Result<String> {
        match self.format {
            Format::Toml => toml_clients::remove(&self.text, id).with_context(|| self.editing()),
            Format::Json => {
                let edited = self.edit_json(|clients| {
                    let known = clients.iter().map(app_id).collect::<Vec<_>>();
                    let index = known.iter().position(|known| known == id).ok_or_else(|| unknown(id, &known))?;
                    clients.remove(index);
                    Ok(())
                });
                edited.map(|(text, ())| text)
            }
        }
    }

    fn edit_json<T>(&self, edit: impl FnOnce(&mut Vec<Value>) -> anyhow::Result<T>) -> anyhow::Result<(String, T)> {
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(&self.text);
        let mut tree: Value = serde_json::from_str(text).with_context(|| self.editing())?;
        let clients = tree.as_object_mut().map(|table| table.entry("clients").or_insert_with(|| json!([])));
        let clients = match clients {
            Some(Value::Array(clients)) => clients,
            Some(null @ Value::Null) => {
                *null = json!([]);
                null.as_array_mut().expect("a list was just put there")
            }
            _ => anyhow::bail!("`clients` in `{}` is not a list, expected [{{\"appId\": …, \"key\": …}}]", self.path.display()),
        };
        let result = edit(clients)?;
        Ok((config_file::json_text(&tree, text), result))
    }

    fn editing(&self) -> String {
        format!("editing `{}`", self.path.display())
    }
}

/// The id of a client; old files may have numbers.
fn app_id(client: &Value) -> String {
    match client.get("appId") {
        Some(Value::String(id)) => id.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn is(client: &Value, id: &str) -> bool {
    client.is_object() && app_id(client) == id
}

/// Compat: the original removes its last client if the id is unknown.
fn unknown(id: &str, known: &[String]) -> anyhow::Error {
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    anyhow::anyhow!("there is no client `{id}`, nothing was removed; the clients are: {known}")
}
