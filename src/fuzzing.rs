//! What must hold for any input, as functions of bytes that panic when it does not.
//!
//! Input: bytes, from libFuzzer (`fuzz/fuzz_targets`) or from the files of `fuzz/seeds` in a unit test. Output: none.
//! This module is there for `cargo fuzz` and for tests, never in a build that is shipped. What needs the private parts
//! of a module stands beside them, in files of the name `fuzzing.rs`.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use tokio::runtime::{Builder, Runtime};

use crate::auth::{AuthRequest, Authorizer, Denied, Grant};
use crate::config::Config;
use crate::event::SocketId;
use crate::hub::{Allowance, Hub, Push, PushError, Socket};
use crate::metrics::Metrics;

mod auth;
mod proxy;

pub use crate::api::events::body::fuzzing::http_event;
pub use crate::config::load::fuzzing::config_file;
pub use crate::ingress::redis::fuzzing::{node_messages, redis_message};
pub use crate::ingress::redis_server::fuzzing::{redis_commands, resp};
pub use crate::server::fuzzing::{client_packets, http_request, polling_sessions, pusher_packets};
pub use auth::{auth_answer, jwt};
pub use proxy::proxy_header;

/// Something that must hold for any bytes.
pub type Target = fn(&[u8]);

/// All targets, with the names of their binaries and of their folders of seeds.
pub const TARGETS: [(&str, Target); 13] = [
    ("auth_answer", auth_answer),
    ("client_packets", client_packets),
    ("config_file", config_file),
    ("http_event", http_event),
    ("http_request", http_request),
    ("jwt", jwt),
    ("node_messages", node_messages),
    ("polling_sessions", polling_sessions),
    ("proxy_header", proxy_header),
    ("pusher_packets", pusher_packets),
    ("redis_commands", redis_commands),
    ("redis_message", redis_message),
    ("resp", resp),
];

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

/// Runs a future on the one runtime of this thread, where what it leaves behind goes on the next time.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| {
        let runtime = runtime.get_or_init(|| Builder::new_current_thread().enable_all().build().expect("a runtime can be built"));
        runtime.block_on(future)
    })
}

/// A socket that is never there.
#[derive(Clone)]
pub(crate) enum Nobody {}

impl Socket for Nobody {
    fn id(&self) -> SocketId {
        match *self {}
    }

    fn handshake(&self) -> &HeaderMap {
        match *self {}
    }

    fn peer(&self) -> Option<IpAddr> {
        match *self {}
    }

    fn allowance(&self) -> &Allowance {
        match *self {}
    }

    fn push(&self, _: &Push<'_>) -> Result<(), PushError> {
        match *self {}
    }

    fn close(&self) {
        match *self {}
    }

    fn terminate(&self) {
        match *self {}
    }
}

/// Lets nobody in, with a status by which it is known.
pub(crate) struct Refuse;

impl Refuse {
    pub(crate) const DENIED: Denied = Denied::new(418);
}

#[async_trait]
impl Authorizer for Refuse {
    async fn authorize(&self, _: AuthRequest<'_>) -> Result<Grant, Denied> {
        Err(Self::DENIED)
    }
}

/// A hub with nobody in it.
pub(crate) fn hub() -> Arc<Hub<Nobody>> {
    let config = Config::default();
    let store = block_on(crate::store::open(&config)).expect("members are kept in memory");
    Hub::new(&config, Arc::new(Refuse), store, None, Arc::new(Metrics::new()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Names in a folder of `fuzz`, without extensions.
    fn names(folder: &str) -> BTreeSet<String> {
        let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        files(&root().join(folder)).into_iter().map(name).collect()
    }

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn every_target_has_a_binary_and_seeds() {
        let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names("fuzz_targets"), targets);
        assert_eq!(names("seeds"), targets);
    }

    #[test]
    fn the_seeds_break_no_promise() {
        for (name, target) in TARGETS {
            let seeds = files(&root().join("seeds").join(name));
            assert!(!seeds.is_empty(), "{name}");
            for seed in seeds {
                let bytes = std::fs::read(&seed).unwrap();
                let outcome = std::panic::catch_unwind(|| target(&bytes));
                assert!(outcome.is_ok(), "{}", seed.display());
            }
        }
    }
}
