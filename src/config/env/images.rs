//! The variables of four Docker images of the original, so that changing `image:` is enough. Input: the environment of the
//! process. Output: values for config keys that nothing else sets, and a note for each.
//!
//! The images are oanhnn/laravel-echo-server, mintopia's (webhook.site), imifarago's and fauzie's. Mintopia's other names are
//! the original's, prefixed with `LARAVEL_ECHO_SERVER_`.

use serde_json::{Value, json};

use super::{Environment, Origin, Override};

/// An image, recognised by names that only it uses. If one of them is set, the rest of its table applies: `REDIS_HOST` alone
/// could be for any program.
struct Image {
    marks: &'static [&'static str],
    /// Names and their keys.
    keys: &'static [(&'static str, &'static str)],
    /// The names of the one client's id and key.
    client: Option<(&'static str, &'static str)>,
    /// Keys and their values in the config file that the image writes if the variables are not set.
    defaults: &'static [(&'static str, &'static str)],
}

/// Makes oanhnn's image write a config file; not needed here, where every setting can be read from the environment.
const GENERATE_CONFIG: &str = "LARAVEL_ECHO_SERVER_GENERATE_CONFIG";

/// Whether a name with this server's prefix belongs to an image.
pub(super) fn knows(name: &str) -> bool {
    name == GENERATE_CONFIG || name == "LARAVEL_ECHO_SERVER_DB"
}

const IMAGES: &[Image] = &[
    // oanhnn
    Image {
        marks: &[GENERATE_CONFIG, "LARAVEL_ECHO_AUTH_HOST", "LARAVEL_ECHO_ALLOW_ORIGIN", "LARAVEL_ECHO_CLIENT_APP_ID"],
        keys: &[
            ("LARAVEL_ECHO_AUTH_HOST", "authHost"),
            ("LARAVEL_ECHO_ALLOW_ORIGIN", "apiOriginAllow.allowOrigin"),
            ("LARAVEL_ECHO_SERVER_DB", "database"),
            ("REDIS_HOST", "databaseConfig.redis.host"),
            ("REDIS_PORT", "databaseConfig.redis.port"),
            ("REDIS_PASSWORD", "databaseConfig.redis.password"),
            ("REDIS_PREFIX", "databaseConfig.redis.keyPrefix"),
            ("REDIS_DB", "databaseConfig.redis.db"),
        ],
        client: Some(("LARAVEL_ECHO_CLIENT_APP_ID", "LARAVEL_ECHO_CLIENT_APP_KEY")),
        defaults: &[("database", "redis"), ("databaseConfig.redis.host", "redis"), ("databaseConfig.redis.keyPrefix", "laravel_database_")],
    },
    // mintopia and imifarago: their names are unambiguous.
    Image {
        marks: &[],
        keys: &[
            ("ECHO_PROTOCOL", "protocol"),
            ("ECHO_REDIS_HOSTNAME", "databaseConfig.redis.host"),
            ("ECHO_REDIS_HOST", "databaseConfig.redis.host"),
            ("ECHO_REDIS_PORT", "databaseConfig.redis.port"),
            ("ECHO_REDIS_KEYPREFIX", "databaseConfig.redis.keyPrefix"),
            ("ECHO_REDIS_OPTS_DB", "databaseConfig.redis.db"),
            ("ECHO_CLIENTS", "clients"),
            ("ECHO_DEVMODE", "devMode"),
            ("ECHO_DEV_MODE", "devMode"),
            ("ECHO_ALLOW_CORS", "apiOriginAllow.allowCors"),
            ("ECHO_ALLOW_ORIGIN", "apiOriginAllow.allowOrigin"),
            ("ECHO_ALLOW_METHODS", "apiOriginAllow.allowMethods"),
            ("ECHO_ALLOW_HEADERS", "apiOriginAllow.allowHeaders"),
            ("ECHO_API_ORIGIN_CORS", "apiOriginAllow.allowCors"),
            ("ECHO_API_ORIGIN_ALLOW", "apiOriginAllow.allowOrigin"),
            ("ECHO_API_ORIGIN_METHODS", "apiOriginAllow.allowMethods"),
            ("ECHO_API_ORIGIN_HEADERS", "apiOriginAllow.allowHeaders"),
            ("ECHO_SSL_CERT_PATH", "sslCertPath"),
            ("ECHO_SSL_KEY_PATH", "sslKeyPath"),
            ("ECHO_SSL_CHAIN_PATH", "sslCertChainPath"),
            ("ECHO_SSL_PASSPHRASE", "sslPassphrase"),
            ("ECHO_AUTH_HOST", "authHost"),
            ("ECHO_AUTH_ENDPOINT", "authEndpoint"),
            ("ECHO_DATABASE", "database"),
            ("ECHO_HOST", "host"),
            ("ECHO_PORT", "port"),
            ("ECHO_SUBSCRIBER_HTTP", "subscribers.http"),
            ("ECHO_SUBSCRIBER_REDIS", "subscribers.redis"),
        ],
        client: Some(("ECHO_APP_ID", "ECHO_APP_KEY")),
        defaults: &[],
    },
    // Only in imifarago's image.
    Image {
        marks: &["ECHO_AUTH_HOST", "ECHO_AUTH_ENDPOINT", "ECHO_APP_ID", "ECHO_DATABASE", "ECHO_REDIS_HOST", "ECHO_REDIS_KEYPREFIX"],
        keys: &[],
        client: None,
        defaults: &[
            ("authEndpoint", "/api/broadcasting/auth"),
            ("database", "redis"),
            ("databaseConfig.redis.host", "redis"),
            ("databaseConfig.redis.keyPrefix", "redis_database_"),
        ],
    },
    // fauzie
    Image {
        marks: &["CLIENT_APP_ID"],
        keys: &[("DATABASE", "database")],
        client: Some(("CLIENT_APP_ID", "CLIENT_APP_KEY")),
        defaults: &[],
    },
];

