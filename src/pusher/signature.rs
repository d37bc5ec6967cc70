//! Signatures with which an application authorizes its users: `<key>:<hex of HMAC-SHA256>`.
//!
//! Input: a client's `auth`, and the text that it should sign. Output: whether the application signed that text; signatures
//! on behalf of applications that do not sign.

use subtle::ConstantTimeEq as _;

use super::App;
use crate::signature::sign;

/// Hex digits of a signature.
const HEX: usize = 64;

/// The `auth` that a client sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Auth<'a> {
    /// Missing or empty: the application is asked.
    None,
    /// `<key>:<signature>`.
    Signed {
        /// The app key.
        key: &'a str,
        /// In hex.
        signature: &'a str,
    },
    /// Anything else: the `Authorization` header for the request to the application.
    Token(&'a str),
}

impl<'a> Auth<'a> {
    pub(super) fn parse(auth: &'a str) -> Self {
        match auth.rsplit_once(':') {
            _ if auth.is_empty() => Self::None,
            Some((key, signature)) if signature.len() == HEX && signature.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Self::Signed { key, signature }
            }
            _ => Self::Token(auth),
        }
    }
}

/// The text to sign: the socket id, the channel or `user`, and the data byte for byte, joined with `:`.
pub(super) fn signable(parts: &[&str]) -> String {
    parts.join(":")
}

impl App {
    /// Whether this application signed `text`.
    pub(super) fn has_signed(&self, key: &str, signature: &str, text: &str) -> bool {
        let right = self.sign(text);
        key == self.key && bool::from(right.as_bytes().ct_eq(signature.to_ascii_lowercase().as_bytes()))
    }

    /// The signature of `text`, in lowercase hex.
    pub(super) fn sign(&self, text: &str) -> String {
        sign(self.secret.expose().as_bytes(), text.as_bytes())
    }

    /// The `auth` value for a client.
    pub(super) fn auth(&self, text: &str) -> String {
        format!("{}:{}", self.key, self.sign(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Secret;

    fn app() -> App {
        App { key: "278d425bdf160c739803".to_owned(), secret: Secret("7ad3773142a6692b25b8".to_owned()) }
    }

    #[test]
    fn signatures_match_pushers_published_examples() {
        for (parts, signature) in [
            (&["1234.1234", "private-foobar"][..], "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"),
            (&["1234.1234", "", "user", "", r#"{"id":"12345"}"#], "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"),
            (
                &["1234.1234", "presence-foobar", r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#],
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
        ] {
            let text = signable(parts);
            assert!(app().has_signed("278d425bdf160c739803", signature, &text), "{text}");
            assert!(!app().has_signed("another", signature, &text));
            assert!(!app().has_signed("278d425bdf160c739803", signature, &format!("{text} ")));
        }
    }

    #[test]
    fn anything_but_a_signature_is_a_token() {
        let hex = "a".repeat(64);
        assert_eq!(Auth::parse(&format!("key:{hex}")), Auth::Signed { key: "key", signature: &hex });
        assert_eq!(Auth::parse(""), Auth::None);
        for token in ["Bearer x", "key:short", "Bearer a:b"] {
            assert_eq!(Auth::parse(token), Auth::Token(token));
        }
    }
}
