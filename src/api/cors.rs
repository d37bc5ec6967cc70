//! Headers on every answer of the HTTP API: `apiOriginAllow`, and the undocumented `headers` of the original.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::Config;

/// The headers to add, made once.
#[derive(Debug, Clone)]
pub struct Cors {
    headers: Arc<HeaderMap>,
    /// `apiOriginAllow.allowCors`: preflights are answered too.
    allows_cors: bool,
}

impl Cors {
    /// Reads `apiOriginAllow` and `headers`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut headers = HeaderMap::new();
        let allow = &config.api_origin_allow;
        if allow.allow_cors.0 {
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
        Self { headers: Arc::new(headers), allows_cors: allow.allow_cors.0 }
    }
}

/// Adds the headers, and answers preflights, which come without a key.
pub async fn cors(State(cors): State<Cors>, request: Request, next: Next) -> Response {
    let mut response = if cors.allows_cors && request.method() == Method::OPTIONS {
        let methods = [(header::ALLOW, "GET,HEAD,POST")];
        (StatusCode::OK, methods).into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in cors.headers.iter() {
        response.headers_mut().insert(name, value.clone());
    }
    response
}
