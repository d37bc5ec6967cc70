//! [`Keys`]: chooses the key that verifies a token.
//!
//! Input: `auth.jwt`, and the `kid` of a token. Output: the key, from the settings or from a JWKS.

use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::JwtError;
use super::jwks::{Jwks, KeyError};
use crate::config::Config;
use crate::jws;

/// The configured keys.
pub(super) enum Keys {
    /// `secret` or `publicKey`: used for every token, whatever its `kid`.
    One(Arc<DecodingKey>),
    /// `jwks`.
    Set(Arc<Jwks>),
}

impl Keys {
    pub(super) fn new(config: &Config, algorithm: Algorithm) -> Result<Self, JwtError> {
        jws::install();
        let jwt = &config.auth.jwt;
        if algorithm.family() == AlgorithmFamily::Hmac {
            let secret = jwt.secret.as_ref().ok_or(JwtError::NoKey(algorithm))?;
            return Ok(Self::One(Arc::new(DecodingKey::from_secret(secret.expose().as_bytes()))));
        }
        match (&jwt.public_key, &jwt.jwks) {
            (Some(path), _) => Ok(Self::One(Arc::new(public_key(path, algorithm)?))),
            (None, Some(place)) => Ok(Self::Set(Jwks::new(place, algorithm, config)?)),
            (None, None) => Err(JwtError::NoKey(algorithm)),
        }
    }

    /// The key for a token with this `kid`.
    pub(super) async fn find(&self, kid: Option<&str>) -> Result<Arc<DecodingKey>, KeyError> {
        match self {
            Self::One(key) => Ok(Arc::clone(key)),
            Self::Set(set) => set.find(kid).await,
        }
    }
}

fn public_key(path: &Path, algorithm: Algorithm) -> Result<DecodingKey, JwtError> {
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| JwtError::PublicKey { path: path.to_owned(), algorithm, source };
    let pem = crate::files::read(path).map_err(|error| unusable(error.into()))?;
    let key = match algorithm.family() {
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(&pem),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(&pem),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(&pem),
        AlgorithmFamily::Hmac => return Err(JwtError::NoKey(algorithm)),
    };
    key.and_then(jws::usable).map_err(|error| unusable(error.into()))
}
