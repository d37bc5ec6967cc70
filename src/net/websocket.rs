//! Websockets (RFC 6455) for any protocol: handshake, frames, and outboxes.
//!
//! Input: upgrade requests, and frames of the protocols above. Output: answers to handshakes, and [`Connection`]s, each of
//! which runs a [`Protocol`] to its end.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::deflate::{Deflated, MAX_BYTES};

mod connection;
mod extension;
mod outbox;
mod reader;

pub(crate) use connection::{Connection, Protocol};
pub(crate) use extension::agree_to_deflate;
pub(crate) use outbox::{End, Limits, Outbox, Queued, SendError};

/// How long a client that was told to disconnect may take to close the connection.
pub(crate) const FAREWELL: Duration = Duration::from_secs(10);

/// The only version of the protocol that browsers and libraries use.
const VERSION: &str = "13";

/// Longest header of a server's frame: opcode, length, and eight bytes of extended length.
const MAX_HEAD_BYTES: usize = 10;

const TEXT_OPCODE: u8 = 1;

/// Final text frame.
const TEXT: u8 = 0x80 | TEXT_OPCODE;

/// Final text frame with a compressed payload.
const DEFLATED_TEXT: u8 = 0x40 | TEXT;

/// Appended to the client's key before hashing (RFC 6455, 1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Maximum number of headers in the answer to a handshake: those set here, the subprotocol, the extension, and CORS.
const ANSWER_HEADERS: usize = 8;

/// Why a websocket request is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// It does not request an upgrade; a proxy may have dropped the header.
    #[error("the request has no `Upgrade: websocket` and `Connection: Upgrade`")]
    NoUpgrade,
    /// It is not a GET or has no key.
    #[error("the request is not a GET with a Sec-WebSocket-Key")]
    Malformed,
    /// It requests an unsupported version.
    #[error("Sec-WebSocket-Version has to be 13")]
    Version,
}

impl HandshakeError {
    /// The status of the response.
    #[must_use]
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::NoUpgrade | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Version => StatusCode::UPGRADE_REQUIRED,
        }
    }
}

/// The `Sec-WebSocket-Accept` value for a request that starts a websocket (RFC 6455, 4.2).
///
/// # Errors
/// [`HandshakeError`] for any other request.
pub(crate) fn accept_key<B>(request: &Request<B>) -> Result<HeaderValue, HandshakeError> {
    let headers = request.headers();
    let has_token = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    // HTTP/1.0 knows no upgrade: hyper would close the connection without an answer.
    let is_too_old = request.version() < Version::HTTP_11;
    if is_too_old || !has_token(header::UPGRADE, "websocket") || !has_token(header::CONNECTION, "upgrade") {
        return Err(HandshakeError::NoUpgrade);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| request.method() == Method::GET && is_key(key.as_bytes()));
    let key = key.ok_or(HandshakeError::Malformed)?;
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(HandshakeError::Version);
    }
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), KEY_SUFFIX].concat());
    Ok(STANDARD.encode(hash).parse().expect("base64 can stand in a header"))
}

/// Whether this is the base64 of 16 bytes.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix(b"==").is_some_and(|digits| digits.len() == 22 && digits.iter().all(is_digit))
}

