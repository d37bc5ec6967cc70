//! The command without arguments in the folder of a Laravel project: prints what the server would do there, and which
//! commands to type next. Input: the project and its config file. Output: lines on stdout.

use std::path::Path;

use laravel_echo_server::config::load::{self, LoadError, LoadOptions, Loaded};
use laravel_echo_server::config::{Config, Protocol};
use laravel_echo_server::redis_client::Redis;

use super::configure;
use super::laravel::Project;
use super::lock_file::{self, Found};
use super::output::{self, STRONG, paint};

/// Prints the overview; `false` if there is no Laravel project.
///
/// # Errors
/// If the config file is invalid.
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

/// The overview of a project with a config file.
fn configured(loaded: &Loaded) {
    let Loaded { config, path, .. } = loaded;
    let file = path.as_deref().unwrap_or(Path::new(""));
    output::line(format!("With `{}`, the server would\n", file.display()));
    for (what, value) in plan(config) {
        output::line(format!("  {what:<18} {}", paint(STRONG, value)));
    }
    let is_running = matches!(lock_file::look(&lock_file::beside(file)), Ok(Found::Held(_)));
    let first = if is_running { ("stop", "stops the server running with this file") } else { ("start", "starts it; Ctrl-C stops it") };
    commands(&[first, ("doctor", "checks the port, Redis, Laravel and this machine")]);
}

/// The overview of a project without a config file.
fn fresh() {
    output::line("This Laravel project has no config file for laravel-echo-server yet.\n");
    configure::show(&Project::read(Path::new("")));
    commands(&[("init", "asks for the rest and writes the file"), ("start", "starts the server; Ctrl-C stops it")]);
}

fn commands(commands: &[(&str, &str)]) {
    output::line("");
    for (command, purpose) in commands {
        output::line(format!("  {:<28} {purpose}", format!("laravel-echo-server {command}")));
    }
}

/// What the server does with these settings: listen, receive events, authorise subscribes.
fn plan(config: &Config) -> Vec<(&'static str, String)> {
    let scheme = if config.protocol == Protocol::Https { "https" } else { "http" };
    let host = config.host.as_deref().filter(|host| !host.is_empty()).unwrap_or("all interfaces");
    let mut plan = vec![("listen on", format!("{host}, port {} ({scheme})", config.port))];
    if config.subscribers.redis {
        let redis = &config.database_config.redis;
        let address = Redis::new(redis).map_or_else(|error| error.to_string(), |redis| redis.address().to_owned());
        plan.push(("events from", format!("Redis at {address}, key prefix \"{}\"", redis.key_prefix)));
    }
    if config.redis_server.enabled {
        let endpoint = &config.redis_server;
        plan.push(("events from", format!("Laravel itself, as a Redis at {}:{}", endpoint.host, endpoint.port)));
    }
    if config.subscribers.http && !config.clients.is_empty() {
        plan.push(("events from", "the HTTP API".to_owned()));
    }
    let hosts: Vec<_> = config.auth_host.iter().map(|host| format!("{host}{}", config.auth_endpoint)).collect();
    plan.push(("authorise at", hosts.join(", ")));
    plan
}
