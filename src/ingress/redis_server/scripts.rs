//! [`Scripts`]: broadcast scripts by their SHA-1, for `EVALSHA`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha1_smol::Sha1;

use super::script::{Script, UnknownScript};

/// Scripts that are remembered. Laravel has had two.
const MOST: usize = 100;

/// Scripts that were loaded, by their SHA-1 in lower case.
#[derive(Debug, Default)]
pub(super) struct Scripts(Mutex<HashMap<String, Arc<Script>>>);

impl Scripts {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Script>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The script of `EVAL` or `SCRIPT LOAD`, with its SHA-1.
    pub(super) fn load(&self, text: &[u8]) -> Result<(String, Arc<Script>), UnknownScript> {
        let sha = Sha1::from(text).digest().to_string();
        if let Some(script) = self.lock().get(&sha) {
            return Ok((sha, Arc::clone(script)));
        }
        let script = Arc::new(Script::parse(text)?);
        let mut scripts = self.lock();
        if scripts.len() >= MOST {
            // Whoever still needs one of them sends it again.
            scripts.clear();
        }
        scripts.insert(sha.clone(), Arc::clone(&script));
        Ok((sha, script))
    }

    /// The script of `EVALSHA`.
    pub(super) fn find(&self, sha: &[u8]) -> Option<Arc<Script>> {
        let sha = std::str::from_utf8(sha).ok()?.to_ascii_lowercase();
        self.lock().get(&sha).cloned()
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}
