//! Which headers a callback carries. Pure: what the client sent goes in, what the application gets comes out.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Names that a client may not set: they belong to the connection, to the body, or would let it pose as a proxy.
const DROPPED: [&str; 11] = [
    "connection",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
    "x-requested-with",
];
const DROPPED_PREFIXES: [&str; 3] = ["content-", "proxy-", "x-forwarded-"];

/// Headers of the callback to the Laravel application: those of the subscribe, the handshake's cookie unless the
/// subscribe has one, those of the handshake that `forward` names, and `X-Requested-With`.
///
/// Compat: the original lets the client set any header (`src/channels/private-channel.ts:26,123`), so that it could
/// choose the virtual host and its own address.
#[must_use]
pub fn callback_headers(subscribe: &[(String, String)], handshake: &HeaderMap, forward: &[HeaderName]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in subscribe {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        let is_dropped = DROPPED.contains(&name.as_str()) || DROPPED_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix));
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes())
            && !is_dropped
        {
            headers.insert(name, value);
        }
    }
    for name in forward.iter().chain([&header::COOKIE]) {
        if let Some(value) = handshake.get(name)
            && !headers.contains_key(name)
        {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers.insert("x-requested-with", HeaderValue::from_static("XMLHttpRequest"));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_client_sets_its_own_headers_but_not_those_of_the_connection() {
        let sent = subscribe(&[
            ("Authorization", "Bearer x"),
            ("X-CSRF-TOKEN", "t"),
            ("Host", "evil.test"),
            ("Content-Length", "0"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("Forwarded", "for=1.2.3.4"),
            ("X-Real-IP", "1.2.3.4"),
            ("Proxy-Authorization", "x"),
            ("Transfer-Encoding", "chunked"),
            ("X-Requested-With", "Custom"),
            ("no spaces", "x"),
            ("X-Split", "a\r\nHost: evil.test"),
        ]);
        let headers = callback_headers(&sent, &HeaderMap::new(), &[]);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "x-csrf-token", "x-requested-with"]);
        assert_eq!(headers["x-requested-with"], "XMLHttpRequest");
    }

    #[test]
    fn the_cookie_of_the_subscribe_wins_over_the_handshake() {
        let mut handshake = HeaderMap::new();
        handshake.insert(header::COOKIE, HeaderValue::from_static("session=old"));
        assert_eq!(callback_headers(&[], &handshake, &[])[header::COOKIE], "session=old");
        let fresh = subscribe(&[("cookie", "session=new")]);
        assert_eq!(callback_headers(&fresh, &handshake, &[])[header::COOKIE], "session=new");
    }

    #[test]
    fn only_named_headers_of_the_handshake_are_forwarded() {
        let mut handshake = HeaderMap::new();
        handshake.insert(header::USER_AGENT, HeaderValue::from_static("Browser/1.0"));
        handshake.insert(header::ORIGIN, HeaderValue::from_static("http://app.test"));
        let headers = callback_headers(&[], &handshake, &[header::USER_AGENT]);
        assert_eq!(headers[header::USER_AGENT], "Browser/1.0");
        assert!(!headers.contains_key(header::ORIGIN));
    }
}
