//! What proves that a text comes from who knows a secret: HMAC-SHA256 in lower hex, as Pusher's protocol and its HTTP API
//! have it, and our own private ids.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The signature of `text`: 64 letters.
///
/// # Panics
/// Never: HMAC takes keys of any length.
#[must_use]
pub fn sign(secret: &[u8], text: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(text);
    hex(&mac.finalize().into_bytes())
}

/// Bytes in lower hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
