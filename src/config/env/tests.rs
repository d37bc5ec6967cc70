//! Tests of variable names and of `${VAR}` expansion.

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    let mut environment = Environment::default();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    environment.push(Origin::Process, variables);
    environment
}

/// The key that a variable sets, and its value.
fn value_of(name: &str, text: &str) -> (String, Value) {
    let mut warnings = Vec::new();
    let overrides = environment(&[(name, text)]).overrides(&mut warnings).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(overrides.len(), 1, "{overrides:?}");
    (overrides[0].path.clone(), overrides[0].value.clone())
}

#[test]
fn the_originals_names_lead_to_their_keys() {
    for (name, path) in [
        ("AUTH_HOST", "authHost"),
        ("DEBUG", "devMode"),
        ("HOST", "host"),
        ("PORT", "port"),
        ("REDIS_HOST", "databaseConfig.redis.host"),
        ("REDIS_PORT", "databaseConfig.redis.port"),
        ("REDIS_PASSWORD", "databaseConfig.redis.password"),
        ("PROTO", "protocol"),
        ("SSL_CERT", "sslCertPath"),
        ("SSL_KEY", "sslKeyPath"),
        ("SSL_CHAIN", "sslCertChainPath"),
        ("SSL_PASS", "sslPassphrase"),
        ("REDIS_PREFIX", "databaseConfig.redis.keyPrefix"),
        ("REDIS_DB", "databaseConfig.redis.db"),
        ("REDIS_USERNAME", "databaseConfig.redis.username"),
        ("REDIS_URL", "databaseConfig.redis.url"),
        ("DATABASE_CONFIG_REDIS_KEY_PREFIX", "databaseConfig.redis.keyPrefix"),
        ("AUTH_TLS_VERIFY", "auth.tls.verify"),
        ("LIMITS_CONNECTIONS_PER_IP", "limits.connectionsPerIp"),
    ] {
        assert_eq!(names().get(&format!("{PREFIX}{name}")).map(String::as_str), Some(path), "{name}");
    }
}

#[test]
fn every_key_has_a_name() {
    let known: std::collections::BTreeSet<_> = names().into_values().collect();
    assert_eq!(known, schema::paths().into_iter().collect());
}

