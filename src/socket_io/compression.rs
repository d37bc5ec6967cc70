//! Poll responses in gzip, as in the original (`socketio.httpCompression`).
//!
//! Input: a response, and the encodings the client accepts. Output: the response, compressed if it is long enough.

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::http::Response;
use axum::http::header::{self, HeaderMap, HeaderValue};

use crate::net::deflate::{Deflated, MAX_BYTES};

/// Responses shorter than this many bytes are not compressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threshold(pub(super) u64);

/// The threshold, if the client accepts gzip.
pub(super) fn accepted(headers: &HeaderMap, threshold: Threshold) -> Option<Threshold> {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut encodings = values.flat_map(|value| value.split(','));
    let is_gzip = |encoding: &str| {
        let (name, weight) = encoding.split_once(';').unwrap_or((encoding, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    };
    encodings.any(is_gzip).then_some(threshold)
}

/// Compresses a response that reaches the threshold and has at most [`MAX_BYTES`].
pub(super) async fn compress(response: Response<Body>, threshold: Option<Threshold>) -> Response<Body> {
    let bytes = response.body().size_hint().lower();
    if bytes > MAX_BYTES as u64 || threshold.is_none_or(|Threshold(least)| bytes < least) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let plain = to_bytes(body, usize::MAX).await.expect("payloads are in memory");
    let packed = Deflated::of(&plain).gzip();
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(header::CONTENT_LENGTH, packed.len().into());
    Response::from_parts(parts, packed.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn only_clients_that_accept_gzip_get_it() {
        for (value, is_accepted) in [("gzip", true), ("deflate, GZIP;q=0.5", true), ("br", false), ("gzip;q=0", false), ("", false)] {
            let headers = [(header::ACCEPT_ENCODING, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(accepted(&headers, Threshold(1)).is_some(), is_accepted, "{value}");
        }
    }

    #[tokio::test]
    async fn long_answers_are_compressed_and_short_ones_are_not() {
        let text = "x".repeat(5000);
        let response = compress(Response::new(text.clone().into()), Some(Threshold(1024))).await;
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
        let packed = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let mut plain = String::new();
        GzDecoder::new(&*packed).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, text);
        for (length, threshold) in [(100, Some(Threshold(1024))), (5000, None)] {
            let response = compress(Response::new("x".repeat(length).into()), threshold).await;
            assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
        }
    }
}
