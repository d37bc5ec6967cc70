//! `init` (or `configure`): writes a config file. Input: flags, the Laravel project in the folder, and answers to the
//! remaining questions. Output: a commented TOML file, or JSON with the original's keys.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use laravel_echo_server::config::load::{self, Format, JSON_FILE, TOML_FILE};
use laravel_echo_server::config::{Config, RedisServerConfig, validate};
use serde_json::{Value, json};

use super::laravel::broadcaster::{Broadcaster, Way};
use super::laravel::pusher::Connection;
use super::laravel::{self, Project, Unread};
use super::output::{CAUTION, FAINT, GOOD, STRONG, paint};
use super::prompt::Prompt;
use super::{ConfigLocation, client, config_file, output};

mod answers;

use answers::Answers;

/// Flags of `init`: one for each question.
#[derive(Debug, Args)]
pub(super) struct Configure {
    #[command(flatten)]
    place: ConfigLocation,
    /// Ask no questions: use flags, the Laravel project and defaults
    #[arg(long, short)]
    no_interaction: bool,
    /// Write JSON with the keys of laravel-echo-server 1
    #[arg(long)]
    json: bool,
    /// Overwrite an existing file without asking
    #[arg(long)]
    force: bool,
    /// Log joins, leaves and events
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    dev_mode: Option<bool>,
    /// Port to listen on
    #[arg(long)]
    port: Option<String>,
    /// Address to listen on
    #[arg(long)]
    host: Option<String>,
    /// Where presence members are kept
    #[arg(long)]
    database: Option<DatabaseChoice>,
    /// Address of the Laravel application; may be given several times
    #[arg(long, value_name = "URL")]
    auth_host: Vec<String>,
    /// Path that Laravel authorises channels at
    #[arg(long, value_name = "PATH")]
    auth_endpoint: Option<String>,
    /// http or https
    #[arg(long)]
    protocol: Option<ProtocolChoice>,
    /// Certificate (PEM) for https
    #[arg(long, value_name = "FILE")]
    ssl_cert_path: Option<String>,
    /// Private key (PEM) for https
    #[arg(long, value_name = "FILE")]
    ssl_key_path: Option<String>,
    /// No Redis: receive Laravel's broadcasts directly (redisServer)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    without_redis: Option<bool>,
    /// Redis host
    #[arg(long, value_name = "HOST")]
    redis_host: Option<String>,
    /// Redis port
    #[arg(long, value_name = "PORT")]
    redis_port: Option<String>,
    /// Redis user
    #[arg(long, value_name = "NAME")]
    redis_username: Option<String>,
    /// Redis password
    #[arg(long, value_name = "TEXT")]
    redis_password: Option<String>,
    /// Redis database number
    #[arg(long, value_name = "NUMBER")]
    redis_db: Option<String>,
    /// Laravel's Redis prefix
    #[arg(long, value_name = "TEXT")]
    redis_prefix: Option<String>,
    /// Web origin that may open sockets; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    allowed_origin: Vec<String>,
    /// Create a client id and key for the HTTP API
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    add_client: Option<bool>,
    /// Let web pages of other origins call the HTTP API
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    cors: Option<bool>,
    /// Access-Control-Allow-Origin of the HTTP API
    #[arg(long, value_name = "TEXT")]
    cors_origin: Option<String>,
    /// Access-Control-Allow-Methods of the HTTP API
    #[arg(long, value_name = "TEXT")]
    cors_methods: Option<String>,
    /// Access-Control-Allow-Headers of the HTTP API
    #[arg(long, value_name = "TEXT")]
    cors_headers: Option<String>,
}

/// The suggested address if none is known.
const UNKNOWN_HOST: &str = "http://localhost";

/// Where `php artisan serve` listens unless told otherwise.
const ARTISAN_SERVE: &str = "http://127.0.0.1:8000";

