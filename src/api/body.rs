//! Bodies of POST requests: read completely, within size and time limits, and compared with the signature.
//!
//! Input: any request. Output: [`Posted`], or a response with the error: 400, 403, 408, 413, 415. The response is sent only
//! after the body was read: clients that are still sending would see a broken connection instead.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::auth::App;
use super::{Api, ApiError};

/// How long a whole body may take. Callers are servers with good connections: 10 MB in that time is 3 Mbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How many bytes of a body over the limit are read and discarded before it is refused.
const PATIENCE_BYTES: usize = 64 * 1024 * 1024;

/// The body of an authorized request.
#[derive(Debug)]
pub(crate) struct Posted(pub Bytes);

impl FromRequest<Api> for Posted {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let app = App::from_request_parts(&mut parts, api).await?;
        let body = read(&parts.headers, body, api.body_limit).await?;
        app.check_body(&body)?;
        Ok(Self(body))
    }
}

/// A body without content: empty, or an object such as `{}`.
#[derive(Debug)]
pub(crate) struct PostedNothing;

impl FromRequest<Api> for PostedNothing {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let Posted(body) = Posted::from_request(request, api).await?;
        if !body.is_empty() {
            let object: Result<Map<String, Value>, _> = serde_json::from_slice(&body);
            object.map_err(|error| ApiError::bad_request(format!("body: must be a JSON object, or empty: {error}")))?;
        }
        Ok(Self)
    }
}

async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::unsupported_encoding());
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let is_too_large = declared.is_some_and(|length| length > limit);
    if is_too_large && headers.contains_key(EXPECT) {
        // The client waits for a response before it sends the body.
        return Err(ApiError::too_large(limit));
    }
    let deadline = Instant::now() + BODY_TIMEOUT;
    let mut content = BytesMut::new();
    let mut seen = 0_usize;
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| ApiError::slow_body(BODY_TIMEOUT))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::bad_request(format!("body: cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen > limit.saturating_add(PATIENCE_BYTES) {
            break;
        }
        if seen <= limit && !is_too_large {
            content.extend_from_slice(&data);
        }
    }
    if seen > limit { Err(ApiError::too_large(limit)) } else { Ok(content.freeze()) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use futures_util::{StreamExt as _, stream};

    use super::*;

    fn chunks(chunks: &[&'static str]) -> Body {
        Body::from_stream(stream::iter(chunks.iter().map(|chunk| Ok::<_, Infallible>(*chunk)).collect::<Vec<_>>()))
    }

    async fn status(headers: &[(axum::http::HeaderName, &'static str)], body: Body) -> StatusCode {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        read(&headers, body, 10).await.unwrap_err().into_response().status()
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_read_completely() {
        assert_eq!(read(&HeaderMap::new(), chunks(&["01234", "56789"]), 10).await.unwrap(), "0123456789");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_any_headers() {
        assert_eq!(status(&[], chunks(&["01234", "56789", "x"])).await, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(status(&[(CONTENT_LENGTH, "11")], chunks(&["0123456789x"])).await, StatusCode::PAYLOAD_TOO_LARGE);
        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(status(&[(CONTENT_LENGTH, "11"), (EXPECT, "100-continue")], never).await, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_content_encoding_is_refused() {
        assert_eq!(status(&[(CONTENT_ENCODING, "gzip")], chunks(&["{}"])).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[tokio::test]
    async fn an_interrupted_body_is_refused() {
        let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
        assert_eq!(status(&[], Body::from_stream(broken)).await, StatusCode::BAD_REQUEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_times_out() {
        let absent = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]).chain(stream::pending());
        assert_eq!(status(&[], Body::from_stream(absent)).await, StatusCode::REQUEST_TIMEOUT);
    }
}
