//! Checks of the Laravel application: its response for a channel that no one may join, and the origins of its pages.

use http::header::{AUTHORIZATION, HeaderValue};
use laravel_echo_server::auth;
use laravel_echo_server::auth::answer::{Answer, Credentials};
use laravel_echo_server::auth::host::AuthHosts;
use laravel_echo_server::channel::Pattern;
use laravel_echo_server::config::Config;
use laravel_echo_server::net::unanswered::{Asked, Unanswered};

use super::report::{Report, Status};
use crate::cli::laravel::broadcaster::Way;
use crate::cli::laravel::{self, Project};

/// A channel that does not exist in any application.
const UNKNOWN_CHANNEL: &str = "private-laravel-echo-server-doctor";

/// What a login page as an answer to this program means, which is never logged in.
const LOGIN: &str = "Laravel redirects no guest that sends X-Requested-With: XMLHttpRequest, as this does: check the middleware and the guard of \
     the broadcasting route (Broadcast::routes(['middleware' => […]])), which should answer 401 or 403";

/// Checks that the application's own pages may connect.
pub(super) fn origins(config: &Config, project: &Project, report: &mut Report) {
    let allowed = &config.allowed_origins;
    let url = project.text("authHost");
    let Some((origin, own)) = url.and_then(|url| Some((laravel::origin_of(url)?, laravel::origins_of(url)))) else {
        return report.ok("origins", format!("allowed origins: {}", allowed.join(", ")));
    };
    let fix = || format!("allowedOrigins = {own:?}");
    if !allowed.iter().any(|pattern| Pattern::new(pattern.trim_end_matches('/')).matches(&origin)) {
        report.problem("origins", format!("pages of APP_URL ({origin}) are not in `allowedOrigins`"), fix());
    } else if allowed.iter().any(|pattern| pattern == "*") {
        report.warning("origins", "any web page may connect on behalf of your users", fix());
    } else {
        report.ok("origins", format!("{origin} may connect"));
    }
}

/// Reports why Laravel's settings could not be read.
pub(super) fn project(project: &Project, report: &mut Report) {
    for error in &project.errors {
        report.warning("laravel", error, "fix that, or run this as the user that Laravel runs as");
    }
}

/// Checks that Laravel's broadcasts can reach this server.
pub(super) fn broadcaster(config: &Config, project: &Project, report: &mut Report) {
    let Some(broadcaster) = &project.broadcaster else { return };
    let shown = broadcaster.shown();
    match broadcaster.way() {
        Way::Redis if config.subscribers.redis || config.redis_server.enabled => {
            report.ok("laravel", format!("broadcasts to {shown}"));
        }
        Way::Redis => report.problem(
            "laravel",
            format!("broadcasts to {shown}, but this server does not receive events from Redis"),
            "[subscribers] redis = true, or without a Redis: [redisServer] enabled = true, and point Laravel's connection to it",
        ),
        Way::Http if config.subscribers.http && !config.clients.is_empty() => {
            report.ok("laravel", format!("broadcasts to {shown}: `host` and `port` of that connection must be this server's"));
        }
        Way::Http => report.problem(
            "laravel",
            format!("broadcasts to {shown}, but no such application may publish here"),
            format!("{}; or run `laravel-echo-server client:add` and point the connection to this server", broadcaster.fix()),
        ),
        Way::Elsewhere => {
            report.problem("laravel", format!("broadcasts to {shown}: no events reach this server"), broadcaster.fix());
        }
        Way::Undefined => {
            let message = format!("has no broadcast connection {shown}: every page fails with `Broadcast connection […] is not defined.`");
            report.problem("laravel", message, broadcaster.fix());
        }
    }
}

/// Checks that every address of `authHost` refuses an unknown channel.
pub(super) async fn callback(config: &Config, report: &mut Report) {
    let client = match auth::http::client(config) {
        Ok(client) => client,
        Err(error) => return report.problem("auth", format!("{:#}", anyhow::Error::from(error)), "check `auth.tls.ca`"),
    };
    let mut asked = 0;
    // Wildcards are skipped: their address depends on the page.
    let hosts = AuthHosts::new(&config.auth_host);
    for base in hosts.bases() {
        asked += 1;
        let url = format!("{base}{}", config.auth_endpoint);
        let (status, message, mut fix) = ask(&client, base, &url, hosts.credentials(base)).await;
        if message.starts_with("answers 404")
            && let Some(endpoint) = other_endpoint(&config.auth_endpoint)
            && ask(&client, base, &format!("{base}{endpoint}"), hosts.credentials(base)).await.0 == Status::Ok
        {
            fix = format!("the application has the route at {base}{endpoint}: set authEndpoint = {endpoint:?}");
        }
        report.add("auth", status, format!("{url} {message}"), fix);
    }
    if asked == 0 {
        report.warning(
            "auth",
            "`authHost` has wildcards only",
            "add an address without a wildcard as the first entry, for pages that send neither Referer nor Origin",
        );
    }
}

