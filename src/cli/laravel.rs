//! The Laravel project around the config file. Input: its `.env`, `config/database.php` and `config/broadcasting.php`.
//! Output: the settings that can be known from them, each with the place it was found at, and where it broadcasts to.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use laravel_echo_server::config::env::Environment;
use laravel_echo_server::files;

pub(super) mod broadcaster;
mod php;

use broadcaster::Broadcaster;
use php::Php;

/// A setting and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// Config key.
    pub(super) key: &'static str,
    pub(super) value: String,
    /// File and name.
    pub(super) place: String,
}

/// What the project says.
#[derive(Debug, Default)]
pub(super) struct Project {
    pub(super) findings: Vec<Finding>,
    /// Where events go, if that can be known.
    pub(super) broadcaster: Option<Broadcaster>,
}

/// Config files of the project, or Laravel's own where the project has none (Laravel 11 and later).
const DATABASE_CONFIGS: [&str; 2] = ["config/database.php", "vendor/laravel/framework/config/database.php"];
const BROADCASTING_CONFIGS: [&str; 2] = ["config/broadcasting.php", "vendor/laravel/framework/config/broadcasting.php"];

/// The Redis connection that Laravel takes where none is named.
const DEFAULT_CONNECTION: &str = "default";

/// Keys of a Redis connection in `config/database.php` and the config keys they give.
const REDIS_KEYS: [(&str, &str); 6] = [
    ("url", "databaseConfig.redis.url"),
    ("host", "databaseConfig.redis.host"),
    ("port", "databaseConfig.redis.port"),
    ("username", "databaseConfig.redis.username"),
    ("password", "databaseConfig.redis.password"),
    ("database", "databaseConfig.redis.db"),
];

impl Project {
    /// Reads the project in `dir`; nothing is found where there is none.
    ///
    /// # Errors
    /// When one of its config files is there but cannot be read.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        let mut project = Self::default();
        let [database, broadcasting] = [DATABASE_CONFIGS, BROADCASTING_CONFIGS].map(|names| names.map(|name| dir.join(name)));
        let (database, broadcasting) = (first_text(&database)?, first_text(&broadcasting)?);
        if !dir.join(".env").is_file() && database.is_none() && broadcasting.is_none() {
            return Ok(project);
        }
        let environment = Environment::read(&[dir]);
        project.app_url(&environment);
        project.broadcaster = match broadcasting {
            Some((path, text)) => Broadcaster::of_file(path, &text, &environment),
            None => Broadcaster::of_variables(&environment),
        };
        match database {
            Some((path, text)) => project.database(path, &text, &environment),
            None => project.redis_of(&environment),
        }
        Ok(project)
    }

    /// The value found for a config key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.findings.iter().find(|finding| finding.key == key).map(|finding| finding.value.as_str())
    }

    /// Adds a finding, if there is none for the key yet.
    fn push(&mut self, key: &'static str, value: String, place: String) {
        if self.get(key).is_none() {
            self.findings.push(Finding { key, value, place });
        }
    }

    fn app_url(&mut self, environment: &Environment) {
        if let Some((url, origin)) = environment.expanded("APP_URL", &mut Vec::new()) {
            self.push("authHost", url.trim_end_matches('/').to_owned(), format!("APP_URL in {origin}"));
        }
    }

    fn database(&mut self, path: &Path, text: &str, environment: &Environment) {
        let connection = self.broadcaster.as_ref().and_then(Broadcaster::redis_connection).unwrap_or(DEFAULT_CONNECTION).to_owned();
        // The variable that gave the last value, to say where it comes from.
        let used = RefCell::new(None);
        let variable = |name: &str| {
            let (value, origin) = environment.expanded(name, &mut Vec::new())?;
            used.borrow_mut().get_or_insert(format!("{name} in {origin}"));
            Some(value)
        };
        let settings = Php::parse(text);
        let mut take = |keys: &[&str], key| {
            used.borrow_mut().take();
            let Some(value) = settings.at(keys).and_then(|value| value.text(&variable)) else { return };
            if !value.is_empty() {
                let place = used.borrow_mut().take().unwrap_or_else(|| path.display().to_string());
                self.push(key, value, place);
            }
        };
        for (name, key) in REDIS_KEYS {
            take(&["redis", &connection, name], key);
        }
        // What a connection says itself wins.
        for keys in
            [["redis", &connection, "prefix"].as_slice(), &["redis", &connection, "options", "prefix"], &["redis", "options", "prefix"]]
        {
            take(keys, "databaseConfig.redis.keyPrefix");
        }
    }

    /// Without a `config/database.php`, the usual names in `.env`.
    fn redis_of(&mut self, environment: &Environment) {
        for (name, key) in [
            ("REDIS_URL", "databaseConfig.redis.url"),
            ("REDIS_HOST", "databaseConfig.redis.host"),
            ("REDIS_PORT", "databaseConfig.redis.port"),
            ("REDIS_USERNAME", "databaseConfig.redis.username"),
            ("REDIS_PASSWORD", "databaseConfig.redis.password"),
            ("REDIS_DB", "databaseConfig.redis.db"),
            ("REDIS_PREFIX", "databaseConfig.redis.keyPrefix"),
        ] {
            if let Some((value, origin)) = environment.expanded(name, &mut Vec::new()) {
                self.push(key, value, format!("{name} in {origin}"));
            }
        }
    }
}

