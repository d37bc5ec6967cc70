//! The configuration sources of a project. Input: its folder. Output: `config/database.php`, `config/broadcasting.php` and
//! `app.url` as Laravel sees them: from its cached configuration, else from PHP, else from evaluating the files here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use laravel_echo_server::files;

use super::ask;
use super::php::{self, Array, Asked, Outside, Value};
use super::variables::Variables;

/// A Laravel version: major and minor number.
pub(super) type Version = (u32, u32);

/// The first version that merges the project's config files into the framework's own.
const MERGES: Version = (11, 0);

/// The first version whose `Str::ascii` uses voku's library.
const HAS_ASCII: Version = (7, 0);

/// The evaluated configuration of a project.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) app: Settings,
    pub(super) database: Settings,
    pub(super) broadcasting: Settings,
    pub(super) version: Option<Version>,
    /// What prevents Laravel or this program from reading it, and how to fix that.
    pub(super) errors: Vec<String>,
    variables: Variables,
}

/// One config file of Laravel.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The evaluated value.
    pub(super) value: Value,
    /// The value evaluated from the files alone, which knows the variables it was made of.
    parsed: Value,
    /// The source of `value`.
    pub(super) place: String,
    /// The project's file, or Laravel's built-in one.
    pub(super) file: String,
    /// Whether the project has its own file.
    pub(super) is_own: bool,
}

impl Settings {
    /// The variables that the value at these keys was made of, and the source of the value.
    pub(super) fn place(&self, keys: &[&str]) -> (Asked, String) {
        let asked = self.parsed.asked(keys);
        if self.parsed.at(keys) != self.value.at(keys) || self.place != self.file && self.parsed.at(keys) == &Value::Null {
            return (Asked { found: None, ..asked }, self.place.clone());
        }
        let place = asked.found.clone().unwrap_or_else(|| self.file.clone());
        (asked, place)
    }
}

impl Sources {
    /// The value of `env()` for a variable, as text, and where it was set.
    pub(super) fn variable(&self, name: &str) -> Option<(String, String)> {
        let (_, place) = self.variables.get(name).ok().flatten()?;
        Some((self.variables.env(name).string().ok()?, place))
    }

    /// Reads the project in `dir`; `None` if there is none.
    pub(super) fn read(dir: &Path, process: BTreeMap<String, String>) -> Option<Self> {
        let variables = Variables::read(dir, process);
        let is_project = ["artisan", "bootstrap/app.php", "config/database.php", "config/broadcasting.php", "vendor/laravel/framework"];
        if variables.path.is_none() && variables.error.is_none() && !is_project.iter().any(|name| dir.join(name).exists()) {
            return None;
        }
        let (truth, errors) = match evaluated(dir, &variables) {
            Ok(truth) => (Some(truth), Vec::new()),
            Err(error) => (None, error.into_iter().chain(variables.error.clone()).collect()),
        };
        let version = truth.as_ref().and_then(|truth| truth.version).or_else(|| version_of(dir));
        let files = Files { dir, variables: &variables, version };
        let settings = |name: &str| {
            let (file, parsed) = files.settings(name);
            let is_own = files.own(name).is_some();
            match &truth {
                Some(truth) => Settings { value: truth.all.at(&[name]).clone(), parsed, place: truth.place.clone(), file, is_own },
                None => Settings { value: parsed.clone(), parsed, place: file.clone(), file, is_own },
            }
        };
        let mut app = settings("app");
        if truth.is_none() && !matches!(app.value.at(&["url"]), Value::Text(_)) {
            app.value = app_of(&variables);
            app.parsed = app.value.clone();
        }
        let (mut database, broadcasting) = (settings("database"), settings("broadcasting"));
        if database.value == Value::Null {
            database.value = files.database_of_variables();
            database.parsed = database.value.clone();
            database.file = variables.path.as_ref().map_or_else(|| ".env".to_owned(), |path| path.display().to_string());
            database.place.clone_from(&database.file);
        }
        Some(Self { database, broadcasting, app, version, errors, variables })
    }
}

/// The whole configuration as PHP evaluated it.
struct Evaluated {
    all: Value,
    /// Where it is from.
    place: String,
    version: Option<Version>,
}

