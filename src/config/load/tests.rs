//! Tests of files, environment and defaults in combination.

use std::time::Duration;

use super::*;
use crate::config::{Database, Protocol, schema};

/// A temporary folder, deleted after the test.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("echo-config-{}-{:016x}", std::process::id(), rand::random::<u64>()));
        std::fs::create_dir(&path).unwrap();
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        Self(path)
    }

    fn load(&self, variables: &[(&str, &str)]) -> Result<Loaded, LoadError> {
        let options = LoadOptions { dir: Some(self.0.clone()), ..LoadOptions::default() };
        load_with(&options, &environment(variables))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let mut environment = Environment::default();
    environment.push(Origin::Process, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    environment
}

fn json(text: &str, variables: &[(&str, &str)]) -> Loaded {
    Folder::new(&[(JSON_FILE, text)]).load(variables).unwrap()
}

fn toml(text: &str) -> Result<Loaded, LoadError> {
    Folder::new(&[(TOML_FILE, text)]).load(&[])
}

#[test]
fn the_commented_defaults_are_the_defaults_but_need_no_redis() {
    let loaded = toml(DEFAULTS).unwrap();
    let mut expected = Config::default();
    (expected.subscribers.redis, expected.redis_server.enabled) = (false, true);
    assert_eq!(loaded.config, expected);
    assert_eq!(loaded.warnings, [""; 0]);
}

#[test]
fn without_a_file_the_server_is_its_own_redis_unless_one_is_named() {
    let load = |variables: &[(&str, &str)]| {
        let options = LoadOptions { defaults: true, ..LoadOptions::default() };
        let config = load_with(&options, &environment(variables)).unwrap().config;
        (config.subscribers.redis, config.redis_server.enabled)
    };
    assert_eq!(load(&[]), (false, true));
    assert_eq!(load(&[("LARAVEL_ECHO_SERVER_PORT", "6002"), ("LARAVEL_ECHO_SERVER_REDIS_SERVER_PORT", "6381")]), (false, true));
    assert_eq!(load(&[("LARAVEL_ECHO_SERVER_REDIS_HOST", "redis")]), (true, false));
    assert_eq!(load(&[("LARAVEL_ECHO_SERVER_SUBSCRIBERS_REDIS", "false")]), (false, false));
    assert!(!toml("").unwrap().config.redis_server.enabled, "a file says what it means");
}

#[test]
fn a_secret_that_looks_like_a_variable_is_told() {
    let told = toml("[[clients]]\nappId = 'a'\nkey = '${KEY}'\nsecret = 'plain'\n").unwrap().warnings;
    assert!(told.iter().any(|warning| warning.starts_with("`clients[1].key` in ") && warning.contains("is used as written")), "{told:?}");
    assert!(!told.iter().any(|warning| warning.contains("plain")), "{told:?}");
}

#[test]
fn variables_within_a_value_are_told() {
    for (line, key) in [
        ("authHost = 'http://${APP_HOST}:8000'", "authHost"),
        ("authHost = 'http://user:${APP_PASSWORD}@app'", "authHost"),
        ("databaseConfig.redis.keyPrefix = '${APP_NAME}_database_'", "databaseConfig.redis.keyPrefix"),
        (
            "[[webhooks]]\nurl = 'http://app/'\nkey = 'k'\nsecret = 's'\nheaders = { Authorization = 'Bearer ${TOKEN}' }",
            "webhooks[1].headers.Authorization",
        ),
    ] {
        let told = match toml(&format!("{line}\n")) {
            Ok(loaded) => loaded.warnings.join("\n"),
            Err(error) => error.to_string(),
        };
        assert!(told.contains(key) && (told.contains("is used as written") || told.contains("not expanded")), "{line}: {told}");
        assert!(!told.contains("user:") && !told.contains("Bearer"), "{told}");
    }
}

#[test]
fn what_stands_in_the_wrong_place_shows_no_secret() {
    for json in [
        r#"{"databaseConfig":"redis://:s3cr3t@host"}"#,
        r#"{"databaseConfig":{"sqlite":"s3cr3t"}}"#,
        r#"{"databaseConfig":{"publishPresence":"redis://:s3cr3t@host"}}"#,
        r#"{"databaseConfig":{"redis":{"host":"tls://:s3cr3t@host"}}}"#,
        r#"{"databaseConfig":{"redis":{"sentinels":"redis://:s3cr3t@host"}}}"#,
        r#"{"database":"redis://:s3cr3t@host"}"#,
        r#"{"subscribers":["redis://:s3cr3t@host"]}"#,
        r#"{"authHost":["http://user:s3cr3t@app:port"]}"#,
        r#"{"authHost":"http://user:s3cr3t@${APP}"}"#,
        r#"{"auth":{"jwt":"s3cr3t"}}"#,
        r#"{"socketio":{"clientPath":"https://user:s3cr3t@app"}}"#,
        r#"{"database":"-----BEGIN PRIVATE KEY-----\ns3cr3t"}"#,
        r#"{"clients":"s3cr3t"}"#,
        r#"{"clients":["s3cr3t"]}"#,
        r#"{"clients":[["s3cr3t"]]}"#,
        r#"{"webhooks":["http://user:s3cr3t@app"]}"#,
        r#"{"dashboard":"s3cr3t"}"#,
    ] {
        let told = match Folder::new(&[(JSON_FILE, json)]).load(&[]) {
            Ok(loaded) => loaded.warnings.join("\n"),
            Err(error) => error.to_string(),
        };
        assert!(
            told.contains("expected") || told.contains("host name") || told.contains("as written") || told.contains("can be read"),
            "{json}: {told}"
        );
        assert!(!told.contains("s3cr3t"), "{told}");
    }
}

#[test]
fn blank_secrets_are_none() {
    let config =
        toml("[[clients]]\nappId = 'a'\nkey = 'k'\nsecret = '  '\njwt = '\\t'\n".replace("'\\t'", "\"\\t\"").as_str()).unwrap().config;
    assert!(config.clients[0].secret.is_none() && config.clients[0].jwt.is_none());
    assert!(toml("[[clients]]\nappId = 'a'\nkey = '  '\n").is_err());
}

#[test]
fn an_unset_variable_in_any_secret_refuses_the_start() {
    for (name, value) in [
        ("LARAVEL_ECHO_SERVER_WEBHOOKS", r#"[{"url":"http://x/","key":"k","secret":"${NOPE}"}]"#),
        ("LARAVEL_ECHO_SERVER_WEBHOOKS", r#"[{"url":"http://x/","key":"k","secret":"s","headers":{"Authorization":"Bearer ${NOPE}"}}]"#),
        ("LARAVEL_ECHO_SERVER_CLIENTS", r#"[{"appId":"a","key":"${NOPE}"}]"#),
        ("LARAVEL_ECHO_SERVER_AUTH_HOST", "http://user:${NOPE}@app"),
        ("LARAVEL_ECHO_SERVER_REDIS_URL", "redis://:${NOPE}@redis"),
        ("LARAVEL_ECHO_SERVER_DASHBOARD_PASSWORD", "${NOPE}-${NOPE}"),
    ] {
        let error =
            load_with(&LoadOptions { defaults: true, ..LoadOptions::default() }, &environment(&[(name, value)])).unwrap_err().to_string();
        let told = format!("`{name}` refers to `${{NOPE}}`, which is not set");
        assert_eq!(error.matches(&told).count(), 1, "{name}: {error}");
    }
}

/// The file shows optional keys as `#key = example`; a comment has a space after its `#`.
#[test]
fn the_commented_defaults_name_every_key() {
    let mut table = String::new();
    let mut named = std::collections::BTreeSet::new();
    for line in DEFAULTS.lines().map(uncommented).filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = header.trim_matches('[').to_owned();
            named.insert(table.clone());
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim();
            named.insert(if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") });
        }
    }
    let missing: Vec<_> = schema::paths().into_iter().filter(|path| !named.contains(path)).collect();
    assert_eq!(missing, [""; 0]);
}

fn uncommented(line: &str) -> &str {
    let example = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_alphanumeric()));
    example.unwrap_or(line)
}

/// The examples of optional keys must be valid when uncommented.
#[test]
fn the_examples_of_optional_keys_parse() {
    let text: Vec<_> = DEFAULTS.lines().map(uncommented).collect();
    let tree: Value = toml::from_str(&text.join("\n")).unwrap();
    assert_eq!(schema::remarks(&tree), [""; 0]);
    let config: Result<Config, _> = serde_path_to_error::deserialize(&tree);
    config.unwrap();
}

#[test]
fn what_is_wrong_in_a_rule_is_said_with_what_to_write() {
    for (rule, told) in [
        ("wispers = 'off'", "`channels[1].wispers` (pattern \"a\") is unknown, expected `whispers`"),
        ("flavour = 1", "is unknown, expected one of `pattern`, `whispers`"),
        ("whispers = 'of'", "`channels[1].whispers` (pattern \"a\") is \"of\", expected one of `members`, `off`, `stamped`"),
        ("last = 'many'", "`channels[1].last` (pattern \"a\") is \"many\", expected a whole number, 0 or more"),
        (
            "webhooks = ['member_joined']",
            "`channels[1].webhooks[1]` (pattern \"a\") is \"member_joined\", expected one of `channel_occupied`",
        ),
        ("deliver = 'volatile'\nlast = 1", "`channels[1].last` (pattern \"a\") is 1, expected none with `deliver = \"volatile\"`"),
    ] {
        let error = toml(&format!("[[channels]]\npattern = 'a'\n{rule}")).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains(TOML_FILE), "{told} in {error}");
    }
    let error = toml("[[channels]]\nlast = 1").unwrap_err().to_string();
    assert!(error.contains("expected a value for `pattern`"), "{error}");
}

