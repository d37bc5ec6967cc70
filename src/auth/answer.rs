//! Interprets the application's response to a callback: grant or refusal, and a hint for the log. Pure.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Denied, Grant};

/// The status for a 200 response whose body refuses, or is a web page.
const REFUSED_BY_BODY: u16 = 403;

/// The statuses that Laravel sends when the user is not logged in.
const NOT_LOGGED_IN: [u16; 2] = [401, 403];

/// What to do when a client that is not logged in sent nothing to log in with.
const NO_CREDENTIALS: &str = "this client sent no cookie and no token: with socket.io-client 3 and 4 set withCredentials: true (or transports: ['websocket']) in Echo's options, or send a Bearer token in auth.headers; where this server has another subdomain than the page, SESSION_DOMAIN=.example.com in Laravel's .env covers both";

/// What to do when a token was sent to a route, or a channel, that asks for a session.
const TOKEN_ONLY: &str = "this client sent a token and no cookie: give the broadcasting route the middleware of that token (Broadcast::routes(['middleware' => ['auth:sanctum']]), since Laravel 11 withBroadcasting in bootstrap/app.php), or the channel its guard (Broadcast::channel(…, ['guards' => ['sanctum']])); otherwise no `Broadcast::channel()` fits this name, or its callback refuses this user";

/// How PHP begins the errors that it prints into a page when `display_errors` is on.
const PHP_ERRORS: [&str; 5] = ["Warning</b>:", "Notice</b>:", "Deprecated</b>:", "Fatal error</b>:", "Parse error</b>:"];

/// What this server answers to a callback: `authHost` leads to it, or to another one.
const OWN_NOT_FOUND: &str = r#"{"error":"Not Found"}"#;

/// What a callback carried to log in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// Neither a cookie nor a token.
    Nothing,
    /// `Authorization`, and no cookie.
    Token,
    /// A cookie.
    Cookie,
}

/// The application's response to a callback.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// Its `Content-Type`.
    pub content_type: Option<&'a str>,
    /// Its `Content-Encoding`; the callback requested none.
    pub content_encoding: Option<&'a str>,
    /// Its `Location`.
    pub location: Option<&'a str>,
    /// Its body.
    pub body: &'a str,
    /// The body exceeds the size limit or is not UTF-8, so `body` is not what the application sent.
    pub is_unreadable: bool,
}

/// Parts of the responses of nginx, Apache and Go to plain HTTP on an HTTPS port.
const WANTS_TLS: [&str; 3] =
    ["plain HTTP request was sent to HTTPS port", "speaking plain HTTP to an SSL-enabled", "an HTTP request to an HTTPS server"];

