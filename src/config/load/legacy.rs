//! Values that depend on other values, as in the original.
//! Input: the values of file and environment. Output: additional values with the rule that they come from.

use serde_json::Value;

use super::{Format, Layers, Source};
use crate::config::Config;

/// The source of values that have a different default in the original's file.
const JSON_DEFAULT: Source = Source::Rule("the default of laravel-echo-server.json");

/// Defaults that depend on other values.
pub(super) fn fill_in(layers: &mut Layers, format: Format) {
    if format == Format::Json && layers.tree.get("database").is_none() {
        layers.set("database", "redis".into(), JSON_DEFAULT);
    }
    if layers.tree.get("allowedOrigins").is_none()
        && let Some(origins) = layers.tree.pointer("/socketio/origins").and_then(texts)
    {
        let patterns = origins.iter().flat_map(|origin| origin_patterns(origin)).collect();
        layers.set("allowedOrigins", patterns, Source::Rule("taken from `socketio.origins`"));
    }
    auth_host(layers);
}

/// Compat: the original's README promises this for the variable; its code does it for an empty `authHost`.
fn auth_host(layers: &mut Layers) {
    let given = layers.tree.get("authHost");
    let is_empty = given.is_some_and(|value| value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty));
    if given.is_some() && !is_empty {
        return;
    }
    let from_variable = matches!(layers.sources.get("host"), Some(Source::Variable { .. }));
    let host = layers.tree.get("host").and_then(Value::as_str).and_then(base_url);
    match host {
        Some(url) if from_variable || is_empty => layers.set("authHost", url.into(), Source::Rule("taken from `host`")),
        _ => {
            if let Some(table) = layers.tree.as_object_mut() {
                table.remove("authHost");
                layers.sources.remove("authHost");
            }
        }
    }
}

/// The URL for an address to listen on; `None` for addresses that mean "all".
fn base_url(host: &str) -> Option<String> {
    match host {
        "" | "0.0.0.0" | "::" | "[::]" => None,
        _ if host.contains("://") => Some(host.to_owned()),
        _ => Some(format!("http://{host}")),
    }
}

/// Strings in a list, or separated by spaces.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Patterns for an entry of socket.io 2's `origins`: `host:port` or `scheme://host:port`, `*` for any host or port. Browsers
/// omit the scheme's default port.
fn origin_patterns(entry: &str) -> Vec<String> {
    let (scheme, address) = entry.split_once("://").unwrap_or(("*", entry));
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    match (scheme, host, port) {
        ("*", "*", "*" | "") => vec!["*".to_owned()],
        ("http", host, "80") => vec![format!("http://{host}")],
        ("https", host, "443") => vec![format!("https://{host}")],
        ("*", host, "80") => vec![format!("http://{host}"), format!("https://{host}:80")],
        ("*", host, "443") => vec![format!("https://{host}"), format!("http://{host}:443")],
        (scheme, host, "*") => vec![format!("{scheme}://{host}"), format!("{scheme}://{host}:*")],
        (scheme, _, _) => vec![format!("{scheme}://{address}")],
    }
}

/// Compat: the original never verifies the certificate of `authHost`; its files keep that behaviour unless they change it.
pub(super) fn relax(config: &mut Config, layers: &mut Layers, format: Format) {
    if format != Format::Json || layers.sources.contains_key("auth.tls.verify") || config.auth.tls.ca.is_some() {
        return;
    }
    config.auth.tls.verify = false;
    layers.sources.insert("auth.tls.verify".to_owned(), JSON_DEFAULT);
    if is_https(&config.auth_host) {
        layers.warnings.push(
            "the certificate of `authHost` is not verified, because laravel-echo-server.json does not enable it; \
             set `auth.tls.verify` to true (or `auth.tls.ca` to your certificate authority) once it is valid, or to false to hide this"
                .to_owned(),
        );
    }
}

fn is_https(hosts: &[String]) -> bool {
    hosts.iter().any(|host| host.trim_start().to_ascii_lowercase().starts_with("https:"))
}

#[cfg(test)]
mod tests {
    use super::origin_patterns;

    #[test]
    fn origins_of_socket_io_2_become_patterns() {
        assert_eq!(origin_patterns("*:*"), ["*"]);
        assert_eq!(origin_patterns("*"), ["*"]);
        assert_eq!(origin_patterns("http://app.test:80"), ["http://app.test"]);
        assert_eq!(origin_patterns("https://app.test:443"), ["https://app.test"]);
        assert_eq!(origin_patterns("https://app.test:8443"), ["https://app.test:8443"]);
        assert_eq!(origin_patterns("app.test:*"), ["*://app.test", "*://app.test:*"]);
        assert_eq!(origin_patterns("app.test:443"), ["https://app.test", "http://app.test:443"]);
        assert_eq!(origin_patterns("*:8000"), ["*://*:8000"]);
    }
}
