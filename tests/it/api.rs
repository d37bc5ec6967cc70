//! The HTTP API: access control, responses, publishing and errors.

use serde_json::Value;

use crate::support::{DEADLINE, TestServer};

mod channels;
mod credentials;
mod documents;
mod events;
mod health;
mod metrics;
mod refusals;
mod users;

/// A response of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON; `null` if it is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The `error` of the body, or an empty string.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are ASCII"))
    }
}

/// Sends a request unchanged.
pub(crate) async fn send(server: &TestServer, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<String>) -> Answer {
    let method = method.parse().expect("a method");
    let mut request = reqwest::Client::new().request(method, server.url(path)).timeout(DEADLINE).body(body.into());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap_or_else(|error| panic!("{path} was not answered: {error}"));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.expect("a whole answer") }
}

/// The `Authorization` header with the tests' key.
pub(crate) const BEARER: (&str, &str) = ("authorization", "Bearer test-key");

/// GET with the key.
pub(crate) async fn get(server: &TestServer, path: &str) -> Answer {
    send(server, "GET", path, &[BEARER], "").await
}

/// POST of JSON with the key.
pub(crate) async fn post(server: &TestServer, path: &str, body: Value) -> Answer {
    send(server, "POST", path, &[BEARER], body.to_string()).await
}