impl Answer<'_> {
    /// Decides by the response, which has just been received. `expires_in` in its JSON limits the grant to that many seconds.
    ///
    /// Compat: the original takes any 200 as a grant (`src/channels/private-channel.ts:95-113`), even the empty one with which
    /// a stock Laravel answers OPTIONS. Here these bodies refuse: an empty one, one in an encoding that was not requested,
    /// JSON `false` and `null`, and an HTML page, which is usually the login form.
    ///
    /// # Errors
    /// [`Denied`] with the status of the response, or 403 when a 200 has a body that refuses.
    pub fn judge(self) -> Result<Grant, Denied> {
        self.judge_at(Instant::now())
    }

    fn judge_at(self, now: Instant) -> Result<Grant, Denied> {
        if self.status != 200 {
            return Err(Denied::new(self.status));
        }
        let body = self.text();
        if body.is_empty() || self.is_encoded() || self.is_garbled() || matches!(body, "false" | "null") || self.is_html() {
            return Err(Denied::new(REFUSED_BY_BODY));
        }
        #[derive(Deserialize)]
        struct Object {
            channel_data: Option<Box<RawValue>>,
            expires_in: Option<serde_json::Value>,
        }
        // Only a JSON object can carry more than a yes.
        let object = body.starts_with('{').then(|| serde_json::from_str::<Object>(body));
        let Some(Ok(object)) = object else {
            return Ok(Grant::default());
        };
        let ends = match object.expires_in {
            Some(given) => end(&given, now).ok_or(Denied::new(REFUSED_BY_BODY))?,
            None => None,
        };
        Ok(Grant { channel_data: object.channel_data.map(Arc::from), ends, ..Grant::default() })
    }

    fn is_encoded(self) -> bool {
        self.content_encoding.is_some_and(|encoding| !encoding.trim().is_empty() && !encoding.trim().eq_ignore_ascii_case("identity"))
    }

    /// UTF-16 text is often valid UTF-8 with null characters between the letters.
    fn is_garbled(self) -> bool {
        self.is_unreadable || self.body.contains('\0')
    }

    /// The body without surrounding whitespace and byte order marks; PHP sends the mark that its source file begins with.
    fn text(&self) -> &str {
        self.body.trim_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}')
    }

    fn is_html(self) -> bool {
        let body = self.text();
        let is_typed = self.content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"));
        is_typed && !is_json(body) || body.starts_with('<')
    }

    /// A summary of the body for a log line: the `message` of JSON, the title of a page or its first text, or the first line.
    #[must_use]
    pub fn summary(self) -> String {
        let body = self.body.trim_start();
        // Laravel's `message` of a plain 403 is empty; with APP_DEBUG there is an `exception`.
        let message = || {
            let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body).ok()?;
            let text = |name: &str| json.get(name)?.as_str().filter(|text| !text.is_empty());
            Some(
                text("message")
                    .or_else(|| text("exception"))
                    .map_or_else(|| serde_json::Value::from(json.clone()).to_string(), str::to_owned),
            )
        };
        let title = || {
            let start = body.to_ascii_lowercase().find("<title>")? + "<title>".len();
            let title = body[start..].split('<').next()?.split_whitespace().collect::<Vec<_>>().join(" ");
            (!title.is_empty()).then_some(title)
        };
        let text = || body.starts_with('<').then(|| body.lines().map(without_tags).find(|line| !line.is_empty())).flatten();
        let line = || body.lines().next().unwrap_or_default().to_owned();
        shortened(&message().or_else(title).or_else(text).unwrap_or_else(line))
    }

    /// Where a redirect leads to, for a log line.
    #[must_use]
    pub fn target(self) -> Option<String> {
        self.location.filter(|_| (300..400).contains(&self.status)).map(shortened)
    }

    /// Laravel's `auth` middleware redirects who is not logged in to the login page, unless the request asks for JSON.
    fn redirect_hint(self, sent: Credentials) -> &'static str {
        let location = self.location.unwrap_or_default();
        let path = location.split_once("://").map_or(location, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
        if location.starts_with("https://") && path.ends_with("/broadcasting/auth") {
            "the application redirects to https: write the address that it redirects to in authHost"
        } else if !path.contains("login") {
            "redirects are not followed: use the final address in authHost and authEndpoint; if it leads to a login page, the user is not logged in"
        } else if sent != Credentials::Nothing {
            "the application takes this user for a guest: the session has ended, its cookie belongs to another site, or the broadcasting route has another guard or middleware than the pages (Broadcast::routes(['middleware' => […]]))"
        } else {
            NO_CREDENTIALS
        }
    }

    /// What a refusal usually means, and how to fix it.
    #[must_use]
    pub fn hint(self, sent: Credentials) -> &'static str {
        match self.status {
            200 if self.is_encoded() => {
                "its body is encoded although the request asked for identity: make the proxy in front of it respect Accept-Encoding"
            }
            200 if self.is_garbled() => {
                "its body cannot be read: it is not UTF-8 text, or longer than 16 MB; a custom route must return true"
            }
            200 if self.text().is_empty() => {
                "it answered 200 with an empty body, which grants nothing: a custom route must return true; Laravel answers like this with BROADCAST_CONNECTION (or BROADCAST_DRIVER) log or null: set redis, or the driver that you use"
            }
            200 if PHP_ERRORS.iter().any(|error| self.body.contains(error)) => {
                "PHP prints an error before the answer: fix what it names, and set display_errors = Off in php.ini"
            }
            200 => "it answered 200, but with a web page, false or null: is the user logged in, and is this the broadcasting route?",
            400 if WANTS_TLS.iter().any(|text| self.body.contains(text)) => "the server there speaks https: write https:// in authHost",
            301 | 302 | 303 | 307 | 308 => self.redirect_hint(sent),
            status if NOT_LOGGED_IN.contains(&status) && sent == Credentials::Nothing => NO_CREDENTIALS,
            403 if sent == Credentials::Token => TOKEN_ONLY,
            401 if sent == Credentials::Token => {
                "the token is not accepted: it has expired, or is for another guard than that of the broadcasting route (auth:sanctum, auth:api)"
            }
            401 => {
                "not logged in: is the cookie of this site still valid? For Sanctum, Laravel has to know the page too: auth.forward = [\"Origin\"] (or \"Referer\"), and its host with the port in SANCTUM_STATEFUL_DOMAINS"
            }
            403 => {
                "no `Broadcast::channel()` in routes/channels.php fits this name (written there without `private-` or `presence-`), its callback refuses this user, or the session cookie belongs to another user or site"
            }
            404 if self.body == OWN_NOT_FOUND => {
                "that is the answer of a laravel-echo-server: set authHost to the address of the Laravel application instead"
            }
            404 => {
                "no such route: check authEndpoint and authHost, and that Broadcast::routes() is called (since Laravel 11, `php artisan install:broadcasting` sees to it; set BROADCAST_CONNECTION=redis again afterwards)"
            }
            405 => "the route does not take POST: check authEndpoint",
            419 => {
                "CSRF token missing or old: send X-CSRF-TOKEN (Sanctum: X-XSRF-TOKEN, with auth.forward = [\"Origin\"]) in auth.headers, or exclude the route from CSRF verification"
            }
            429 => "Laravel's rate limit: raise it for the broadcasting route",
            502 | 504 => {
                "the proxy in front of the application got no answer from PHP: is PHP-FPM running, and are enough of its workers free (pm.max_children)? The proxy's error log says more"
            }
            503 => "the application is in maintenance mode (`php artisan up` ends it), or the proxy in front of it cannot reach it",
            500..=599 => "the application failed: see storage/logs/laravel.log",
            _ => "only 200 grants a subscription",
        }
    }
}