/// The values of an image's variables, for keys that are not set otherwise. Only the process environment counts: in a
/// Laravel project's `.env` the same names belong to the application. Without a file (`has_file`), the image would write one
/// with the image's defaults, so these apply too.
pub(super) fn overrides(
    environment: &Environment,
    is_set: impl Fn(&str) -> bool,
    has_file: bool,
    to_value: impl Fn(&str, &str) -> Option<Value>,
    (notes, warnings): (&mut Vec<String>, &mut Vec<String>),
) -> Vec<Override> {
    let get = |name: &str| match environment.get(name) {
        Some((value, Origin::Process)) if value != "null" => Some(value),
        _ => None,
    };
    let mut found: Vec<Override> = Vec::new();
    let (mut silent, mut alone) = (Vec::new(), Vec::new());
    let mut take = |name: &str, path: &str, value: Option<Value>| {
        if is_set(path) || found.iter().any(|item| item.path == path) {
            return;
        }
        let Some(value) = value else { return warnings.push(format!("ignored `{name}`: not a valid value for `{path}`")) };
        let ours = super::short_variable_of(path);
        notes.push(format!("`{name}` sets `{path}`, as in a Docker image of the original; here the variable is `{ours}`"));
        found.push(Override { path: path.to_owned(), name: name.to_owned(), origin: Origin::Process, value });
    };
    for image in IMAGES {
        let mark = image.marks.iter().find(|mark| get(mark).is_some());
        if !image.marks.is_empty() && mark.is_none() {
            continue;
        }
        silent.extend(mark.into_iter().flat_map(|mark| image.defaults.iter().map(move |(path, text)| (*mark, *path, *text))));
        for (name, path) in image.keys {
            if let Some(text) = get(name) {
                take(name, path, to_value(path, text));
            }
        }
        if let Some((id, key)) = image.client {
            match (get(id), get(key)) {
                (Some(app_id), Some(key)) => take(id, "clients", Some(json!([{"appId": app_id, "key": key}]))),
                (Some(_), None) => alone.push((id, key)),
                (None, Some(_)) => alone.push((key, id)),
                (None, None) => {}
            }
        }
    }
    for (mark, path, text) in silent.into_iter().filter(|(_, path, _)| !has_file && !is_set(path)) {
        if let (Some(value), false) = (to_value(path, text), found.iter().any(|item| item.path == path)) {
            let ours = super::short_variable_of(path);
            notes.push(format!(
                "`{path}` is {text:?}, as in the Docker image of the original that `{mark}` belongs to; `{ours}` changes it"
            ));
            found.push(Override { path: path.to_owned(), name: mark.to_owned(), origin: Origin::Process, value });
        }
    }
    warnings.extend(alone.iter().filter(|_| !is_set("clients")).map(|(name, missing)| {
        format!("ignored `{name}`: it adds a client of the HTTP API only together with `{missing}`, which is not set")
    }));
    // In that image one variable sets both.
    if let Some(origin) = found.iter().position(|item| item.name == "LARAVEL_ECHO_ALLOW_ORIGIN")
        && !is_set("apiOriginAllow.allowCors")
    {
        let cors = Override { path: "apiOriginAllow.allowCors".to_owned(), value: json!(true), ..found[origin].clone() };
        found.push(cors);
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::config::env::{Environment, Origin};
    use crate::config::load::{LoadOptions, Loaded, load_with};

    fn load(variables: &[(&str, &str)]) -> Loaded {
        let mut environment = Environment::default();
        environment.push(Origin::Process, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        load_with(&LoadOptions { defaults: true, ..LoadOptions::default() }, &environment).expect("they are settings")
    }

    #[test]
    fn what_an_image_writes_by_itself_counts_without_a_file() {
        let of = |variables: &[(&str, &str)]| {
            let Loaded { config, notes, .. } = load(variables);
            (config.database_config.redis.host, config.database_config.redis.key_prefix, config.auth_endpoint, notes)
        };
        let (host, prefix, endpoint, notes) = of(&[("LARAVEL_ECHO_AUTH_HOST", "http://app")]);
        assert_eq!((&*host, &*prefix, &*endpoint), ("redis", "laravel_database_", "/broadcasting/auth"));
        let of_host = notes.iter().find(|line| line.starts_with("`databaseConfig.redis.host` is \"redis\"")).expect("a line");
        assert!(of_host.ends_with("`LARAVEL_ECHO_SERVER_REDIS_HOST` changes it"), "{of_host}");
        let (host, prefix, endpoint, _) = of(&[("ECHO_AUTH_HOST", "http://app"), ("ECHO_REDIS_HOST", "cache")]);
        assert_eq!((&*host, &*prefix, &*endpoint), ("cache", "redis_database_", "/api/broadcasting/auth"));
        let (host, prefix, ..) = of(&[("LARAVEL_ECHO_AUTH_HOST", "http://app"), ("LARAVEL_ECHO_SERVER_REDIS_PREFIX", "shop_")]);
        assert_eq!((&*host, &*prefix), ("redis", "shop_"));
        let (host, ..) = of(&[("ECHO_REDIS_HOSTNAME", "mintopia")]);
        assert_eq!(host, "mintopia");

        // The images do not change an existing file.
        let file = std::env::temp_dir().join(format!("echo-images-{:016x}.toml", rand::random::<u64>()));
        std::fs::write(&file, "authHost = \"http://app\"\n").unwrap();
        let mut environment = Environment::default();
        environment.push(Origin::Process, [("LARAVEL_ECHO_AUTH_HOST".to_owned(), "http://other".to_owned())]);
        let loaded = load_with(&LoadOptions { config: Some(file.clone()), ..LoadOptions::default() }, &environment).unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!(loaded.config.database_config.redis.host, "127.0.0.1");
    }

    /// Mark of the image, if it has one, then variable, text, key, and value as JSON.
    const TABLE: &[(Option<&str>, &str, &str, &str, &str)] = &[
        (None, "LARAVEL_ECHO_AUTH_HOST", "http://app", "authHost", "http://app"),
        (Some("LARAVEL_ECHO_SERVER_GENERATE_CONFIG"), "REDIS_HOST", "redis", "databaseConfig.redis.host", "redis"),
        (Some("LARAVEL_ECHO_SERVER_GENERATE_CONFIG"), "REDIS_PORT", "6390", "databaseConfig.redis.port", "6390"),
        (Some("LARAVEL_ECHO_SERVER_GENERATE_CONFIG"), "REDIS_PREFIX", "app_", "databaseConfig.redis.keyPrefix", "app_"),
        (Some("LARAVEL_ECHO_SERVER_GENERATE_CONFIG"), "REDIS_DB", "3", "databaseConfig.redis.db", "3"),
        (None, "LARAVEL_ECHO_ALLOW_ORIGIN", "http://a", "apiOriginAllow.allowOrigin", "http://a"),
        (None, "LARAVEL_ECHO_ALLOW_ORIGIN", "http://a", "apiOriginAllow.allowCors", "true"),
        (None, "ECHO_REDIS_HOSTNAME", "redis", "databaseConfig.redis.host", "redis"),
        (None, "ECHO_REDIS_HOST", "redis", "databaseConfig.redis.host", "redis"),
        (None, "ECHO_REDIS_PORT", "6390", "databaseConfig.redis.port", "6390"),
        (None, "ECHO_REDIS_KEYPREFIX", "app_", "databaseConfig.redis.keyPrefix", "app_"),
        (None, "ECHO_REDIS_OPTS_DB", "3", "databaseConfig.redis.db", "3"),
        (None, "ECHO_AUTH_HOST", "http://app", "authHost", "http://app"),
        (None, "ECHO_AUTH_ENDPOINT", "/auth", "authEndpoint", "/auth"),
        (None, "ECHO_DEVMODE", "true", "devMode", "true"),
        (None, "ECHO_DEV_MODE", "true", "devMode", "true"),
        (None, "ECHO_ALLOW_METHODS", "GET", "apiOriginAllow.allowMethods", "GET"),
        (None, "ECHO_SUBSCRIBER_REDIS", "false", "subscribers.redis", "false"),
        (None, "ECHO_HOST", "127.0.0.1", "host", "127.0.0.1"),
        (None, "ECHO_PORT", "6009", "port", "6009"),
        (None, "ECHO_API_ORIGIN_CORS", "true", "apiOriginAllow.allowCors", "true"),
        (None, "ECHO_API_ORIGIN_ALLOW", "http://a", "apiOriginAllow.allowOrigin", "http://a"),
    ];

    #[test]
    fn the_variables_of_images_set_keys_with_a_line_each() {
        for (mark, name, text, key, _) in TABLE {
            let variables: Vec<_> = mark.iter().map(|mark| (*mark, "true")).chain([(*name, *text)]).collect();
            let loaded = load(&variables);
            let source = loaded.sources.get(*key).unwrap_or_else(|| panic!("{name} sets {key}"));
            assert_eq!(source.to_string(), format!("{name} in the environment"));
            assert!(loaded.notes.iter().any(|line| line.contains(&format!("`{name}` sets `"))), "{name}: {:?}", loaded.notes);
            assert!(!loaded.warnings.iter().any(|line| line.contains("matches no config key")), "{name}: {:?}", loaded.warnings);
        }
    }

    #[test]
    fn what_images_set_is_in_force() {
        let loaded = load(&[
            ("ECHO_REDIS_HOST", "cache"),
            ("ECHO_APP_ID", "shop"),
            ("ECHO_APP_KEY", "a long key of the shop"),
            ("ECHO_DEVMODE", "true"),
        ]);
        assert_eq!(loaded.config.database_config.redis.host, "cache");
        assert_eq!(loaded.config.clients[0].app_id, "shop");
        assert!(loaded.config.dev_mode);
    }

    #[test]
    fn half_a_client_is_told() {
        for (name, missing) in [
            ("LARAVEL_ECHO_CLIENT_APP_ID", "LARAVEL_ECHO_CLIENT_APP_KEY"),
            ("ECHO_APP_ID", "ECHO_APP_KEY"),
            ("ECHO_APP_KEY", "ECHO_APP_ID"),
            ("CLIENT_APP_ID", "CLIENT_APP_KEY"),
        ] {
            let Loaded { config, warnings, .. } = load(&[(name, "shop")]);
            assert!(config.clients.is_empty());
            assert!(
                warnings.iter().any(|line| line.contains(&format!("`{name}`")) && line.contains(&format!("`{missing}`"))),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn names_of_this_server_win() {
        let loaded = load(&[("ECHO_REDIS_HOST", "old"), ("LARAVEL_ECHO_SERVER_REDIS_HOST", "new")]);
        assert_eq!(loaded.config.database_config.redis.host, "new");
    }

    #[test]
    fn names_that_anyone_uses_need_a_mark_of_the_image() {
        let loaded = load(&[("REDIS_HOST", "elsewhere"), ("DATABASE", "sqlite")]);
        assert!(!loaded.sources.contains_key("databaseConfig.redis.host") && !loaded.sources.contains_key("database"));
    }
}
