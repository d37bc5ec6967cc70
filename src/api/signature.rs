//! Signatures of Pusher's HTTP libraries: the query has `auth_key`, `auth_timestamp`, `auth_version`, for requests with a
//! body `body_md5`, and `auth_signature` over all of them.
//!
//! Input: method, path, query and body of a request. Output: whether the sender knows the secret. The signed text is:
//!
//! ```text
//! POST\n/apps/3/events\nauth_key=…&auth_timestamp=1353088179&auth_version=1.0&body_md5=…
//! ```
//!
//! with the parameters sorted by lowercase name, values not encoded.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use md5::{Digest as _, Md5};
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq as _;

use crate::signature::sign;

/// How far the sender's clock may be off, in seconds, as at Pusher.
pub(crate) const TIMESTAMP_WINDOW: u64 = 600;

/// The signed parts of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signable<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The path as received.
    pub path: &'a str,
    /// The query as received.
    pub query: &'a str,
}

/// A valid signature, with which the body is still to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    body_md5: Option<String>,
}

/// Why a signature is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    /// Made with another secret or for another request.
    #[error("auth_signature does not match the request")]
    Mismatch,
    /// The time is missing or not a number.
    #[error("auth_timestamp must be the time in seconds since 1970")]
    NoTimestamp,
    /// The request is too old, or the clocks differ.
    #[error("auth_timestamp is {0} seconds off, expected at most {TIMESTAMP_WINDOW}")]
    Timestamp(u64),
    /// The signature does not cover the body.
    #[error("body_md5 is missing")]
    NoBodyMd5,
    /// The signature covers another body.
    #[error("body_md5 does not match the body")]
    BodyMd5,
}

impl SignatureError {
    /// How to fix it, unless the secret is wrong.
    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Timestamp(_) => {
                Some("the signature is valid, but old, or the clocks differ: compare `date -u` here and where the application runs")
            }
            Self::NoTimestamp => Some("the signature is valid, but without a time: send auth_timestamp, as Pusher's libraries do"),
            Self::Mismatch | Self::NoBodyMd5 | Self::BodyMd5 => None,
        }
    }
}

/// Verifies the `auth_signature` of a query; `now` is in seconds since 1970.
///
/// # Errors
/// [`SignatureError`] for a signature by another secret, and for a time outside the window.
pub(crate) fn verify(secret: &str, request: Signable<'_>, now: u64) -> Result<Signed, SignatureError> {
    // Libraries sign values before they encode them, each in its own way: PHP writes a space as %20, others as +, and older
    // versions do not encode at all. The same holds for the path.
    let decoded = percent_decode_str(request.path).decode_utf8_lossy();
    let plain = parameters(request.query, |text| percent_decode_str(text).decode_utf8_lossy());
    let form = parameters(request.query, form_decode);
    let candidates = [(request.path, &plain), (&decoded, &plain), (request.path, &form), (&decoded, &form)];
    let is_right = candidates.iter().any(|(path, parameters)| is_signed(secret, request.method, path, parameters));
    if !is_right {
        return Err(SignatureError::Mismatch);
    }
    let value = |name: &str| plain.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let timestamp: u64 = value("auth_timestamp").and_then(|text| text.parse().ok()).ok_or(SignatureError::NoTimestamp)?;
    if now.abs_diff(timestamp) > TIMESTAMP_WINDOW {
        return Err(SignatureError::Timestamp(now.abs_diff(timestamp)));
    }
    Ok(Signed { body_md5: value("body_md5").map(str::to_ascii_lowercase) })
}

impl Signed {
    /// Compares the body with the signed `body_md5`.
    ///
    /// # Errors
    /// [`SignatureError::NoBodyMd5`] and [`SignatureError::BodyMd5`].
    pub(crate) fn check_body(&self, body: &[u8]) -> Result<(), SignatureError> {
        match &self.body_md5 {
            None if body.is_empty() => Ok(()),
            None => Err(SignatureError::NoBodyMd5),
            Some(signed) if *signed == HEXLOWER.encode(&Md5::digest(body)) => Ok(()),
            Some(_) => Err(SignatureError::BodyMd5),
        }
    }
}

/// Lowercase names and decoded values, sorted by name.
fn parameters<'a>(query: &'a str, decode: impl Fn(&'a str) -> Cow<'a, str>) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut parameters: Vec<_> = pairs.map(|(name, value)| (decode(name).to_ascii_lowercase(), decode(value).into_owned())).collect();
    parameters.sort_by(|(a, _), (b, _)| a.cmp(b));
    parameters
}

