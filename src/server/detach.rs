//! Heads of requests that live as long as their client.
//!
//! Input: requests as hyper has read them, whose parts share the connection's large read buffer: one header that is
//! kept keeps all of it. Output: the same with memory of their own.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};

/// A copy of the headers but for those of these names.
#[must_use]
pub fn copied(headers: &HeaderMap, without: &[HeaderName]) -> HeaderMap {
    let mut copies = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !without.contains(name)) {
        if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copies.append(name, copy);
        }
    }
    copies
}

/// Gives a request memory of its own.
pub fn detach(request: &mut Request<Body>) {
    *request.headers_mut() = copied(request.headers(), &[]);
    if let Ok(copy) = request.uri().to_string().parse::<Uri>() {
        *request.uri_mut() = copy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_but_where_it_lies() {
        let mut request =
            Request::builder().uri("/socket.io/?EIO=4&x=%20").header("cookie", "a=1").header("cookie", "b=2").body(Body::empty()).unwrap();
        request.headers_mut().insert("odd", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let (headers, uri) = (request.headers().clone(), request.uri().clone());
        detach(&mut request);
        assert_eq!((request.headers(), request.uri()), (&headers, &uri));
        let mut copies = copied(&headers, &[HeaderName::from_static("odd")]);
        assert!(!copies.contains_key("odd"));
        copies.insert("odd", headers["odd"].clone());
        assert_eq!(copies, headers);
    }
}
