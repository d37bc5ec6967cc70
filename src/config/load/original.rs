//! Translates values of the original's file that the settings here cannot represent.
//! Input: the tree of a JSON file. Output: the equivalent tree for this server, with a warning for each ignored value: no
//! value that the original accepts may prevent the start.

use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::layers::expected;
use crate::config::{Config, Cookie, schema, secrets};

/// Rewrites the tree.
pub(super) fn translate(tree: &mut Value, warnings: &mut Vec<String>) {
    let Value::Object(root) = tree else { return };
    drop_misplaced(root, warnings);
    scalars(root);
    if let Some(Value::Object(socketio)) = root.get_mut("socketio") {
        engine(socketio, warnings);
    }
    if let Some(redis) = root.get_mut("databaseConfig").and_then(|config| config.get_mut("redis")) {
        address(redis);
        if let Value::Object(options) = redis {
            // ioredis takes any falsy value for none.
            options.retain(|key, value| {
                value != &Value::Bool(false) || !["username", "password", "keyPrefix", "path", "sentinelPassword"].contains(&key.as_str())
            });
        }
    }
    if root.get("secureOptions").is_some_and(|value| !value.is_i64()) {
        root.remove("secureOptions");
    }
    if let Some(Value::String(endpoint)) = root.get_mut("authEndpoint")
        && !endpoint.is_empty()
        && !endpoint.starts_with(['/', '?'])
    {
        // The original appends it to `authHost` unchanged, which works if that ends with a slash.
        endpoint.insert(0, '/');
    }
}

/// Values of another type that JavaScript uses all the same.
fn scalars(root: &mut Map<String, Value>) {
    if let Some(mode @ Value::Number(_)) = root.get_mut("devMode") {
        *mode = Value::Bool(mode.as_f64() != Some(0.0));
    }
    if root.get("host") == Some(&Value::Bool(false)) {
        root.remove("host");
    }
    if let Some(Value::String(protocol)) = root.get_mut("protocol") {
        protocol.make_ascii_lowercase();
    }
    if let Some(Value::Object(headers)) = root.get_mut("headers") {
        for value in headers.values_mut().filter(|value| value.is_number() || value.is_boolean()) {
            *value = Value::String(value.to_string());
        }
    }
}

/// Removes members of a cookie's table that cannot be used. An unknown `sameSite` stays, and refuses the start: without it the
/// cookie would be sent where it should not be.
fn cookie(table: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    table.retain(|key, value| {
        let Err(error) = Cookie::deserialize(json!({ (key): value })) else { return true };
        if key == "sameSite" && value.is_string() {
            return true;
        }
        if !value.is_null() {
            warnings.push(format!("`socketio.cookie.{key}` is {value}, which is ignored: expected {}", expected(&error.to_string())));
        }
        false
    });
}

/// Removes strings, numbers and lists in place of tables. Booleans in place of switchable tables are handled elsewhere.
fn drop_misplaced(root: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    let shape = schema::shape();
    root.retain(|key, value| {
        let is_table = shape.get(key).is_some_and(Value::is_object);
        let is_kept = !is_table || matches!(value, Value::Object(_) | Value::Null);
        if !is_kept {
            warnings.push(format!("`{key}` is {} and is ignored, expected {}", secrets::kind_of(value), schema::TABLE));
        }
        is_kept
    });
}

/// Options of Engine.IO, which replaces falsy values with its defaults and never validates transports.
fn engine(socketio: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    if let Some(Value::Array(transports)) = socketio.get_mut("transports") {
        transports.retain(|transport| {
            let is_known = matches!(transport.as_str(), Some("polling" | "websocket"));
            if !is_known {
                warnings.push(format!("`socketio.transports` has {transport}, which is ignored: expected `polling` or `websocket`"));
            }
            is_known
        });
        if transports.is_empty() {
            socketio.remove("transports");
        }
    }
    let defaults = serde_json::to_value(Config::default().socketio).expect("the default Config serialises");
    for key in ["pingInterval", "pingTimeout", "maxHttpBufferSize"] {
        let is_zero = |value: &Value| {
            value.as_f64() == Some(0.0) || value.as_str().is_some_and(|text| text.trim() == "0") || value == &Value::Bool(false)
        };
        if socketio.get(key).is_some_and(is_zero) {
            socketio.remove(key);
            warnings.push(format!("`socketio.{key}` is 0, which is ignored; {} is used, as in the original", defaults[key]));
        }
    }
    if let Some(Value::Object(table)) = socketio.get_mut("cookie") {
        cookie(table, warnings);
    }
    if socketio.get("cookie") == Some(&Value::Bool(true)) {
        socketio.remove("cookie");
    }
}

/// ioredis accepts a URL, the path of a socket, or a port instead of an options object.
fn address(redis: &mut Value) {
    let options = match &*redis {
        Value::String(text) if text.starts_with('/') => json!({ "path": text }),
        Value::String(text) if text.contains("://") => json!({ "url": text }),
        Value::String(text) if text.parse::<u16>().is_ok() => json!({ "port": text }),
        Value::String(text) if !text.is_empty() => json!({ "url": format!("redis://{text}") }),
        Value::Number(port) => json!({ "port": port }),
        _ => return,
    };
    *redis = options;
}
