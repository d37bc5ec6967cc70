//! A fake Laravel application that answers callbacks and records them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Notify;

/// A received callback.
#[derive(Debug, Clone)]
pub(crate) struct Callback {
    pub(crate) channel: String,
    pub(crate) headers: HeaderMap,
}

#[derive(Default)]
struct Inner {
    callbacks: Mutex<Vec<Callback>>,
    /// While set, answers wait for [`Laravel::release`].
    is_holding: Mutex<bool>,
    released: Notify,
}

/// Grants every channel whose name does not contain `forbidden`. The user of a presence channel is the cookie `user=<id>`, also with
/// `&info=<JSON>`.
#[derive(Clone)]
pub(crate) struct Laravel {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

impl Laravel {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inner }
    }

    pub(crate) fn callbacks(&self) -> Vec<Callback> {
        self.inner.callbacks.lock().expect("no test panicked here").clone()
    }

    /// Holds back all answers from now on.
    pub(crate) fn hold(&self) {
        *self.inner.is_holding.lock().expect("no test panicked here") = true;
    }

    /// Sends all answers that are held back.
    pub(crate) fn release(&self) {
        *self.inner.is_holding.lock().expect("no test panicked here") = false;
        self.inner.released.notify_waiters();
    }
}

async fn answer(State(app): State<Arc<Inner>>, headers: HeaderMap, body: String) -> Response {
    let mut fields = form_urlencoded::parse(body.as_bytes());
    let channel = fields.find(|(name, _)| name == "channel_name").map(|(_, channel)| channel.into_owned()).unwrap_or_default();
    let cookie = headers.get("cookie").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let released = app.released.notified();
    app.callbacks.lock().expect("no test panicked here").push(Callback { channel: channel.clone(), headers });
    let waits = *app.is_holding.lock().expect("no test panicked here");
    if waits {
        released.await;
    }
    if channel.contains("forbidden") {
        return (StatusCode::FORBIDDEN, r#"{"message":"no"}"#).into_response();
    }
    match cookie.strip_prefix("user=") {
        Some(user) if channel.starts_with("presence-") => {
            let (user, info) = user.split_once("&info=").map_or((user, None), |(user, info)| (user, Some(info.to_owned())));
            let info = info.unwrap_or_else(|| format!(r#"{{"id":{user}}}"#));
            format!(r#"{{"channel_data":{{"user_id":{user},"user_info":{info}}}}}"#).into_response()
        }
        _ => "true".into_response(),
    }
}
