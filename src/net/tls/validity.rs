//! Certificate validity. Input: the certificate. Output: a log line if it is not valid now, or expires soon.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tracing::{error, warn};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// Time before expiry from which on to warn. Let's Encrypt's tools renew 30 days before.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// The validity of a certificate at some time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Validity {
    Valid,
    NotYet { from: SystemTime },
    EndsSoon { at: SystemTime },
    Expired { at: SystemTime },
}

/// The validity of a certificate at `now`; `None` if it cannot be parsed.
pub(super) fn at(certificate: &CertificateDer<'_>, now: SystemTime) -> Option<Validity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let (from, end) = (validity.not_before.to_system_time(), validity.not_after.to_system_time());
    Some(if now < from {
        Validity::NotYet { from }
    } else if now > end {
        Validity::Expired { at: end }
    } else if now + SOON > end {
        Validity::EndsSoon { at: end }
    } else {
        Validity::Valid
    })
}

/// What is wrong with the time of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untimely {
    /// Clients accept it, but not for long.
    Soon(String),
    /// Clients refuse it now.
    Now(String),
}

/// A certificate that is not valid now or expires soon, in words.
pub(super) fn complaint(certificate: &CertificateDer<'_>, key: &str, path: &str) -> Option<Untimely> {
    let date = |time| humantime::format_rfc3339_seconds(time).to_string();
    match at(certificate, SystemTime::now())? {
        Validity::Expired { at } => {
            Some(Untimely::Now(format!("{key}: the certificate in `{path}` expired at {}; clients refuse it", date(at))))
        }
        Validity::NotYet { from } => {
            let from = date(from);
            Some(Untimely::Now(format!("{key}: the certificate in `{path}` is valid from {from} on; until then clients refuse it")))
        }
        Validity::EndsSoon { at } => Some(Untimely::Soon(format!("{key}: the certificate in `{path}` expires at {}", date(at)))),
        Validity::Valid => None,
    }
}

/// Logs a certificate that is not valid now or expires soon.
pub(super) fn check(certificate: &CertificateDer<'_>, key: &str, path: &str) {
    match complaint(certificate, key, path) {
        Some(Untimely::Now(text)) => error!("{text}"),
        Some(Untimely::Soon(text)) => warn!("{text}"),
        None => {}
    }
}
