//! Packets in the bodies of polling requests and responses.
//!
//! Input: POST bodies, and frames queued for a client. Output: packets, and poll responses. Engine.IO 4 separates packets
//! with U+001E; Engine.IO 3 puts a length before each packet, or a binary header if some packets are binary.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::version::EngineVersion;
use crate::net::websocket::text_of;

/// Separates packets in Engine.IO 4.
const SEPARATOR: char = '\u{1e}';

/// A multi-packet response up to this size is copied into one piece; a larger one shares the bytes of its events.
const MAX_COPIED_BYTES: usize = 16 * 1024;

/// Accepts base64 with and without padding, because clients differ.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true),
);

/// An Engine.IO packet as a client sent it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// Text, starting with the packet type.
    Text(&'a str),
    /// A binary message, without a type prefix.
    Binary(Bytes),
}

/// The body is not a valid payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Splits a body into packets. `is_binary` comes from the content type; only Engine.IO 3 has binary bodies.
pub(super) fn decode(version: EngineVersion, body: &[u8], is_binary: bool) -> Result<Vec<Packet<'_>>, Malformed> {
    match version {
        EngineVersion::V3 if is_binary => decode_bytes(body),
        EngineVersion::V3 => decode_lengths(std::str::from_utf8(body).map_err(|_| Malformed)?),
        EngineVersion::V4 => {
            let body = std::str::from_utf8(body).map_err(|_| Malformed)?;
            Ok(body.split(SEPARATOR).map(|packet| text_packet(version, packet)).collect())
        }
    }
}

/// Parses a text packet. A binary message is base64 after `b`, or after `b4` in Engine.IO 3.
pub(super) fn text_packet(version: EngineVersion, packet: &str) -> Packet<'_> {
    let mark = match version {
        EngineVersion::V3 => "b4",
        EngineVersion::V4 => "b",
    };
    match packet.strip_prefix(mark).and_then(lenient_base64) {
        Some(data) => Packet::Binary(data),
        None => Packet::Text(packet),
    }
}

/// Also accepts line breaks, the URL-safe alphabet and missing padding, so that a client is not lost over them.
fn lenient_base64(text: &str) -> Option<Bytes> {
    let plain: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    LENIENT.decode(plain).ok().map(Bytes::from)
}

/// `<length>:<packet>`, lengths in UTF-16 code units.
fn decode_lengths(mut body: &str) -> Result<Vec<Packet<'_>>, Malformed> {
    let mut packets = Vec::new();
    while !body.is_empty() {
        let (length, rest) = body.split_once(':').ok_or(Malformed)?;
        let length: usize = length.parse().map_err(|_| Malformed)?;
        let end = utf16_boundary(rest, length).ok_or(Malformed)?;
        packets.push(text_packet(EngineVersion::V3, &rest[..end]));
        body = &rest[end..];
    }
    Ok(packets)
}

/// The byte offset at which `units` UTF-16 code units end; `None` if the text is shorter or a character is cut in two.
fn utf16_boundary(text: &str, units: usize) -> Option<usize> {
    let (mut seen, mut at) = (0, 0);
    let mut chars = text.chars();
    while seen < units {
        let char = chars.next()?;
        seen += char.len_utf16();
        at += char.len_utf8();
    }
    (seen == units).then_some(at)
}

/// Each packet: 0 for text or 1 for binary, the length as decimal digits in bytes 0 to 9, 255, the packet.
fn decode_bytes(mut body: &[u8]) -> Result<Vec<Packet<'_>>, Malformed> {
    let mut packets = Vec::new();
    while let [kind @ 0..=1, rest @ ..] = body {
        let digits = rest.iter().position(|byte| *byte == 255).ok_or(Malformed)?;
        let length = rest[..digits].iter().try_fold(0_usize, |length, digit| {
            if *digit > 9 {
                return None;
            }
            length.checked_mul(10)?.checked_add(usize::from(*digit))
        });
        let rest = &rest[digits + 1..];
        let packet = length.and_then(|length| rest.get(..length)).ok_or(Malformed)?;
        packets.push(match (kind, packet) {
            (0, text) => text_packet(EngineVersion::V3, std::str::from_utf8(text).map_err(|_| Malformed)?),
            // Here the packet type is a byte, not a digit.
            (_, [4, data @ ..]) => Packet::Binary(Bytes::copy_from_slice(data)),
            _ => return Err(Malformed),
        });
        body = &rest[packet.len()..];
    }
    if body.is_empty() { Ok(packets) } else { Err(Malformed) }
}

/// The response to a poll: its pieces and their total length.
#[derive(Debug, Default)]
pub(super) struct Payload {
    pieces: VecDeque<Bytes>,
    bytes: u64,
}

