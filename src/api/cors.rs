//! Headers of all API responses: `apiOriginAllow`, and the original's undocumented `headers`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::config::Config;

/// The headers to add, parsed once.
#[derive(Debug, Clone)]
pub(crate) struct Cors {
    headers: Arc<HeaderMap>,
}

impl Cors {
    /// Reads `apiOriginAllow` and `headers`.
    #[must_use]
    pub(crate) fn new(config: &Config) -> Self {
        let mut headers = HeaderMap::new();
        let allow = &config.api_origin_allow;
        if allow.allow_cors {
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_ORIGIN, &allow.allow_origin),
                (header::ACCESS_CONTROL_ALLOW_METHODS, &allow.allow_methods),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, &allow.allow_headers),
            ] {
                if let Ok(value) = HeaderValue::from_str(value) {
                    headers.insert(name, value);
                }
            }
        }
        for (name, value) in &config.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        Self { headers: Arc::new(headers) }
    }
}

/// Adds the headers.
pub(crate) async fn cors(State(cors): State<Cors>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in cors.headers.iter() {
        response.headers_mut().insert(name, value.clone());
    }
    response
}