/// When a grant ends by its `expires_in`: seconds, as a number or a string. `None` when it has expired already;
/// `Some(None)` when it has no end, or one too far away to represent.
fn end(expires_in: &serde_json::Value, now: Instant) -> Option<Option<Instant>> {
    let seconds = match expires_in {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match seconds {
        Some(seconds) if seconds <= 0.0 => None,
        Some(seconds) => Some(Duration::try_from_secs_f64(seconds).ok().and_then(|time| now.checked_add(time))),
        None => Some(None),
    }
}

/// Whether the body is JSON. PHP sends `text/html` by default, so JSON from a plain script is accepted despite that type.
fn is_json(body: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok()
}

/// The text of a line of HTML.
fn without_tags(line: &str) -> String {
    let mut is_tag = false;
    let mut is_text = |letter: char| {
        let was_tag = is_tag;
        is_tag = if is_tag { letter != '>' } else { letter == '<' };
        !was_tag && !is_tag
    };
    line.chars().filter(|&letter| is_text(letter)).collect::<String>().trim().to_owned()
}

/// Truncates to a length that fits a log line.
fn shortened(line: &str) -> String {
    const MAX_CHARS: usize = 200;
    line.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, content_type: Option<&str>, body: &str) -> Result<Grant, Denied> {
        Answer { status, content_type, body, ..Answer::default() }.judge()
    }

    #[test]
    fn only_200_grants() {
        for status in [201, 204, 302, 401, 403, 419, 500] {
            assert_eq!(judge(status, None, "true").unwrap_err(), Denied::new(status));
        }
    }

    #[test]
    fn bodies_that_grant() {
        for body in ["true", r#"{"auth":"x"}"#, "{\"broken", "plain text", "1", "[]"] {
            assert!(judge(200, Some("application/json"), body).is_ok(), "{body}");
        }
        assert!(judge(200, Some("text/html; charset=UTF-8"), "true").is_ok());
    }

    #[test]
    fn bodies_that_refuse() {
        for (content_type, body) in [
            ("application/json", "false"),
            ("application/json", " null\n"),
            ("application/json", "<html>ok</html>"),
            ("text/html", "please log in"),
            ("text/html", ""),
            ("application/json", " \r\n"),
        ] {
            assert_eq!(judge(200, Some(content_type), body).unwrap_err().status, 403, "{body}");
        }
    }

    #[test]
    fn a_body_that_nobody_can_read_refuses() {
        for (encoding, is_granted) in [("gzip", false), ("br", false), ("identity", true), ("", true)] {
            let answer = Answer { status: 200, content_encoding: Some(encoding), body: "true", ..Answer::default() };
            assert_eq!(answer.judge().is_ok(), is_granted, "{encoding}");
        }
        // `false` in UTF-16, and after a byte order mark.
        for body in ["\0f\0a\0l\0s\0e", "\u{feff}false", "\u{feff}"] {
            assert_eq!(judge(200, None, body).unwrap_err().status, 403, "{body:?}");
        }
        assert!(judge(200, None, "\u{feff}true").is_ok());
        let answer = Answer { status: 200, body: "\u{fffd}", is_unreadable: true, ..Answer::default() };
        assert_eq!(answer.judge().unwrap_err().status, 403);
        assert!(answer.hint(Credentials::Cookie).contains("cannot be read"));
    }

    #[test]
    fn channel_data_is_kept_as_it_came() {
        let grant = judge(200, None, r#"{"channel_data": {"user_id": 1.0, "user_info": {"b":1,"a":2}}}"#).unwrap();
        assert_eq!(grant.channel_data.unwrap().get(), r#"{"user_id": 1.0, "user_info": {"b":1,"a":2}}"#);
    }

    #[test]
    fn grants_end_when_the_answer_says_so() {
        let now = Instant::now();
        let ends = |body| Answer { status: 200, body, ..Answer::default() }.judge_at(now).map(|grant| grant.ends);
        assert_eq!(ends(r#"{"expires_in":60}"#), Ok(Some(now + Duration::from_secs(60))));
        assert_eq!(ends(r#"{"expires_in":"1.5"}"#), Ok(Some(now + Duration::from_millis(1500))));
        for endless in ["{}", r#"{"expires_in":null}"#, r#"{"expires_in":"soon"}"#, r#"{"expires_in":1e300}"#] {
            assert_eq!(ends(endless), Ok(None), "{endless}");
        }
        assert_eq!(ends(r#"{"expires_in":0}"#), Err(Denied::new(403)));
        assert_eq!(ends(r#"{"expires_in":-5}"#), Err(Denied::new(403)));
    }

    #[test]
    fn the_log_shows_what_the_answer_says() {
        let summary = |body| Answer { status: 500, body, ..Answer::default() }.summary();
        assert_eq!(summary("{\n  \"message\": \"Call to undefined method\",\n  \"trace\": []\n}"), "Call to undefined method");
        assert_eq!(summary("{\n  \"message\": \"\",\n  \"exception\": \"AccessDenied\"\n}"), "AccessDenied");
        assert_eq!(summary("{\n  \"message\": \"\"\n}"), r#"{"message":""}"#);
        assert_eq!(summary("<!DOCTYPE html>\n<html>\n<head><Title>\n  Page\n Expired</title>"), "Page Expired");
        assert_eq!(summary("\n<html>\n<body>"), "<html>");
        assert_eq!(
            summary("<br />\n<b>Warning</b>:  foo in <b>/x.php</b> on line <b>3</b><br />\n{}"),
            "Warning:  foo in /x.php on line 3"
        );
        assert_eq!(summary("{\"message\":\"\"}"), "{\"message\":\"\"}");
        assert_eq!(summary(&"ž".repeat(500)).chars().count(), 200);
    }

    #[test]
    fn hints_name_the_likely_cause() {
        use Credentials::{Cookie, Nothing, Token};
        let hint = |status, body, sent| Answer { status, body, ..Answer::default() }.hint(sent);
        for status in NOT_LOGGED_IN {
            assert!(hint(status, "", Nothing).contains("withCredentials: true"));
            assert!(!hint(status, "", Token).contains("withCredentials"));
            assert!(!hint(status, "", Cookie).contains("withCredentials"));
        }
        assert!(hint(401, "", Token).contains("the token is not accepted"));
        assert!(hint(401, "", Cookie).contains("SANCTUM_STATEFUL_DOMAINS"));
        assert!(hint(403, "", Token).contains("'guards' => ['sanctum']"));
        assert!(hint(403, "", Cookie).contains("session cookie"));
        assert!(hint(200, "", Cookie).contains("BROADCAST_CONNECTION"));
        assert!(hint(200, "<br />\n<b>Warning</b>:  foo in <b>/x.php</b> on line <b>3</b><br />\n{}", Cookie).contains("display_errors"));
        assert!(hint(419, "", Cookie).contains("X-XSRF-TOKEN"));
        assert!(hint(400, "<center>The plain HTTP request was sent to HTTPS port</center>", Cookie).contains("write https://"));
        assert_eq!(hint(400, "", Cookie), "only 200 grants a subscription");
        assert!(hint(502, "<title>502 Bad Gateway</title>", Cookie).contains("PHP-FPM"));
        assert!(hint(503, "", Cookie).contains("php artisan up"));
        assert!(hint(404, r#"{"error":"Not Found"}"#, Cookie).contains("of a laravel-echo-server"));
        let redirect = |location, sent| {
            let answer = Answer { status: 302, location: Some(location), ..Answer::default() };
            assert_eq!(answer.target().as_deref(), Some(location));
            answer.hint(sent)
        };
        assert!(redirect("http://app.test/login", Nothing).contains("withCredentials: true"));
        assert!(redirect("/login", Token).contains("another guard"));
        assert!(redirect("https://app.test/broadcasting/auth", Cookie).contains("redirects to https"));
        assert!(redirect("http://login.test/en/broadcasting/auth", Cookie).contains("final address"));
        assert_eq!(Answer { status: 201, location: Some("/x"), ..Answer::default() }.target(), None);
    }
}
