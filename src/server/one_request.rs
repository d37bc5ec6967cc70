//! Connections with a single request: a websocket is one, and polling clients in Node, and proxies without keep-alive, open
//! one for each.
//!
//! Input: accepted streams. Output: the gates' responses to requests that arrive complete in the first read and ask for a
//! websocket or say `Connection: close`; all other streams go to [`http`](super::http), together with the bytes already read.
//!
//! This saves hyper's 16 KiB of buffers, which fragment the heap when a crowd of clients connects, and a separate packet
//! for closing the connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode, Uri, Version};
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tracing::debug;

use super::http::{FIRST_REQUEST_TIMEOUT, watched};
use super::listen::Service;
use crate::net::accept::{self, Accepted};
use crate::net::answer::Answer;
use crate::net::connection::ConnectionHandle;
use crate::net::stream::{ClientStream, Stream};

/// Maximum size of a request that is handled here.
const MAX_REQUEST_BYTES: usize = 4 * 1024;

/// Maximum number of its headers; browsers send about twenty.
const MAX_HEADERS: usize = 48;

/// A connection whose first bytes were read.
pub(super) enum Incoming {
    /// They had arrived with the connection, which the runtime does not watch yet.
    AtOnce(Accepted, Duration),
    /// All others.
    Watched(ClientStream),
}

impl Incoming {
    fn watched(self, handle: &Arc<ConnectionHandle>) -> Option<ClientStream> {
        match self {
            Self::AtOnce(stream, patience) => match stream.watched() {
                Ok(stream) => Some(Stream::plain(stream, Vec::new(), handle, patience)),
                Err(error) => {
                    debug!(%error, "connection ended");
                    None
                }
            },
            Self::Watched(stream) => Some(stream),
        }
    }

    /// Sends the end of a connection without TLS.
    fn send_last(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::AtOnce(stream, _) => stream.send_last(pieces),
            Self::Watched(stream) => match stream.get_ref().get_ref() {
                Stream::Plain(stream) => accept::send_last(stream.tcp(), pieces),
                Stream::Boxed(_) => Err(io::ErrorKind::WouldBlock.into()),
            },
        }
    }
}

/// Reads the first bytes of a connection, if they have arrived with it.
pub(super) fn read_now(stream: &Accepted) -> Option<Bytes> {
    let mut room = [MaybeUninit::uninit(); MAX_REQUEST_BYTES];
    let bytes = stream.read_now(&mut room).ok().filter(|bytes| !bytes.is_empty())?;
    Some(Bytes::copy_from_slice(bytes))
}

/// Reads the first bytes of a connection. `None` when it ends or no request comes.
pub(super) async fn read(stream: &mut ClientStream, handle: &ConnectionHandle) -> Option<Bytes> {
    let first = poll_fn(|cx| {
        let mut room = [MaybeUninit::uninit(); MAX_REQUEST_BYTES];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut room))?;
        Poll::Ready(io::Result::Ok(Bytes::copy_from_slice(room.filled())))
    });
    let Ok(first) = tokio::time::timeout_at(handle.since() + FIRST_REQUEST_TIMEOUT, first).await else {
        debug!(peer = %handle.peer(), "no request came");
        return None;
    };
    first.ok().filter(|bytes| !bytes.is_empty())
}

/// Answers the only request of a connection. Returns the stream if its `first` bytes are not such a request.
pub(super) async fn serve(
    mut connection: Incoming,
    first: Bytes,
    handle: &Arc<ConnectionHandle>,
    service: &Service,
) -> Option<ClientStream> {
    handle.begins_with(*first.first()?);
    let front = service.load_full();
    let Some(request) = parse(&first, |path| front.takes(path)) else {
        return Some(connection.watched(handle)?.again(&first));
    };
    if request.headers().contains_key(header::UPGRADE) {
        connection = Incoming::Watched(connection.watched(handle)?);
    }
    let response = match front.offer(request, handle) {
        Ok(Answer::Ready(response)) => response,
        Ok(Answer::Later(mut answer) | Answer::Waits(mut answer)) => match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
            Poll::Ready(answered) => answered.ok()?,
            Poll::Pending => {
                let mut stream = connection.watched(handle)?;
                let response = watched(&mut stream, &mut Vec::new(), |cx| answer.as_mut().poll(cx)).await?;
                connection = Incoming::Watched(stream);
                response
            }
        },
        Err(_) => return Some(connection.watched(handle)?.again(&first)),
    };
    if let Err(error) = answer(connection, response, handle).await {
        debug!(%error, "connection ended");
    }
    None
}

/// Parses `bytes` if they are exactly one complete request, it is the connection's last, and a gate handles its path.
fn parse(bytes: &Bytes, is_taken: impl FnOnce(&str) -> bool) -> Option<Request<Body>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let (path, version) = (head.path?, head.version?);
    if version != 1 || !is_taken(path.split('?').next()?) {
        return None;
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = match head.method? {
        "GET" => Method::GET,
        "POST" => Method::POST,
        _ => return None,
    };
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(path.as_bytes())).ok().filter(|uri| uri.authority().is_none())?;
    *request.version_mut() = Version::HTTP_11;
    let (mut is_only, mut body_length) = (false, None);
    let map = request.headers_mut();
    map.reserve(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name {
            header::CONNECTION => is_only |= field.value.eq_ignore_ascii_case(b"close"),
            header::UPGRADE if field.value.eq_ignore_ascii_case(b"websocket") => is_only = true,
            header::CONTENT_LENGTH if body_length.is_none() && field.value.iter().all(u8::is_ascii_digit) => {
                body_length = Some(std::str::from_utf8(field.value).ok()?.parse().ok()?);
            }
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::EXPECT | header::UPGRADE => return None,
            _ => {}
        }
        map.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?);
    }
    let body = bytes.slice(length..);
    if !is_only || body.len() != body_length.unwrap_or(0) {
        return None;
    }
    *request.body_mut() = Body::from(body);
    Some(request)
}

