//! The extension `permessage-deflate` (RFC 7692): negotiates compressed messages with a client.
//!
//! Input: handshake headers. Output: the header of the answer.
//!
//! It is negotiated without context takeover in either direction: connections then need no memory for it, and all clients
//! can share the same compressed bytes.

use axum::http::header::{self, HeaderMap, HeaderValue};

const NAME: &str = "permessage-deflate";
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const AGREED_WITH_WINDOW: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

/// The only supported window size for compression.
const WINDOW_BITS: &str = "15";

/// Accepts the client's first acceptable offer. `None`: messages are not compressed.
#[must_use]
pub(crate) fn agree_to_deflate(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let answer = values.flat_map(|value| value.split(',')).find_map(take)?;
    (!is_apple(headers)).then(|| HeaderValue::from_static(answer))
}

fn take(offer: &str) -> Option<&'static str> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let mut answer = AGREED;
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (part, None),
        };
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            ("client_max_window_bits", Some("8" | "9" | "10" | "11" | "12" | "13" | "14" | WINDOW_BITS)) => {}
            ("server_max_window_bits", Some(WINDOW_BITS)) => answer = AGREED_WITH_WINDOW,
            _ => return None,
        }
    }
    Some(answer)
}

/// Safari 15 and later, other browsers on iOS, and apps that use Apple's websockets offer the extension but violate it:
/// their second message refers to the first one, or they end the connection (WebKit bug 228296 and related ones). They
/// get uncompressed messages, which always work.
fn is_apple(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    agent.contains("CFNetwork/") || agent.contains("AppleWebKit/") && !agent.contains("Chrome/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(offer: &str, agent: &'static str) -> Option<String> {
        let headers = HeaderMap::from_iter([
            (header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_str(offer).unwrap()),
            (header::USER_AGENT, HeaderValue::from_static(agent)),
        ]);
        agree_to_deflate(&headers).map(|answer| answer.to_str().unwrap().to_owned())
    }

    #[test]
    fn offers_are_accepted_without_context_takeover() {
        for (offer, answer) in [
            ("permessage-deflate", Some(AGREED)),
            ("permessage-deflate; client_max_window_bits", Some(AGREED)),
            ("Permessage-Deflate;client_max_window_bits=10 ; server_no_context_takeover", Some(AGREED)),
            ("permessage-deflate; server_max_window_bits=15", Some(AGREED_WITH_WINDOW)),
            ("permessage-deflate; server_max_window_bits=\"15\"", Some(AGREED_WITH_WINDOW)),
            ("x-other, permessage-deflate; server_max_window_bits=10, permessage-deflate", Some(AGREED)),
            ("permessage-deflate; server_max_window_bits=10", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_max_window_bits=16", None),
            ("permessage-deflate; unknown", None),
            ("x-webkit-deflate-frame", None),
            ("", None),
        ] {
            assert_eq!(agreed(offer, "Node"), answer.map(str::to_owned), "{offer}");
        }
        assert_eq!(agree_to_deflate(&HeaderMap::new()), None);
    }

    #[test]
    fn apple_clients_get_no_compression() {
        for (agent, is_taken) in [
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
                false,
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/124.0 Mobile/15E148",
                false,
            ),
            ("Shop/7 CFNetwork/1494.0.7 Darwin/23.4.0", false),
            ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36", true),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0", true),
            ("okhttp/4.12.0", true),
        ] {
            assert_eq!(agreed("permessage-deflate", agent).is_some(), is_taken, "{agent}");
        }
    }
}
