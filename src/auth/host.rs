//! Which `authHost` is asked when there are several: chosen by the page that the client is on. Pure.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use http::header::{self, HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

/// One entry of `authHost`, such as `http://localhost`, `app.test:8000` or the wildcard `https://.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The scheme, when the entry names one.
    scheme: Option<String>,
    /// Host and port as written; a wildcard starts with a dot.
    authority: String,
    /// The host part of `authority`.
    host: String,
    /// The port in `authority`, if there is one.
    port: Option<u16>,
    /// A path to put before `authEndpoint`.
    path: String,
    /// The entry as a base URL; `None` for a wildcard.
    base: Option<String>,
    /// The `Authorization` header for the user and password in the entry.
    credentials: Option<HeaderValue>,
}

/// The configured `authHost`.
#[derive(Debug, Clone)]
pub struct AuthHosts {
    entries: Vec<Entry>,
}

/// The page that a client is on, from its `Referer` or `Origin`.
struct Page {
    scheme: String,
    host: String,
    /// Host and port; the port is omitted if it is the scheme's default.
    authority: String,
    port: u16,
}

/// The port of a URL without a port.
const fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

impl AuthHosts {
    /// Reads the entries of `authHost`.
    #[must_use]
    pub fn new(entries: &[String]) -> Self {
        Self { entries: entries.iter().map(|text| Entry::parse(text)).collect() }
    }

    /// The base URL to ask, such as `http://localhost`; `None` when every entry is a wildcard that does not match.
    ///
    /// Compat: the original takes the *last* entry when none matches, and lets the client choose the scheme, the port and
    /// part of the host name for a wildcard (`src/channels/private-channel.ts:45-80`).
    #[must_use]
    pub fn choose(&self, handshake: &HeaderMap) -> Option<Cow<'_, str>> {
        if let [Entry { scheme: Some(_), base: Some(base), .. }] = &*self.entries {
            // With one complete URL there is nothing to choose.
            return Some(base.into());
        }
        let page = [header::REFERER, header::ORIGIN].iter().find_map(|name| Page::parse(handshake.get(name)?.to_str().ok()?));
        let fitting = page.as_ref().and_then(|page| self.entries.iter().find_map(|entry| entry.fit(page)));
        fitting.map(Cow::Owned).or_else(|| self.bases().next().map(Cow::Borrowed))
    }

    /// The `Authorization` header for a base URL, for callbacks whose client sends none.
    #[must_use]
    pub fn credentials(&self, base: &str) -> Option<&HeaderValue> {
        let (_, address) = base.split_once("://")?;
        let is_it = |entry: &&Entry| address.strip_prefix(entry.authority.as_str()) == Some(entry.path.as_str());
        self.entries.iter().filter(is_it).find_map(|entry| entry.credentials.as_ref())
    }

    /// The base URLs of all entries that are not wildcards.
    pub fn bases(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| entry.base.as_deref())
    }
}

/// Basic authorization for the percent-encoded `user:password` of a URL.
fn basic(user: &str) -> Option<HeaderValue> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let encoded = BASE64_STANDARD.encode([plain(name), plain(password)].join(&b':'));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Entry {
    fn parse(text: &str) -> Self {
        let text = text.trim().trim_end_matches('/');
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, authority) = authority.rsplit_once('@').map_or((None, authority), |(user, authority)| (Some(user), authority));
        let authority = authority.to_ascii_lowercase();
        let (host, port) = match authority.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host.to_owned(), Some(port)),
            _ => (authority.clone(), None),
        };
        let is_address = !authority.is_empty() && !authority.starts_with('.');
        let base = is_address.then(|| format!("{}://{authority}{path}", scheme.as_deref().unwrap_or("http")));
        Self { scheme, authority, host, port, path: path.to_owned(), base, credentials: user.and_then(basic) }
    }

    fn is_wildcard(&self) -> bool {
        self.authority.starts_with('.')
    }

    /// The base URL to ask for a page, if this entry matches it.
    fn fit(&self, page: &Page) -> Option<String> {
        if self.scheme.as_ref().is_some_and(|scheme| *scheme != page.scheme) {
            return None;
        }
        // The port must be the entry's, so that no page can have its cookies sent to a port of its choice.
        let scheme = &page.scheme;
        if page.port != self.port.unwrap_or_else(|| default_port(scheme == "https")) {
            return None;
        }
        // The leading dot makes this a match at a label boundary. `example.com` itself does not match and needs its own entry.
        let (fits, authority) = match self.is_wildcard() {
            true => (page.host.ends_with(&self.host), &page.authority),
            false => (page.host == self.host, &self.authority),
        };
        fits.then(|| format!("{scheme}://{authority}{}", self.path))
    }
}