/// Laravel's cache of its configuration, or what PHP says now. Without either the files are read; the error is why, if that is
/// worth telling.
fn evaluated(dir: &Path, variables: &Variables) -> Result<Evaluated, Option<String>> {
    let cache = variables.env("APP_CONFIG_CACHE").string().ok().filter(|path| !path.is_empty());
    let cache = dir.join(cache.as_deref().unwrap_or("bootstrap/cache/config.php"));
    if cache.is_file() {
        let text = read_text(&cache).map_err(Some)?;
        let none = |_: &str| Ok(None);
        let outside = Outside { variable: &none, config: &|key| Value::Unknown(format!("`config('{key}')`")), has_ascii: true };
        return Ok(Evaluated { all: php::evaluate(&text, &outside), place: cache.display().to_string(), version: None });
    }
    match ask::ask(dir) {
        Ok(json) => {
            let version = json["version"].as_str().and_then(parse_version);
            Ok(Evaluated { all: Value::from(json), place: "evaluated by PHP".to_owned(), version })
        }
        Err(reason) => {
            let is_installed = dir.join("vendor/autoload.php").is_file();
            Err(is_installed.then(|| format!("could not ask PHP, reading the files instead: {reason}")))
        }
    }
}

/// What `config/app.php` usually makes of the variables, where it is missing or cannot be evaluated.
fn app_of(variables: &Variables) -> Value {
    let asked = variables.get("APP_URL").ok().flatten().map(|(_, place)| format!("APP_URL in {place}"));
    let mut app = Array::default();
    app.put("url".to_owned(), variables.env("APP_URL"), Asked { variable: Some("APP_URL".to_owned()), found: asked });
    Value::Array(app)
}

fn read_text(path: &Path) -> Result<String, String> {
    let bytes = files::read(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The config files of a project.
struct Files<'a> {
    dir: &'a Path,
    variables: &'a Variables,
    version: Option<Version>,
}

impl Files<'_> {
    fn own(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join("config").join(format!("{name}.php"))).filter(|path| path.is_file())
    }

    /// What `config/database.php` usually makes of the variables, without its defaults.
    fn database_of_variables(&self) -> Value {
        let mut database = self.run("database", VARIABLES);
        if let (Ok(None), Value::Array(all)) = (self.variables.get("REDIS_PREFIX"), &mut database)
            && let Value::Array(mut redis) = all.get("redis").clone()
        {
            let why = "there is no config/database.php, and no REDIS_PREFIX".to_owned();
            redis.put("options".to_owned(), Value::Unknown(why), Asked::default());
            all.put("redis".to_owned(), Value::Array(redis), Asked::default());
        }
        database
    }

    /// Whether Laravel merges its own config files with those of the project.
    fn merges(&self) -> bool {
        let bootstrap = self.dir.join("bootstrap/app.php");
        self.version.is_some_and(|version| version >= MERGES)
            && !std::fs::read_to_string(bootstrap).is_ok_and(|text| text.contains("dontMergeFrameworkConfiguration"))
    }

    /// The evaluated value of a config file, and the path of the file.
    fn settings(&self, name: &str) -> (String, Value) {
        let own = self.own(name);
        let path = own.clone().unwrap_or_else(|| self.dir.join("config").join(format!("{name}.php")));
        let mut shown = path.display().to_string();
        let base = if self.merges() { self.base(name) } else { None };
        let mine = own.map(|path| self.evaluate(name, &path));
        let value = match (base, mine) {
            (None, None) => return (shown, Value::Null),
            (None, Some(mine)) => mine,
            (Some((file, base)), None) => {
                shown = file;
                base
            }
            (Some((_, Value::Array(mut base))), Some(Value::Array(mut mine))) => {
                // Connections are merged individually, all other keys are replaced.
                if let (Value::Array(connections), Some(own)) =
                    (base.get("connections").clone(), mine.items.iter_mut().find(|item| item.key == "connections"))
                    && let Value::Array(more) = own.value.clone()
                {
                    let mut connections = connections;
                    connections.merge(more);
                    own.value = Value::Array(connections);
                }
                base.merge(mine);
                Value::Array(base)
            }
            (Some(_), Some(mine)) => mine,
        };
        (shown, value)
    }

    /// Laravel's built-in file: from the framework's folder, or a copy of its relevant parts.
    fn base(&self, name: &str) -> Option<(String, Value)> {
        let path = self.dir.join("vendor/laravel/framework/config").join(format!("{name}.php"));
        if path.is_file() {
            let value = self.evaluate(name, &path);
            return Some((path.display().to_string(), value));
        }
        let text = match name {
            "broadcasting" => BROADCASTING.to_owned(),
            "database" => {
                let (separator, dash) = if self.version.is_some_and(|version| version >= (13, 0)) { ("-", "-") } else { ("_", "_") };
                DATABASE.replace("SEPARATOR", separator).replace("DASH", dash)
            }
            _ => return None,
        };
        Some((format!("Laravel's own config/{name}.php"), self.run(name, &text)))
    }

    fn evaluate(&self, name: &str, path: &Path) -> Value {
        match read_text(path) {
            Ok(text) => self.run(name, &text),
            Err(error) => Value::Unknown(error),
        }
    }

    fn run(&self, name: &str, text: &str) -> Value {
        let variable = |name: &str| self.variables.get(name);
        let config = |key: &str| self.config(name, key);
        let has_ascii = self.version.is_none_or(|version| version >= HAS_ASCII);
        php::evaluate(text, &Outside { variable: &variable, config: &config, has_ascii })
    }

    /// `config('…')` in the file `name`: Laravel loads files alphabetically, so only earlier ones are available.
    fn config(&self, name: &str, key: &str) -> Value {
        let mut keys = key.split('.');
        let Some(file) = keys.next().filter(|file| *file < name) else { return Value::Unknown(format!("`config('{key}')`")) };
        let (_, value) = self.settings(file);
        match value {
            Value::Null => Value::Unknown(format!("`config('{key}')`")),
            value => value.at(&keys.collect::<Vec<_>>()).clone(),
        }
    }
}

