//! Fuzz targets: functions of bytes that panic if an assertion fails.
//!
//! Input: bytes, from libFuzzer (`fuzz/fuzz_targets`) or, in a unit test, from the files in `fuzz/seeds`. Output: none.
//! This module is compiled for `cargo fuzz` and tests, never into a release. Targets that need a module's private items are
//! in a `fuzzing.rs` beside it.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::{Builder, Runtime};

use crate::auth::{AuthRequest, Authorizer, Denied, Grant};
use crate::config::Config;
use crate::hub::fake_socket::{FakeSocket, Receiver};
use crate::hub::{Hub, Push, PushError};
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

/// A property that must hold for any bytes.
pub type Target = fn(&[u8]);

/// All targets, by the names of their binaries and seed directories.
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

/// Runs a future on this thread's runtime. Tasks that it leaves behind continue in the next call.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| {
        let runtime = runtime.get_or_init(|| Builder::new_current_thread().enable_all().build().expect("a runtime can be built"));
        runtime.block_on(future)
    })
}

/// A socket type without values.
pub(crate) type Nobody = FakeSocket<Infallible>;

impl Receiver for Infallible {
    fn push(&self, _: &Push<'_>) -> Result<(), PushError> {
        match *self {}
    }
}

/// Denies every subscribe, with a status that the targets recognize.
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

/// A hub without sockets.
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

    /// File names in a directory of `fuzz`, without extensions.
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
    fn the_seeds_fail_no_assertion() {
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
