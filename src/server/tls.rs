//! TLS for `protocol: https`: certificate, chain and key as the settings name them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Config, Protocol};

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
    /// Certificate and key do not fit, or are of a kind that is not spoken.
    #[error("sslCertPath and sslKeyPath cannot be used together")]
    Pair(#[source] rustls::Error),
}

/// What accepts TLS; `None` for plain HTTP.
///
/// # Errors
/// [`TlsError`] when a file is missing, is none of PEM, or certificate and key do not fit.
pub fn acceptor(config: &Config) -> Result<Option<Acceptor>, TlsError> {
    if config.protocol == Protocol::Http {
        return Ok(None);
    }
    let mut chain = certificates("sslCertPath", &config.ssl_cert_path)?;
    if !config.ssl_cert_chain_path.is_empty() {
        chain.extend(certificates("sslCertChainPath", &config.ssl_cert_chain_path)?);
    }
    let key = private_key("sslKeyPath", &config.ssl_key_path)?;
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).map_err(TlsError::Pair)?;
    Ok(Some(Acceptor::from(Arc::new(server))))
}

fn read(key: &'static str, path: &str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { key, path: path.into(), source })
}

fn certificates(key: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(key, path)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(content(key, path, "certificate")),
    }
}

fn private_key(key: &'static str, path: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(key, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| content(key, path, "unencrypted private key"))
}

fn content(key: &'static str, path: &str, expected: &'static str) -> TlsError {
    TlsError::Content { key, path: Path::new(path).to_owned(), expected }
}