/// The answers to "Where does Laravel publish?".
const REDIS: &str = "to an existing Redis";
const HTTP: &str = "over HTTP, by its pusher or reverb driver";
const HERE: &str = "straight to this server, without a Redis";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DatabaseChoice {
    Memory,
    Redis,
    Sqlite,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtocolChoice {
    Http,
    Https,
}

impl Configure {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let prompt = Prompt::open(self.no_interaction);
        let dir = self.place.dir.clone().unwrap_or_default();
        let project = Project::read(&dir);
        show(&project);

        let mut answers = self.ask(&prompt, &project)?;
        check(&answers)?;
        let left = self.left(&prompt, &project, &answers)?;
        for Unread { key, reason } in &left {
            answers.remark(key, format!("could not be read: {reason}"));
        }
        let path = dir.join(self.file_name(&prompt)?);
        if path.exists() && !self.force {
            let question = format!("`{}` exists. Overwrite it?", path.display());
            if !prompt.confirm(&question, false)? {
                anyhow::bail!("`{}` exists and is left as it is; `--force` overwrites it, `--config` names another file", path.display());
            }
        }
        let client = answers.take_client();
        let has_application = client.as_ref().is_some_and(|client| client.get("secret").is_some());
        let format = load::format_of(&path, if self.json { "{" } else { "" });
        let text = match format {
            Format::Toml => answers.to_toml(client.as_ref()),
            Format::Json => answers.to_json(client.as_ref()),
        };
        config_file::write(&path, &text)?;
        if let Some(client) = client {
            let shown = |key: &str| paint(STRONG, client[key].as_str().unwrap_or_default());
            output::line(format!("appId: {}\nkey: {}", shown("appId"), shown("key")));
        }
        output::line(paint(GOOD, format!("Configuration file saved: {}. `{}` runs it.", path.display(), run_command(&path))));
        let hosts = answers.get("authHost").cloned().unwrap_or_default();
        let closed = hosts.as_str().or_else(|| hosts.get(0)?.as_str()).filter(|url| laravel::is_loopback(url) && !laravel::is_open(url));
        if let Some(url) = closed {
            output::line(paint(
                CAUTION,
                format!("Nothing listens at {url} (`authHost`) now: start the application, or correct the address in {}.", path.display()),
            ));
        }
        for Unread { key, reason } in left {
            output::warning(format!("`{key}` could not be read and has its default: {reason}; set it in {}", path.display()));
        }
        let is_told = |broadcaster: &&Broadcaster| broadcaster.way() != Way::Redis && !(broadcaster.way() == Way::Http && has_application);
        if let Some(broadcaster) = project.broadcaster.as_ref().filter(is_told) {
            let (shown, fix) = (broadcaster.shown(), broadcaster.fix());
            let text = match broadcaster.way() {
                Way::Undefined => format!("Laravel has no broadcast connection {shown}, so every page fails. To fix that:\n{fix}"),
                _ => format!("Laravel broadcasts to {shown}, not to this server. To change that:\n{fix}"),
            };
            output::line(paint(CAUTION, text));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Values of the project that could not be read, are given by no flag, and cannot be asked for.
    fn left<'a>(&self, prompt: &Prompt, project: &'a Project, answers: &Answers) -> anyhow::Result<Vec<&'a Unread>> {
        if prompt.is_answered() {
            return Ok(Vec::new());
        }
        let has_redis = answers.get("subscribers.redis") == Some(&Value::Bool(true));
        let is_left = |unread: &&Unread| match unread.key {
            "authHost" => self.auth_host.is_empty(),
            "databaseConfig.redis.keyPrefix" => self.redis_prefix.is_none(),
            "databaseConfig.redis.port" => has_redis && self.redis_port.is_none(),
            "databaseConfig.redis.username" => has_redis && self.redis_username.is_none(),
            "databaseConfig.redis.password" => has_redis && self.redis_password.is_none(),
            "databaseConfig.redis.db" => has_redis && self.redis_db.is_none(),
            _ => has_redis && self.redis_host.is_none(),
        };
        let left: Vec<_> = project.unread.iter().filter(is_left).collect();
        if let (true, Some(Unread { key, reason })) = (self.is_json(), left.first()) {
            // In TOML a comment would mark the key; JSON has no comments.
            anyhow::bail!("`{key}` could not be read: {reason}; pass it as a flag (`laravel-echo-server init --help`)");
        }
        Ok(left)
    }

    fn is_json(&self) -> bool {
        self.json || self.place.config.as_ref().is_some_and(|config| config.extension().is_some_and(|extension| extension == "json"))
    }

    fn file_name(&self, prompt: &Prompt) -> anyhow::Result<PathBuf> {
        if let Some(config) = &self.place.config {
            return Ok(config.clone());
        }
        let usual = if self.json { JSON_FILE } else { TOML_FILE };
        let not_empty = |text: &str| if text.is_empty() { Err("a file name is needed".to_owned()) } else { Ok(()) };
        prompt.text("Name of the config file", usual, not_empty).map(PathBuf::from)
    }

    /// Asks all questions that neither a flag nor the project answers, in the original's order.
    fn ask(&self, prompt: &Prompt, project: &Project) -> anyhow::Result<Answers> {
        let mut answers = Answers::default();
        let text = |answers: &mut Answers, path: &str, flag: &Option<String>, question: &str, default: &str| {
            let check = |text: &str| answers.check(path, text);
            let answer = match flag {
                Some(given) => check(given).map(|()| given.clone()).map_err(anyhow::Error::msg)?,
                None => prompt.text(question, default, check)?,
            };
            answers.set(path, answer);
            anyhow::Ok(())
        };
        let confirm = |flag: Option<bool>, question: &str| flag.map_or_else(|| prompt.confirm(question, false), Ok);

        answers.set("devMode", confirm(self.dev_mode, "Log joins, leaves and events (development mode)?")?);
        let pusher = project.pusher.as_ref().filter(|pusher| pusher.application().is_some());
        let usual_port = pusher.and_then(Connection::server_port).filter(|port| answers.check("port", *port).is_ok()).unwrap_or("6001");
        text(&mut answers, "port", &self.port, "Port to listen on", usual_port)?;
        if let Some(host) = &self.host {
            answers.set("host", host.clone());
        }
        let source = self.source(prompt, project)?;
        let has_redis = source == REDIS;
        answers.set("redisServer.enabled", source == HERE);
        if source == HERE
            && project.publishes_to(&RedisServerConfig::default())
            && let Some(password) = project.text("databaseConfig.redis.password")
        {
            answers.set("redisServer.password", password);
        }
        answers.set("subscribers.redis", has_redis);
        answers.set("database", self.database(prompt, has_redis)?);
        let auth_hosts = self.auth_hosts(prompt, project)?;
        answers.set("authHost", auth_hosts.clone());
        answers.set("authEndpoint", self.auth_endpoint.clone().unwrap_or_else(|| "/broadcasting/auth".to_owned()));

        let protocol = match self.protocol {
            Some(ProtocolChoice::Http) => "http",
            Some(ProtocolChoice::Https) => "https",
            None => prompt.choose("Speak http or https?", &["http", "https"])?,
        };
        answers.set("protocol", protocol);
        if protocol == "https" {
            text(&mut answers, "sslCertPath", &self.ssl_cert_path, "Path of the certificate (PEM)", "")?;
            text(&mut answers, "sslKeyPath", &self.ssl_key_path, "Path of its private key (PEM)", "")?;
        }
        if has_redis {
            self.redis(prompt, project, &mut answers)?;
        }
        answers.set("databaseConfig.redis.keyPrefix", self.prefix(prompt, project)?);
        let origins = self.origins(prompt, project, &auth_hosts, &answers)?;
        answers.set("allowedOrigins", origins);

        match pusher.and_then(Connection::application) {
            Some([id, key, secret]) if self.add_client != Some(false) => {
                // Pages have the key, and Laravel signs what it sends.
                answers.set("clients", json!({"appId": id, "key": key, "secret": secret, "requireSignature": true}));
            }
            _ if confirm(self.add_client, "Create an id and a key for the HTTP API?")? => answers.set("clients", client::random_client()),
            _ => {}
        }
        let cors = self.cors.or_else(|| self.cors_origin.is_some().then_some(true));
        if confirm(cors, "May web pages of other origins call the HTTP API?")? {
            answers.set("apiOriginAllow.allowCors", true);
            text(&mut answers, "apiOriginAllow.allowOrigin", &self.cors_origin, "Their origin", "http://localhost")?;
            text(&mut answers, "apiOriginAllow.allowMethods", &self.cors_methods, "HTTP methods they may use", "GET, POST")?;
            let usual = "Authorization, Content-Type, X-CSRF-TOKEN, X-Requested-With, X-Socket-Id";
            text(&mut answers, "apiOriginAllow.allowHeaders", &self.cors_headers, "HTTP headers they may send", usual)?;
        }
        Ok(answers)
    }

    /// Where events come from. Any flag that describes a Redis means that there is one.
    fn source(&self, prompt: &Prompt, project: &Project) -> anyhow::Result<&'static str> {
        let named = [&self.redis_host, &self.redis_port, &self.redis_username, &self.redis_password, &self.redis_db];
        let is_named = named.iter().any(|flag| flag.is_some()) || matches!(self.database, Some(DatabaseChoice::Redis));
        match self.without_redis {
            Some(true) if is_named => anyhow::bail!("`--without-redis` conflicts with the flags that name a Redis"),
            Some(true) => Ok(HERE),
            Some(false) => Ok(REDIS),
            None if is_named => Ok(REDIS),
            None => {
                // If Laravel publishes to this server's own endpoint, that is no Redis: the server would subscribe to itself.
                let is_here = project.publishes_to(&RedisServerConfig::default());
                let is_http = project.pusher.as_ref().is_some_and(|pusher| pusher.application().is_some());
                let options: &[_] = match (is_http, is_here) {
                    (true, _) => &[HTTP, REDIS, HERE],
                    (false, true) => &[HERE, REDIS],
                    (false, false) => &[REDIS, HERE],
                };
                prompt.choose("Where does Laravel publish?", options)
            }
        }
    }

    fn database(&self, prompt: &Prompt, has_redis: bool) -> anyhow::Result<&'static str> {
        Ok(match self.database {
            Some(DatabaseChoice::Memory) => "memory",
            Some(DatabaseChoice::Redis) => "redis",
            Some(DatabaseChoice::Sqlite) => "sqlite",
            None => {
                // Compat: the original's files have redis.
                let options: &[_] = match (has_redis, self.is_json()) {
                    (true, true) => &["redis", "memory", "sqlite"],
                    (true, false) => &["memory", "redis", "sqlite"],
                    (false, _) => &["memory", "sqlite"],
                };
                prompt.choose("Where are the members of presence channels kept?", options)?
            }
        })
    }

    fn auth_hosts(&self, prompt: &Prompt, project: &Project) -> anyhow::Result<Value> {
        Ok(match (self.auth_host.as_slice(), project.text("authHost")) {
            // Laravel's default, which may never have been set; `artisan serve` uses another port.
            ([], Some(found)) if laravel::is_bare_localhost(found) => {
                let is_served = prompt.is_answered() && !laravel::is_open(found) && laravel::is_open(ARTISAN_SERVE);
                let question = format!("Address of the Laravel application (`php artisan serve`: {ARTISAN_SERVE})");
                prompt.text(&question, if is_served { ARTISAN_SERVE } else { found }, is_url)?.into()
            }
            ([], Some(found)) => found.into(),
            ([], None) => prompt.text("Address of the Laravel application", UNKNOWN_HOST, is_url)?.into(),
            ([one], _) => one.as_str().into(),
            (several, _) => json!(several),
        })
    }

    fn redis(&self, prompt: &Prompt, project: &Project, answers: &mut Answers) -> anyhow::Result<()> {
        let is_found = |key: &str| project.get(&format!("databaseConfig.redis.{key}")).is_some();
        let is_known = ["host", "path", "cluster", "sentinels"].into_iter().any(is_found);
        let usual = |question, default| (question, default, !is_known);
        for (flag, key, (question, default, is_asked)) in [
            (&self.redis_host, "host", usual("Redis host", "127.0.0.1")),
            (&self.redis_port, "port", usual("Redis port", "6379")),
            (&self.redis_username, "username", ("Redis user", "", false)),
            (&self.redis_password, "password", ("Redis password", "", false)),
            (&self.redis_db, "db", ("Redis database", "0", false)),
        ] {
            let path = format!("databaseConfig.redis.{key}");
            let found = flag.clone().or_else(|| project.text(&path).map(str::to_owned));
            let is_unread = project.unread.iter().any(|unread| unread.key == path);
            match found {
                Some(value) => answers.set(&path, value),
                None if is_asked || is_unread => {
                    let is_unset = |text: &str| text.is_empty() && default.is_empty();
                    let answer = prompt.text(question, default, |text| if is_unset(text) { Ok(()) } else { answers.check(&path, text) })?;
                    if !answer.is_empty() {
                        answers.set(&path, answer);
                    }
                }
                None => {}
            }
        }
        let is_tls_unread = project.unread.iter().any(|unread| unread.key == "databaseConfig.redis.tls.enabled");
        if is_tls_unread && self.redis_host.is_none() && prompt.confirm("Does Redis speak TLS?", false)? {
            answers.set("databaseConfig.redis.tls.enabled", true);
        }
        // Keys that replace host and port, or complement them.
        if self.redis_host.is_none() {
            for key in ["path", "cluster", "sentinels", "name", "tls.enabled", "tls.ca", "tls.rejectUnauthorized"] {
                let path = format!("databaseConfig.redis.{key}");
                if let Some(value) = project.get(&path) {
                    answers.set(&path, value.clone());
                }
            }
        }
        Ok(())
    }

    fn prefix(&self, prompt: &Prompt, project: &Project) -> anyhow::Result<String> {
        let found = self.redis_prefix.clone().or_else(|| project.text("databaseConfig.redis.keyPrefix").map(str::to_owned));
        found.map_or_else(|| prompt.text("Prefix of Laravel's Redis channels (often laravel_database_)", "", |_| Ok(())), Ok)
    }

    /// The origins of the application's own pages, if they are known.
    fn origins(&self, prompt: &Prompt, project: &Project, auth_hosts: &Value, answers: &Answers) -> anyhow::Result<Value> {
        if !self.allowed_origin.is_empty() {
            return Ok(json!(self.allowed_origin));
        }
        let hosts = match auth_hosts {
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            one => Vec::from_iter(one.as_str()),
        };
        let is_known = project.get("authHost").is_some() || !self.auth_host.is_empty() || hosts != [UNKNOWN_HOST];
        let own: Vec<_> = hosts.into_iter().flat_map(laravel::origins_of).collect();
        let proposed = if is_known && !own.is_empty() { own.join(", ") } else { "*".to_owned() };
        let list = |answer: &str| answer.split(',').map(str::trim).filter(|origin| !origin.is_empty()).collect::<Value>();
        let check = |answer: &str| answers.check("allowedOrigins", list(answer));
        prompt.text("Web origins that may connect (commas between several, * for any)", &proposed, check).map(|answer| list(&answer))
    }
}

