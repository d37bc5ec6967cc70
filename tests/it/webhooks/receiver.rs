//! An application that receives deliveries, verifies them, and fails on demand.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

pub(crate) const SECRET: &str = "webhook-secret";

/// How it responds to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Responds with this status. Only deliveries answered with 200 count as accepted.
    Status(u16),
    /// Never answers.
    Hang,
}

/// An accepted delivery.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    headers: HeaderMap,
    pub(crate) body: Value,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("plain text"))
    }
}

struct Inner {
    answer: Mutex<Answer>,
    deliveries: Mutex<Vec<Delivery>>,
    refused: Mutex<usize>,
}

/// The application.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        Self::on(tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    pub(crate) fn on(listener: tokio::net::TcpListener) -> Self {
        let inner = Arc::new(Inner { answer: Mutex::new(Answer::Status(200)), deliveries: Mutex::default(), refused: Mutex::default() });
        let router = Router::new().fallback(take).with_state(Arc::clone(&inner));
        let url = format!("http://{}/hook", listener.local_addr().expect("a bound listener has an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inner }
    }

    /// Responds to deliveries like this from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.inner.answer.lock().expect("no test panicked here") = answer;
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.inner.deliveries.lock().expect("no test panicked here").clone()
    }

    /// Number of rejected deliveries.
    pub(crate) fn refused(&self) -> usize {
        *self.inner.refused.lock().expect("no test panicked here")
    }

    /// All accepted events.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.deliveries().iter().flat_map(|delivery| delivery.body["events"].as_array().expect("a list").clone()).collect()
    }
}

async fn take(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: String) -> StatusCode {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(body.as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(headers["x-pusher-signature"].to_str().expect("plain text"), signature);
    let answer = *inner.answer.lock().expect("no test panicked here");
    match answer {
        Answer::Status(200) => {
            let body: Value = serde_json::from_str(&body).expect("JSON");
            assert!(body["time_ms"].is_u64(), "{body}");
            inner.deliveries.lock().expect("no test panicked here").push(Delivery { headers, body });
            StatusCode::OK
        }
        Answer::Status(status) => {
            *inner.refused.lock().expect("no test panicked here") += 1;
            StatusCode::from_u16(status).expect("a status")
        }
        Answer::Hang => {
            *inner.refused.lock().expect("no test panicked here") += 1;
            std::future::pending().await
        }
    }
}
