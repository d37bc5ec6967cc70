//! `import`: turns a `laravel-echo-server.json` into the commented TOML. Input: that file. Output: an equivalent TOML file
//! next to it, and warnings about settings that are unsafe or have no effect.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use laravel_echo_server::config::env::Environment;
use laravel_echo_server::config::load::{self, Format, JSON_FILE, LoadOptions, Loaded, TOML_FILE};
use laravel_echo_server::config::{Config, Database, schema};
use serde_json::Value;

use super::config_file::{self, Template};
use super::output;
use super::output::{GOOD, paint};

/// Flags of `import`.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The JSON file
    #[arg(default_value = JSON_FILE)]
    from: PathBuf,
    /// The TOML file [default: laravel-echo-server.toml next to it]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite an existing TOML file
    #[arg(long)]
    force: bool,
}

impl Import {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if self.from.extension().is_some_and(|extension| extension == "js") {
            anyhow::bail!(
                "`{}` is a program, and only settings can be imported: save the object that it passes to `run({{…}})` as JSON in \
                 {JSON_FILE}, and run `laravel-echo-server start` there instead of `node {}`",
                self.from.display(),
                self.from.display()
            );
        }
        let options = LoadOptions { config: Some(self.from.clone()), ..LoadOptions::default() };
        // Without the environment, so that no secret from it ends up in the file.
        let loaded = load::load_with(&options, &Environment::default())?;
        let (tree, format) = load::read(&self.from)?;
        anyhow::ensure!(format == Format::Json, "`{}` is TOML already, expected a laravel-echo-server.json", self.from.display());
        let to = self.output.unwrap_or_else(|| self.from.with_file_name(TOML_FILE));
        anyhow::ensure!(
            self.force || !to.exists(),
            "`{}` exists and is left as it is; `--force` overwrites it, `--output` names another file",
            to.display()
        );