fn form_decode(text: &str) -> Cow<'_, str> {
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

fn is_signed(secret: &str, method: &str, path: &str, parameters: &[(String, String)]) -> bool {
    let signed = parameters.iter().filter(|(name, _)| name != "auth_signature");
    let joined: Vec<String> = signed.map(|(name, value)| format!("{name}={value}")).collect();
    let given = parameters.iter().find(|(name, _)| name == "auth_signature").map_or("", |(_, value)| value);
    let expected = sign(secret.as_bytes(), format!("{method}\n{path}\n{}", joined.join("&")).as_bytes());
    expected.as_bytes().ct_eq(given.to_ascii_lowercase().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in Pusher's documentation.
    const SECRET: &str = "7ad3773142a6692b25b8";
    const BODY: &[u8] = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const TIME: u64 = 1_353_088_179;
    const QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f\
                         &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";

    fn post(query: &str) -> Signable<'_> {
        Signable { method: "POST", path: "/apps/3/events", query }
    }

    fn sign(method: &str, path: &str, parameters: &str) -> String {
        crate::signature::sign(SECRET.as_bytes(), format!("{method}\n{path}\n{parameters}").as_bytes())
    }

    #[test]
    fn the_documented_example_is_accepted() {
        let signed = verify(SECRET, post(QUERY), TIME).unwrap();
        assert_eq!(signed.check_body(BODY), Ok(()));
        assert_eq!(signed.check_body(b"{}"), Err(SignatureError::BodyMd5));
    }

    #[test]
    fn a_changed_request_is_refused() {
        assert_eq!(verify("another", post(QUERY), TIME), Err(SignatureError::Mismatch));
        assert_eq!(verify("", post(QUERY), TIME), Err(SignatureError::Mismatch));
        assert_eq!(verify(SECRET, Signable { method: "GET", ..post(QUERY) }, TIME), Err(SignatureError::Mismatch));
        assert_eq!(verify(SECRET, Signable { path: "/apps/4/events", ..post(QUERY) }, TIME), Err(SignatureError::Mismatch));
        assert_eq!(verify(SECRET, post(&format!("{QUERY}&info=user_count")), TIME), Err(SignatureError::Mismatch));
        assert_eq!(verify(SECRET, post(&QUERY.replace("da45", "da46")), TIME), Err(SignatureError::Mismatch));
        assert_eq!(verify(SECRET, post(""), TIME), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_time_outside_the_window_is_refused() {
        assert!(verify(SECRET, post(QUERY), TIME + 600).is_ok());
        assert!(verify(SECRET, post(QUERY), TIME - 600).is_ok());
        assert_eq!(verify(SECRET, post(QUERY), TIME + 601), Err(SignatureError::Timestamp(601)));
        assert_eq!(verify(SECRET, post(QUERY), TIME - 601), Err(SignatureError::Timestamp(601)));
        let timeless = format!("auth_key=k&auth_signature={}", sign("POST", "/apps/3/events", "auth_key=k"));
        assert_eq!(verify(SECRET, post(&timeless), TIME), Err(SignatureError::NoTimestamp));
    }

    #[test]
    fn a_body_must_be_signed_too() {
        let parameters = format!("auth_key=k&auth_timestamp={TIME}");
        let query = format!("{parameters}&auth_signature={}", sign("POST", "/apps/3/events", &parameters));
        let signed = verify(SECRET, post(&query), TIME).unwrap();
        assert_eq!(signed.check_body(b""), Ok(()));
        assert_eq!(signed.check_body(b"{}"), Err(SignatureError::NoBodyMd5));
    }

    #[test]
    fn values_are_signed_before_they_are_encoded() {
        let path = "/apps/3/users/Ann Lee/terminate_connections";
        let signature = sign("GET", path, &format!("auth_timestamp={TIME}&filter_by_prefix=a b+c,d"));
        for value in ["a%20b%2Bc%2Cd", "a+b%2Bc,d", "a%20b+c,d"] {
            let query = format!("Filter_by_prefix={value}&auth_signature={signature}&auth_timestamp={TIME}");
            let request = Signable { method: "GET", path: "/apps/3/users/Ann%20Lee/terminate_connections", query: &query };
            assert!(verify(SECRET, request, TIME).is_ok(), "{value}");
        }
    }
}