impl Page {
    fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let scheme = uri.scheme_str()?;
        // `host()` excludes user info, so `https://a.test@evil.test` is `evil.test`.
        let host = authority.host().to_ascii_lowercase();
        let default_port = default_port(scheme == "https");
        let port = authority.port_u16().unwrap_or(default_port);
        let shown = if port == default_port { host.clone() } else { format!("{host}:{port}") };
        matches!(scheme, "http" | "https").then(|| Self { scheme: scheme.to_owned(), host, authority: shown, port })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn choose(entries: &[&str], header: Option<(header::HeaderName, &str)>) -> Option<String> {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        let mut handshake = HeaderMap::new();
        if let Some((name, value)) = header {
            handshake.insert(name, HeaderValue::from_str(value).unwrap());
        }
        AuthHosts::new(&entries).choose(&handshake).map(Cow::into_owned)
    }

    fn by_referer(entries: &[&str], referer: &str) -> Option<String> {
        choose(entries, Some((header::REFERER, referer)))
    }

    const SEVERAL: [&str; 3] = ["http://one.test", "http://two.test:8000/", "three.test:9000"];

    #[test]
    fn the_page_chooses() {
        assert_eq!(by_referer(&SEVERAL, "http://two.test:8000/page?x=1").unwrap(), "http://two.test:8000");
        assert_eq!(by_referer(&SEVERAL, "https://three.test:9000/").unwrap(), "https://three.test:9000");
        let origin = Some((header::ORIGIN, "http://two.test:8000"));
        assert_eq!(choose(&SEVERAL, origin).unwrap(), "http://two.test:8000");
    }

    #[test]
    fn without_a_fit_the_first_is_asked() {
        for referer in ["http://other.test/", "http://two.test:1/", "https://two.test:8000/", "garbage"] {
            assert_eq!(by_referer(&SEVERAL, referer).unwrap(), "http://one.test", "{referer}");
        }
        assert_eq!(choose(&SEVERAL, None).unwrap(), "http://one.test");
        assert_eq!(by_referer(&["http://one.test"], "http://other.test/").unwrap(), "http://one.test");
    }

    #[test]
    fn a_wildcard_fits_whole_labels_on_its_own_port() {
        let entries = ["http://app.test", ".example.com"];
        assert_eq!(by_referer(&entries, "https://a.example.com/x").unwrap(), "https://a.example.com");
        for referer in [
            "https://example.com/",
            "https://evil-example.com/",
            "https://a.example.com.evil.test/",
            "https://a.example.com:1234/",
            "ftp://a.example.com/",
            "https://a.example.com@evil.test/",
        ] {
            assert_eq!(by_referer(&entries, referer).unwrap(), "http://app.test", "{referer}");
        }
        assert_eq!(by_referer(&["https://.example.com"], "http://a.example.com/"), None);
        assert_eq!(by_referer(&["https://.example.com:8443"], "https://a.example.com:8443/").unwrap(), "https://a.example.com:8443");
    }

    #[test]
    fn the_port_of_a_scheme_may_be_written_or_not() {
        let entries =
            ["http://other.test", "http://localhost:80", "https://app.test:443", "both.test:80", "http://[::1]", ".wild.test:443"];
        for (origin, expected) in [
            ("http://localhost", "http://localhost:80"),
            ("http://localhost:80", "http://localhost:80"),
            ("https://app.test", "https://app.test:443"),
            ("http://both.test", "http://both.test:80"),
            ("http://[::1]:80", "http://[::1]"),
            ("https://a.wild.test", "https://a.wild.test"),
            ("https://both.test", "http://other.test"),
            ("http://localhost:81", "http://other.test"),
            ("http://a.wild.test", "http://other.test"),
        ] {
            assert_eq!(choose(&entries, Some((header::ORIGIN, origin))).unwrap(), expected, "{origin}");
        }
    }

    #[test]
    fn a_referer_that_is_no_page_leaves_it_to_the_origin() {
        let hosts = AuthHosts::new(&SEVERAL.map(str::to_owned));
        for referer in ["about:blank", "/x", "android-app://com.example", ""] {
            let mut handshake = HeaderMap::new();
            handshake.insert(header::REFERER, HeaderValue::from_str(referer).unwrap());
            handshake.insert(header::ORIGIN, HeaderValue::from_static("http://two.test:8000"));
            assert_eq!(hosts.choose(&handshake).unwrap(), "http://two.test:8000", "{referer}");
        }
    }

    #[test]
    fn a_wildcard_alone_is_never_an_address() {
        assert_eq!(choose(&[".example.com"], None), None);
    }

    #[test]
    fn a_path_comes_before_the_endpoint() {
        assert_eq!(choose(&["http://host/app/"], None).unwrap(), "http://host/app");
    }
}
