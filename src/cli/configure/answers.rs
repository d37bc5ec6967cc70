//! The collected answers of `init`. Input: values by key path. Output: the text of a config file.

use laravel_echo_server::config::{Config, validate};
use serde_json::{Map, Value, json};

use crate::cli::config_file::{self, Template};

/// Values by dotted key path.
#[derive(Debug, Default)]
pub(super) struct Answers {
    values: Vec<(String, Value)>,
    /// Comments on keys that the user has to check, by key path.
    remarks: Vec<(&'static str, String)>,
}

impl Answers {
    pub(super) fn set(&mut self, path: &str, value: impl Into<Value>) {
        self.values.push((path.to_owned(), value.into()));
    }

    /// The answer for a key.
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        self.values.iter().find(|(known, _)| known == path).map(|(_, value)| value)
    }

    /// Adds a comment above a key; JSON output has no comments.
    pub(super) fn remark(&mut self, path: &'static str, text: String) {
        self.remarks.push((path, text));
    }

    /// Removes and returns the API client, which each format writes in a different place.
    pub(super) fn take_client(&mut self) -> Option<Value> {
        let index = self.values.iter().position(|(path, _)| path == "clients")?;
        Some(self.values.remove(index).1)
    }

    /// Says why `start` would refuse this answer, given those so far.
    ///
    /// # Errors
    /// The reason, with the key, the value and what is expected.
    pub(super) fn check(&self, path: &str, value: impl Into<Value>) -> Result<(), String> {
        let value = value.into();
        let shown = value.to_string();
        let text = value.as_str().unwrap_or_default();
        // Files may hold more for the sake of variables that other programs set, such as `tcp://10.0.0.1:6001`.
        if path.ends_with("port") && !text.is_empty() && !text.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(format!("`{path}` is {shown}, expected a port from 1 to 65535"));
        }
        if path.ends_with("host") && text.contains("://") {
            return Err(format!(
                "`{path}` is {shown}, expected a host name or an address, without `{}://`",
                text.split("://").next().unwrap_or_default()
            ));
        }
        let mut tree = self.tree();
        put(&mut tree, path, value);
        let config: Config = serde_path_to_error::deserialize(tree).map_err(|error| {
            let message = error.inner().to_string();
            format!("`{}` is {shown}, expected {}", error.path(), message.rsplit_once("expected ").map_or(&*message, |(_, form)| form))
        })?;
        let problems = validate::check(&config).err().map_or_else(Vec::new, |problems| problems.0);
        problems.iter().find(|problem| problem.key == path).map_or(Ok(()), |problem| Err(problem.to_string()))
    }

    /// The answers as the tree of a config file.
    pub(super) fn tree(&self) -> Value {
        let mut tree = json!({});
        for (path, value) in &self.values {
            let value = if path == "clients" { json!([value]) } else { value.clone() };
            put(&mut tree, path, value);
        }
        tree
    }

    /// The commented TOML with the answers filled in.
    pub(super) fn to_toml(&self, client: Option<&Value>) -> String {
        let mut template = Template::new();
        for (path, value) in &self.values {
            let is_written = template.set(path, &typed(path, value));
            debug_assert!(is_written, "the template has no {path}");
        }
        for (path, text) in &self.remarks {
            template.remark(path, text);
        }
        template.set_clients(client.map(std::slice::from_ref).unwrap_or_default());
        template.text()
    }

    /// JSON with the original's keys in its order, then the new keys.
    pub(super) fn to_json(&self, client: Option<&Value>) -> String {
        let mut tree = json!({
            "authHost": "http://localhost",
            "authEndpoint": "/broadcasting/auth",
            "clients": client.map(std::slice::from_ref).unwrap_or_default(),
            "database": "redis",
            "databaseConfig": {"redis": {}, "sqlite": {"databasePath": "/database/laravel-echo-server.sqlite"}},
            "devMode": false,
            "host": null,
            "port": "6001",
            "protocol": "http",
            "socketio": {},
            "sslCertPath": "",
            "sslKeyPath": "",
            "sslCertChainPath": "",
            "sslPassphrase": "",
            "subscribers": {"http": true, "redis": true},
            "apiOriginAllow": {"allowCors": false, "allowOrigin": "", "allowMethods": "", "allowHeaders": ""},
            // Without this key any certificate is accepted, as by the original; a new file need not do that.
            "auth": {"tls": {"verify": true}},
        });
        for (path, value) in &self.values {
            put(&mut tree, path, value.clone());
        }
        config_file::json_text(&tree, "")
    }
}

/// Writes ports and database numbers as numbers, as in the template.
fn typed(path: &str, value: &Value) -> Value {
    let is_number = matches!(path.rsplit('.').next(), Some("port" | "db"));
    match value.as_str().and_then(|text| text.parse::<u64>().ok()).filter(|_| is_number) {
        Some(number) => number.into(),
        None => value.clone(),
    }
}

fn put(tree: &mut Value, path: &str, value: Value) {
    let mut place = tree;
    for key in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[key];
    }
    *place = value;
}
