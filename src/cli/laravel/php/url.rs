//! Parses URLs like PHP. Input: text. Output: its parts, not decoded. Pure.

/// The result of `parse_url`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli::laravel) struct Url<'a> {
    pub(in crate::cli::laravel) scheme: Option<&'a str>,
    pub(in crate::cli::laravel) host: Option<&'a str>,
    pub(in crate::cli::laravel) port: Option<u16>,
    pub(in crate::cli::laravel) user: Option<&'a str>,
    pub(in crate::cli::laravel) pass: Option<&'a str>,
    pub(in crate::cli::laravel) path: Option<&'a str>,
    pub(in crate::cli::laravel) query: Option<&'a str>,
    pub(in crate::cli::laravel) fragment: Option<&'a str>,
}

impl<'a> Url<'a> {
    /// `None` where `parse_url` returns false.
    pub(in crate::cli::laravel) fn parse(text: &'a str) -> Option<Self> {
        let mut url = Self::default();
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b)) => {
                url.scheme = Some(scheme);
                rest
            }
            _ => text,
        };
        let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        (url.query, url.fragment) = (query.filter(|text| !text.is_empty()), fragment.filter(|text| !text.is_empty()));
        let has_port = rest.split_once(':').is_some_and(|(_, port)| port.starts_with(|c: char| c.is_ascii_digit()));
        if url.scheme.is_none() && !has_port {
            url.path = Some(rest).filter(|path| !path.is_empty());
            return Some(url);
        }
        let (authority, path) = rest.find('/').map_or((rest, None), |at| (&rest[..at], Some(&rest[at..])));
        url.path = path;
        let address = match authority.rsplit_once('@') {
            Some((login, address)) => {
                let (user, pass) = login.split_once(':').map_or((login, None), |(user, pass)| (user, Some(pass)));
                (url.user, url.pass) = (Some(user), pass);
                address
            }
            None => authority,
        };
        let bracket = address.rfind(']').unwrap_or(0);
        let host = match address[bracket..].rfind(':') {
            Some(at) => {
                let port = &address[bracket + at + 1..];
                url.port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
                &address[..bracket + at]
            }
            None => address,
        };
        if host.is_empty() {
            return None;
        }
        url.host = Some(host);
        Some(url)
    }
}

/// `rawurldecode`.
pub(in crate::cli::laravel) fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
