//! [`Jwks`]: a set of public keys in a file or at a URL, which its issuer rotates.
//!
//! Input: `auth.jwt.jwks`. Output: keys by `kid`. An unknown `kid` reloads the set, at most once every few seconds. If the
//! source cannot be read, the known keys stay in use.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::JwtError;
use crate::auth::http::{AuthClientError, client_builder};
use crate::config::Config;
use crate::jws;
use crate::net::response;

/// The set is reloaded after this time, so that withdrawn keys are dropped.
const REFRESH: Duration = Duration::from_mins(10);
/// Minimum time between two loads: tokens with made-up `kid`s must not turn into requests.
const PAUSE: Duration = Duration::from_secs(5);
/// Timeout of one HTTP load.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Size limit of a set, far above any real one.
const MAX_BYTES: usize = 1024 * 1024;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no key for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("auth.jwt.jwks has no key for it")]
    Unknown,
    #[error("auth.jwt.jwks could not be read yet")]
    Unavailable,
}

/// A set of keys, with its source.
pub(super) struct Jwks {
    source: Source,
    algorithm: Algorithm,
    keys: RwLock<Known>,
    /// When the source was last loaded; locked during a load.
    looked: Arc<Mutex<Option<Instant>>>,
}

enum Source {
    File(PathBuf),
    Url(String, reqwest::Client),
}

#[derive(Default)]
struct Known {
    keys: HashMap<Option<String>, Arc<DecodingKey>>,
    /// When the keys were read; `None` until the first successful load.
    read: Option<Instant>,
}

impl Jwks {
    /// Reads a file at once, a URL when the first token arrives.
    pub(super) fn new(place: &str, algorithm: Algorithm, config: &Config) -> Result<Arc<Self>, JwtError> {
        let is_url = place.starts_with("http://") || place.starts_with("https://");
        let source = if is_url {
            let builder = client_builder(config, place.starts_with("http://"))?;
            Source::Url(place.to_owned(), builder.timeout(TIMEOUT).build().map_err(AuthClientError::from)?)
        } else {
            Source::File(place.into())
        };
        let mut known = Known::default();
        if let Source::File(path) = &source {
            let keys = crate::files::read(path).map_err(Failure::from).and_then(|json| parse(&json, algorithm.family()));
            known.keys = keys.map_err(|source| JwtError::Jwks { path: path.clone(), algorithm, source })?;
            known.read = Some(Instant::now());
        }
        Ok(Arc::new(Self { source, algorithm, keys: RwLock::new(known), looked: Arc::default() }))
    }

    /// The key named `kid`; for a token without one, the set's only key.
    pub(super) async fn find(self: &Arc<Self>, kid: Option<&str>) -> Result<Arc<DecodingKey>, KeyError> {
        let known = self.known(kid);
        let is_fresh = self.read().is_some_and(|read| read.elapsed() < REFRESH);
        match known {
            Some(key) if is_fresh => Ok(key),
            Some(key) => {
                // Reload in the background. If the lock is taken, a load is already in progress.
                if let Ok(looked) = Arc::clone(&self.looked).try_lock_owned() {
                    let set = Arc::clone(self);
                    tokio::spawn(async move { set.look(looked).await });
                }
                Ok(key)
            }
            None => {
                let looked = Arc::clone(&self.looked).lock_owned().await;
                if let Some(key) = self.known(kid) {
                    return Ok(key);
                }
                self.look(looked).await;
                let missing = if self.read().is_some() { KeyError::Unknown } else { KeyError::Unavailable };
                self.known(kid).ok_or(missing)
            }
        }
    }

    fn read(&self) -> Option<Instant> {
        self.keys.read().read
    }

    fn known(&self, kid: Option<&str>) -> Option<Arc<DecodingKey>> {
        let known = self.keys.read();
        match kid {
            Some(kid) => known.keys.get(&Some(kid.to_owned())).cloned(),
            None if known.keys.len() == 1 => known.keys.values().next().cloned(),
            None => None,
        }
    }

    /// Loads the source, unless the last attempt was less than [`PAUSE`] ago.
    async fn look(&self, mut looked: tokio::sync::OwnedMutexGuard<Option<Instant>>) {
        if looked.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        let result = self.load().await;
        *looked = Some(Instant::now());
        match result.and_then(|json| parse(&json, self.algorithm.family())) {
            Ok(keys) => {
                debug!(keys = keys.len(), "read auth.jwt.jwks");
                *self.keys.write() = Known { keys, read: Some(Instant::now()) };
            }
            Err(error) => warn!(error, "cannot read auth.jwt.jwks; keeping the keys already known"),
        }
    }

    async fn load(&self) -> Result<Vec<u8>, Failure> {
        match &self.source {
            Source::File(path) => Ok(tokio::fs::read(path).await?),
            Source::Url(url, client) => {
                let (body, is_cut) = response::body(client.get(url).send().await?.error_for_status()?, MAX_BYTES).await?;
                if is_cut { Err(format!("it is larger than {MAX_BYTES} bytes").into()) } else { Ok(body) }
            }
        }
    }
}

/// The keys of a set that belong to the algorithm's family; others are ignored.
fn parse(json: &[u8], family: AlgorithmFamily) -> Result<HashMap<Option<String>, Arc<DecodingKey>>, Failure> {
    let set: JwkSet = serde_json::from_slice(json)?;
    let usable = set.keys.iter().filter_map(|jwk| {
        let key = DecodingKey::from_jwk(jwk).and_then(jws::usable).ok().filter(|key| key.family() == family)?;
        Some((jwk.common.key_id.clone(), Arc::new(key)))
    });
    let keys: HashMap<_, _> = usable.collect();
    if keys.is_empty() {
        return Err("it has no key for auth.jwt.algorithm".into());
    }
    Ok(keys)
}

#[cfg(test)]
impl Jwks {
    /// Allows the next load at once, as if [`PAUSE`] had passed.
    pub(super) async fn forget_last_look(&self) {
        *self.looked.lock().await = None;
    }
}
