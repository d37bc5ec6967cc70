//! Clients that poll: GET fetches queued messages, POST delivers the client's messages.
//!
//! Input: requests with the `sid` of a session. Output: their responses, and messages for the [`Session`].

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use parking_lot::{Mutex, MutexGuard};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::Instant;
use tracing::debug;

use super::payload::{self, Packet, Payload};
use super::session::{Session, SessionId};
use crate::admission::Slot;
use crate::event::CloseReason;
use crate::net::answer::Dropped;
use crate::net::websocket::End;

/// The NOOP packet, as a frame.
const NOOP: Bytes = Bytes::from_static(b"\x81\x016");

/// How many packets of one POST are handled before other clients have their turn. More than most bodies have.
const PACKETS_PER_TURN: usize = 64;

/// All polling sessions, by the secret key that their requests carry.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<SessionId, Arc<Polling>>>);

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Polling>>> {
        self.0.lock()
    }

    pub(super) fn get(&self, key: SessionId) -> Option<Arc<Polling>> {
        self.all().get(&key).cloned()
    }

    /// Removes a session; later requests with its key are answered like those of an unknown session.
    pub(super) fn remove(&self, key: SessionId) -> Option<Arc<Polling>> {
        let polling = self.all().remove(&key)?;
        polling.stop();
        Some(polling)
    }

    /// Removes and returns all sessions.
    pub(super) fn drain(&self) -> Vec<Session> {
        let all: Vec<_> = self.all().drain().map(|(_, polling)| polling).collect();
        all.into_iter()
            .map(|polling| {
                polling.stop();
                polling.session.clone()
            })
            .collect()
    }
}

/// A session while it polls.
pub(super) struct Polling {
    session: Session,
    /// The client's slot, until a websocket takes it over.
    slot: Mutex<Option<Slot>>,
    /// A GET is waiting for messages.
    is_polled: AtomicBool,
    /// A POST is delivering messages.
    is_posted: AtomicBool,
    phase: Mutex<Phase>,
    /// The task that runs the heartbeat.
    keeper: Mutex<Option<AbortHandle>>,
}

/// Whether polls may still take frames.
#[derive(Debug, Default)]
struct Phase {
    /// A websocket has taken over the session, or the client has closed it: a pending poll gets a NOOP.
    is_over: bool,
    is_probed: bool,
    /// A websocket was accepted and its client is about to probe: polls wait for that.
    is_expectant: bool,
    /// The pending poll, or the next one, gets a NOOP at once, so that the client can upgrade.
    is_nudged: bool,
}

/// The outcome of a poll.
enum Polled {
    Frames(std::collections::VecDeque<Bytes>),
    Nothing,
    Ended(End),
}

