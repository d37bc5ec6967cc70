//! Config files written by the original (`fixtures/config`) work unchanged, and edits preserve everything else.

use std::path::{Path, PathBuf};

use laravel_echo_server::config::env::Environment;
use laravel_echo_server::config::load::{LoadOptions, Loaded, load_with};
use laravel_echo_server::config::{Config, Database, validate};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config").join(name)
}

fn load(name: &str) -> Loaded {
    let options = LoadOptions { config: Some(fixture(name)), ..LoadOptions::default() };
    load_with(&options, &Environment::default()).expect("the original's file is taken")
}

/// The defaults, except where the original's file says otherwise.
#[test]
fn the_originals_init_file_equals_the_defaults_with_members_in_redis() {
    let loaded = load("init.json");
    let mut expected = Config { database: Database::Redis, secure_options: Some(67_108_864), ..Config::default() };
    expected.auth.tls.verify = false;
    assert_eq!(loaded.config, expected);
    assert_eq!(loaded.warnings, [""; 0]);
}

#[test]
fn an_id_stored_as_a_number_is_read_as_text() {
    let config = load("client-add.json").config;
    assert_eq!(config.clients[0].app_id, "12345");
    assert_eq!(validate::check(&config), Ok(()));
}

#[test]
fn adding_and_removing_a_client_leaves_the_file_unchanged() {
    for name in ["init.json", "client-add.json"] {
        let folder = crate::cli::Folder::new();
        let before = std::fs::read_to_string(fixture(name)).expect("the fixture is there");
        folder.write("laravel-echo-server.json", &before);
        assert_eq!(folder.run(&["client:add", "my-app"]).code, 0);
        assert_ne!(folder.read("laravel-echo-server.json"), before);
        assert_eq!(folder.run(&["client:remove", "my-app"]).code, 0);
        assert_eq!(folder.read("laravel-echo-server.json"), before, "{name}");
    }
}

