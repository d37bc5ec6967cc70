//! Signatures that an application gives its users: `<key>:<hex of HMAC-SHA256>`.
//!
//! Input: what a client brings, and what it stands for. Output: whether the application signed it; signatures of our own
//! for applications that sign nothing.

use subtle::ConstantTimeEq as _;

use super::App;
use crate::signature::sign;

/// Letters of a signature.
const HEX: usize = 64;

/// What a client brings in `auth`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Auth<'a> {
    /// Nothing: the application is asked.
    None,
    /// `<key>:<signature>`.
    Signed {
        /// Whose it is.
        key: &'a str,
        /// In hex.
        signature: &'a str,
    },
    /// Anything else: the `Authorization` with which the application is asked.
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

/// Joins the parts of what is signed: the socket's id, then the channel or `user`, then the data byte for byte.
pub(super) fn signable(parts: &[&str]) -> String {
    parts.join(":")
}

impl App {
    /// Whether this application signed `text`.
    pub(super) fn has_signed(&self, key: &str, signature: &str, text: &str) -> bool {
        let right = self.sign(text);
        key == self.key && bool::from(right.as_bytes().ct_eq(signature.to_ascii_lowercase().as_bytes()))
    }

    /// The signature of `text`, in lower hex.
    pub(super) fn sign(&self, text: &str) -> String {
        sign(self.secret.expose().as_bytes(), text.as_bytes())
    }

    /// The `auth` for a client.
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
    fn signatures_are_those_that_were_published() {
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
    fn what_is_no_signature_is_a_token() {
        let hex = "a".repeat(64);
        assert_eq!(Auth::parse(&format!("key:{hex}")), Auth::Signed { key: "key", signature: &hex });
        assert_eq!(Auth::parse(""), Auth::None);
        for token in ["Bearer x", "key:short", "Bearer a:b"] {
            assert_eq!(Auth::parse(token), Auth::Token(token));
        }
    }
}
