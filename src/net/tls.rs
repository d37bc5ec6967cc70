//! TLS for `protocol: https` and `redisServer.tls`: loads the configured certificate, chain and key, and reloads them when
//! the files change.
//!
//! Input: the files of `sslCertPath`, `sslCertChainPath` and `sslKeyPath`, or of the same keys under `redisServer.tls`.
//! Output: a TLS acceptor. Existing connections keep their certificate; new ones get the one that the files hold at that
//! time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use crate::config::value::Secret;
use crate::config::{Config, Protocol};
use crate::files;

mod error;
mod key;
mod trust;
mod validity;
mod watch;

use key::KeyError;

pub use error::TlsError;
pub use trust::Trust;
pub use validity::Untimely;

/// Accepts TLS connections.
pub type Acceptor = tokio_rustls::TlsAcceptor;

/// What a certificate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Https,
    RedisServer,
}

/// The config keys that name a certificate's files.
#[derive(Debug, PartialEq, Eq)]
struct Keys {
    certificate: &'static str,
    chain: &'static str,
    key: &'static str,
    passphrase: &'static str,
}

const HTTPS: Keys = Keys { certificate: "sslCertPath", chain: "sslCertChainPath", key: "sslKeyPath", passphrase: "sslPassphrase" };
const REDIS_SERVER: Keys = Keys {
    certificate: "redisServer.tls.certPath",
    chain: "redisServer.tls.chainPath",
    key: "redisServer.tls.keyPath",
    passphrase: "redisServer.tls.passphrase",
};

/// The files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    keys: &'static Keys,
    certificate: String,
    chain: String,
    key: String,
    passphrase: Secret,
}

impl Files {
    fn of(config: &Config, wanted: Use) -> Self {
        let own = &config.redis_server.tls;
        if wanted == Use::RedisServer && own.has_files() {
            return Self {
                keys: &REDIS_SERVER,
                certificate: own.cert_path.clone(),
                chain: own.chain_path.clone(),
                key: own.key_path.clone(),
                passphrase: own.passphrase.clone(),
            };
        }
        Self {
            keys: &HTTPS,
            certificate: config.ssl_cert_path.clone(),
            chain: config.ssl_cert_chain_path.clone(),
            key: config.ssl_key_path.clone(),
            passphrase: config.ssl_passphrase.clone(),
        }
    }

    /// Reads all files. An expired or not yet valid certificate is only logged: clients decide whether to accept it, and a
    /// proxy in front of the server may well do so.
    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let mut chain = certificates(self.keys.certificate, &self.certificate)?;
        if !self.chain.is_empty() {
            // Some chain files begin with the certificate itself.
            let more = certificates(self.keys.chain, &self.chain)?;
            let more: Vec<_> = more.into_iter().filter(|certificate| !chain.contains(certificate)).collect();
            chain.extend(more);
        }
        let text = read(self.keys.key, &self.key)?;
        let key = key::parse(&text, self.passphrase.expose()).map_err(|error| self.key_error(error))?;
        validity::check(&chain[0], self.keys.certificate, &self.certificate);
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let (path, certificate) = (self.key.as_str().into(), self.certificate.as_str().into());
                TlsError::Mismatch { key: self.keys.key, path, certificate }
            }
            source => TlsError::Pair { certificate: self.keys.certificate, key: self.keys.key, source },
        })
    }

    fn key_error(&self, error: KeyError) -> TlsError {
        let path = PathBuf::from(&self.key);
        match error {
            KeyError::Missing => TlsError::Content { key: self.keys.key, path, expected: "private key" },
            KeyError::NoPassphrase => TlsError::NoPassphrase { key: self.keys.passphrase, path },
            KeyError::WrongPassphrase => TlsError::WrongPassphrase { key: self.keys.passphrase, path },
            KeyError::Cipher(detail) => TlsError::Cipher { key: self.keys.key, path, detail },
        }
    }
}

/// Files, with their state just before they were read.
#[derive(Debug)]
struct Source {
    files: Files,
    state: watch::State,
}

impl Source {
    fn of(files: Files) -> Self {
        Self { state: watch::state(&files), files }
    }
}

/// Newly read files, to be passed to [`Tls::take`].
pub struct Fresh {
    source: Source,
    current: CertifiedKey,
}

impl Fresh {
    fn read(files: Files) -> Result<Self, TlsError> {
        let source = Source::of(files);
        let current = source.files.load()?;
        Ok(Self { source, current })
    }
}

/// The certificate in use and the files it comes from.
#[derive(Debug)]
pub struct Tls {
    used_for: Use,
    source: ArcSwap<Source>,
    current: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Tls {
    /// Reads the files for https; `None` for plain HTTP.
    ///
    /// # Errors
    /// [`TlsError`] when a file is missing or not PEM, the passphrase is wrong, or certificate and key do not match.
    pub fn new(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        (config.protocol == Protocol::Https).then(|| Self::open(config, Use::Https)).transpose()
    }

    /// Reads the files for the built-in Redis endpoint; `None` without `redisServer.tls`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn redis_server(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        let options = &config.redis_server;
        (options.enabled && options.tls.enabled).then(|| Self::open(config, Use::RedisServer)).transpose()
    }

    fn open(config: &Config, used_for: Use) -> Result<Arc<Self>, TlsError> {
        let Fresh { source, current } = Fresh::read(Files::of(config, used_for))?;
        Ok(Arc::new(Self { used_for, source: ArcSwap::from_pointee(source), current: ArcSwap::from_pointee(current) }))
    }

    /// An acceptor that always uses the current certificate, with TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// [`TlsError::Tickets`] when the system provides no randomness for session tickets.
    pub fn acceptor(self: &Arc<Self>) -> Result<Acceptor, TlsError> {
        let mut server = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::<Self>::clone(self));
        if self.used_for == Use::Https {
            server.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        // After a proxy or network restart all clients reconnect at once; resumed TLS sessions skip the signature.
        server.ticketer = ring::Ticketer::new().map_err(TlsError::Tickets)?;
        Ok(Acceptor::from(Arc::new(server)))
    }

    /// Whether the certificate is expired, not valid yet, or about to expire.
    #[must_use]
    pub fn untimely(&self) -> Option<Untimely> {
        let (current, source) = (self.current.load(), self.source.load());
        validity::complaint(current.cert.first()?, source.files.keys.certificate, &source.files.certificate)
    }

    /// Reads the files that `config` names, without using them yet.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn read(&self, config: &Config) -> Result<Fresh, TlsError> {
        Fresh::read(Files::of(config, self.used_for))
    }

    /// Uses this certificate for new connections; existing ones continue.
    pub fn take(&self, fresh: Fresh) {
        self.current.store(Arc::new(fresh.current));
        self.source.store(Arc::new(fresh.source));
    }

    /// Reloads files that have changed on disk. Unusable ones are read again at their next change: certificate and key are
    /// seldom written at the same moment.
    fn refresh(&self) {
        let source = Source::of(self.source.load().files.clone());
        let loaded = source.files.load();
        self.source.store(Arc::new(source));
        match loaded {
            Ok(current) => {
                self.current.store(Arc::new(current));
                info!("loaded the changed certificate for new connections");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn!(%error, cause, "the changed certificate cannot be used; keeping the previous one");
            }
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}

fn read(key: &'static str, path: &str) -> Result<Vec<u8>, TlsError> {
    files::read(path).map_err(|source| TlsError::Read { key, path: path.into(), source })
}

fn certificates(key: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(key, path)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::Content { key, path: Path::new(path).to_owned(), expected: "certificate" }),
    }
}

#[cfg(test)]
mod tests;
