//! Request headers that live as long as their client.
//!
//! Input: hyper's headers. They share the connection's large read buffer, so keeping one would keep all of it. Output:
//! copies with their own memory.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Copies the headers with these names.
#[must_use]
pub(crate) fn copied(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    // Exact capacity: the map's smallest default has room for six headers, 600 bytes per client.
    let count = names.iter().map(|name| headers.get_all(name).iter().count()).sum();
    let mut copies = HeaderMap::with_capacity(count);
    for name in names {
        if copies.contains_key(name) {
            continue;
        }
        for value in headers.get_all(name) {
            if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
                copies.append(name, copy);
            }
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_headers_are_kept() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("cookie", &b"a=1"[..]), ("cookie", b"b=2"), ("odd", b"caf\xe9"), ("accept", b"*/*")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        }
        let copies = copied(&headers, &[http::header::COOKIE, HeaderName::from_static("odd"), http::header::COOKIE]);
        assert_eq!(copies.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!((&copies["odd"], copies.len()), (&headers["odd"], 3));
    }
}
