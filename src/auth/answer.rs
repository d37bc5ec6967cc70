//! What the answer of a callback means: grant, refusal, and a hint for the log. Pure.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Denied, Grant};

/// Status of an answer with 200 that plainly says no, or is a page and no answer.
const REFUSED_BY_BODY: u16 = 403;

/// Reads the answer of a callback, which came just now. `expires_in` in its JSON tells for how many seconds it holds.
///
/// Compat: the original takes any 200 as a grant (`src/channels/private-channel.ts:95-113`). Here JSON `false` and
/// `null` refuse, and so does an HTML page: it is a login form, shown because nobody is logged in.
///
/// # Errors
/// [`Denied`] with the status of the answer, or 403 when the body says no.
pub fn judge(status: u16, content_type: Option<&str>, body: &str) -> Result<Grant, Denied> {
    judge_at(status, content_type, body, Instant::now())
}

fn judge_at(status: u16, content_type: Option<&str>, body: &str, now: Instant) -> Result<Grant, Denied> {
    if status != 200 {
        return Err(Denied { status });
    }
    let body = body.trim();
    if matches!(body, "false" | "null") || is_html(content_type, body) {
        return Err(Denied { status: REFUSED_BY_BODY });
    }
    #[derive(Deserialize)]
    struct Answer {
        channel_data: Option<Box<RawValue>>,
        expires_in: Option<serde_json::Value>,
    }
    // Only an object tells more than yes.
    let answer = body.starts_with('{').then(|| serde_json::from_str::<Answer>(body));
    let Some(Ok(answer)) = answer else {
        return Ok(Grant::default());
    };
    let ends = match answer.expires_in {
        Some(given) => end(&given, now).ok_or(Denied { status: REFUSED_BY_BODY })?,
        None => None,
    };
    Ok(Grant { channel_data: answer.channel_data.map(Arc::from), ends, user: None })
}

/// The end of a grant by its `expires_in`: seconds, as a number or its text. `None` when it is over already;
/// `Some(None)` when there is none, or one too far away to matter.
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

fn is_html(content_type: Option<&str>, body: &str) -> bool {
    content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html")) && !body.is_empty() && !is_json(body)
        || body.starts_with('<')
}

/// PHP sends `text/html` unless told otherwise, so a plain script that echoes `true` or JSON is believed.
fn is_json(body: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok()
}

/// The first line of a body, cut to a length that fits a log line.
#[must_use]
pub fn first_line(body: &str) -> &str {
    const LONGEST: usize = 200;
    let line = body.trim_start().lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => &line[..end],
        None => line,
    }
}

/// What a status usually means, and what to do about it.
#[must_use]
pub fn hint(status: u16) -> &'static str {
    match status {
        200 => "it answered 200, but with a page or with false: is the user logged in, and is this the broadcasting route?",
        301 | 302 | 303 | 307 | 308 => {
            "it redirects (login page, or http to https): use the final address in authHost; log in, or send an Accept: application/json header"
        }
        401 => {
            "not logged in: does the browser send its session cookie to this server (same site, withCredentials) or a Bearer token in auth.headers?"
        }
        403 => "routes/channels.php says no to this user, or the session cookie did not arrive",
        404 => {
            "no such route: check authEndpoint and authHost, and that Broadcast::routes() is called (since Laravel 11, `php artisan install:broadcasting` sees to it)"
        }
        405 => "the route does not take POST: check authEndpoint",
        419 => "CSRF token missing or old: send X-CSRF-TOKEN in auth.headers, or exclude the route from CSRF verification",
        429 => "Laravel's rate limit: raise it for the broadcasting route",
        500..=599 => "the application failed: see storage/logs/laravel.log",
        _ => "only 200 grants a subscription",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_grants() {
        for status in [201, 204, 302, 401, 403, 419, 500] {
            assert_eq!(judge(status, None, "true").unwrap_err(), Denied { status });
        }
    }

    #[test]
    fn bodies_that_grant() {
        for body in ["", "true", r#"{"auth":"x"}"#, "{\"broken", "plain text", "1", "[]"] {
            assert!(judge(200, Some("application/json"), body).is_ok(), "{body}");
        }
        assert!(judge(200, Some("text/html; charset=UTF-8"), "true").is_ok());
        assert!(judge(200, Some("text/html"), "").is_ok());
    }

    #[test]
    fn bodies_that_refuse() {
        for (content_type, body) in [
            ("application/json", "false"),
            ("application/json", " null\n"),
            ("application/json", "<html>ok</html>"),
            ("text/html", "please log in"),
        ] {
            assert_eq!(judge(200, Some(content_type), body).unwrap_err().status, 403, "{body}");
        }
    }

    #[test]
    fn channel_data_is_kept_as_it_came() {
        let grant = judge(200, None, r#"{"channel_data": {"user_id": 1.0, "user_info": {"b":1,"a":2}}}"#).unwrap();
        assert_eq!(grant.channel_data.unwrap().get(), r#"{"user_id": 1.0, "user_info": {"b":1,"a":2}}"#);
    }

    #[test]
    fn grants_end_when_the_answer_says_so() {
        let now = Instant::now();
        let ends = |body| judge_at(200, None, body, now).map(|grant| grant.ends);
        assert_eq!(ends(r#"{"expires_in":60}"#), Ok(Some(now + Duration::from_secs(60))));
        assert_eq!(ends(r#"{"expires_in":"1.5"}"#), Ok(Some(now + Duration::from_millis(1500))));
        for endless in ["{}", r#"{"expires_in":null}"#, r#"{"expires_in":"soon"}"#, r#"{"expires_in":1e300}"#] {
            assert_eq!(ends(endless), Ok(None), "{endless}");
        }
        assert_eq!(ends(r#"{"expires_in":0}"#), Err(Denied { status: 403 }));
        assert_eq!(ends(r#"{"expires_in":-5}"#), Err(Denied { status: 403 }));
    }

    #[test]
    fn a_line_for_the_log_is_short() {
        assert_eq!(first_line("\n<html>\n<body>"), "<html>");
        assert_eq!(first_line(&"ž".repeat(500)).chars().count(), 200);
    }
}
