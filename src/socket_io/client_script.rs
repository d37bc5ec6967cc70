//! `socket.io.js` for browsers, which the original served from its own dependency.
//!
//! Input: files of the npm package `socket.io-client`, from `socketio.clientPath`, the Laravel project's
//! `node_modules`, or compiled in. Output: responses to `<path>/socket.io.js` and its variants.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::header::{self, HeaderMap};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use parking_lot::Mutex;

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

/// Where to look for the files, and those that were found.
#[derive(Debug)]
pub(super) struct ClientScript {
    folders: Vec<PathBuf>,
    /// By name. All responses share the memory of a file: whoever asks for it and does not read it must not cost a copy.
    found: Mutex<HashMap<&'static str, Arc<Found>>>,
    /// Held while a file is read: many may ask for it at once before it is known.
    reading: tokio::sync::Mutex<()>,
}

/// What changes when a file does.
#[derive(Debug, PartialEq, Eq)]
struct OnDisk {
    path: PathBuf,
    modified: Option<SystemTime>,
    bytes: u64,
}

/// A file that was found.
#[derive(Debug)]
struct Found {
    /// `None` for one that is compiled in.
    on_disk: Option<OnDisk>,
    content: Bytes,
    etag: String,
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
        Self { folders, found: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Whether a path below the endpoint, such as `socket.io.js`, names one of the files.
    #[must_use]
    pub(super) fn is_script(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// Answers a request for one of the files.
    pub(super) async fn serve(&self, name: &str, request: &HeaderMap) -> Response<Body> {
        let Some(found) = self.find(name).await else {
            let help = "socket.io.js is not available: npm install socket.io-client in the Laravel project, set socketio.clientPath to the \
                        package's dist folder, or bundle socket.io-client into the page's own script";
            return (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], help).into_response();
        };
        let etag = found.etag.as_str();
        let is_known = request.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag);
        let kind = if name.ends_with(".map") { "application/json" } else { "application/javascript; charset=utf-8" };
        let headers = [(header::ETAG, etag), (header::CACHE_CONTROL, "public, max-age=0"), (header::CONTENT_TYPE, kind)];
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, found.content.clone()).into_response()
    }

    async fn find(&self, name: &str) -> Option<Arc<Found>> {
        let name = NAMES.into_iter().find(|known| *known == name)?;
        for folder in &self.folders {
            let path = folder.join(name);
            let Ok(about) = tokio::fs::metadata(&path).await else { continue };
            let on_disk = OnDisk { path, modified: about.modified().ok(), bytes: about.len() };
            if let Some(found) = self.known(name, Some(&on_disk)) {
                return Some(found);
            }
            let _reading = self.reading.lock().await;
            if let Some(found) = self.known(name, Some(&on_disk)) {
                return Some(found);
            }
            if let Ok(content) = tokio::fs::read(&on_disk.path).await {
                return Some(self.keep(name, Some(on_disk), content.into()));
            }
        }
        let (_, content) = BUILT_IN.iter().find(|(file, _)| *file == name)?;
        Some(self.known(name, None).unwrap_or_else(|| self.keep(name, None, Bytes::from_static(content))))
    }

    /// The file if it was found before and has not changed.
    fn known(&self, name: &str, on_disk: Option<&OnDisk>) -> Option<Arc<Found>> {
        self.found.lock().get(name).filter(|found| found.on_disk.as_ref() == on_disk).cloned()
    }

    fn keep(&self, name: &'static str, on_disk: Option<OnDisk>, content: Bytes) -> Arc<Found> {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let found = Arc::new(Found { on_disk, content, etag: format!("\"{:016x}\"", hasher.finish()) });
        self.found.lock().insert(name, Arc::clone(&found));
        found
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_file_is_kept_in_memory_once_until_it_changes() {
        let folder = std::env::temp_dir().join(format!("client-script-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket.io.js");
        std::fs::write(&path, "one").unwrap();
        let script = ClientScript::new(Some(folder.clone()));
        let at_once = join_all((0..50).map(|_| script.find("socket.io.js"))).await;
        assert!(at_once.iter().all(|found| Arc::ptr_eq(found.as_ref().unwrap(), at_once[0].as_ref().unwrap())));
        let first = script.find("socket.io.js").await.unwrap();
        assert!(Arc::ptr_eq(&first, &script.find("socket.io.js").await.unwrap()));
        std::fs::write(&path, "another").unwrap();
        let third = script.find("socket.io.js").await.unwrap();
        assert_eq!((&*third.content, third.etag == first.etag), (&b"another"[..], false));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