#[test]
fn an_unreadable_env_file_is_skipped_with_a_warning() {
    let folder = crate::cli::Folder::new();
    folder.write("laravel-echo-server.toml", "port = 6002\n");
    // Not even root can read a directory as a file.
    folder.write(".env/file", "");
    let ended = folder.run(&["config", "check"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("`.env` cannot be read"), "{}", ended.stderr);
}

#[test]
fn the_env_file_beside_the_config_takes_precedence_over_that_of_the_working_directory() {
    let folder = crate::cli::Folder::new();
    folder.write("sub/laravel-echo-server.toml", "port = 1\n");
    folder.write("sub/.env", "LARAVEL_ECHO_SERVER_PORT=2\n");
    folder.write(".env", "LARAVEL_ECHO_SERVER_PORT=3\nLARAVEL_ECHO_SERVER_HOST=${MY_HOST}\nMY_HOST=127.0.0.9\n");
    let ended = folder.run(&["config", "check", "--dir", "sub", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("it prints JSON");
    assert_eq!(json["values"]["port"], serde_json::json!({"value": 2, "source": "LARAVEL_ECHO_SERVER_PORT in sub/.env"}));
    assert_eq!(json["values"]["host"], serde_json::json!({"value": "127.0.0.9", "source": "LARAVEL_ECHO_SERVER_HOST in .env"}));
}

/// A config file of the original, the values of its keys here, and a part of each warning at the start.
type Snippet = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

/// laravel-echo-server 1.6.3 starts with each of these.
const SNIPPETS: &[Snippet] = &[
    (r#"{"secureOptions": 67108864}"#, &[("secureOptions", "67108864")], &[]),
    (r#"{"secureOptions": "SSL_OP_NO_TLSv1"}"#, &[("secureOptions", "null")], &[]),
    (r#"{"databaseConfig": {"redis": {"password": ""}}}"#, &[("databaseConfig.redis.password", "null")], &[]),
    (r#"{"databaseConfig": {"redis": {"password": "null"}}}"#, &[("databaseConfig.redis.password", "\"null\"")], &[]),
    (
        r#"{"authHost": "http://app/", "authEndpoint": "broadcasting/auth"}"#,
        &[("authHost", r#"["http://app/"]"#), ("authEndpoint", r#""/broadcasting/auth""#)],
        &[],
    ),
    (r#"{"authHost": "http://user:p%40ss@app.test"}"#, &[("authHost", r#"["http://user:p%40ss@app.test"]"#)], &[]),
    (r#"{"databaseConfig": {"redis": "redis://:pw@host:6379/2"}}"#, &[("databaseConfig.redis.url", r#""redis://:pw@host:6379/2""#)], &[]),
    (r#"{"databaseConfig": {"redis": "host:6380"}}"#, &[("databaseConfig.redis.url", r#""redis://host:6380""#)], &[]),
    (r#"{"databaseConfig": {"redis": "/run/redis.sock"}}"#, &[("databaseConfig.redis.path", r#""/run/redis.sock""#)], &[]),
    (r#"{"databaseConfig": {"redis": 6380}}"#, &[("databaseConfig.redis.port", "6380")], &[]),
    (
        r#"{"socketio": {"cookie": {"name": "io", "sameSite": "none", "secure": true, "path": "/"}}}"#,
        &[("socketio.cookie.sameSite", r#""none""#), ("socketio.cookie.secure", "true")],
        &[],
    ),
    (r#"{"socketio": {"cookie": {"name": "io", "sameSite": "none"}}}"#, &[("socketio.cookie.secure", "false")], &["browsers drop it"]),
    (r#"{"socketio": {"cookie": true}}"#, &[("socketio.cookie", r#""io""#)], &[]),
    (
        r#"{"socketio": {"transports": ["websocket", "polling", "flashsocket"]}}"#,
        &[("socketio.transports", r#"["websocket","polling"]"#)],
        &["`socketio.transports` has \"flashsocket\""],
    ),
    (r#"{"socketio": {"transports": ["flashsocket"]}}"#, &[("socketio.transports", r#"["polling","websocket"]"#)], &["flashsocket"]),
    (r#"{"socketio": {"pingTimeout": 0}}"#, &[("socketio.pingTimeout", "20000")], &["`socketio.pingTimeout` is 0"]),
    (r#"{"socketio": {"pingInterval": "0"}}"#, &[("socketio.pingInterval", "25000")], &["`socketio.pingInterval` is 0"]),
    (r#"{"log": "syslog"}"#, &[("log.level", r#""info""#)], &["`log` is text and is ignored"]),
    (r#"{"auth": "jwt", "limits": 5}"#, &[("auth.jwt.secret", "null")], &["`auth` is text", "`limits` is 5"]),
    (
        r#"{"databaseConfig": "redis", "apiOriginAllow": "*", "headers": []}"#,
        &[("databaseConfig.redis.host", r#""127.0.0.1""#)],
        &["`databaseConfig` is text", "`apiOriginAllow` is text", "`headers` is a list"],
    ),
    (r#"{"databaseConfig": {"redis": {"password": false, "username": false}}}"#, &[("databaseConfig.redis.username", "null")], &[]),
    (
        r#"{"devMode": 1, "host": false, "protocol": "HTTP", "headers": {"X-Version": 2}}"#,
        &[("devMode", "true"), ("protocol", r#""http""#)],
        &[],
    ),
    (r#"{"devMode": 0}"#, &[("devMode", "false")], &[]),
    (
        r#"{"socketio": {"cookie": {"name": "io", "maxAge": "1h", "path": null, "secure": "true"}}}"#,
        &[("socketio.cookie.path", r#""/""#), ("socketio.cookie.secure", "true")],
        &["`socketio.cookie.maxAge` is \"1h\", which is ignored: expected a whole number"],
    ),
    (r#"{"databaseConfig": {"redis": {"database": 2}}}"#, &[], &["did you mean `databaseConfig.redis.db`?"]),
    (r#"{"socketio": {"port": 6002}}"#, &[("port", "6001")], &["did you mean `port`?"]),
    (r#"{"redis": {"prefix": "x_"}}"#, &[], &["did you mean `databaseConfig.redis`?", "did you mean `databaseConfig.redis.keyPrefix`?"]),
    (r#"{"databaseConfig": {"prefix": "x_"}}"#, &[], &["did you mean `databaseConfig.redis.keyPrefix`?"]),
    (r#"{"socketio": {"cors": {"origin": "*"}}}"#, &[], &["`allowedOrigins` names the pages"]),
    (r#"{"authHost": "$APP_URL"}"#, &[], &["leave the key out and set LARAVEL_ECHO_SERVER_AUTH_HOST"]),
    (r#"{"databaseConfig": {"redis": {"host": "env('REDIS_HOST')"}}}"#, &[], &["`databaseConfig.redis.host`"]),
    (r#"{"databaseConfig": {"redis": {"host": "tls://redis.test"}}}"#, &[], &["set `databaseConfig.redis.tls` to true"]),
    (r#"{"authHost": "http://localhost:6001"}"#, &[], &["which is this server itself"]),
];

#[tokio::test]
async fn the_originals_configs_start_here_with_warnings_about_differences() {
    for (text, values, warnings) in SNIPPETS {
        let folder = crate::cli::Folder::new();
        folder.write("laravel-echo-server.json", text);
        let options = LoadOptions { config: Some(folder.path("laravel-echo-server.json")), ..LoadOptions::default() };
        let loaded = load_with(&options, &Environment::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
        let shown = serde_json::to_value(&loaded.config).expect("a Config serialises");
        for (key, expected) in *values {
            let value = key.split('.').fold(&shown, |table, key| &table[key]);
            assert_eq!(value.to_string(), *expected, "{key} of {text}");
        }
        assert_eq!(loaded.warnings.len(), warnings.len(), "{text}: {:?}", loaded.warnings);
        for (warning, part) in loaded.warnings.iter().zip(*warnings) {
            assert!(warning.contains(part), "{part} in {warning}");
        }
        let mut config = loaded.config;
        (config.host, config.port) = (Some("127.0.0.1".to_owned()), 0);
        laravel_echo_server::Server::bind(config).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn a_server_js_of_the_original_is_refused_with_instructions() {
    let folder = crate::cli::Folder::new();
    folder.write("server.js", "require('laravel-echo-server').run({ port: 6001 });");
    let ended = folder.run(&["import", "server.js"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("save the object that it passes to `run({…})`"), "{}", ended.stderr);
}

#[test]
fn the_password_in_an_auth_host_is_not_shown() {
    let folder = crate::cli::Folder::new();
    folder.write("laravel-echo-server.json", r#"{"authHost": "http://user:hunter2@app.test"}"#);
    let ended = folder.run(&["config", "check"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("http://***@app.test") && !ended.stdout.contains("hunter2"), "{}", ended.stdout);
}
