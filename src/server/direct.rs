//! The requests of the gates: small ones, of which a client that polls sends one after the other.
//!
//! Input: accepted streams. Output: the gates' responses, as long as a connection brings whole requests for them of HTTP/1.1 and at
//! most [`MAX_REQUEST_BYTES`]; with any other request it goes to [`http`](super::http), together with the bytes already read.
//!
//! This saves hyper's 16 KiB of buffers, which would wait with each poll and fragment the heap when a crowd of clients connects,
//! and for the last request of a connection a separate packet that closes it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode, Uri, Version};
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::body::BODY_TIMEOUT;
use super::http::{FIRST_REQUEST_TIMEOUT, HEADER_TIMEOUT};
use super::listen::Service;
use crate::net::accept::{self, Accepted};
use crate::net::answer::{Answer, Answered, Answering};
use crate::net::connection::ConnectionHandle;
use crate::net::stream::{ClientStream, Stream};
use crate::warn_throttled;

/// Maximum size of a request that is handled here.
const MAX_REQUEST_BYTES: usize = 8 * 1024;

/// Maximum number of its headers; browsers send about twenty.
const MAX_HEADERS: usize = 48;

/// Bytes per read. Most requests are shorter.
const READ_BYTES: usize = 4 * 1024;

/// How many bytes of a following request are read while a response is awaited. Reading is needed to notice a disconnect.
const AHEAD_BYTES: usize = 256;

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection whose requests are for the gates so far.
pub(super) struct Connection {
    incoming: Incoming,
    /// What has been read of the next request.
    bytes: Bytes,
    pub(super) handle: Arc<ConnectionHandle>,
    pub(super) service: Service,
    /// Cancelled to stop serving requests.
    pub(super) stop: CancellationToken,
}

/// The stream of a connection; neither is there once the connection goes elsewhere.
struct Incoming {
    /// A connection that brought its first request, with the patience of [`Stream::plain`]; the runtime does not watch it yet.
    accepted: Option<(Accepted, Duration)>,
    stream: Option<ClientStream>,
}

impl Incoming {
    /// The stream, watched by the runtime from now on. `None` if it cannot be.
    fn watched(&mut self, handle: &Arc<ConnectionHandle>) -> Option<&mut ClientStream> {
        if let Some((accepted, patience)) = self.accepted.take() {
            match accepted.watched() {
                Ok(stream) => self.stream = Some(Stream::plain(stream, Vec::new(), handle, patience)),
                Err(error) => debug!(%error, "connection ended"),
            }
        }
        self.stream.as_mut()
    }