impl Polling {
    /// Starts and registers a session that polls. Its first response is OPEN.
    pub(super) fn begin(session: Session, slot: Slot) -> Result<Response<Body>, CloseReason> {
        let shared = Arc::clone(session.shared());
        let polling = Arc::new(Self {
            session,
            slot: Mutex::new(Some(slot)),
            is_polled: AtomicBool::new(false),
            is_posted: AtomicBool::new(false),
            phase: Mutex::default(),
            keeper: Mutex::default(),
        });
        shared.sessions.all().insert(polling.session.key(), Arc::clone(&polling));
        if let Err(reason) = polling.session.open() {
            polling.end(reason);
            return Err(reason);
        }
        let keeper = tokio::spawn(Arc::clone(&polling).keep()).abort_handle();
        *polling.keeper.lock() = Some(keeper);
        let cx = Context::from_waker(std::task::Waker::noop());
        let frames = match polling.session.outbox().poll_take(usize::MAX, &cx) {
            Poll::Ready(Ok(frames)) => frames,
            Poll::Ready(Err(_)) | Poll::Pending => return Err(CloseReason::TransportClose),
        };
        Ok(polling.answer(Payload::encode(polling.session.version(), frames)))
    }

    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock()
    }

    /// Runs the heartbeat for as long as the session polls.
    async fn keep(self: Arc<Self>) {
        let mut is_ending = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.session.due()) => {}
                end = poll_fn(|cx| self.session.outbox().poll_end(cx)), if !is_ending => match end {
                    End::Now => return self.end(CloseReason::TransportClose),
                    End::Flushed => {
                        is_ending = true;
                        self.session.flushed(Instant::now());
                    }
                },
            }
            let now = Instant::now();
            if now >= self.session.due()
                && let Err(reason) = self.session.beat(now)
            {
                return self.end(reason);
            }
        }
    }

    /// Frees the slot and stops the heartbeat task.
    fn stop(&self) {
        drop(self.slot.lock().take());
        if let Some(keeper) = self.keeper.lock().take() {
            keeper.abort();
        }
    }

    /// Ends the session, and with it a pending poll.
    fn end(&self, reason: CloseReason) {
        drop(self.session.shared().sessions.remove(self.session.key()));
        self.session.ended(reason);
    }

    /// Whether the session has ended, so that its requests name an unknown session.
    pub(super) fn has_ended(&self) -> bool {
        self.session.shared().sessions.get(self.session.key()).is_none()
    }

    /// Reserves the session for a websocket that wants to probe it. Fails if it is over or another websocket probes it.
    pub(super) fn begin_probe(&self) -> bool {
        let mut phase = self.phase();
        let may_begin = !phase.is_over && !std::mem::replace(&mut phase.is_probed, true);
        phase.is_expectant |= may_begin;
        may_begin
    }

    /// The probing websocket is gone; the session keeps polling.
    pub(super) fn end_probe(&self) {
        self.phase().is_probed = false;
        self.go_on(false);
    }

    /// Polls no longer wait for the probe. With `is_nudged`, a pending poll returns a NOOP, so that the client can upgrade.
    pub(super) fn go_on(&self, is_nudged: bool) {
        {
            let mut phase = self.phase();
            (phase.is_expectant, phase.is_nudged) = (false, is_nudged);
        }
        self.session.outbox().wake();
    }

    /// Hands the session and the client's slot to a websocket. `None`: the session is over.
    pub(super) fn change_over(&self) -> Option<Option<Slot>> {
        if std::mem::replace(&mut self.phase().is_over, true) {
            return None;
        }
        let slot = self.slot.lock().take();
        self.session.shared().sessions.remove(self.session.key())?;
        self.session.client().is_upgraded();
        self.session.outbox().unwatch();
        self.session.has_come_back();
        self.session.outbox().wake();
        Some(slot)
    }

    fn poll_frames(&self, cx: &Context<'_>) -> Poll<Polled> {
        // Checked under the lock, so that no poll takes frames once a websocket has started to.
        let mut phase = self.phase();
        if phase.is_over {
            return Poll::Ready(Polled::Nothing);
        }
        let most = if phase.is_expectant { 0 } else { self.session.shared().max_poll_packets };
        match self.session.outbox().poll_take(most, cx) {
            Poll::Ready(Ok(_)) if phase.is_expectant => Poll::Pending,
            Poll::Ready(Ok(frames)) => Poll::Ready(Polled::Frames(frames)),
            Poll::Ready(Err(end)) => Poll::Ready(Polled::Ended(end)),
            Poll::Pending if std::mem::take(&mut phase.is_nudged) => Poll::Ready(Polled::Nothing),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Answers a GET once a frame is queued. `None`: the session has ended, for example because of two concurrent polls.
    pub(super) async fn poll(self: Arc<Self>) -> Result<Option<Payload>, Dropped> {
        if self.is_polled.swap(true, Ordering::AcqRel) {
            self.end(CloseReason::TransportError);
            return Ok(None);
        }
        self.session.has_come_back();
        let waiting = Waiting(&self);
        let polled = poll_fn(|cx| self.poll_frames(cx)).await;
        std::mem::forget(waiting);
        self.is_polled.store(false, Ordering::Release);
        let version = self.session.version();
        match polled {
            Polled::Frames(frames) => Ok(Some(Payload::encode(version, frames))),
            Polled::Nothing => Ok(Some(Payload::encode(version, [NOOP]))),
            Polled::Ended(End::Now) => Err(Dropped),
            Polled::Ended(End::Flushed) => {
                self.end(CloseReason::ServerLeft);
                Ok(None)
            }
        }
    }

    /// Builds the response to a poll.
    pub(super) fn answer(&self, payload: Payload) -> Response<Body> {
        let length = payload.len();
        let mut response = Response::new(payload.into_body());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
        headers.insert(header::CONTENT_LENGTH, length.into());
        response
    }

    /// Handles the body of a POST. The error is the status of the response.
    pub(super) async fn post(self: Arc<Self>, headers: &HeaderMap, body: Body) -> Result<(), StatusCode> {
        if self.is_posted.swap(true, Ordering::AcqRel) {
            self.end(CloseReason::TransportError);
            return Err(StatusCode::BAD_REQUEST);
        }
        let posting = Posting(&self);
        self.session.has_come_back();
        let most = self.session.shared().max_message_bytes;
        let is_binary = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
        let limited = Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX));
        let body = match limited.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                self.session.too_large();
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            Err(error) => {
                debug!(%error, "cannot read the body of a polling client");
                self.end(CloseReason::TransportError);
                return Err(StatusCode::BAD_REQUEST);
            }
        };
        let taken = self.take(&body, is_binary).await;
        drop(posting);
        self.session.heard(Instant::now());
        match taken {
            Ok(()) => Ok(()),
            Err(CloseReason::ParseError) => {
                self.end(CloseReason::ParseError);
                Err(StatusCode::BAD_REQUEST)
            }
            Err(reason) => {
                // The client closed the session; its pending poll gets a NOOP.
                self.phase().is_over = true;
                self.end(reason);
                Ok(())
            }
        }
    }

    async fn take(&self, body: &[u8], is_binary: bool) -> Result<(), CloseReason> {
        let packets = payload::decode(self.session.version(), body, is_binary).map_err(|payload::Malformed| CloseReason::ParseError)?;
        for (index, packet) in packets.into_iter().enumerate() {
            if index % PACKETS_PER_TURN == PACKETS_PER_TURN - 1 {
                yield_now().await;
            }
            match packet {
                Packet::Text(text) => self.session.text(text)?,
                Packet::Binary(data) => self.session.binary(data)?,
            }
        }
        Ok(())
    }
}

/// A pending poll. If the client drops it, the session ends.
struct Waiting<'a>(&'a Polling);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.phase().is_over {
            self.0.is_polled.store(false, Ordering::Release);
        } else {
            self.0.end(CloseReason::TransportClose);
        }
    }
}

/// A POST in progress; clears the flag when dropped.
struct Posting<'a>(&'a Polling);

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        self.0.is_posted.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
