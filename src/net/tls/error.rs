//! [`TlsError`]: why a certificate or key cannot be used, with the setting and the file.

use std::io;
use std::path::PathBuf;

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
    #[error("{key}: is empty, but the key in `{path}` is encrypted")]
    NoPassphrase {
        /// The setting of the passphrase.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The passphrase is that of another key.
    #[error("{key}: does not open the key in `{path}`")]
    WrongPassphrase {
        /// The setting of the passphrase.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted in a way that is not known here.
    #[error("{key}: `{path}` is encrypted in an unknown way ({detail}); `openssl pkcs8 -topk8 -v2 aes256` writes one that is known")]
    Cipher {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is unknown.
        detail: String,
    },
    /// The key belongs to another certificate.
    #[error("{key}: the key in `{path}` does not belong to the certificate in `{certificate}`")]
    Mismatch {
        /// The setting that names the key's file.
        key: &'static str,
        /// File of the key.
        path: PathBuf,
        /// File of the certificate.
        certificate: PathBuf,
    },
    /// Certificate or key are of a kind that is not spoken.
    #[error("{certificate} and {key} cannot be used together")]
    Pair {
        /// The setting that names the certificate's file.
        certificate: &'static str,
        /// The setting that names the key's file.
        key: &'static str,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The system gives no randomness for session tickets.
    #[error("TLS cannot be set up")]
    Tickets(#[source] rustls::Error),
}
