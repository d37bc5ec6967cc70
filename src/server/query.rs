//! [`Query`]: what the query of an engine request says.
//!
//! Input: the URI. Output: session, transport and protocol, read exactly as the engine reads them: as they stand, with
//! nothing decoded, the first of each name. Were one request a session's here and a newcomer's there, nobody would
//! count the newcomer.

use axum::http::Uri;
use engineioxide_core::{ProtocolVersion, TransportType};

use crate::event::SocketId;

/// What the query of an engine request says.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// There is a `sid`, whatever it is worth.
    pub(super) has_session: bool,
    /// The `sid`, where it can be one.
    pub(super) session: Option<SocketId>,
    transport: Option<TransportType>,
    /// `EIO`, where it is a version that is spoken.
    pub(super) engine: Option<ProtocolVersion>,
}

impl Query {
    pub(super) fn parse(uri: &Uri) -> Self {
        let pairs = || uri.query().unwrap_or_default().split('&');
        // In these two a second `=` ends the value.
        let word = |name: &str| pairs().find_map(|pair| pair.strip_prefix(name)).and_then(|value| value.split('=').next());
        let session = pairs().find_map(|pair| pair.strip_prefix("sid="));
        Self {
            has_session: session.is_some(),
            session: session.and_then(SocketId::parse),
            transport: word("transport=").and_then(|name| name.parse().ok()),
            engine: word("EIO=").and_then(|version| version.parse().ok()),
        }
    }

    pub(super) fn is_websocket(&self) -> bool {
        self.transport == Some(TransportType::Websocket)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;
    use crate::config::Config;
    use crate::server::engine;

    /// Parts of queries: plain, encoded, empty, and almost right.
    const PARTS: [&str; 18] = [
        "EIO=4",
        "EIO=3",
        "EIO=5",
        "EIO=4=3",
        "%45IO=4",
        "eio=4",
        "transport=polling",
        "transport=websocket",
        "transport=polling=websocket",
        "transport=%70olling",
        "transport=POLLING",
        "sid=AbCd-_0123456789",
        "sid=x",
        "sid=",
        "sid",
        "%73id=AbCd-_0123456789",
        "sid=%41bCd-_0123456789",
        "xsid=AbCd-_0123456789",
    ];

    /// The code of the error that the engine is to answer; `None` when it is to open a session or a websocket.
    fn expected(query: &Query) -> Option<u8> {
        match query {
            Query { engine: None, .. } => Some(5),
            Query { has_session: true, session: None, .. } => Some(1),
            Query { transport: None, .. } => Some(0),
            // Nobody has this session.
            Query { transport: Some(TransportType::Polling), has_session: true, .. } => Some(1),
            _ => None,
        }
    }

    async fn answered(engine: &Router, uri: &Uri) -> Option<u8> {
        let request = Request::get(uri).header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").body(Body::empty()).unwrap();
        let response = engine.clone().oneshot(request).await.unwrap();
        match response.status() {
            StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS => None,
            _ => {
                let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
                let error: Value = serde_json::from_slice(&body).unwrap();
                error["code"].as_str().unwrap().parse().ok()
            }
        }
    }

    #[tokio::test]
    async fn the_engine_reads_every_query_alike() {
        let (layer, _io) = engine::build(&Config::default());
        let engine = Router::new().layer(layer);
        let mut opened = 0;
        let pairs = PARTS.iter().flat_map(|first| PARTS.iter().map(move |second| (first, second)));
        for ((first, second), third) in pairs.flat_map(|pair| PARTS.iter().map(move |third| (pair, third))) {
            let uri: Uri = format!("/socket.io/?{first}&{second}&{third}&EIO=4&transport=polling").parse().unwrap();
            let (ours, theirs) = (expected(&Query::parse(&uri)), answered(&engine, &uri).await);
            assert_eq!(ours, theirs, "{uri}");
            opened += usize::from(theirs.is_none());
        }
        assert!(opened > 100, "{opened}");
    }
}