/// The answer to a handshake. It accepts the first subprotocol that the client offers, since some clients fail without one.
#[must_use]
pub(crate) fn switching_protocols<B>(request: &Request<B>, key: HeaderValue, extension: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.reserve(ANSWER_HEADERS);
    headers.extend([
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, key),
    ]);
    if let Some(extension) = extension {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, extension);
    }
    let offered = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|offered| offered.to_str().ok());
    let first = offered.and_then(|offered| offered.split(',').next()).map(str::trim).filter(|first| !first.is_empty());
    if let Some(protocol) = first.and_then(|first| HeaderValue::from_str(first).ok()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// A text frame with what `write` appends, about `size` bytes.
pub(crate) fn text_frame(size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    frame(TEXT, size, write)
}

fn frame(first: u8, size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    // The header's length depends on the text's, so it is written last, directly before the text.
    let mut frame = Vec::with_capacity(MAX_HEAD_BYTES + size);
    frame.resize(MAX_HEAD_BYTES, 0);
    write(&mut frame);
    let length = frame.len() - MAX_HEAD_BYTES;
    let bytes = (length as u64).to_be_bytes();
    let (mark, extended): (u8, &[u8]) = match length {
        0..126 => (bytes[7], &[]),
        126..=0xFFFF => (126, &bytes[6..]),
        _ => (127, &bytes),
    };
    let start = MAX_HEAD_BYTES - 2 - extended.len();
    (frame[start], frame[start + 1]) = (first, mark);
    frame[start + 2..MAX_HEAD_BYTES].copy_from_slice(extended);
    Bytes::from(frame).slice(start..)
}

/// The text of a frame made by [`text_frame`], without a copy.
///
/// # Panics
/// On any other frame.
#[must_use]
pub(crate) fn text_of(frame: &Bytes) -> Bytes {
    frame.slice(head_bytes(frame)..)
}

const fn head_bytes(frame: &[u8]) -> usize {
    match frame[1] {
        126 => 4,
        127 => MAX_HEAD_BYTES,
        _ => 2,
    }
}

/// The length of the text in a frame made by [`text_frame`].
///
/// # Panics
/// On any other frame.
#[must_use]
pub(crate) fn text_bytes(frame: &Bytes) -> usize {
    frame.len() - head_bytes(frame)
}

/// The same text frame, compressed, for clients that agreed to compression. `None` if that would not be shorter or would
/// take too long.
///
/// # Panics
/// When `frame` was not made by [`text_frame`].
#[must_use]
pub(crate) fn deflated(frame: &Bytes) -> Option<Bytes> {
    let text = text_of(frame);
    if text.len() > MAX_BYTES {
        return None;
    }
    let deflated = Deflated::of(&text);
    let message = deflated.message();
    (message.len() < text.len()).then(|| self::frame(DEFLATED_TEXT, message.len(), |frame| frame.extend_from_slice(message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::deflate::inflate;

    #[test]
    fn frames_follow_the_standard_and_return_their_text() {
        for (length, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 255, 255]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = text_frame(0, |text| text.resize(text.len() + length, b'x'));
            assert_eq!(&frame[..head.len()], head);
            assert_eq!(frame.len(), head.len() + length);
            assert_eq!(text_of(&frame), vec![b'x'; length]);
        }
    }

    #[test]
    fn a_text_is_compressed_if_that_makes_it_shorter() {
        let frame = |text: &str| text_frame(text.len(), |frame| frame.extend_from_slice(text.as_bytes()));
        let plain = frame(&"equal parts ".repeat(100));
        assert_eq!(text_bytes(&plain), 1200);
        let packed = deflated(&plain).unwrap();
        assert_eq!(packed[0], 0xc1);
        assert_eq!(inflate(&text_of(&packed), 1200).unwrap(), text_of(&plain));
        assert_eq!(deflated(&frame("x")), None);
        assert_eq!(deflated(&frame(&"x".repeat(MAX_BYTES + 1))), None);
    }

    #[test]
    fn only_complete_handshakes_are_accepted() {
        let request = |change: fn(&mut header::HeaderMap)| {
            let mut request = Request::get("/").body(()).unwrap();
            let headers = request.headers_mut();
            for (name, value) in [
                ("upgrade", "WebSocket"),
                ("connection", "keep-alive, Upgrade"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-version", "13"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            change(headers);
            accept_key(&request)
        };
        assert_eq!(request(|_| {}).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut old = Request::get("/").version(Version::HTTP_10).body(()).unwrap();
        old.headers_mut()
            .extend([(header::UPGRADE, HeaderValue::from_static("websocket")), (header::CONNECTION, HeaderValue::from_static("upgrade"))]);
        assert_eq!(accept_key(&old), Err(HandshakeError::NoUpgrade), "HTTP/1.0");
        assert_eq!(request(|headers| drop_header(headers, "upgrade")), Err(HandshakeError::NoUpgrade));
        assert_eq!(request(|headers| drop_header(headers, "connection")), Err(HandshakeError::NoUpgrade));
        assert_eq!(request(|headers| drop_header(headers, "sec-websocket-key")), Err(HandshakeError::Malformed));
        for key in ["x", "", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZ===", "dGhlIHNhbXBsZSBub25j ZQ=="] {
            let mut wrong = Request::get("/").body(()).unwrap();
            wrong.headers_mut().extend([
                (header::UPGRADE, HeaderValue::from_static("websocket")),
                (header::CONNECTION, HeaderValue::from_static("upgrade")),
                (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
                (header::SEC_WEBSOCKET_KEY, HeaderValue::from_static(key)),
            ]);
            assert_eq!(accept_key(&wrong), Err(HandshakeError::Malformed), "{key}");
        }
        assert_eq!(request(|headers| drop_header(headers, "sec-websocket-version")), Err(HandshakeError::Version));
        assert_eq!(
            request(|headers| drop(headers.insert("sec-websocket-version", HeaderValue::from_static("8")))),
            Err(HandshakeError::Version)
        );
    }

    fn drop_header(headers: &mut header::HeaderMap, name: &str) {
        headers.remove(name);
    }
}
