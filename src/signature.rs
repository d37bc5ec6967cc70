//! HMAC-SHA256 signatures in lowercase hex, as used by Pusher's websocket protocol, its HTTP API, and this server's private
//! ids.

use data_encoding::HEXLOWER;
use ring::hmac;

/// The signature of `text`: 64 hex digits.
#[must_use]
pub fn sign(secret: &[u8], text: &[u8]) -> String {
    HEXLOWER.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text).as_ref())
}