    /// Sends the end of a connection without TLS.
    fn send_last(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some((accepted, _)) = &self.accepted {
            return accepted.send_last(pieces);
        }
        match self.stream.as_ref().map(|stream| stream.get_ref().get_ref()) {
            Some(Stream::Plain(stream)) => accept::send_last(stream.tcp(), pieces),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Reads the first bytes of a connection, if they have arrived with it.
pub(super) fn read_now(stream: &Accepted) -> Option<Bytes> {
    let mut room = [MaybeUninit::uninit(); READ_BYTES];
    let bytes = stream.read_now(&mut room).ok().filter(|bytes| !bytes.is_empty())?;
    Some(Bytes::copy_from_slice(bytes))
}

/// Appends up to `SIZE` bytes of the stream to `bytes`; `None` at its end.
fn poll_more<const SIZE: usize>(stream: &mut ClientStream, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<Option<()>> {
    let mut room = [MaybeUninit::uninit(); SIZE];
    let mut room = ReadBuf::uninit(&mut room);
    let outcome = ready!(Pin::new(stream).poll_read(cx, &mut room));
    *bytes = match room.filled() {
        [] => return Poll::Ready(None),
        read if bytes.is_empty() => Bytes::copy_from_slice(read),
        read => [bytes, read].concat().into(),
    };
    Poll::Ready(outcome.ok())
}

impl Connection {
    /// A connection that brought the first `bytes` of a request. A write may wait for `patience` while the peer sends nothing.
    pub(super) fn accepted(
        (stream, patience): (Accepted, Duration),
        bytes: Bytes,
        handle: Arc<ConnectionHandle>,
        service: Service,
        stop: CancellationToken,
    ) -> Self {
        let incoming = Incoming { accepted: Some((stream, patience)), stream: None };
        Self { incoming, bytes, handle, service, stop }
    }

    /// Any other connection.
    pub(super) const fn watched(stream: ClientStream, handle: Arc<ConnectionHandle>, service: Service, stop: CancellationToken) -> Self {
        let incoming = Incoming { accepted: None, stream: Some(stream) };
        Self { incoming, bytes: Bytes::new(), handle, service, stop }
    }

    /// Serves requests for the gates. Returns the stream at the first other request, and `None` when the connection ends.
    pub(super) async fn serve(&mut self) -> Option<ClientStream> {
        let (mut deadline, mut has_head) = (self.handle.since() + FIRST_REQUEST_TIMEOUT, false);
        loop {
            let (answer, end) = match self.offer() {
                Ok(answer) => answer,
                Err(part @ (Unread::Head | Unread::Body)) => {
                    if part == Unread::Body && !std::mem::replace(&mut has_head, true) {
                        deadline = Instant::now() + BODY_TIMEOUT;
                    }
                    self.read_on(deadline).await?;
                    continue;
                }
                Err(Unread::Other) => return self.take_stream(),
            };
            let response = match answer {
                Answer::Ready(response) => response,
                Answer::Later(answer) => self.answered(answer).await?.ok()?,
            };
            let end = if self.stop.is_cancelled() { End::Closed } else { end };
            match self.respond(response, end).await {
                Ok(End::Kept) => {}
                Ok(End::Closed) => return None,
                Err(error) => {
                    debug!(%error, "connection ended");
                    return None;
                }
            }
            // Requests that came together do not keep other clients waiting.
            if !self.bytes.is_empty() {
                yield_now().await;
            }
            (deadline, has_head) = (Instant::now() + HEADER_TIMEOUT, false);
        }
    }

    /// Offers the next request to the gates. Not part of [`Self::serve`], so that a poll that waits keeps nothing of its request.
    fn offer(&mut self) -> Result<(Answer, End), Unread> {
        let parsed = parse(&self.bytes, |path| self.service.load().takes(path));
        if parsed.is_err() && self.bytes.first() == Some(&TLS_HANDSHAKE) {
            speaks_tls(&self.handle);
        }
        let (request, end, rest) = parsed?;
        self.handle.asked();
        // A websocket writes to the stream by the handle.
        if request.headers().contains_key(header::UPGRADE) {
            self.incoming.watched(&self.handle);
        }
        let answer = self.service.load().offer(request, &self.handle).map_err(|_| Unread::Other)?;
        self.bytes = rest;
        Ok((answer, end))
    }

    /// The stream, which returns once more what has been read of the next request.
    fn take_stream(&mut self) -> Option<ClientStream> {
        self.incoming.watched(&self.handle)?;
        Some(self.incoming.stream.take()?.again(&std::mem::take(&mut self.bytes)))
    }

    /// Reads more of a request; `None` when the connection ends.
    async fn read_on(&mut self, deadline: Instant) -> Option<()> {
        let stream = self.incoming.watched(&self.handle)?;
        let more = poll_fn(|cx| poll_more::<READ_BYTES>(stream, &mut self.bytes, cx));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            more = timeout_at(deadline, more) => more.unwrap_or_else(|_| {
                debug!(peer = %self.handle.peer(), "no request came");
                None
            }),
        }
    }

    /// Waits for a response; `None` if the client disconnects. Bytes that it sends meanwhile are part of its next request.
    async fn answered(&mut self, mut answer: Answering) -> Option<Answered> {
        poll_fn(|cx| {
            if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(answered));
            }
            let Some(stream) = self.incoming.watched(&self.handle) else { return Poll::Ready(None) };
            while self.bytes.is_empty() {
                if ready!(poll_more::<AHEAD_BYTES>(stream, &mut self.bytes, cx)).is_none() {
                    return Poll::Ready(None);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Writes a response, and ends the connection or starts the websocket, whose first bytes may have been read. Returns what became
    /// of the connection.
    async fn respond(&mut self, response: Response<Body>, end: End) -> io::Result<End> {
        let (parts, body) = response.into_parts();
        let mut body: Bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let upgrade = self.handle.take_upgrade();
        let is_last = upgrade.is_none()
            && (end == End::Closed || parts.headers.get(header::CONNECTION).is_some_and(|value| names_close(value.as_bytes())));
        let mut head = head(&parts, upgrade.is_none().then_some(is_last), body.len());
        let mut sent = 0;
        if is_last {
            sent = match self.incoming.send_last(&[IoSlice::new(&head), IoSlice::new(&body)]) {
                Ok(sent) if sent == head.len() + body.len() => return Ok(End::Closed),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                sent => sent.unwrap_or(0),
            };
        }
        let Some(stream) = self.incoming.watched(&self.handle) else { return Ok(End::Closed) };
        let of_head = sent.min(head.len());
        head.advance(of_head);
        body.advance(sent - of_head);
        stream.write_all_buf(&mut head.chain(body)).await?;
        match upgrade {
            Some(upgrade) => {
                if let Some(stream) = self.take_stream() {
                    // An error means that the server is ending.
                    drop(upgrade.send(stream));
                }
            }
            None if is_last => stream.shutdown().await?,
            None => {
                stream.flush().await?;
                return Ok(End::Kept);
            }
        }
        Ok(End::Closed)
    }
}

fn speaks_tls(handle: &ConnectionHandle) {
    let hint = "pages on https connect with https here, too: set protocol = \"https\" with sslCertPath and sslKeyPath, or terminate TLS in \
                a proxy and set Echo's `host` to it";
    warn_throttled!(class = 0, key = &handle.peer().ip(), peer = %handle.peer(), hint, "a client speaks TLS to a port of plain HTTP");
}

/// What happens to a connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is kept alive for the next request.
    Kept,
    /// It is closed.
    Closed,
}

/// Bytes that are no whole request for a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    /// They may be the beginning of one.
    Head,
    /// The rest of its body is missing.
    Body,
    /// Anything else.
    Other,
}

/// Parses a request whose path `is_taken` by a gate. Returns with it what happens to the connection after it, and the bytes that follow.
fn parse(bytes: &Bytes, is_taken: impl FnOnce(&str) -> bool) -> Result<(Request<Body>, End, Bytes), Unread> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let status = head.parse(bytes).map_err(|_| Unread::Other)?;
    if head.path.is_some_and(|path| !is_taken(path.split('?').next().unwrap_or_default())) {
        return Err(Unread::Other);
    }
    let (size, part) = match status {
        httparse::Status::Complete(length) => match request_of(bytes, &head) {
            Some((mut request, end, body)) if length.saturating_add(body) <= bytes.len() => {
                *request.body_mut() = Body::from(bytes.slice(length..length + body));
                return Ok((request, end, bytes.slice(length + body..)));
            }
            Some((.., body)) => (length.saturating_add(body), Unread::Body),
            None => return Err(Unread::Other),
        },
        httparse::Status::Partial => (bytes.len() + 1, Unread::Head),
    };
    Err(if size <= MAX_REQUEST_BYTES { part } else { Unread::Other })
}

/// The request with this `head`, which was parsed from `bytes`, what happens after it, and the size of its body. `None` if it is one
/// for hyper.
fn request_of(bytes: &Bytes, head: &httparse::Request<'_, '_>) -> Option<(Request<Body>, End, usize)> {
    let (path, 1) = (head.path?, head.version?) else { return None };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = match head.method? {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "OPTIONS" => Method::OPTIONS,
        _ => return None,
    };
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(path.as_bytes())).ok().filter(|uri| uri.authority().is_none())?;
    *request.version_mut() = Version::HTTP_11;
    let (mut end, mut body) = (End::Kept, None);
    let map = request.headers_mut();
    map.reserve(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name {
            header::CONNECTION if names_close(field.value) => end = End::Closed,
            header::UPGRADE if field.value.eq_ignore_ascii_case(b"websocket") => end = End::Closed,
            header::CONTENT_LENGTH if body.is_none() && field.value.iter().all(u8::is_ascii_digit) => {
                body = Some(std::str::from_utf8(field.value).ok()?.parse().ok()?);
            }
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::EXPECT | header::UPGRADE => return None,
            _ => {}
        }
        map.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?);
    }
    Some((request, end, body.unwrap_or(0)))
}

/// Whether a `Connection` header asks for the end of the connection.
fn names_close(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// The head of a response with a body of `length` bytes. `is_last` tells whether the connection ends after it, and is `None` for the
/// answer to a websocket's handshake.
fn head(parts: &http::response::Parts, is_last: Option<bool>, length: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(512);
    let mut line = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| head.extend_from_slice(piece));
    line(&[b"HTTP/1.1 ", parts.status.as_str().as_bytes(), b" ", parts.status.canonical_reason().unwrap_or_default().as_bytes(), b"\r\n"]);
    let is_own = |name: &HeaderName| is_last.is_some() && matches!(*name, header::CONNECTION | header::CONTENT_LENGTH);
    for (name, value) in parts.headers.iter().filter(|(name, _)| !is_own(name)) {
        line(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    if is_last == Some(true) {
        line(&[b"connection: close\r\n"]);
    }
    // The length of 304 would be that of the body which the client has.
    if is_last.is_some() && parts.status != StatusCode::NOT_MODIFIED {
        line(&[b"content-length: ", length.to_string().as_bytes(), b"\r\n"]);
    }
    line(&[b"date: ", httpdate::fmt_http_date(SystemTime::now()).as_bytes(), b"\r\n\r\n"]);
    head.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Request<Body>, End, Bytes), Unread> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), |path| path.starts_with("/socket.io"))
    }

    #[tokio::test]
    async fn whole_requests_are_taken_one_by_one() {
        let (request, end, rest) =
            parsed("GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\nConnection: Close\r\nCookie: a=1\r\ncookie: b\r\n\r\n").unwrap();
        assert_eq!((request.method(), request.uri().path(), end, &*rest), (&Method::GET, "/socket.io/", End::Closed, &b""[..]));
        assert_eq!(request.headers().get_all("cookie").iter().collect::<Vec<_>>(), ["a=1", "b"]);
        let (request, end, rest) = parsed("\r\nPOST /socket.io/ HTTP/1.1\r\nContent-Length: 2\r\n\r\n40GET / HTTP/1.1").unwrap();
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "40");
        assert_eq!((end, &*rest), (End::Kept, &b"GET / HTTP/1.1"[..]));
        let (request, end, _) =
            parsed("GET /socket.io/ HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n").unwrap();
        assert_eq!((&request.headers()[header::CONNECTION], end), (&HeaderValue::from_static("keep-alive, Upgrade"), End::Closed));
        assert_eq!(parsed("GET /socket.io/ HTTP/1.1\r\nConnection: upgrade\r\n\r\n").unwrap().1, End::Kept, "as nginx sends it");
        assert_eq!(parsed("GET /socket.io/ HTTP/1.1\r\nConnection: keep-alive , close\r\n\r\n").unwrap().1, End::Closed);
    }

    #[test]
    fn the_rest_of_a_request_is_waited_for_unless_it_is_too_large() {
        let text = "POST /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n40x";
        for end in 0..text.len() {
            let part = if text[..end].contains("\r\n\r\n") { Unread::Body } else { Unread::Head };
            assert_eq!(parsed(&text[..end]).unwrap_err(), part, "{}", &text[..end]);
        }
        let head = |length: usize| format!("POST /socket.io/ HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        let most = MAX_REQUEST_BYTES - head(MAX_REQUEST_BYTES).len();
        assert!(matches!(parsed(&head(most)), Err(Unread::Body)));
        for length in [most + 1, usize::MAX] {
            assert!(matches!(parsed(&head(length)), Err(Unread::Other)), "{length}");
        }
        let cookie = |bytes: usize| parsed(&format!("GET /socket.io/ HTTP/1.1\r\nCookie: {}", "x".repeat(bytes)));
        assert!(matches!(cookie(MAX_REQUEST_BYTES / 2), Err(Unread::Head)));
        assert!(matches!(cookie(MAX_REQUEST_BYTES), Err(Unread::Other)));
    }

    #[test]
    fn a_script_that_has_not_changed_is_given_no_length() {
        let head = |status: StatusCode| {
            let (parts, ()) = Response::builder().status(status).body(()).unwrap().into_parts();
            String::from_utf8(super::head(&parts, Some(true), 0).to_vec()).unwrap()
        };
        assert!(head(StatusCode::OK).contains("\r\nconnection: close\r\ncontent-length: 0\r\n"));
        assert!(!head(StatusCode::NOT_MODIFIED).contains("content-length"));
    }

    #[test]
    fn everything_else_is_left_to_hyper() {
        for (request, headers) in [
            ("GET /socket.io/ HTTP/1.0", "Connection: close\r\n"),
            ("GET /status HTTP/1.1", "Connection: close\r\n"),
            ("GET http://x/socket.io/ HTTP/1.1", ""),
            ("DELETE /socket.io/ HTTP/1.1", ""),
            ("GET /socket.io/ HTTP/1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            ("GET /socket.io/ HTTP/1.1", "Host : x\r\n"),
            ("POST /socket.io/ HTTP/1.1", "Content-Length: +2\r\n"),
            ("POST /socket.io/ HTTP/1.1", "Content-Length:\r\n"),
            ("POST /socket.io/ HTTP/1.1", "Content-Length: 99999999999999999999\r\n"),
            ("POST /socket.io/ HTTP/1.1", "Content-Length: 2\r\nContent-Length: 2\r\n"),
            ("POST /socket.io/ HTTP/1.1", "Content-Length: 2\r\nExpect: 100-continue\r\n"),
            ("POST /socket.io/ HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
        ] {
            assert!(matches!(parsed(&format!("{request}\r\n{headers}\r\n40")), Err(Unread::Other)), "{request} {headers}");
        }
        assert!(matches!(parsed("\u{16}\u{3}\u{1}"), Err(Unread::Other)), "TLS");
        assert!(matches!(parsed("GET /status HTTP/1.1\r\nHost"), Err(Unread::Other)), "as soon as the path is known");
    }
}