#[test]
fn rules_come_from_json_and_from_a_variable_too() {
    let text = r#"{"channels": [{"pattern": "private-doc.{id}", "last": "20", "lastFor": "5m", "webhooks": ["member_added"]}]}"#;
    let loaded = json(text, &[]);
    assert_eq!((loaded.config.channels[0].last, loaded.warnings.len()), (Some(20), 1), "{:?}", loaded.warnings);
    let variable = [("LARAVEL_ECHO_SERVER_CHANNELS", r#"[{"pattern": "news.*", "deliver": "latest"}]"#)];
    assert_eq!(json(text, &variable).config.channels[0].pattern, "news.*");
    let error = Folder::new(&[(TOML_FILE, "")]).load(&[("LARAVEL_ECHO_SERVER_CHANNELS", "news.*")]).unwrap_err().to_string();
    assert!(error.contains("a list of tables in JSON"), "{error}");
}

#[test]
fn a_config_of_the_original_works_unchanged() {
    let loaded = json(
        r#"{"authHost": "https://app.test", "authEndpoint": "/broadcasting/auth", "clients": [{"appId": 1234, "key": "k"}],
            "databaseConfig": {"redis": {"port": "6380", "keyPrefix": null, "password": ""}}, "devMode": "true", "host": null, "port": "6002",
            "protocol": "http", "socketio": {"pingTimeout": "100", "serveClient": false}, "secureOptions": 67108864,
            "sslCertPath": "", "subscribers": {"http": false}, "apiOriginAllow": {"allowCors": false}}"#,
        &[],
    );
    let config = loaded.config;
    assert_eq!(config.database, Database::Redis);
    assert_eq!((config.port, config.database_config.redis.port), (6002, 6380));
    assert_eq!(config.database_config.redis.password, None);
    assert_eq!(config.clients[0].app_id, "1234");
    assert!(config.dev_mode && !config.subscribers.http && config.subscribers.redis);
    assert!(!config.auth.tls.verify);
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings[1].contains("auth.tls.verify"), "{:?}", loaded.warnings);
}