/// Lists the values found in the project, and those that could not be read.
pub(super) fn show(project: &Project) {
    for error in &project.errors {
        output::warning(error);
    }
    if project.findings.is_empty() && project.unread.is_empty() {
        return;
    }
    output::line("Found in the Laravel project:");
    for finding in &project.findings {
        let secret = laravel_echo_server::config::secrets::is_secret(finding.key);
        let value = match finding.value.as_str() {
            _ if secret => "***".to_owned(),
            Some("") => "\"\"".to_owned(),
            Some(text) => text.to_owned(),
            None => finding.value.to_string(),
        };
        let place = paint(FAINT, format!("({})", finding.place));
        output::line(format!("  {} = {} {place}", finding.key, paint(STRONG, value)));
    }
    for Unread { key, reason } in &project.unread {
        output::line(paint(CAUTION, format!("  {key} could not be read: {reason}")));
    }
    output::line("");
}

/// Rejects answers that `start` would reject.
fn check(answers: &Answers) -> anyhow::Result<()> {
    let config: Config =
        serde_path_to_error::deserialize(answers.tree()).map_err(|error| anyhow::anyhow!("`{}`: {}", error.path(), error.inner()))?;
    Ok(validate::check(&config)?)
}

fn is_url(text: &str) -> Result<(), String> {
    let has_scheme = text.starts_with("http://") || text.starts_with("https://");
    if has_scheme { Ok(()) } else { Err(format!("`authHost` is {text:?}, expected a URL such as https://app.example.com")) }
}

fn run_command(path: &Path) -> String {
    let is_usual = [TOML_FILE, JSON_FILE].iter().any(|usual| path == Path::new(usual));
    let start = "laravel-echo-server start";
    if is_usual { start.to_owned() } else { format!("{start} --config {}", path.display()) }
}
