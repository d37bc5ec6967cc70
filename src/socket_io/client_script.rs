//! `socket.io.js` for browsers, which the original served from its own dependency.
//!
//! Input: files of the npm package `socket.io-client`, from `socketio.clientPath`, the Laravel project's
//! `node_modules`, or compiled in. Output: responses to `<path>/socket.io.js` and its variants.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use axum::body::Body;
use axum::http::header::{self, HeaderMap};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;

/// Files that the original serves, and those that pages with a newer client request.
const NAMES: [&str; 7] = [
    "socket.io.js",
    "socket.io.js.map",
    "socket.io.min.js",
    "socket.io.min.js.map",
    "socket.io.slim.js",
    "socket.io.slim.js.map",
    "socket.io.dev.js",
];

include!(concat!(env!("OUT_DIR"), "/client_files.rs"));

/// Where to look for the files.
#[derive(Debug, Clone)]
pub(super) struct ClientScript {
    folders: Vec<PathBuf>,
}

impl ClientScript {
    /// Looks in `configured` (`socketio.clientPath`), or else in the `node_modules` of the working directory and of its
    /// parent folders, where a Laravel project keeps its packages.
    #[must_use]
    pub(super) fn new(configured: Option<PathBuf>) -> Self {
        let folders = match configured {
            Some(folder) => vec![folder],
            None => {
                let here = std::env::current_dir().unwrap_or_default();
                let packages = here.ancestors().map(|folder| folder.join("node_modules/socket.io-client"));
                packages.flat_map(|package| [package.join("dist"), package]).collect()
            }
        };
        Self { folders }
    }

    /// Whether a path below the endpoint, such as `socket.io.js`, names one of the files.
    #[must_use]
    pub(super) fn is_script(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// Answers a request for one of the files.
    pub(super) async fn serve(&self, name: &str, request: &HeaderMap) -> Response<Body> {
        let Some(content) = self.find(name).await else {
            let help = "socket.io.js is not available: npm install socket.io-client in the Laravel project, set socketio.clientPath to the \
                        package's dist folder, or bundle socket.io-client into the page's own script";
            return (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], help).into_response();
        };
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        let is_known = request.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag.as_str());
        let kind = if name.ends_with(".map") { "application/json" } else { "application/javascript; charset=utf-8" };
        let headers = [(header::ETAG, etag.as_str()), (header::CACHE_CONTROL, "public, max-age=0"), (header::CONTENT_TYPE, kind)];
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, content).into_response()
    }

    async fn find(&self, name: &str) -> Option<Vec<u8>> {
        for folder in &self.folders {
            if let Ok(content) = tokio::fs::read(folder.join(name)).await {
                return Some(content);
            }
        }
        let built_in = BUILT_IN.iter().find(|(file, _)| *file == name);
        built_in.map(|(_, content)| content.to_vec())
    }
}
