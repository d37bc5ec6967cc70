//! An application that answers slowly and counts concurrent callbacks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;

/// Its behaviour, and what it has counted.
pub(crate) struct Work {
    delay: Mutex<Duration>,
    in_flight: AtomicUsize,
    pub(crate) peak: AtomicUsize,
    pub(crate) callbacks: AtomicUsize,
    /// Status and body of its answers.
    answer: Mutex<(u16, String)>,
}

/// A stand-in for the Laravel application.
pub(crate) struct SlowApp {
    pub(crate) url: String,
    pub(crate) work: Arc<Work>,
}

impl SlowApp {
    pub(crate) async fn start(delay: Duration) -> Self {
        Self::start_on(0, delay).await
    }

    /// Starts on a port where it was expected before.
    pub(crate) async fn start_on(port: u16, delay: Duration) -> Self {
        let work = Arc::new(Work {
            delay: Mutex::new(delay),
            in_flight: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            callbacks: AtomicUsize::new(0),
            answer: Mutex::new((200, "true".to_owned())),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&work));
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        let url = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, work }
    }

    /// Answers with this from now on.
    pub(crate) fn answers(&self, status: u16, body: &str) {
        *self.work.answer.lock().expect("no test panicked here") = (status, body.to_owned());
    }

    /// Redirects to this address from now on.
    pub(crate) fn redirects(&self, location: &str) {
        self.answers(302, location);
    }

    /// Takes this long for each answer from now on.
    pub(crate) fn takes(&self, delay: Duration) {
        *self.work.delay.lock().expect("no test panicked here") = delay;
    }

    pub(crate) fn callbacks(&self) -> usize {
        self.work.callbacks.load(Ordering::SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.work.peak.load(Ordering::SeqCst)
    }
}

/// Counts a callback as finished, even if the server has cancelled it.
struct Leaving<'a>(&'a Work);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(work): State<Arc<Work>>) -> Response {
    work.callbacks.fetch_add(1, Ordering::SeqCst);
    let now = work.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    work.peak.fetch_max(now, Ordering::SeqCst);
    let _leaving = Leaving(&work);
    let delay = *work.delay.lock().expect("no test panicked here");
    tokio::time::sleep(delay).await;
    let (status, body) = work.answer.lock().expect("no test panicked here").clone();
    let status = StatusCode::from_u16(status).expect("a status");
    match status.is_redirection() {
        true => (status, [(LOCATION, body)]).into_response(),
        false => (status, body).into_response(),
    }
}
