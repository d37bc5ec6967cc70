//! Which `authHost` is asked when there are several: chosen by the page that the client came from. Pure.

use std::borrow::Cow;

use http::Uri;
use http::header::{self, HeaderMap};

/// One entry of `authHost`, such as `http://localhost`, `app.test:8000` or the wildcard `https://.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The scheme, when the entry names one.
    scheme: Option<String>,
    /// Host and port as written; a wildcard starts with a dot.
    authority: String,
    /// A path that comes before `authEndpoint`.
    path: String,
    /// The entry as an address; a wildcard alone is none.
    base: Option<String>,
}

/// The configured `authHost`.
#[derive(Debug, Clone)]
pub struct AuthHosts {
    entries: Vec<Entry>,
}

/// The page a client came from, by its `Referer` or `Origin`.
struct Page {
    scheme: String,
    host: String,
    /// Host and port, as in the URL.
    authority: String,
    port: Option<u16>,
}

impl AuthHosts {
    /// Reads the entries of `authHost`.
    #[must_use]
    pub fn new(entries: &[String]) -> Self {
        Self { entries: entries.iter().map(|text| Entry::parse(text)).collect() }
    }

    /// The base URL to ask, such as `http://localhost`; `None` when every entry is a wildcard that does not fit.
    ///
    /// Compat: the original takes the *last* entry when none fits, and lets the client choose scheme, port and part
    /// of the name of a wildcard (`src/channels/private-channel.ts:45-80`).
    #[must_use]
    pub fn choose(&self, handshake: &HeaderMap) -> Option<Cow<'_, str>> {
        if let [Entry { scheme: Some(_), base: Some(base), .. }] = &*self.entries {
            // No page changes anything.
            return Some(base.into());
        }
        let page = [header::REFERER, header::ORIGIN]
            .iter()
            .find_map(|name| handshake.get(name))
            .and_then(|value| Page::parse(value.to_str().ok()?));
        let fitting = page.as_ref().and_then(|page| self.entries.iter().find_map(|entry| entry.fit(page)));
        fitting.map(Cow::Owned).or_else(|| self.bases().next().map(Cow::Borrowed))
    }

    /// The base URLs of all entries that are no wildcards.
    pub fn bases(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| entry.base.as_deref())
    }
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
        let authority = authority.to_ascii_lowercase();
        let is_address = !authority.is_empty() && !authority.starts_with('.');
        let base = is_address.then(|| format!("{}://{authority}{path}", scheme.as_deref().unwrap_or("http")));
        Self { scheme, authority, path: path.to_owned(), base }
    }

    fn is_wildcard(&self) -> bool {
        self.authority.starts_with('.')
    }

    /// The address to ask for a page, when this entry is for it.
    fn fit(&self, page: &Page) -> Option<String> {
        if self.scheme.as_ref().is_some_and(|scheme| *scheme != page.scheme) {
            return None;
        }
        if !self.is_wildcard() {
            let scheme = &page.scheme;
            return (self.authority == page.authority).then(|| format!("{scheme}://{}{}", self.authority, self.path));
        }
        // Scheme and port come from the entry, so that no page can send cookies to a port of its choice.
        let (suffix, port) = match self.authority.rsplit_once(':') {
            Some((suffix, port)) => (suffix, Some(port.parse().ok()?)),
            None => (self.authority.as_str(), None),
        };
        // The dot makes it a boundary between labels; the name without a label before it has an entry of its own.
        if !page.host.ends_with(suffix) || page.port != port {
            return None;
        }
        let scheme = &page.scheme;
        Some(format!("{scheme}://{}{}", page.authority, self.path))
    }
}

impl Page {
    fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let scheme = uri.scheme_str()?;
        // User info in a Referer is no part of the host.
        let host = authority.host().to_ascii_lowercase();
        let default_port = if scheme == "https" { 443 } else { 80 };
        let port = authority.port_u16().filter(|&port| port != default_port);
        let shown = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
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
    fn a_wildcard_alone_is_never_an_address() {
        assert_eq!(choose(&[".example.com"], None), None);
    }

    #[test]
    fn a_path_comes_before_the_endpoint() {
        assert_eq!(choose(&["http://host/app/"], None).unwrap(), "http://host/app");
    }
}
