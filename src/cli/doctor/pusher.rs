//! Checks of Laravel's `pusher` or `reverb` driver: whether its id, key, secret and address are this server's.
//!
//! Input: the driver's connection and the settings. Output: findings; one of them is the response of the server at that
//! address to a request signed like the driver's.

use std::time::Duration;

use laravel_echo_server::auth;
use laravel_echo_server::clock::since_1970;
use laravel_echo_server::config::{ApiClient, Config};
use laravel_echo_server::net::unanswered::last_cause;
use laravel_echo_server::signature::sign;

use super::report::Report;
use crate::cli::laravel::Project;
use crate::cli::laravel::pusher::{Connection, Setting};

const CHECK: &str = "pusher";

/// Timeout of the request.
const ANSWER: Duration = Duration::from_secs(3);

/// Checks that the driver and this server have the same credentials and address.
pub(super) async fn examine(config: &Config, project: &Project, report: &mut Report) {
    let Some(driver) = &project.pusher else { return };
    let before = report.problems();
    credentials(config, driver, report);
    address(config, driver, report);
    if report.problems() == before {
        report.ok(CHECK, format!("id, key and secret of the `{}` driver match an entry of `clients`", driver.driver));
        ask(config, driver, report).await;
    }
    if !config.pusher.enabled {
        report.warning(
            CHECK,
            "pages with Echo's `pusher` or `reverb` broadcaster cannot connect: `pusher.enabled` is false",
            "[pusher] enabled = true",
        );
    }
}

fn credentials(config: &Config, driver: &Connection, report: &mut Report) {
    let mut is_whole = true;
    for (name, setting) in [("APP_ID", &driver.app_id), ("APP_KEY", &driver.key), ("APP_SECRET", &driver.secret)] {
        if setting.is_none() {
            is_whole = false;
            let variable = driver.variable(name);
            report.problem(
                CHECK,
                format!("{variable} is not set, and the `{}` driver needs it", driver.driver),
                format!("{variable}=… in Laravel's .env, the same as in `clients` here"),
            );
        }
    }
    let (true, Some(id), Some(key), Some(secret)) = (is_whole, &driver.app_id, &driver.key, &driver.secret) else { return };
    let Some(client) = config.clients.iter().find(|client| client.app_id == id.value) else {
        let entry = format!("[[clients]]\nappId = {:?}\nkey = {:?}\nsecret = \"…\"  # the value of {}", id.value, key.value, secret.place);
        return report.problem(CHECK, format!("no entry of `clients` has the appId {:?} ({})", id.value, id.place), entry);
    };
    if client.key.expose() != key.value {
        report.problem(CHECK, differs(client, "key", key), format!("key = {:?} in that entry", key.value));
    }
    match client.secret.as_ref().map(|ours| ours.expose()).filter(|ours| !ours.is_empty()) {
        None => report.problem(
            CHECK,
            format!("the entry of `clients` for {:?} has no `secret`, so Laravel's signatures cannot be verified", id.value),
            format!("in that entry: secret = the value of {}", secret.place),
        ),
        Some(ours) if ours != secret.value => {
            report.problem(CHECK, differs(client, "secret", secret), "use the same secret in both, then run `php artisan config:clear`")
        }
        Some(_) => {}
    }
}

fn differs(client: &ApiClient, what: &str, theirs: &Setting) -> String {
    format!("`{what}` of the entry of `clients` for {:?} is not Laravel's ({})", client.app_id, theirs.place)
}

fn address(config: &Config, driver: &Connection, report: &mut Report) {
    let variable = driver.variable("HOST");
    let Some(host) = driver.host.as_ref().filter(|host| !host.value.ends_with(".pusher.com")) else {
        let fix = format!(
            "'host' => env('{variable}'), 'port' => env('{}'), 'scheme' => env('{}') in `options` of that connection, and these variables",
            driver.variable("PORT"),
            driver.variable("SCHEME")
        );
        return report.problem(CHECK, format!("the `{}` driver publishes to Pusher's own servers: `host` is not set", driver.driver), fix);
    };
    let is_local = matches!(host.value.as_str(), "localhost" | "::1" | "[::1]" | "0.0.0.0") || host.value.starts_with("127.");
    let ports = [Some(config.port), config.http_port];
    if is_local && !ports.iter().flatten().any(|port| port.to_string() == driver.port()) {
        let fix = format!("{}={} in Laravel's .env, or port = {} here", driver.variable("PORT"), config.port, driver.port());
        report.problem(
            CHECK,
            format!("Laravel publishes to port {} of this machine, but this server listens on {}", driver.port(), config.port),
            fix,
        );
    }
}

/// Requests the list of channels from the driver's address, with its signature.
async fn ask(config: &Config, driver: &Connection, report: &mut Report) {
    let (Some([id, key, secret]), Some(host)) = (driver.application(), &driver.host) else { return };
    let Ok(client) = auth::http::client(config) else { return };
    let now = since_1970().as_secs();
    let path = format!("/apps/{id}/channels");
    let query = format!("auth_key={key}&auth_timestamp={now}&auth_version=1.0");
    let signature = sign(secret.as_bytes(), format!("GET\n{path}\n{query}").as_bytes());
    let place = format!("{}://{}:{}", driver.scheme(), host.value, driver.port());
    match client.get(format!("{place}{path}?{query}&auth_signature={signature}")).timeout(ANSWER).send().await {
        Ok(answer) if answer.status().is_success() => report.ok(CHECK, format!("{place} accepts this driver's signature")),
        Ok(answer) => {
            let status = answer.status().as_u16();
            let fix = match status {
                401 | 403 => "the server there runs with another key or secret: restart it with this config",
                404 => "a proxy in front of this server has to forward /apps as well as /app",
                _ => "is that this server, or a proxy in front of it?",
            };
            report.problem(CHECK, format!("{place} answers {status} to a request signed like this driver's"), fix);
        }
        Err(error) => {
            let cause = last_cause(&error);
            let fix = match driver.scheme() {
                "https" => format!("start the server; if it serves plain http: {}=http in Laravel's .env", driver.variable("SCHEME")),
                _ => "start the server, then run this again".to_owned(),
            };
            report.warning(CHECK, format!("{place} cannot be reached: {cause}"), fix);
        }
    }
}