#[test]
fn certificates_are_verified_unless_an_old_config_leaves_it_open() {
    assert!(toml("authHost = 'https://app.test'").unwrap().config.auth.tls.verify);
    let strict = json(r#"{"authHost": "https://app.test", "auth": {"tls": {"verify": true}}}"#, &[]);
    assert!(strict.config.auth.tls.verify);
    assert_eq!(strict.warnings, [""; 0]);
    assert_eq!(json(r#"{"authHost": "http://app.test"}"#, &[]).warnings, [""; 0]);
}

#[test]
fn a_missing_database_is_memory_in_toml_and_redis_in_json() {
    assert_eq!(toml("").unwrap().config.database, Database::Memory);
    assert_eq!(json("{}", &[]).config.database, Database::Redis);
}

#[test]
fn variables_win_over_the_file_and_tables_appear_as_needed() {
    let loaded = json(
        r#"{"port": 1, "databaseConfig": null}"#,
        &[
            ("LARAVEL_ECHO_SERVER_PORT", "tcp://10.0.0.1:7000"),
            ("LARAVEL_ECHO_SERVER_REDIS_HOST", "redis"),
            ("LARAVEL_ECHO_SERVER_DEBUG", "true"),
            ("LARAVEL_ECHO_SERVER_AUTH_TIMEOUT", "3s"),
            ("LARAVEL_ECHO_SERVER_REDIS_TLS", "true"),
        ],
    );
    assert_eq!(loaded.config.port, 7000);
    assert_eq!(loaded.config.database_config.redis.host, "redis");
    assert!(loaded.config.dev_mode && loaded.config.database_config.redis.tls.enabled);
    assert_eq!(loaded.config.auth.timeout, Duration::from_secs(3));
    assert_eq!(loaded.sources["port"].to_string(), "LARAVEL_ECHO_SERVER_PORT in the environment");
}

#[test]
fn auth_host_falls_back_to_the_host_of_the_environment() {
    let auth_host = |file, variables: &[(&str, &str)]| json(file, variables).config.auth_host.join(" ");
    let host = &[("LARAVEL_ECHO_SERVER_HOST", "app.test")];
    assert_eq!(auth_host("{}", host), "http://app.test");
    assert_eq!(auth_host(r#"{"authHost": "http://laravel.test"}"#, host), "http://laravel.test");
    assert_eq!(auth_host("{}", &[("LARAVEL_ECHO_SERVER_HOST", "0.0.0.0")]), "http://localhost");
    assert_eq!(auth_host(r#"{"host": "127.0.0.1"}"#, &[]), "http://localhost");
    assert_eq!(auth_host(r#"{"host": "app.test", "authHost": ""}"#, &[]), "http://app.test");
    assert_eq!(auth_host(r#"{"authHost": ""}"#, &[]), "http://localhost");
}

#[test]
fn origins_of_socket_io_2_count_unless_allowed_origins_are_given() {
    let origins = |file| json(file, &[]).config.allowed_origins;
    assert_eq!(origins(r#"{"socketio": {"origins": "http://a.test:80 https://b.test:8443"}}"#), ["http://a.test", "https://b.test:8443"]);
    assert_eq!(origins(r#"{"socketio": {"origins": ["*:*"]}}"#), ["*"]);
    assert_eq!(origins(r#"{"socketio": {"origins": "*:*"}, "allowedOrigins": "https://c.test"}"#), ["https://c.test"]);
}

#[test]
fn a_value_of_the_wrong_kind_is_told_with_key_value_and_source() {
    let message = |text: &str| toml(text).unwrap_err().to_string();
    let port = message("port = 'abc'");
    assert!(port.contains("\n  `port` is \"abc\", expected a port from 1 to 65535\n    set in "), "{port}");
    assert!(port.ends_with(TOML_FILE), "{port}");
    let unexpanded = message("[databaseConfig.redis]\nport = '${REDIS_PORT}'");
    assert!(unexpanded.ends_with("or leave the key out and set LARAVEL_ECHO_SERVER_REDIS_PORT"), "{unexpanded}");
    let without_variable = message("[[channels]]\npattern = 'news'\nlast = '${LAST}'");
    assert!(without_variable.ends_with("not expanded in a config file: write the value itself"), "{without_variable}");
    assert!(message("port = 70000").contains("`port` is 70000, expected a port"));
    assert!(message("database = 'mysql'").contains("`database` is \"mysql\", expected one of `memory`, `redis`, `sqlite`"));
    assert!(message("[auth]\ntimeout = 'soon'").contains("`auth.timeout` is \"soon\", expected a duration"));
    assert!(message("[[clients]]\nkey = 'k'").contains("expected a value for `appId`"));
    assert!(message("subscribers = 'http'").contains("`subscribers` is text, expected a table of settings"));
    assert!(message("clients = 5").contains("`clients` is 5, expected a list\n"));
    assert!(!message("[databaseConfig.redis]\npassword = ['hunter2']").contains("hunter2"));
}

#[test]
fn all_values_of_the_wrong_kind_are_told_at_once() {
    let text = "port = 'abc'\ndatabase = 'mysql'\nchannels = { pattern = 'a' }\n[auth]\ntimeout = 'soon'\nqueueTimeout = 'x'\n\
                [[clients]]\nkey = 'k'\n[[clients]]\nappId = []\nkey = 'hunter2'\nwebhooks = [{ event = ['a'], url = 5 }]\n\
                [[webhooks]]\nevents = ['member_joined']\n";
    let message = toml(text).unwrap_err().to_string();
    for told in [
        "`port` is \"abc\"",
        "`database` is \"mysql\"",
        "`channels` is a single table, expected a list of tables: in TOML `[[channels]]`",
        "`auth.timeout` is \"soon\"",
        "`auth.queueTimeout` is \"x\"",
        "`clients[1]` is incomplete, expected a value for `appId`",
        "`clients[2].appId` is a list, expected text",
        "`clients[2].webhooks[1].event` is unknown, expected `events`",
        "`clients[2].webhooks[1].url` is of the wrong kind, expected text",
        "`webhooks[1].events[1]` is \"member_joined\", expected one of `channel_occupied`",
    ] {
        assert!(message.contains(told), "{told} in {message}");
    }
    assert_eq!(message.matches("set in ").count(), 10, "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_key_that_is_set_twice_is_told_with_both_lines() {
    for (text, told) in [
        ("port = 1\nhost = 'a'\nport = 2", "line 3, column 1: `port` is set twice, line 1 has it already"),
        ("[auth]\n[log]\n[auth]", "line 3, column 2: `auth` is set twice, line 1 has it already"),
        (
            "port = 1\n[redisServer]\nport = 2\n[metrics]\nport = 3\nport = 4",
            "line 6, column 1: `port` is set twice, line 5 has it already",
        ),
        ("[auth]\nheaders = 1\n[auth.headers]", "line 3, column 7: `headers` is set twice"),
    ] {
        let error = toml(text).unwrap_err().to_string();
        assert!(error.contains(told), "{told} in {error}");
    }
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    let error = Folder::new(&[(TOML_FILE, "")]).load(&[("LARAVEL_ECHO_SERVER_PORT", "abc")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the configuration cannot work:\n  `port` is \"abc\", expected a port from 1 to 65535\n    set in LARAVEL_ECHO_SERVER_PORT in the \
         environment"
    );
}

#[test]
fn a_value_that_cannot_work_is_told_with_its_source() {
    let folder = Folder::new(&[(TOML_FILE, "authHost = 'ftp://app.test'\n[headers]\n'X Y' = 'z'\n")]);
    let message =
        folder.load(&[("LARAVEL_ECHO_SERVER_AUTH_TIMEOUT", "0"), ("LARAVEL_ECHO_SERVER_PROTOCOL", "https")]).unwrap_err().to_string();
    let source = |key: &str| {
        let mut lines = message.lines().skip_while(|line| !line.starts_with(&format!("  `{key}`")));
        lines.nth(1).and_then(|line| line.trim().strip_prefix("set in ")).map(str::to_owned)
    };
    let file = folder.0.join(TOML_FILE).display().to_string();
    assert_eq!(source("authHost").as_deref(), Some(&file[..]), "{message}");
    assert_eq!(source("headers.X Y").as_deref(), Some(&file[..]), "{message}");
    assert_eq!(source("auth.timeout").as_deref(), Some("LARAVEL_ECHO_SERVER_AUTH_TIMEOUT in the environment"), "{message}");
    assert_eq!(source("sslKeyPath"), None, "nothing set it: {message}");
}

/// For any value at any key, the message must not mention Rust types.
#[test]
fn what_was_expected_is_said_without_words_of_rust() {
    const RUST: [&str; 11] = ["struct", "sequence", "map", "u64", "i64", "usize", "enum", "variant", "unit", "tuple", "string"];
    let tables = ["auth", "auth.tls", "auth.jwt", "databaseConfig", "databaseConfig.redis", "limits", "subscribers", "socketio"];
    let keys: Vec<_> = schema::paths().into_iter().chain(tables.map(str::to_owned)).collect();
    let mut wrong = Vec::new();
    for (key, value) in keys.iter().flat_map(|key| ["true", "-1.5", "'x'", "[{ x = [] }]"].map(|value| (key, value))) {
        let (tree, format) = parse(Path::new(TOML_FILE), &format!("{key} = {value}")).unwrap();
        let loaded = resolve(Some((TOML_FILE.into(), tree, format)), Vec::new(), &Environment::default());
        let Err(LoadError::Invalid(problems)) = loaded else { continue };
        for expected in problems.0.iter().map(|problem| &problem.expected) {
            if expected.split(|c: char| !c.is_alphanumeric()).any(|word| RUST.contains(&word)) {
                wrong.push(format!("{key} = {value}: expected {expected}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_folder_without_the_browsers_script_is_said() {
    let folder = Folder::new(&[(TOML_FILE, "[socketio]\nclientPath = '/no/such/folder'\n")]);
    let warnings = folder.load(&[]).unwrap().warnings;
    assert!(matches!(&warnings[..], [one] if one.contains("`socketio.clientPath` is \"/no/such/folder\"")), "{warnings:?}");
    std::fs::write(folder.0.join("socket.io.js"), "").unwrap();
    let path = folder.0.display().to_string();
    assert_eq!(folder.load(&[("LARAVEL_ECHO_SERVER_SOCKETIO_CLIENT_PATH", &path)]).unwrap().warnings, [""; 0]);
}

#[test]
fn no_file_is_said_with_the_places_that_were_looked_at() {
    let message = Folder::new(&[]).load(&[]).unwrap_err().to_string();
    for part in ["The config file could not be found.", TOML_FILE, JSON_FILE, "init", "start --defaults", "LARAVEL_ECHO_SERVER_REDIS_HOST"]
    {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_broken_file_is_said_with_the_place() {
    let broken = |name| Folder::new(&[(name, "{\"broken\": [")]).load(&[]).unwrap_err().to_string();
    assert!(broken(JSON_FILE).contains("There was a problem reading the config file."));
    assert!(broken(JSON_FILE).contains("line 1"));
    assert!(broken(TOML_FILE).contains("There was a problem reading the config file."));
    let list = Folder::new(&[(JSON_FILE, "[]")]).load(&[]).unwrap_err().to_string();
    assert!(list.contains("expected an object"), "{list}");
}

#[test]
fn toml_is_taken_where_both_are_and_that_is_said() {
    let folder = Folder::new(&[(TOML_FILE, "port = 1"), (JSON_FILE, "{}")]);
    let loaded = folder.load(&[]).unwrap();
    assert_eq!(loaded.config.port, 1);
    assert!(loaded.warnings[0].contains("laravel-echo-server.json is ignored"), "{:?}", loaded.warnings);
}

#[test]
fn the_config_can_have_any_name() {
    let folder = Folder::new(&[("echo.conf", r#"{"protocol": "http"}"#), ("echo", "port = 5")]);
    let load = |name: &str| {
        let options = LoadOptions { dir: Some(folder.0.clone()), config: Some(name.into()), defaults: false };
        load_with(&options, &Environment::default()).unwrap().config
    };
    assert_eq!((load("echo.conf").protocol, load("echo.conf").database), (Protocol::Http, Database::Redis));
    assert_eq!(load("echo").port, 5);
}

#[test]
fn without_a_file_the_environment_still_counts() {
    let options = LoadOptions { defaults: true, ..LoadOptions::default() };
    let loaded = load_with(&options, &environment(&[("LARAVEL_ECHO_SERVER_PORT", "9")])).unwrap();
    assert_eq!((loaded.config.port, loaded.path), (9, None));
}