impl Payload {
    /// Encodes packets, given as websocket frames, as a response body.
    pub(super) fn encode(version: EngineVersion, frames: impl IntoIterator<Item = Bytes>) -> Self {
        let mut payload = Self::default();
        for frame in frames {
            let packet = text_of(&frame);
            match version {
                EngineVersion::V4 if payload.pieces.is_empty() => payload.push(packet),
                EngineVersion::V4 => {
                    payload.push(Bytes::from_static(b"\x1e"));
                    payload.push(packet);
                }
                EngineVersion::V3 => payload.push_with_length(packet),
            }
        }
        payload.join_small();
        payload
    }

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len() as u64;
        self.pieces.push_back(piece);
    }

    /// Clients count lengths differently: socket.io-client 2 in UTF-16 code units, 1 in bytes. In ASCII both counts agree, and
    /// JSON can always be written in ASCII.
    fn push_with_length(&mut self, packet: Bytes) {
        let packet = if packet.is_ascii() { packet } else { Bytes::from(in_ascii(&packet)) };
        let units = if packet.is_ascii() { packet.len() } else { String::from_utf8_lossy(&packet).encode_utf16().count() };
        self.push(Bytes::from(format!("{units}:")));
        self.push(packet);
    }

    fn join_small(&mut self) {
        if self.pieces.len() > 1 && self.bytes <= MAX_COPIED_BYTES as u64 {
            let mut all = BytesMut::with_capacity(MAX_COPIED_BYTES.min(self.bytes as usize));
            self.pieces.drain(..).for_each(|piece| all.put(piece));
            self.pieces.push_back(all.freeze());
        }
    }

    /// Total length in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.bytes
    }

    /// All of the payload, if it is one piece.
    #[cfg(test)]
    pub(super) fn whole(&self) -> Option<&Bytes> {
        self.pieces.front().filter(|_| self.pieces.len() == 1)
    }

    /// Converts the payload into an HTTP body.
    pub(super) fn into_body(mut self) -> Body {
        if self.pieces.len() > 1 { Body::new(self) } else { self.pieces.pop_front().unwrap_or_default().into() }
    }
}

impl HttpBody for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.pieces.pop_front();
        self.bytes -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

/// Escapes an event's JSON to ASCII; leaves other packets as they are.
fn in_ascii(packet: &[u8]) -> Vec<u8> {
    let Some(text) = std::str::from_utf8(packet).ok().filter(|text| text.starts_with("42[")) else {
        return packet.to_vec();
    };
    let mut ascii = String::with_capacity(text.len() * 2);
    for char in text.chars() {
        if char.is_ascii() {
            ascii.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii.into_bytes()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::net::websocket::text_frame;

    fn frame(text: &str) -> Bytes {
        text_frame(text.len(), |frame| frame.extend_from_slice(text.as_bytes()))
    }

    async fn encoded(version: EngineVersion, packets: &[&str]) -> String {
        let payload = Payload::encode(version, packets.iter().map(|packet| frame(packet)));
        let length = payload.len();
        let body = to_bytes(payload.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body.len() as u64, length);
        String::from_utf8(body.into()).unwrap()
    }

    #[tokio::test]
    async fn responses_follow_the_format_of_each_version() {
        assert_eq!(encoded(EngineVersion::V4, &["2", r#"42["é"]"#]).await, "2\u{1e}42[\"é\"]");
        assert_eq!(encoded(EngineVersion::V3, &["2", "40"]).await, "1:22:40");
        // All clients compute this length alike.
        assert_eq!(encoded(EngineVersion::V3, &[r#"42["é😀"]"#]).await, r#"24:42["\u00e9\ud83d\ude00"]"#);
        assert_eq!(encoded(EngineVersion::V3, &["44/é,1"]).await, "6:44/é,1");
        let long = "x".repeat(MAX_COPIED_BYTES);
        assert_eq!(encoded(EngineVersion::V4, &[&long, "2"]).await, format!("{long}\u{1e}2"));
    }

    #[test]
    fn all_variants_of_base64_are_decoded() {
        let data = Bytes::from_static(&[0xfb, 0xff, 0xfe, 1]);
        for base64 in ["+//+AQ==", "+//+AQ", "-__-AQ==", "-__-\nAQ=\r\n=", "+//+AR=="] {
            let v4 = format!("b{base64}");
            assert_eq!(decode(EngineVersion::V4, v4.as_bytes(), false).unwrap(), [Packet::Binary(data.clone())], "{base64}");
            let v3 = format!("b4{base64}");
            assert_eq!(text_packet(EngineVersion::V3, &v3), Packet::Binary(data.clone()), "{base64}");
        }
        let bytes = [&[0, 2, 255][..], b"41", &[1, 3, 255, 4, 7, 8]].concat();
        let packets = [Packet::Text("41"), Packet::Binary(Bytes::from_static(&[7, 8]))];
        assert_eq!(decode(EngineVersion::V3, &bytes, true).unwrap(), packets);
    }

    #[test]
    fn lengths_count_code_units_of_utf_16() {
        assert_eq!(decode(EngineVersion::V3, "3:4é!2:40".as_bytes(), false).unwrap(), [Packet::Text("4é!"), Packet::Text("40")]);
        assert_eq!(decode(EngineVersion::V3, "3:4😀".as_bytes(), false).unwrap(), [Packet::Text("4😀")]);
        for body in ["2:4😀", "5:42", "x:42", "42", ":", "-1:4", "99999999999999999999:4"] {
            assert_eq!(decode(EngineVersion::V3, body.as_bytes(), false), Err(Malformed), "{body}");
        }
    }

    proptest! {
        #[test]
        fn encoded_packets_decode_to_themselves(packets in prop::collection::vec("[0-6][a-z\"\\\\{}é😀]{0,8}", 1..5)) {
            let frames = packets.iter().map(|packet| frame(packet));
            let payload = Payload::encode(EngineVersion::V4, frames.clone());
            let body = payload.whole().unwrap().clone();
            let read = decode(EngineVersion::V4, &body, false).unwrap();
            prop_assert_eq!(read, packets.iter().map(|packet| Packet::Text(packet)).collect::<Vec<_>>());
            let body = Payload::encode(EngineVersion::V3, frames).whole().unwrap().clone();
            prop_assert_eq!(decode(EngineVersion::V3, &body, false).unwrap().len(), packets.len());
        }

        #[test]
        fn any_body_is_decoded_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
            for version in [EngineVersion::V3, EngineVersion::V4] {
                let _ = decode(version, &body, true);
                let _ = decode(version, &body, false);
            }
        }
    }
}
