//! Headers that live as long as their client.
//!
//! Input: headers as hyper has read them, which share the connection's large read buffer: one that is kept keeps all of
//! it. Output: copies with memory of their own.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A copy of the headers of these names.
#[must_use]
pub(crate) fn copied(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    // As much room as they take: the map's own first step has room for six, 600 bytes a client.
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
    fn only_what_is_named_is_kept() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("cookie", &b"a=1"[..]), ("cookie", b"b=2"), ("odd", b"caf\xe9"), ("accept", b"*/*")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        }
        let copies = copied(&headers, &[http::header::COOKIE, HeaderName::from_static("odd"), http::header::COOKIE]);
        assert_eq!(copies.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!((&copies["odd"], copies.len()), (&headers["odd"], 3));
    }
}