/// The first of the files that is there.
fn first_text(paths: &[PathBuf]) -> anyhow::Result<Option<(&Path, String)>> {
    let Some(path) = paths.iter().find(|path| path.is_file()) else { return Ok(None) };
    let bytes = files::read(path).with_context(|| format!("reading `{}`", path.display()))?;
    Ok(Some((path, String::from_utf8_lossy(&bytes).into_owned())))
}

/// Scheme, host and port of a URL, as browsers send it in `Origin`.
pub(super) fn origin_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty())?;
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    Some(format!("{scheme}://{}", host.strip_suffix(default_port).unwrap_or(host)).to_lowercase())
}

/// What `allowedOrigins` has to hold for the pages of an application at this URL. On the developer's own machine they
/// are opened under more names and ports: `artisan serve` takes 8000, whatever APP_URL says.
pub(super) fn origins_of(url: &str) -> Vec<String> {
    let Some(origin) = origin_of(url) else { return Vec::new() };
    let is_local = |host: &str| host == "localhost" || host.starts_with("127.") || host == "[::1]";
    let Some((scheme, host)) = origin.split_once("://") else { return vec![origin] };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if !is_local(name) {
        // A leading dot stands for all subdomains in `authHost`.
        return vec![if host.starts_with('.') { format!("{scheme}://*{host}") } else { origin }];
    }
    let mut names = vec!["localhost", "127.0.0.1"];
    if !names.contains(&name) {
        names.push(name);
    }
    names.iter().flat_map(|name| [format!("{scheme}://{name}"), format!("{scheme}://{name}:*")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(project: &Project, key: &str) -> Option<(String, String)> {
        let finding = project.findings.iter().find(|finding| finding.key == key)?;
        let place = finding.place.rsplit('/').next().unwrap_or_default();
        Some((finding.value.clone(), place.to_owned()))
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::default();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        environment.push(laravel_echo_server::config::env::Origin::File(".env".into()), variables);
        environment
    }

    fn database(text: &str, variables: &[(&str, &str)]) -> Project {
        let environment = environment(variables);
        let mut project = Project::default();
        project.app_url(&environment);
        project.database(Path::new("config/database.php"), text, &environment);
        project
    }

    /// The Redis part as an application of Laravel 6 to 11 has it.
    const OLD: &str = r"<?php
        use Illuminate\Support\Str;
        return [
            'default' => env('DB_CONNECTION', 'mysql'), // a comment with ' a quote
            'redis' => [
                'client' => env('REDIS_CLIENT', 'phpredis'),
                /* options */
                'options' => ['cluster' => env('REDIS_CLUSTER', 'redis'), 'prefix' => env('REDIS_PREFIX', Str::slug(env('APP_NAME', 'laravel'), '_').'_database_')],
                'default' => ['url' => env('REDIS_URL'), 'host' => env('REDIS_HOST', '127.0.0.1'), 'username' => env('REDIS_USERNAME'),
                    'password' => env('REDIS_PASSWORD'), 'port' => env('REDIS_PORT', '6379'), 'database' => env('REDIS_DB', '0')],
                'cache' => ['host' => env('REDIS_HOST', 'other')],
            ],
        ];";

    #[test]
    fn the_prefix_is_the_slug_of_the_applications_name() {
        let prefix = |name| found(&database(OLD, &[("APP_NAME", name)]), "databaseConfig.redis.keyPrefix").unwrap();
        assert_eq!(prefix("My Shop"), ("my_shop_database_".to_owned(), "APP_NAME in .env".to_owned()));
        assert_eq!(prefix("").0, "laravel_database_");
        let new = OLD.replace(
            "Str::slug(env('APP_NAME', 'laravel'), '_').'_database_'",
            "Str::slug((string) env('APP_NAME', 'laravel')).'-database-'",
        );
        let project = database(&new, &[("APP_NAME", "My Shop")]);
        assert_eq!(project.get("databaseConfig.redis.keyPrefix"), Some("my-shop-database-"));
        let project = database(OLD, &[("REDIS_PREFIX", "x:"), ("APP_NAME", "My Shop")]);
        assert_eq!(found(&project, "databaseConfig.redis.keyPrefix").unwrap(), ("x:".to_owned(), "REDIS_PREFIX in .env".to_owned()));
    }

    #[test]
    fn variables_win_over_the_defaults_of_the_php_file() {
        let project = database(OLD, &[("REDIS_HOST", "redis.test"), ("REDIS_PASSWORD", "null"), ("APP_URL", "https://shop.test/")]);
        assert_eq!(found(&project, "databaseConfig.redis.host").unwrap(), ("redis.test".to_owned(), "REDIS_HOST in .env".to_owned()));
        assert_eq!(found(&project, "databaseConfig.redis.port").unwrap(), ("6379".to_owned(), "database.php".to_owned()));
        assert_eq!(project.get("databaseConfig.redis.password"), None);
        assert_eq!(project.get("databaseConfig.redis.url"), None);
        assert_eq!(project.get("authHost"), Some("https://shop.test"));
    }

    #[test]
    fn the_connection_that_broadcasts_is_the_one_that_counts() {
        const DATABASE: &str = r"<?php return ['redis' => [
            'options' => ['prefix' => 'all_'],
            'default' => ['host' => 'one.test', 'port' => 6379],
            'echo' => ['host' => env('ECHO_HOST', 'two.test'), 'port' => 6380, 'prefix' => 'echo_'],
        ]];";
        const BROADCASTING: &str = r"<?php return ['default' => 'redis', 'connections' => [
            'redis' => ['driver' => 'redis', 'connection' => env('BROADCAST_REDIS_CONNECTION', 'default')]]];";
        let one = [("host", "one.test"), ("port", "6379"), ("keyPrefix", "all_")];
        let three = [("host", "three.test"), ("port", "6380"), ("keyPrefix", "echo_")];
        let echo = [("BROADCAST_REDIS_CONNECTION", "echo"), ("ECHO_HOST", "three.test")];
        for (variables, expected) in [(&[][..], one), (&echo, three)] {
            let environment = environment(variables);
            let broadcaster = Broadcaster::of_file(Path::new("config/broadcasting.php"), BROADCASTING, &environment);
            let mut project = Project { broadcaster, ..Project::default() };
            project.database(Path::new("config/database.php"), DATABASE, &environment);
            for (key, value) in expected {
                assert_eq!(project.get(&format!("databaseConfig.redis.{key}")), Some(value));
            }
        }
    }

    #[test]
    fn what_cannot_be_known_is_left_out() {
        let project = database("<?php return ['redis' => ['default' => ['host' => gethostname(), 'port' => 6380]]];", &[]);
        assert_eq!(project.get("databaseConfig.redis.host"), None);
        assert_eq!(project.get("databaseConfig.redis.port"), Some("6380"));
        assert_eq!(project.get("databaseConfig.redis.keyPrefix"), None);
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        assert_eq!(origin_of("https://Shop.test:443/path").as_deref(), Some("https://shop.test"));
        assert_eq!(origin_of("http://localhost:8000").as_deref(), Some("http://localhost:8000"));
        assert_eq!(origin_of("shop.test"), None);
    }

    #[test]
    fn an_application_on_this_machine_has_many_origins() {
        assert_eq!(origins_of("https://Shop.test/path"), ["https://shop.test"]);
        assert_eq!(origins_of("https://shop.test:8443"), ["https://shop.test:8443"]);
        let local = ["http://localhost", "http://localhost:*", "http://127.0.0.1", "http://127.0.0.1:*"];
        for url in ["http://localhost", "http://localhost:8000", "http://127.0.0.1:8000/x"] {
            assert_eq!(origins_of(url), local, "{url}");
        }
        assert_eq!(origins_of("http://[::1]:8000")[4..], ["http://[::1]", "http://[::1]:*"]);
        assert_eq!(origins_of("https://.shop.test"), ["https://*.shop.test"]);
        assert_eq!(origins_of("shop.test"), [""; 0]);
    }
}
