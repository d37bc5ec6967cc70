//! `tls` keys that are a boolean or a table: `tls = true`, or `[….tls]` with more settings.
//!
//! Input: values of a file or of the environment. Output: [`RedisTls`], [`RedisServerTls`].

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::value::{As, Secret, Toggle};
use super::{RedisServerTls, RedisTls};

/// Reads a table, or a boolean as the table `{enabled: …}`; `keys` are named in the error message.
fn switch_or_table<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D, keys: &str) -> Result<T, D::Error> {
    let table = match Value::deserialize(deserializer)? {
        Value::Null => json!({ "enabled": false }),
        Value::Bool(enabled) => json!({ "enabled": enabled }),
        Value::String(text) => match text.parse() {
            Ok(Toggle(enabled)) => json!({ "enabled": enabled }),
            Err(()) => return Err(D::Error::custom(format!("invalid value `{text}`, expected true, false, or a table with {keys}"))),
        },
        table => table,
    };
    serde_json::from_value(table).map_err(D::Error::custom)
}

const fn on() -> bool {
    true
}

impl<'de> Deserialize<'de> for RedisTls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Table {
            #[serde(default = "on", with = "As::<Toggle>")]
            enabled: bool,
            ca: Option<std::path::PathBuf>,
            #[serde(default = "on", with = "As::<Toggle>")]
            reject_unauthorized: bool,
        }
        let table: Table = switch_or_table(deserializer, "ca and rejectUnauthorized")?;
        Ok(Self { enabled: table.enabled, ca: table.ca, reject_unauthorized: table.reject_unauthorized })
    }
}

impl<'de> Deserialize<'de> for RedisServerTls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Table {
            #[serde(with = "As::<Toggle>")]
            enabled: bool,
            cert_path: String,
            key_path: String,
            chain_path: String,
            passphrase: Secret,
        }
        impl Default for Table {
            fn default() -> Self {
                let (cert_path, key_path, chain_path) = Default::default();
                Self { enabled: on(), cert_path, key_path, chain_path, passphrase: Secret::default() }
            }
        }
        let table: Table = switch_or_table(deserializer, "certPath and keyPath")?;
        let Table { enabled, cert_path, key_path, chain_path, passphrase } = table;
        Ok(Self { enabled, cert_path, key_path, chain_path, passphrase })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_or_a_table_turns_tls_on() {
        let read = |value: Value| serde_json::from_value::<RedisServerTls>(value).map_err(|error| error.to_string());
        for on in [json!(true), json!("on"), json!({}), json!({ "enabled": "true" }), json!({ "certPath": "" })] {
            let expected = RedisServerTls { enabled: true, ..RedisServerTls::default() };
            assert_eq!(read(on.clone()), Ok(expected), "{on}");
        }
        for off in [json!(false), json!(null), json!("0"), json!({ "enabled": false })] {
            assert_eq!(read(off.clone()), Ok(RedisServerTls::default()), "{off}");
        }
        let own = read(json!({ "certPath": "a", "keyPath": "b", "chainPath": "c", "passphrase": "d" })).unwrap();
        assert_eq!((own.cert_path.as_str(), own.key_path.as_str(), own.chain_path.as_str()), ("a", "b", "c"));
        assert_eq!(own.passphrase.expose(), "d");
        assert_eq!(read(json!("tls")).unwrap_err(), "invalid value `tls`, expected true, false, or a table with certPath and keyPath");
        let client: RedisTls = serde_json::from_value(json!({ "ca": "x" })).unwrap();
        assert!(client.enabled && client.reject_unauthorized);
    }
}
