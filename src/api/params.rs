//! Path and query of a request. Invalid ones are answered with an error, never ignored.
//!
//! Input: the request line. Output: [`Params`] for handlers, and 400 for a path that cannot be decoded.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use super::ApiError;

/// Decoded query parameters. If a name occurs twice, the first value counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Parses a query such as `info=user_count&filter_by_prefix=presence-`.
    #[must_use]
    pub(crate) fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The value of a parameter.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

/// Refuses paths with a `%` that is not followed by two hex digits, or that are not UTF-8. Paths with an empty segment are
/// not found, as in Express.
pub(crate) async fn checked_path(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !is_decodable(path) {
        return ApiError::bad_request("path: not a valid percent-encoding of UTF-8 text").into_response();
    }
    // A proxy that resolves dot segments may check a different path than the one it forwards.
    if has_dot_segments(path) {
        return ApiError::bad_request("path: has `.` or `..` in place of a name").into_response();
    }
    if path.contains("//") {
        return ApiError::not_found().into_response();
    }
    next.run(request).await
}

fn is_decodable(path: &str) -> bool {
    let escapes = path.split('%').skip(1);
    let are_whole = escapes.into_iter().all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()));
    are_whole && percent_decode_str(path).decode_utf8().is_ok()
}

fn has_dot_segments(path: &str) -> bool {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    decoded.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_cannot_be_decoded_are_detected() {
        for path in ["/apps/1/channels/a%20b%2F%C3%A9", "/", "/apps/x/channels/é"] {
            assert!(is_decodable(path), "{path}");
        }
        for path in ["/%", "/a%2", "/a%zz", "/a%ff", "/a%C3/", "/%é9"] {
            assert!(!is_decodable(path), "{path}");
        }
    }

    #[test]
    fn dot_segments_are_detected() {
        for path in ["/apps/x/../y", "/apps/x/..%2f..%2fsocket.io%2f", "/apps/%2e%2e/x", "/apps/x/.", "/apps/x/..%5cy"] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in ["/apps/x/channels/a..b", "/apps/x/channels/orders.1", "/"] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }

    #[test]
    fn the_first_of_two_values_counts() {
        let params = Params::parse("a=1&a=2&b=x+y%2Bz&c");
        assert_eq!((params.get("a"), params.get("b"), params.get("c"), params.get("d")), (Some("1"), Some("x y+z"), Some(""), None));
    }
}