#[test]
fn lists_are_comma_separated() {
    assert_eq!(value_of("LARAVEL_ECHO_SERVER_AUTH_HOST", "http://a, http://b").1, json!(["http://a", "http://b"]));
    assert_eq!(value_of("LARAVEL_ECHO_SERVER_AUTH_FORWARD", r#"["A"]"#).1, json!(["A"]));
    assert_eq!(value_of("LARAVEL_ECHO_SERVER_CLIENTS", "app:key").1, json!([{"appId": "app", "key": "key"}]));
    assert_eq!(
        value_of("LARAVEL_ECHO_SERVER_REDIS_SENTINELS", "a:1,b:2").1,
        json!([{"host": "a", "port": "1"}, {"host": "b", "port": "2"}])
    );
    assert_eq!(value_of("LARAVEL_ECHO_SERVER_HEADERS", "A: b:c").1, json!({"A": "b:c"}));
    let error = environment(&[("LARAVEL_ECHO_SERVER_CLIENTS", "app")]).overrides(&mut Vec::new()).unwrap_err();
    assert_eq!(error[0].expected, "appId:key pairs, separated by commas");
}

#[test]
fn empty_and_null_count_as_not_set() {
    let open = environment(&[("LARAVEL_ECHO_SERVER_REDIS_PASSWORD", "${EMPTY}"), ("EMPTY", "")]).overrides(&mut Vec::new());
    assert_eq!(open.unwrap_err()[0].name, "LARAVEL_ECHO_SERVER_REDIS_PASSWORD", "an empty secret would let everybody in");
    for text in ["", "null"] {
        let overrides = environment(&[("LARAVEL_ECHO_SERVER_REDIS_PASSWORD", text), ("EMPTY", "")]).overrides(&mut Vec::new());
        assert_eq!(overrides.unwrap(), [], "{text}");
    }
}

#[test]
fn variables_are_replaced_in_place() {
    let mut warnings = Vec::new();
    let environment = environment(&[
        ("A", "http://${HOST}:${PORT}/x"),
        ("HOST", "${NAME}.local"),
        ("NAME", "app"),
        ("PORT", "80"),
        ("OPEN", "pa$${word"),
        ("NONE", "a${NOPE}b"),
        ("LOOP", "x${LOOP}"),
    ]);
    let mut expand = |name| environment.expanded(name, &mut warnings).map(|(value, _)| value);
    assert_eq!(expand("A").unwrap(), "http://app.local:80/x");
    assert_eq!(expand("OPEN").unwrap(), "pa$${word");
    assert_eq!(expand("NONE").unwrap(), "ab");
    assert_eq!(expand("LOOP").unwrap(), "xxxxxxxxx");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(warnings[0], "`NONE` refers to `${NOPE}`, which is not set; that part is left empty");
    assert!(warnings[1].contains("refers to itself"), "{warnings:?}");
}

#[test]
fn the_first_layer_wins() {
    let mut environment = environment(&[("A", "process"), ("B", "")]);
    let file = Origin::File("x/.env".into());
    environment.push(file.clone(), [("A".to_owned(), "file".to_owned()), ("B".to_owned(), "file".to_owned())]);
    assert_eq!(environment.get("A"), Some(("process", &Origin::Process)));
    assert_eq!(environment.get("B"), Some(("file", &file)));
}

#[test]
fn names_that_match_no_key_warn() {
    let warnings = |name: &str| {
        let mut warnings = Vec::new();
        environment(&[(name, "1")]).overrides(&mut warnings).unwrap();
        warnings
    };
    assert_eq!(
        warnings("LARAVEL_ECHO_SERVER_REDIS_PREFX"),
        ["`LARAVEL_ECHO_SERVER_REDIS_PREFX` in the environment matches no config key, did you mean `LARAVEL_ECHO_SERVER_REDIS_PREFIX`?"]
    );
    assert_eq!(warnings("LARAVEL_ECHO_SERVER_PORT_6001_TCP_ADDR"), [""; 0]);
    assert_eq!(warnings("LARAVEL_ECHO_SERVER_SERVICE_HOST"), [""; 0]);
    assert_eq!(warnings("OTHER"), [""; 0]);
    for own in ["URL", "APP_KEY", "WAIT", "DB", "APP_ID", "PATH", "ENABLED", "HOSTNAME", "KEY", "SCHEME", "AUTH", "CLIENT_ID", "OPTIONS"] {
        assert_eq!(warnings(&format!("{PREFIX}{own}")), [""; 0], "{own}");
    }
    for near in ["AUTHHOST", "REDIS_PASSWROD", "PROT"] {
        assert_eq!(warnings(&format!("{PREFIX}{near}")).len(), 1, "{near}");
    }
    for (short, long) in [("CLUSTER", "CLUSTER_ENABLED"), ("METRICS", "METRICS_ENABLED"), ("REDIS_PASS", "REDIS_PASSWORD")] {
        let told = warnings(&format!("{PREFIX}{short}"));
        assert!(matches!(&told[..], [one] if one.ends_with(&format!("did you mean `{PREFIX}{long}`?"))), "{short}: {told:?}");
    }
}

#[test]
fn blanks_around_a_value_are_not_part_of_it() {
    for (name, text, value) in [
        ("PORT", "6002\r", "6002"),
        ("HOST", " 127.0.0.1 ", "127.0.0.1"),
        ("DEBUG", "true\t", "true"),
        ("REDIS_PASSWORD", " pass \r\n", " pass "),
        ("REDIS_PREFIX", "my app \r", "my app "),
    ] {
        assert_eq!(value_of(&format!("{PREFIX}{name}"), text).1, value, "{name}");
    }
    let blank = environment(&[("LARAVEL_ECHO_SERVER_PORT", " \r")]).overrides(&mut Vec::new()).unwrap();
    assert!(blank.is_empty(), "{blank:?}");
}

#[test]
fn of_two_names_of_a_key_the_one_of_the_process_wins() {
    for (process, file) in [("REDIS_HOST", "DATABASE_CONFIG_REDIS_HOST"), ("DATABASE_CONFIG_REDIS_HOST", "REDIS_HOST")] {
        let mut environment = environment(&[(&format!("{PREFIX}{process}"), "process")]);
        environment.push(Origin::File(".env".into()), [(format!("{PREFIX}{file}"), "file".to_owned())]);
        let overrides = environment.overrides(&mut Vec::new()).unwrap();
        assert_eq!(overrides.last().unwrap().value, "process", "{process}");
        assert_eq!(overrides.len(), 2);
    }
}
