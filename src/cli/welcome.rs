//! The command without arguments, in the folder of a Laravel project: what the server would do there, and what to type next.
//! Input: the project and its config file. Output: lines on stdout.

use std::path::Path;

use laravel_echo_server::config::load::{self, LoadError, LoadOptions, Loaded};
use laravel_echo_server::config::{Config, Protocol};
use laravel_echo_server::redis_client::Redis;

use super::configure;
use super::laravel::Project;
use super::lock_file::{self, Found};
use super::output::{self, STRONG, paint};

/// Says it; `false` where there is no Laravel project.
///
/// # Errors
/// When the config file cannot be used.
pub(super) fn show() -> anyhow::Result<bool> {
    if !Path::new("artisan").is_file() {
        return Ok(false);
    }
    match load::load(&LoadOptions::default()) {
        Ok(loaded) => configured(&loaded),
        Err(LoadError::NotFound(_)) => fresh(),
        Err(error) => return Err(error.into()),
    }
    output::line("\n`laravel-echo-server --help` lists all commands.");
    Ok(true)
}

/// There is a config file.
fn configured(loaded: &Loaded) {
    let Loaded { config, path, .. } = loaded;
    let file = path.as_deref().unwrap_or(Path::new(""));
    output::line(format!("With `{}`, the server would\n", file.display()));
    for (what, value) in plan(config) {
        output::line(format!("  {what:<18} {}", paint(STRONG, value)));
    }
    let is_running = matches!(lock_file::look(&lock_file::beside(file)), Ok(Found::Held(_)));
    let first = if is_running { ("stop", "a server runs with this file; this ends it") } else { ("start", "starts it; Ctrl-C ends it") };
    commands(&[first, ("doctor", "checks the port, Redis, Laravel and this machine")]);
}

/// There is none yet.
fn fresh() {
    output::line("A Laravel project without a config file of laravel-echo-server.\n");
    configure::show(&Project::read(Path::new("")));
    commands(&[("init", "asks for the rest and writes the file"), ("start", "starts the server; Ctrl-C ends it")]);
}

fn commands(commands: &[(&str, &str)]) {
    output::line("");
    for (command, purpose) in commands {
        output::line(format!("  {:<28} {purpose}", format!("laravel-echo-server {command}")));
    }
}

/// What the server does by these settings, in its own order: listen, take events, ask the application.
fn plan(config: &Config) -> Vec<(&'static str, String)> {
    let scheme = if config.protocol == Protocol::Https { "https" } else { "http" };
    let host = config.host.as_deref().filter(|host| !host.is_empty()).unwrap_or("all interfaces");
    let mut plan = vec![("listen on", format!("{host}, port {} ({scheme})", config.port.0))];
    if config.subscribers.redis.0 {
        let redis = &config.database_config.redis;
        let address = Redis::new(redis).map_or_else(|error| error.to_string(), |redis| redis.address().to_owned());
        plan.push(("take events from", format!("Redis at {address}, key prefix \"{}\"", redis.key_prefix)));
    }
    if config.redis_server.enabled.0 {
        let endpoint = &config.redis_server;
        plan.push(("take events from", format!("Laravel itself, as a Redis at {}:{}", endpoint.host, endpoint.port.0)));
    }
    if config.subscribers.http.0 && !config.clients.is_empty() {
        plan.push(("take events from", "the HTTP API".to_owned()));
    }
    let hosts: Vec<_> = config.auth_host.0.iter().map(|host| format!("{host}{}", config.auth_endpoint)).collect();
    plan.push(("ask for access", hosts.join(", ")));
    plan
}