/// Where else applications have the route: below `/api`, for tokens, or not.
fn other_endpoint(endpoint: &str) -> Option<String> {
    const API: &str = "/api";
    match endpoint.strip_prefix(API) {
        Some(rest) if rest.starts_with('/') => Some(rest.to_owned()),
        _ => endpoint.starts_with('/').then(|| format!("{API}{endpoint}")),
    }
}

/// Sends the same request as the server; `credentials` are those in `authHost`.
async fn ask(client: &reqwest::Client, base: &str, url: &str, credentials: Option<&HeaderValue>) -> (Status, String, String) {
    let mut request =
        client.post(url).header("X-Requested-With", "XMLHttpRequest").header("Content-Type", "application/x-www-form-urlencoded");
    if let Some(credentials) = credentials {
        request = request.header(AUTHORIZATION, credentials);
    }
    match request.body(format!("channel_name={UNKNOWN_CHANNEL}")).send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let (content_type, content_encoding, location) = (header("content-type"), header("content-encoding"), header("location"));
            let body = response.text().await.unwrap_or_default();
            let answer = Answer {
                status,
                content_type: content_type.as_deref(),
                content_encoding: content_encoding.as_deref(),
                location: location.as_deref(),
                body: &body,
                ..Answer::default()
            };
            judge(answer)
        }
        Err(error) => {
            let Unanswered { cause, mut hint } = Asked::APPLICATION.explain(&error);
            if error.is_connect() && laravel::is_bare_localhost(base) {
                hint += " `php artisan serve` listens on http://127.0.0.1:8000";
            }
            (Status::Problem, format!("cannot be reached: {cause}"), hint)
        }
    }
}

/// Judges the application by its response for the unknown channel.
fn judge(answer: Answer<'_>) -> (Status, String, String) {
    let Answer { status, body, .. } = answer;
    // Hints about missing credentials do not apply: doctor has none.
    let hint = || answer.hint(Credentials::Cookie).to_owned();
    let says = |text: &str| format!("answers {status}{text}");
    match status {
        403 => (Status::Ok, says(" to an unknown channel, as it should"), String::new()),
        401 => (Status::Ok, says(" without a login, as it should"), String::new()),
        200 if answer.judge().is_ok() => {
            let fix =
                "routes/channels.php grants a channel that does not exist: look for a `{…}` pattern or a callback that always returns true";
            (Status::Problem, says(" and lets anyone into an unknown channel"), fix.to_owned())
        }
        200 if body.trim().is_empty() => (Status::Problem, says(" with an empty body"), hint()),
        200 => (Status::Problem, says(" with a page instead of an answer"), hint()),
        300..=399 => {
            let to = answer.target().map_or_else(String::new, |target| format!(" and redirects to {target}"));
            let fix = if to.contains("login") { LOGIN.to_owned() } else { hint() };
            (Status::Problem, says(&to), fix)
        }
        _ => (Status::Problem, says(&format!(": {}", answer.summary())), hint()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_is_well() {
        for (status, content_type, body, expected) in [
            (403, "application/json", "{}", Status::Ok),
            (401, "application/json", r#"{"message":"Unauthenticated."}"#, Status::Ok),
            (200, "application/json", "true", Status::Problem),
            (200, "text/html", "<html>", Status::Problem),
            (200, "text/html", "", Status::Problem),
            (302, "text/html", "", Status::Problem),
            (404, "text/html", "Not found", Status::Problem),
            (419, "text/html", "Page expired", Status::Problem),
            (500, "text/html", "Server error", Status::Problem),
        ] {
            let answer = Answer { status, content_type: Some(content_type), body, location: Some("/login"), ..Answer::default() };
            let (got, message, fix) = judge(answer);
            assert_eq!(got, expected, "{status} {body}");
            assert_eq!(fix.is_empty(), expected == Status::Ok, "{message}");
        }
        let answer = |status, body| judge(Answer { status, body, location: Some("/login"), ..Answer::default() });
        assert!(answer(302, "").1.contains("/login"));
        assert!(answer(404, "Not found\nmore").1.ends_with("404: Not found"));
    }
}
