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

/// Logs a certificate that is not valid now or expires soon.
pub(super) fn check(certificate: &CertificateDer<'_>, key: &str, path: &str) {
    let date = |time| humantime::format_rfc3339_seconds(time).to_string();
    match at(certificate, SystemTime::now()) {
        Some(Validity::Expired { at }) => error!("{key}: the certificate in `{path}` expired at {}; clients refuse it", date(at)),
        Some(Validity::NotYet { from }) => {
            error!("{key}: the certificate in `{path}` is valid from {} on; until then clients refuse it", date(from));
        }
        Some(Validity::EndsSoon { at }) => warn!("{key}: the certificate in `{path}` expires at {}", date(at)),
        Some(Validity::Valid) | None => {}
    }
}
