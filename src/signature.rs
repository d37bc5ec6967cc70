//! HMAC-SHA256 signatures in lowercase hex, as used by Pusher's websocket protocol, its HTTP API, and this server's private
//! ids.

use ring::hmac;

/// The signature of `text`: 64 hex digits.
#[must_use]
pub fn sign(secret: &[u8], text: &[u8]) -> String {
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text).as_ref())
}

/// Bytes in lowercase hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend([digit(byte >> 4), digit(byte & 0xf)]);
    }
    text
}
