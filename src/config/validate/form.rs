//! The syntax of strings in the configuration. Input: a value. Output: whether it is valid for its key.

use std::net::IpAddr;

use crate::config::ApiClient;

/// Whether only this machine can reach the host.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// `http(s)://host…`, or only a host that is matched with the page's; a leading dot means all subdomains.
pub(super) fn is_auth_host(text: &str) -> bool {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    // A user and a password are allowed in an address, not in a wildcard.
    let address = match rest.split('/').next().and_then(|authority| authority.rsplit_once('@')) {
        Some((user, _)) if user.bytes().all(|byte| byte.is_ascii_graphic()) => &rest[user.len() + 1..],
        _ => rest.strip_prefix('.').unwrap_or(rest),
    };
    let host = address;
    let is_host = !host.is_empty() && !host.starts_with(['.', '/', ':']) && !host.contains(['*', ' ', '@', '?', '#']);
    let Ok(uri) = format!("{scheme}://{host}").parse::<http::Uri>() else { return false };
    // With a typo in the scheme, it parses as the host: `http//app.test`, `https:/app.test`.
    let has_host = uri.host().is_some_and(|host| !matches!(host, "" | "http" | "https"));
    let has_good_port = uri
        .authority()
        .is_some_and(|authority| authority.as_str() == authority.host() || authority.port_u16().is_some_and(|port| port > 0));
    matches!(&*scheme, "http" | "https") && is_host && has_host && has_good_port && !uri.path().starts_with("//")
}

/// The path of a route, which may have a query; not an address.
pub(super) fn is_auth_endpoint(text: &str) -> bool {
    let path = text.split('?').next().unwrap_or_default();
    (text.is_empty() || text.starts_with(['/', '?'])) && !path.contains("//") && !text.contains(|c: char| c.is_whitespace() || c == '#')
}

/// A path that can be a prefix of request paths, but not of all of them.
pub(super) fn is_path(text: &str) -> bool {
    let is_of_paths = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte);
    let mut names = text.split('/');
    text.starts_with('/')
        && !text.trim_matches('/').is_empty()
        && text.bytes().all(is_of_paths)
        && !names.any(|name| matches!(name, "." | ".."))
}

/// Whether an endpoint at this path would receive requests for the HTTP API.
pub(super) fn is_of_the_api(path: &str, clients: &[ApiClient]) -> bool {
    let mut names = path.trim_matches('/').split('/');
    match (names.next().unwrap_or_default(), names.next()) {
        ("apps", Some(id)) => clients.iter().any(|client| client.app_id == id),
        (name, None) => matches!(name, "apps" | "health" | "ready" | "metrics" | "openapi.json"),
        _ => false,
    }
}

/// Whether the text can match an `Origin` header, which has no path.
pub(super) fn is_origin(text: &str) -> bool {
    match text.split_once("://") {
        Some((scheme, host)) => {
            let host = host.trim_end_matches('/');
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', ' ', ','])
        }
        None => text == "null" || text.starts_with('*') && !text.contains(['/', ' ', ',']),
    }
}