/// Writes the response, and ends the connection or starts the websocket.
async fn answer(connection: Incoming, response: Response<Body>, handle: &Arc<ConnectionHandle>) -> io::Result<()> {
    let (parts, body) = response.into_parts();
    let mut body: Bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let upgrade = handle.take_upgrade();
    let mut head = head(&parts, upgrade.is_none(), body.len());
    let mut sent = 0;
    if upgrade.is_none() {
        sent = match connection.send_last(&[IoSlice::new(&head), IoSlice::new(&body)]) {
            Ok(sent) if sent == head.len() + body.len() => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            sent => sent.unwrap_or(0),
        };
    }
    let Some(mut stream) = connection.watched(handle) else { return Ok(()) };
    let of_head = sent.min(head.len());
    head.advance(of_head);
    body.advance(sent - of_head);
    stream.write_all_buf(&mut head.chain(body)).await?;
    match upgrade {
        // An error means that the server is ending.
        Some(upgrade) => drop(upgrade.send(stream)),
        None => stream.shutdown().await?,
    }
    Ok(())
}

/// The head of a response with a body of `length` bytes: to the connection's last request, or to a websocket's handshake.
fn head(parts: &http::response::Parts, is_last: bool, length: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(512);
    let mut line = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| head.extend_from_slice(piece));
    line(&[b"HTTP/1.1 ", parts.status.as_str().as_bytes(), b" ", parts.status.canonical_reason().unwrap_or_default().as_bytes(), b"\r\n"]);
    let is_own = |name: &HeaderName| is_last && matches!(*name, header::CONNECTION | header::CONTENT_LENGTH);
    for (name, value) in parts.headers.iter().filter(|(name, _)| !is_own(name)) {
        line(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    if is_last {
        line(&[b"connection: close\r\n"]);
        // The length of 304 would be that of the body which the client has.
        if parts.status != StatusCode::NOT_MODIFIED {
            line(&[b"content-length: ", length.to_string().as_bytes(), b"\r\n"]);
        }
    }
    line(&[b"date: ", httpdate::fmt_http_date(SystemTime::now()).as_bytes(), b"\r\n\r\n"]);
    head.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Request<Body>> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), |path| path.starts_with("/socket.io"))
    }

    #[tokio::test]
    async fn a_whole_request_that_is_the_only_one_is_taken() {
        let request = parsed("GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\nConnection: Close\r\nCookie: a=1\r\ncookie: b\r\n\r\n").unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::GET, "/socket.io/"));
        assert_eq!(request.headers().get_all("cookie").iter().collect::<Vec<_>>(), ["a=1", "b"]);
        let request = parsed("POST /socket.io/ HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n40").unwrap();
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "40");
        let request = parsed("GET /socket.io/ HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n").unwrap();
        assert_eq!(request.headers()[header::CONNECTION], "keep-alive, Upgrade");
    }

    #[test]
    fn a_script_that_has_not_changed_is_given_no_length() {
        let head = |status: StatusCode| {
            let (parts, ()) = Response::builder().status(status).body(()).unwrap().into_parts();
            String::from_utf8(super::head(&parts, true, 0).to_vec()).unwrap()
        };
        assert!(head(StatusCode::OK).contains("\r\nconnection: close\r\ncontent-length: 0\r\n"));
        assert!(!head(StatusCode::NOT_MODIFIED).contains("content-length"));
    }

    #[test]
    fn everything_else_is_left_to_hyper() {
        for (request, headers, body) in [
            ("GET /socket.io/ HTTP/1.1", "", ""),
            ("GET /socket.io/ HTTP/1.1", "Connection: keep-alive\r\n", ""),
            ("GET /socket.io/ HTTP/1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n", ""),
            ("GET /socket.io/ HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "\u{1}"),
            ("GET /socket.io/ HTTP/1.0", "Connection: close\r\n", ""),
            ("GET /status HTTP/1.1", "Connection: close\r\n", ""),
            ("GET http://x/socket.io/ HTTP/1.1", "Connection: close\r\n", ""),
            ("OPTIONS /socket.io/ HTTP/1.1", "Connection: close\r\n", ""),
            ("GET /socket.io/ HTTP/1.1", "Connection: close\r\n", "GET / HTTP/1.1\r\n\r\n"),
            ("POST /socket.io/ HTTP/1.1", "Connection: close\r\nContent-Length: 3\r\n", "40"),
            ("POST /socket.io/ HTTP/1.1", "Connection: close\r\nContent-Length: 1\r\n", "40"),
            ("POST /socket.io/ HTTP/1.1", "Connection: close\r\nContent-Length: +2\r\n", "40"),
            ("POST /socket.io/ HTTP/1.1", "Connection: close\r\nContent-Length: 2\r\nContent-Length: 2\r\n", "40"),
            ("POST /socket.io/ HTTP/1.1", "Connection: close\r\nContent-Length: 2\r\nExpect: 100-continue\r\n", "40"),
            ("POST /socket.io/ HTTP/1.1", "Connection: close\r\nTransfer-Encoding: chunked\r\n", "2\r\n40\r\n0\r\n\r\n"),
        ] {
            assert!(parsed(&format!("{request}\r\n{headers}\r\n{body}")).is_none(), "{request} {headers} {body}");
        }
        assert!(parsed("GET /socket.io/ HTTP/1.1\r\nConnection: close\r\n").is_none());
    }
}
