//! Clients that ask for another path than the configured one. Input: a request for a path that does not exist. Output: a throttled
//! warning that names the setting; the answer stays 404.

use axum::http::Uri;

use crate::config::Config;
use crate::warn_throttled;

/// The paths at which clients are served.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    socket_io: String,
    /// The hint for clients of Pusher's protocol.
    pusher: String,
}

impl Paths {
    pub(super) fn new(config: &Config) -> Self {
        let pusher = if config.serves_pusher() {
            format!("the client's `wsPath` and `pusher.path` ({:?}) differ: set one to the other", config.pusher.prefix())
        } else if config.pusher.enabled {
            "Pusher's protocol needs an entry of `clients` with a key and a secret: those of PUSHER_APP_… or REVERB_APP_… in Laravel's .env"
                .to_owned()
        } else {
            "Pusher's protocol is off: set `pusher.enabled` to true".to_owned()
        };
        Self { socket_io: config.socketio.path.clone(), pusher }
    }

    /// Warns about a client of a protocol that this server speaks.
    pub(super) fn warn_of(&self, uri: &Uri) {
        let path = uri.path();
        if let Some(hint) = self.hint(path, uri.query().unwrap_or_default()) {
            warn_throttled!(class = 404, key = path, path, hint, "a client asks for a path that is not served");
        }
    }

    fn hint(&self, path: &str, query: &str) -> Option<String> {
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        if has("EIO") && has("transport") {
            let path = path.trim_end_matches('/');
            return Some(format!("the client's `path` ({path:?}) and `socketio.path` ({:?}) differ: set one to the other", self.socket_io));
        }
        (has("protocol") && path.contains("/app/")).then(|| self.pusher.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_at_another_path_are_told_apart_from_strangers() {
        let hint = |settings: serde_json::Value, path, query| Paths::new(&serde_json::from_value(settings).unwrap()).hint(path, query);
        let served = serde_json::json!({ "clients": [{ "appId": "a", "key": "k", "secret": "s" }] });
        let other = hint(served.clone(), "/ws/", "EIO=4&transport=polling").unwrap();
        assert!(other.contains("(\"/ws\")") && other.contains("`socketio.path` (\"/socket.io\")"), "{other}");
        assert!(hint(served.clone(), "/ws/app/k", "protocol=7&client=js").unwrap().contains("`pusher.path` (\"\")"));
        assert!(hint(serde_json::json!({}), "/app/k", "protocol=7").unwrap().contains("a key and a secret"));
        assert!(
            hint(serde_json::json!({ "pusher": { "enabled": false } }), "/app/k", "protocol=7").unwrap().contains("set `pusher.enabled`")
        );
        for (path, query) in [("/wp-login.php", ""), ("/app/k", ""), ("/x", "protocol=7"), ("/x", "EIO=4")] {
            assert_eq!(hint(served.clone(), path, query), None, "{path}?{query}");
        }
    }
}
