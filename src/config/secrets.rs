//! What must not be shown of a configuration. Input: keys and values. Output: text for logs, errors and `config check`.

use std::borrow::Cow;
use std::path::Path;

use serde_json::Value;

/// Shown in place of secrets.
pub const HIDDEN: &str = "***";

/// How the text of a certificate or key begins.
const PEM: &str = "-----BEGIN ";

/// Whether the value at `path` must not be shown.
pub fn is_secret(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    matches!(last, "password" | "sentinelPassword" | "sslPassphrase" | "passphrase" | "secret" | "key" | "url")
        || (last == "jwt" && path.starts_with("clients"))
        // They may carry a token.
        || (path.contains("webhooks") && path.contains(".headers."))
}

/// The text without the key of a PEM file, and with the user and password of a URL hidden, also where the scheme is missing.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    if let Some(at) = text.find(PEM) {
        return format!("{}{HIDDEN}", &text[..at + PEM.len()]).into();
    }
    let scheme = text.find("://").map(|at| at + 3);
    let start = scheme.unwrap_or_else(|| usize::from(text.starts_with('"')));
    let end = text.rfind('@').unwrap_or(0);
    match text.get(start..end) {
        Some(userinfo) if end > 0 && (scheme.is_some() || userinfo.contains(':')) => {
            format!("{}{HIDDEN}{}", &text[..start], &text[end..]).into()
        }
        _ => text.into(),
    }
}

/// The path of a file for an error: the text of a key may stand in its place.
pub fn shown_path(path: &(impl AsRef<Path> + ?Sized)) -> String {
    without_secrets(&path.as_ref().to_string_lossy()).into_owned()
}

/// What a value in place of a table or a list is, without what it may have in it.
pub(super) fn kind_of(value: &Value) -> Cow<'static, str> {
    match value {
        Value::String(_) => "text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a table".into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_known_by_their_key() {
        for path in [
            "databaseConfig.redis.password",
            "clients[0].key",
            "clients[0].jwt",
            "auth.jwt.secret",
            "sslPassphrase",
            "redisServer.tls.passphrase",
        ] {
            assert!(is_secret(path), "{path}");
        }
        assert!(is_secret("webhooks[0].headers.Authorization") && is_secret("clients.webhooks.headers.X-Tenant"));
        assert!(!is_secret("headers.X-Frame-Options") && !is_secret("webhooks[0].headers") && !is_secret("webhooks[0].events"));
        assert!(!is_secret("sslKeyPath"));
        assert!(!is_secret("databaseConfig.redis.keyPrefix"));
    }

    #[test]
    fn passwords_of_urls_and_keys_are_hidden() {
        for (text, shown) in [
            ("redis://user:p@ss@redis:6379/1", "redis://***@redis:6379/1"),
            ("https://token@app.test", "https://***@app.test"),
            ("user:password@redis", "***@redis"),
            ("\"user:password@redis\"", "\"***@redis\""),
            ("https://app.test/broadcasting/auth", "https://app.test/broadcasting/auth"),
            ("ops@app.test", "ops@app.test"),
            ("-----BEGIN PRIVATE KEY-----\nMIGH", "-----BEGIN ***"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn kinds_show_nothing_of_a_text_a_list_or_a_table() {
        let shown = [json!("secret"), json!(["secret"]), json!({ "key": "secret" }), json!(6379)].map(|value| kind_of(&value).into_owned());
        assert_eq!(shown, ["text", "a list", "a table", "6379"]);
    }
}
