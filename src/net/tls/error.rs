//! [`TlsError`]: why a certificate or key cannot be used, with the setting and the file.

use std::io;
use std::path::PathBuf;

use crate::config::secrets::shown_path;

/// A certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: cannot read `{}`", shown_path(.path))]
    Read {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not contain what it should.
    #[error("{key}: `{path}` holds no {expected} in PEM form")]
    Content {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The key is encrypted and no passphrase is set.
    #[error("{key}: is empty, but the key in `{path}` is encrypted")]
    NoPassphrase {
        /// The setting of the passphrase.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The passphrase does not decrypt the key.
    #[error("{key}: does not open the key in `{path}`")]
    WrongPassphrase {
        /// The setting of the passphrase.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The key's encryption is not supported.
    #[error("{key}: `{path}` uses an unsupported encryption ({detail}); convert it with `openssl pkcs8 -topk8 -v2 aes256`")]
    Cipher {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is not supported.
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
    /// The algorithm of the certificate or key is not supported.
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
    /// The system provides no randomness for session tickets.
    #[error("TLS cannot be set up")]
    Tickets(#[source] rustls::Error),
}
