//! [`Query`]: the query parameters of an Engine.IO request.
//!
//! Input: the URI. Output: session, transport and version. If a name occurs twice, the first value counts.

use std::borrow::Cow;

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use super::session::SessionId;
use super::version::EngineVersion;

/// The transport that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// HTTP GET and POST.
    Polling,
    /// A websocket.
    WebSocket,
    /// Missing, or neither of them.
    Unknown,
}

/// The query parameters of a request.
pub(super) struct Query {
    /// The request has a non-empty `sid`, valid or not.
    pub(super) has_session: bool,
    /// The `sid`, if it has the form of one.
    pub(super) session: Option<SessionId>,
    pub(super) transport: Transport,
    pub(super) version: EngineVersion,
    /// The client expects JSONP (`j=0`), as browsers without CORS did.
    pub(super) is_jsonp: bool,
}

impl Query {
    /// Compat: like the original, treats any `EIO` other than 4, and a missing one, as version 3.
    pub(super) fn parse(uri: &Uri) -> Self {
        let (mut session, mut transport, mut version, mut jsonp) = (None, None, None, None);
        for pair in uri.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let known = match &*decoded(name) {
                "sid" => &mut session,
                "transport" => &mut transport,
                "EIO" => &mut version,
                "j" => &mut jsonp,
                _ => continue,
            };
            known.get_or_insert_with(|| decoded(value));
        }
        let session: Option<Cow<'_, str>> = session.filter(|sid| !sid.is_empty());
        Self {
            has_session: session.is_some(),
            session: session.and_then(|sid| SessionId::parse(&sid)),
            transport: match transport.as_deref() {
                Some("polling") => Transport::Polling,
                Some("websocket") => Transport::WebSocket,
                _ => Transport::Unknown,
            },
            version: if version.as_deref() == Some("4") { EngineVersion::V4 } else { EngineVersion::V3 },
            is_jsonp: jsonp.is_some(),
        }
    }
}

/// Undoes percent-encoding, which clients do not use for these names and values.
fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('%') { percent_decode_str(text).decode_utf8_lossy() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_but_4_is_3_and_the_first_value_of_a_name_counts() {
        let parse = |query: &str| Query::parse(&format!("/socket.io/?{query}").parse().unwrap());
        for (query, version) in [
            ("EIO=4", EngineVersion::V4),
            ("%45IO=4", EngineVersion::V4),
            ("EIO=4&EIO=3", EngineVersion::V4),
            ("EIO=3", EngineVersion::V3),
            ("EIO=5", EngineVersion::V3),
            ("EIO=2", EngineVersion::V3),
            ("eio=4", EngineVersion::V3),
            ("", EngineVersion::V3),
        ] {
            assert_eq!(parse(query).version, version, "{query}");
        }
        assert_eq!(parse("transport=polling").transport, Transport::Polling);
        assert_eq!(parse("transport=websocket&transport=polling").transport, Transport::WebSocket);
        assert_eq!(parse("transport=POLLING").transport, Transport::Unknown);
        assert!(!parse("sid=").has_session);
        assert!(parse("%73id=x").has_session && parse("%73id=x").session.is_none());
        assert!(parse("sid=1.2").session.is_some());
        assert!(parse("sid=0123456789abcdef0123456789abcdef").session.is_some());
        assert!(parse("j=0").is_jsonp);
    }
}