        config_file::write(&to, &translate(&tree, &loaded))?;
        // The new file gets the permissions of the old one: the server's user can read it, and no one else.
        let permissions = self.from.metadata().with_context(|| format!("reading `{}`", self.from.display()))?.permissions();
        std::fs::set_permissions(&to, permissions).with_context(|| format!("writing `{}`", to.display()))?;
        for remark in loaded.warnings.iter().cloned().chain(lint(&loaded)) {
            output::warning(remark);
        }
        output::line(paint(GOOD, format!("Configuration file saved: {}", to.display())));
        output::line(format!("`start` prefers it to {}, which can be deleted once everything works.", self.from.display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// The commented TOML with the values of `tree`, and with the JSON format's defaults for keys that are missing there.
fn translate(tree: &Value, loaded: &Loaded) -> String {
    let mut template = Template::new();
    let resolved = serde_json::to_value(&loaded.config).expect("a Config serialises to JSON");
    let defaults = serde_json::to_value(Config::default()).expect("the default Config serialises to JSON");
    for path in schema::paths().into_iter().filter(|path| !matches!(path.as_str(), "channels" | "clients" | "headers" | "webhooks")) {
        let at = |tree| path.split('.').fold(tree, |table: &Value, key| &table[key]).clone();
        let value = at(&resolved);
        let is_given = loaded.sources.contains_key(&path) || value != at(&defaults);
        if is_given && !value.is_null() {
            template.set(&path, &value);
        }
    }
    // Compat: the original passes this to a Socket.IO without such an option; these pages are what the user meant.
    let origins = tree.pointer("/socketio/cors/origin").filter(|_| !loaded.sources.contains_key("allowedOrigins"));
    if let Some(origins @ (Value::String(_) | Value::Array(_))) = origins {
        template.set("allowedOrigins", &origins.as_str().map_or_else(|| origins.clone(), |origin| serde_json::json!([origin])));
        template.remark("allowedOrigins", "Taken from `socketio.cors.origin` of laravel-echo-server.json, where it had no effect.");
    }
    template.set_headers(resolved["headers"].as_object().into_iter().flatten());
    if let Some(webhooks) = tree.get("webhooks").and_then(Value::as_array) {
        template.set_webhooks(webhooks);
    }
    template.set_channels(resolved["channels"].as_array().map_or(&[], Vec::as_slice));
    if let Some(clients) = tree.get("clients").and_then(Value::as_array) {
        template.set_clients(clients);
    }
    let unknown = unknown_keys(tree);
    if !unknown.is_empty() {
        template.note(&format!("Not imported from laravel-echo-server.json, because they have no effect here:\n{unknown}"));
    }
    template.text()
}

/// The unknown top-level keys, one per line.
fn unknown_keys(tree: &Value) -> String {
    let known = schema::paths();
    let is_known = |key: &str| known.iter().any(|path| path.split('.').next() == Some(key));
    let unknown = tree.as_object().into_iter().flatten().filter(|(key, _)| !is_known(key));
    unknown.map(|(key, value)| format!("  {key} = {}", config_file::toml_value(value))).collect::<Vec<_>>().join("\n")
}

/// Warnings about settings that work but are worth reconsidering.
fn lint(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let mut remarks = Vec::new();
    let mut remark = |applies: bool, text: &str| {
        if applies {
            remarks.push(text.to_owned());
        }
    };
    let any = |list: &[String]| list.iter().any(|origin| origin == "*");
    remark(
        any(&config.allowed_origins),
        "`allowedOrigins` is \"*\": any web page can open sockets on behalf of your users; list your application's origins",
    );
    remark(
        config.api_origin_allow.allow_cors && config.api_origin_allow.allow_origin == "*",
        "`apiOriginAllow.allowOrigin` is \"*\": the HTTP API is open to pages of all origins that know a key",
    );
    remark(
        config.database == Database::Redis && config.database_config.redis.key_prefix.is_empty(),
        "`databaseConfig.redis.keyPrefix` is empty: everything that is published on that Redis becomes an event; \
         it should be the prefix of Laravel's config/database.php",
    );
    remark(
        config.database_config.publish_presence,
        "`databaseConfig.publishPresence` tells every listener on that Redis who is in which channel",
    );
    remark(
        config.auth_host.iter().all(|host| host.contains("://.") || host.starts_with('.')),
        "`authHost` has wildcards only: subscribes without a Referer or Origin cannot be authorised; put the main address first",
    );
    remark(
        config.clients.iter().any(|client| client.key.expose().len() < 16),
        "a key in `clients` is shorter than 16 characters; `laravel-echo-server client:add <appId>` generates a good one",
    );
    remark(config.dev_mode, "`devMode` is on: every join and event is logged");
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Imports JSON: the settings before and after, and the TOML.
    fn imported(json: &Value) -> (Config, Config, String) {
        let dir = std::env::temp_dir().join(format!("echo-import-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&dir).unwrap();
        let load = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).unwrap();
            let options = LoadOptions { config: Some(dir.join(name)), ..LoadOptions::default() };
            load::load_with(&options, &Environment::default()).unwrap()
        };
        let before = load(JSON_FILE, &json.to_string());
        let text = translate(json, &before);
        let after = load(TOML_FILE, &text).config;
        std::fs::remove_dir_all(&dir).unwrap();
        (before.config, after, text)
    }

    #[test]
    fn the_toml_means_what_the_json_meant() {
        for json in [
            json!({}),
            json!({"authHost": ["https://a.test", "https://b.test"], "port": "7000", "devMode": true, "host": "127.0.0.1", "headers": {"X-A": "b"},
                "clients": [{"appId": "a", "key": "k"}, {"appId": 5, "key": "l"}], "socketio": {"cookie": false, "transports": ["websocket"]},
                "databaseConfig": {"redis": {"password": "p\"w", "keyPrefix": "x_", "sentinels": [{"host": "s", "port": 1}], "name": "m"}},
                "auth": {"tls": {"verify": true}}, "limits": {"apiBody": "1MB"},
                "channels": [{"pattern": "private-doc.{id}", "whispers": "stamped", "last": "20", "lastFor": "5m"}, {"pattern": "*", "webhooks": []}]}),
            json!({"webhooks": [{"url": "https://a.test/h", "secret": "s", "headers": {"X-A": "b"}, "events": ["connected"]}]}),
            json!({"databaseConfig": {"redis": {"tls": {"ca": "ca.pem"}}}, "authHost": "https://a.test"}),
        ] {
            let (before, after, text) = imported(&json);
            assert_eq!(after, before, "{text}");
        }
    }

    #[test]
    fn origins_of_cors_are_carried_over() {
        for origin in [json!("https://a.test"), json!(["https://a.test"])] {
            let (_, after, text) = imported(&json!({"socketio": {"cors": {"origin": origin}}}));
            assert_eq!(after.allowed_origins, ["https://a.test"], "{text}");
        }
        let (_, after, _) = imported(&json!({"socketio": {"cors": {"origin": "https://a.test"}}, "allowedOrigins": "https://b.test"}));
        assert_eq!(after.allowed_origins, ["https://b.test"]);
    }

    #[test]
    fn unknown_keys_are_kept_as_comments() {
        let (_, _, text) = imported(&json!({"verifyAuthPath": true, "unknown": {"a": [1]}}));
        assert!(text.contains("#   verifyAuthPath = true\n#   unknown = { a = [1] }\n"), "{text}");
    }

    #[test]
    fn unsafe_settings_are_pointed_out() {
        let options = LoadOptions { defaults: true, ..LoadOptions::default() };
        let mut loaded = load::load_with(&options, &Environment::default()).unwrap();
        let keys = |loaded: &Loaded| lint(loaded).join("\n");
        assert!(keys(&loaded).contains("`allowedOrigins`"));
        assert!(!keys(&loaded).contains("keyPrefix"));
        loaded.config.database = Database::Redis;
        loaded.config.database_config.publish_presence = true;
        assert!(keys(&loaded).contains("keyPrefix") && keys(&loaded).contains("publishPresence"));
    }
}
