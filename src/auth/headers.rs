//! Which headers a callback carries. Pure: input is what the client sent, output is what the application gets.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::AuthRequest;
use crate::config::Config;
use crate::proxies::TrustedProxies;

/// Names that a client may not set: they belong to the connection or the body, change the meaning of the request, or would
/// let the client pose as a proxy and so fake its address, host or scheme.
const DROPPED: [&str; 23] = [
    "accept-encoding",
    "connection",
    "expect",
    "fastly-ssl",
    "front-end-https",
    "host",
    "http-host",
    "https",
    "keep-alive",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-arr-ssl",
    "x-host",
    "x-https",
    "x-port",
    "x-requested-with",
    "x-rewrite-url",
    "x-server-name",
    "x-server-port",
];
/// Some proxies forward what they know of the client's certificate (`SSL-Client-Verify`) or of the user whom they have asked to log in
/// (`X-Auth-Request-User`, `X-WEBAUTH-USER`), or mark all of their headers.
const DROPPED_PREFIXES: [&str; 24] = [
    "cf-",
    "cloudfront-",
    "content-",
    "if-",
    "proxy",
    "remote-",
    "sec-",
    "ssl-",
    "tailscale-",
    "wl-proxy-",
    "x-amzn-oidc-",
    "x-appengine-",
    "x-auth-request-",
    "x-authenticated-",
    "x-client-cert",
    "x-envoy-",
    "x-goog-",
    "x-http-",
    "x-ms-client-principal",
    "x-original-",
    "x-proxy",
    "x-remote-",
    "x-ssl-",
    "x-webauth-",
];
/// Proxies and CDNs forward the client's address under names such as `True-Client-IP` and `X-Azure-ClientIP`.
const DROPPED_SUFFIXES: [&str; 9] = ["-addr", "-address", "-clientip", "-ip", "-ipv6", "-override", "-proto", "-scheme", "-socketip"];
/// `X-Forwarded-For`, `X-Vercel-Forwarded-For`, `CloudFront-Forwarded-Proto`.
const DROPPED_WITHIN: &str = "forwarded";

/// Names that `auth.forward` cannot forward either, because they belong to the connection or the body.
const OF_THE_CONNECTION: [&str; 7] = ["connection", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// `auth.forward` and `auth.headers.allow`, and the proxies whose address headers are trusted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forward {
    names: Vec<HeaderName>,
    /// The only headers that clients may add, if `auth.headers.allow` is set.
    allowed: Option<Vec<HeaderName>>,
    proxies: TrustedProxies,
}

impl Forward {
    /// Reads `auth.forward` and `auth.headers`.
    #[must_use]
    pub(crate) fn new(config: &Config, proxies: TrustedProxies) -> Self {
        let is_ours = |name: &HeaderName| {
            let name = name.as_str();
            !OF_THE_CONNECTION.contains(&name) && !name.starts_with("content-") && !name.starts_with("proxy-")
        };
        let names = config.auth.forward.iter().filter_map(|name| name.parse().ok()).filter(is_ours);
        let allowed = config.auth.headers.allow.as_ref().map(|allowed| allowed.iter().filter_map(|name| name.parse().ok()).collect());
        Self { names: names.collect(), allowed, proxies }
    }

    /// Whether a client may add this header.
    fn allows(&self, name: &HeaderName) -> bool {
        !is_dropped(name) && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(name))
    }

    /// The value that the application gets for `name`. Addresses come from the connection; the request's own headers about
    /// addresses, host and scheme count only when a trusted proxy has sent them.
    fn value(&self, name: &HeaderName, request: AuthRequest<'_>) -> Option<HeaderValue> {
        let given = request.handshake;
        let is_trusted = request.peer.is_some_and(|peer| self.proxies.contains(peer));
        match name.as_str() {
            "x-forwarded-for" => {
                let peer = request.peer?.to_canonical();
                match joined(given, name, ", ").filter(|_| is_trusted) {
                    Some(before) => HeaderValue::from_bytes(&[before.as_bytes(), format!(", {peer}").as_bytes()].concat()).ok(),
                    None => peer.to_string().parse().ok(),
                }
            }
            "x-real-ip" => self.proxies.client(request.peer?, given).to_string().parse().ok(),
            "forwarded" => joined(given, name, ", ").filter(|_| is_trusted),
            // The last line is the one that the proxy added.
            other if other.starts_with("x-forwarded-") => given.get_all(name).iter().next_back().filter(|_| is_trusted).cloned(),
            "cookie" => joined(given, name, "; "),
            _ => given.get(name).cloned(),
        }
    }
}

/// All lines of a header joined into one: some proxies append to a list by adding a line, or send each cookie in its own line.
fn joined(headers: &HeaderMap, name: &HeaderName, separator: &str) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    let more: Vec<_> = lines.map(HeaderValue::as_bytes).collect();
    if more.is_empty() {
        return Some(first.clone());
    }
    let lines: Vec<_> = [first.as_bytes()].into_iter().chain(more).collect();
    HeaderValue::from_bytes(&lines.join(separator.as_bytes())).ok()
}