/// The broadcasting part of the framework's own file, in Laravel 11 to 13.
const BROADCASTING: &str = "<?php return ['default' => env('BROADCAST_CONNECTION', 'null'), 'connections' => [
    'reverb' => ['driver' => 'reverb'], 'pusher' => ['driver' => 'pusher'], 'ably' => ['driver' => 'ably'],
    'log' => ['driver' => 'log'], 'null' => ['driver' => 'null']]];";

/// The Redis part of the framework's own file, with `_` in Laravel 11 and 12, with `-` in 13.
const DATABASE: &str = "<?php return ['redis' => ['client' => env('REDIS_CLIENT', 'phpredis'),
    'options' => ['prefix' => env('REDIS_PREFIX', Str::slug((string) env('APP_NAME', 'laravel'), 'SEPARATOR').'DASHdatabaseDASH')],
    'default' => ['url' => env('REDIS_URL'), 'host' => env('REDIS_HOST', '127.0.0.1'), 'username' => env('REDIS_USERNAME'),
        'password' => env('REDIS_PASSWORD'), 'port' => env('REDIS_PORT', '6379'), 'database' => env('REDIS_DB', '0')],
    'cache' => ['url' => env('REDIS_URL'), 'host' => env('REDIS_HOST', '127.0.0.1'), 'username' => env('REDIS_USERNAME'),
        'password' => env('REDIS_PASSWORD'), 'port' => env('REDIS_PORT', '6379'), 'database' => env('REDIS_CACHE_DB', '1')]]];";

/// The usual names of the variables in `.env`.
const VARIABLES: &str = "<?php return ['redis' => ['options' => ['prefix' => env('REDIS_PREFIX')],
    'default' => ['url' => env('REDIS_URL'), 'host' => env('REDIS_HOST'), 'username' => env('REDIS_USERNAME'),
        'password' => env('REDIS_PASSWORD'), 'port' => env('REDIS_PORT'), 'database' => env('REDIS_DB')]]];";

/// The Laravel version, if it can be found in the files.
fn version_of(dir: &Path) -> Option<Version> {
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    let installed = || {
        let text = text("vendor/laravel/framework/src/Illuminate/Foundation/Application.php")?;
        parse_version(text.split_once("const VERSION = '")?.1)
    };
    let json = |name: &str| serde_json::from_str::<serde_json::Value>(&text(name)?).ok();
    let locked = || {
        let lock = json("composer.lock")?;
        let packages = lock["packages"].as_array()?;
        parse_version(packages.iter().find(|package| package["name"] == "laravel/framework")?["version"].as_str()?)
    };
    let required = || {
        let composer = json("composer.json")?;
        let wanted = composer["require"]["laravel/framework"].as_str()?.rsplit('|').next()?.trim().to_owned();
        let (major, minor) = parse_version(&wanted)?;
        // `^6.2` allows the newest 6.x.
        Some((major, if wanted.starts_with('^') { u32::MAX } else { minor }))
    };
    // These exist only since Laravel 11.
    let shape =
        || ["bootstrap/providers.php", "vendor/laravel/framework/config"].iter().any(|name| dir.join(name).exists()).then_some(MERGES);
    installed().or_else(locked).or_else(required).or_else(shape)
}

/// The first two numbers in a text.
fn parse_version(text: &str) -> Option<Version> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut numbers = text[start..].split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
}
