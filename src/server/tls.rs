//! TLS for `protocol: https`: certificate, chain and key as the settings name them, renewed while the server runs.
//!
//! Input: the files of `sslCertPath`, `sslCertChainPath` and `sslKeyPath`. Output: what accepts TLS connections. Those
//! that exist keep the certificate they began with; new ones get that of the files as they are now.

use std::io;
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

mod key;
mod validity;
mod watch;

use key::KeyError;

/// Accepts TLS connections.
pub type Acceptor = tokio_rustls::TlsAcceptor;

/// A certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: cannot read `{path}`")]
    Read {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{key}: `{path}` holds no {expected} in PEM form")]
    Content {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The key is encrypted and there is no passphrase.
    #[error("sslPassphrase: is empty, but the key in `{0}` is encrypted")]
    NoPassphrase(PathBuf),
    /// The passphrase is that of another key.
    #[error("sslPassphrase: does not open the key in `{0}`")]
    WrongPassphrase(PathBuf),
    /// The key is encrypted in a way that is not known here.
    #[error("sslKeyPath: `{path}` is encrypted in an unknown way ({detail}); `openssl pkcs8 -topk8 -v2 aes256` writes one that is known")]
    Cipher {
        /// The file.
        path: PathBuf,
        /// What is unknown.
        detail: String,
    },
    /// The key belongs to another certificate.
    #[error("sslKeyPath: the key in `{key}` does not belong to the certificate in `{certificate}`")]
    Mismatch {
        /// File of the key.
        key: PathBuf,
        /// File of the certificate.
        certificate: PathBuf,
    },
    /// Certificate or key are of a kind that is not spoken.
    #[error("sslCertPath and sslKeyPath cannot be used together")]
    Pair(#[source] rustls::Error),
}

/// The files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    certificate: String,
    chain: String,
    key: String,
    passphrase: Secret,
}

impl Files {
    fn of(config: &Config) -> Self {
        Self {
            certificate: config.ssl_cert_path.clone(),
            chain: config.ssl_cert_chain_path.clone(),
            key: config.ssl_key_path.clone(),
            passphrase: config.ssl_passphrase.clone(),
        }
    }

    /// Reads all of them, and says when the certificate is not valid at this time: clients decide what to make of
    /// that, and a proxy before the server may well accept it.
    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let mut chain = certificates("sslCertPath", &self.certificate)?;
        if !self.chain.is_empty() {
            // Some point it to a file that begins with the certificate itself.
            let more = certificates("sslCertChainPath", &self.chain)?;
            let more: Vec<_> = more.into_iter().filter(|certificate| !chain.contains(certificate)).collect();
            chain.extend(more);
        }
        let text = read("sslKeyPath", &self.key)?;
        let key = key::parse(&text, self.passphrase.expose()).map_err(|error| self.key_error(error))?;
        validity::check(&chain[0], &self.certificate);
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { key: self.key.as_str().into(), certificate: self.certificate.as_str().into() }
            }
            error => TlsError::Pair(error),
        })
    }

    fn key_error(&self, error: KeyError) -> TlsError {
        let path = PathBuf::from(&self.key);
        match error {
            KeyError::Missing => TlsError::Content { key: "sslKeyPath", path, expected: "private key" },
            KeyError::NoPassphrase => TlsError::NoPassphrase(path),
            KeyError::WrongPassphrase => TlsError::WrongPassphrase(path),
            KeyError::Cipher(detail) => TlsError::Cipher { path, detail },
        }
    }
}

/// Files, and what they were like just before they were read.
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

/// The certificate in use and the files it comes from.
#[derive(Debug)]
pub struct Tls {
    source: ArcSwap<Source>,
    current: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Tls {
    /// Reads the files; `None` for plain HTTP.
    ///
    /// # Errors
    /// [`TlsError`] when a file is missing or no PEM, the passphrase is wrong, or certificate and key do not fit.
    pub fn new(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        if config.protocol == Protocol::Http {
            return Ok(None);
        }
        let source = Source::of(Files::of(config));
        let current = source.files.load()?;
        Ok(Some(Arc::new(Self { source: ArcSwap::from_pointee(source), current: ArcSwap::from_pointee(current) })))
    }

    /// What accepts connections with the certificate of the moment, in TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// [`TlsError::Pair`] when the system gives no randomness for session tickets.
    pub fn acceptor(self: &Arc<Self>) -> Result<Acceptor, TlsError> {
        let mut server = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::<Self>::clone(self));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // After a restart of a proxy or a network everyone comes back at once; resumed sessions skip the signature.
        server.ticketer = ring::Ticketer::new().map_err(TlsError::Pair)?;
        Ok(Acceptor::from(Arc::new(server)))
    }

    /// Takes the files that `config` names, as they are now. Connections go on; after an error all stays as it was.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn reload(&self, config: &Config) -> Result<(), TlsError> {
        let source = Source::of(Files::of(config));
        self.current.store(Arc::new(source.files.load()?));
        self.source.store(Arc::new(source));
        Ok(())
    }

    /// The files have changed on disk. Those that cannot be used are looked at again when they change once more:
    /// certificate and key are seldom written in the same moment.
    fn refresh(&self) {
        let source = Source::of(self.source.load().files.clone());
        let loaded = source.files.load();
        self.source.store(Arc::new(source));
        match loaded {
            Ok(current) => {
                self.current.store(Arc::new(current));
                info!("took the certificate of the changed files for new connections");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn!(%error, cause, "the changed certificate cannot be used; the one from before stays");
            }
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}

fn read(key: &'static str, path: &str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { key, path: path.into(), source })
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