/// Whether a client may not set this header. PHP treats `X_Real_IP` as `X-Real-IP`, so any name with characters other than
/// letters, digits and hyphens is dropped.
fn is_dropped(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    !is_plain
        || DROPPED.contains(&name)
        || name.contains(DROPPED_WITHIN)
        || DROPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || DROPPED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Headers of the callback to the Laravel application: those of the subscribe, the handshake's cookie unless the
/// subscribe has one, those of the handshake that `auth.forward` names, and `X-Requested-With`.
///
/// It asks for an uncompressed body (`Accept-Encoding: identity`); otherwise an answer of `false` could hide in gzip.
///
/// Compat: the original lets the client set any header (`src/channels/private-channel.ts:26,123`), so that it could
/// choose the virtual host and fake its address, and with `X-HTTP-Method-Override: OPTIONS` make a stock Laravel answer
/// 200 with an empty body for any channel.
#[must_use]
pub(crate) fn callback_headers(request: AuthRequest<'_>, forward: &Forward) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes())
            && forward.allows(&name)
        {
            headers.insert(name, value);
        }
    }
    for name in forward.names.iter().chain([&header::COOKIE]) {
        if !headers.contains_key(name)
            && let Some(value) = forward.value(name, request)
        {
            headers.insert(name.clone(), value);
        }
    }
    headers.insert("x-requested-with", HeaderValue::from_static("XMLHttpRequest"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SocketId;

    fn callback_headers(headers: &[(String, String)], handshake: &HeaderMap, forward: &Forward) -> HeaderMap {
        from_peer(headers, handshake, forward, None)
    }

    fn from_peer(headers: &[(String, String)], handshake: &HeaderMap, forward: &Forward, peer: Option<[u8; 4]>) -> HeaderMap {
        let channel = "private-orders".into();
        let (socket, peer) = (SocketId::parse("123.456").unwrap(), peer.map(Into::into));
        let request = AuthRequest { socket, channel: &channel, headers, handshake, peer, by: None, is_again: false };
        super::callback_headers(request, forward)
    }

    fn forward(names: &[&str], proxies: &[&str]) -> Forward {
        let mut config = Config::default();
        config.auth.forward = names.iter().map(|&name| name.to_owned()).collect();
        let proxies: Vec<_> = proxies.iter().map(|&proxy| proxy.to_owned()).collect();
        Forward::new(&config, TrustedProxies::new(&proxies))
    }

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
            ("X_Real-IP", "1.2.3.4"),
            ("X_Forwarded_For", "1.2.3.4"),
            ("Content_Length", "0"),
            ("Proxy_", "x"),
            ("Proxy-Authorization", "x"),
            ("Transfer-Encoding", "chunked"),
            ("X-Requested-With", "Custom"),
            ("no spaces", "x"),
            ("X-Split", "a\r\nHost: evil.test"),
        ]);
        let headers = callback_headers(&sent, &HeaderMap::new(), &Forward::default());
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept-encoding", "authorization", "x-csrf-token", "x-requested-with"]);
        assert_eq!(
            (&headers["x-requested-with"], &headers["accept-encoding"]),
            (&HeaderValue::from_static("XMLHttpRequest"), &HeaderValue::from_static("identity"))
        );
    }

    #[test]
    fn nothing_that_a_client_sets_changes_what_the_request_is() {
        for name in [
            "X-HTTP-Method-Override",
            "x-http-method-override",
            "X_HTTP_METHOD_OVERRIDE",
            "X-HTTP_Method-Override",
            "X-Method-Override",
            "X-HTTP-Method",
            "Accept-Encoding",
            "If-None-Match",
            "If-Modified-Since",
            "Range",
            "Expect",
            "TE",
            "Trailer",
            "X-Original-URL",
            "X-Original-Method",
            "X-Rewrite-URL",
            "Proxy",
            "Remote-Addr",
            "Remote-User",
            "Client-IP",
            "X-Client-IP",
            "X-Cluster-Client-IP",
            "CF-Connecting-IP",
            "CF-Connecting-IPv6",
            "CF-IPCountry",
            "True-Client-IP",
            "Fastly-Client-IP",
            "Fly-Client-IP",
            "X-Azure-ClientIP",
            "X-Azure-SocketIP",
            "X-Originating-IP",
            "X-Forwarded",
            "Forwarded",
            "Front-End-Https",
            "X-Scheme",
            "X-Url-Scheme",
            "X-HTTP-Host-Override",
            "X-HTTP-Path-Override",
            "X-Path-Override",
            "X-Proxy-User",
            "X-ProxyUser-Ip",
            "Proxy-Client-IP",
            "WL-Proxy-SSL",
            "X-Vercel-Forwarded-For",
            "X-Original-Forwarded-For",
            "CloudFront-Viewer-Address",
            "CloudFront-Forwarded-Proto",
            "X-Appengine-Remote-Addr",
            "X-Remote-Addr",
            "Client-Address",
            "X-Envoy-External-Address",
            "SSL-Client-Verify",
            "X-SSL-Client-S-DN",
            "X-Client-Cert",
            "X-Auth-Request-User",
            "X-Authenticated-User",
            "X-WEBAUTH-USER",
            "X-MS-CLIENT-PRINCIPAL-NAME",
            "X-Goog-Authenticated-User-Email",
            "X-Amzn-Oidc-Identity",
            "Tailscale-User-Login",
            "X-Envoy-Peer-Metadata",
            "X-ARR-SSL",
            "Fastly-SSL",
            "X-HTTPS",
            "Https",
            "Via",
            "X-Server-Port",
            "Sec-Fetch-Site",
            "X.Real.IP",
            "X!Custom",
        ] {
            let headers = callback_headers(&subscribe(&[(name, "OPTIONS")]), &HeaderMap::new(), &Forward::default());
            assert!(!headers.values().any(|value| value == "OPTIONS"), "{name}");
        }
        for name in [
            "Authorization",
            "Cookie",
            "X-CSRF-TOKEN",
            "X-XSRF-TOKEN",
            "Accept",
            "Accept-Language",
            "X-Tenant",
            "X-Auth-Token",
            "X-Socket-Id",
            "X-Client-Version",
            "Origin",
        ] {
            let headers = callback_headers(&subscribe(&[(name, "kept")]), &HeaderMap::new(), &Forward::default());
            assert_eq!(headers[name], "kept");
        }
    }

    #[test]
    fn an_allow_list_lets_nothing_else_through() {
        let mut config = Config::default();
        config.auth.headers.allow = Some(vec!["authorization".to_owned(), "X-HTTP-Method".to_owned()]);
        let forward = Forward::new(&config, TrustedProxies::new(&[]));
        let sent = subscribe(&[("Authorization", "Bearer x"), ("X-Tenant", "a"), ("X-HTTP-Method", "OPTIONS")]);
        let headers = callback_headers(&sent, &HeaderMap::new(), &forward);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept-encoding", "authorization", "x-requested-with"]);
    }

    #[test]
    fn the_cookie_of_the_subscribe_wins_over_the_handshake() {
        let mut handshake = HeaderMap::new();
        handshake.insert(header::COOKIE, HeaderValue::from_static("session=old"));
        assert_eq!(callback_headers(&[], &handshake, &Forward::default())[header::COOKIE], "session=old");
        let fresh = subscribe(&[("cookie", "session=new")]);
        assert_eq!(callback_headers(&fresh, &handshake, &Forward::default())[header::COOKIE], "session=new");
    }

    #[test]
    fn only_named_headers_of_the_handshake_are_forwarded() {
        let mut handshake = HeaderMap::new();
        handshake.insert(header::USER_AGENT, HeaderValue::from_static("Browser/1.0"));
        handshake.insert(header::ORIGIN, HeaderValue::from_static("http://app.test"));
        let headers = callback_headers(&[], &handshake, &forward(&["User-Agent"], &[]));
        assert_eq!(headers[header::USER_AGENT], "Browser/1.0");
        assert!(!headers.contains_key(header::ORIGIN));
    }

    #[test]
    fn the_address_is_that_of_the_connection() {
        let mut handshake = HeaderMap::new();
        handshake.insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6"));
        handshake.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        let names = ["X-Forwarded-For", "X-Real-IP", "X-Forwarded-Proto", "Connection"];
        let direct = from_peer(&[], &handshake, &forward(&names, &[]), Some([203, 0, 113, 9]));
        assert_eq!(direct["x-forwarded-for"], "203.0.113.9");
        assert_eq!(direct["x-real-ip"], "203.0.113.9");
        assert!(!direct.contains_key("x-forwarded-proto"));
        let proxied = from_peer(&[], &handshake, &forward(&names, &["10.0.0.0/8"]), Some([10, 0, 0, 1]));
        assert_eq!(proxied["x-forwarded-for"], "6.6.6.6, 10.0.0.1");
        assert_eq!(proxied["x-real-ip"], "6.6.6.6");
        assert_eq!(proxied["x-forwarded-proto"], "https");
    }

    #[test]
    fn lines_of_a_list_are_one() {
        let mut handshake = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "203.0.113.5"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=6.6.6.6"),
            ("forwarded", "for=203.0.113.5"),
            ("cookie", "a=1"),
            ("cookie", "b=2; c=3"),
        ] {
            handshake.append(name, HeaderValue::from_static(value));
        }
        let names = ["X-Forwarded-For", "X-Real-IP", "X-Forwarded-Proto", "Forwarded"];
        let headers = from_peer(&[], &handshake, &forward(&names, &["10.0.0.0/8"]), Some([10, 0, 0, 1]));
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 203.0.113.5, 10.0.0.1");
        assert_eq!(headers["x-real-ip"], "203.0.113.5");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["forwarded"], "for=6.6.6.6, for=203.0.113.5");
        assert_eq!(headers["cookie"], "a=1; b=2; c=3");
    }
}
