//! [`Trust`]: what to do when the certificate of another server is refused. Input: the reason of the TLS library. Output: a hint
//! that names the settings for certificates of that kind of server.

/// The hints for the certificates of one kind of server.
#[derive(Debug)]
pub struct Trust {
    authority: &'static str,
    name: &'static str,
    expired: &'static str,
    unknown: &'static str,
}

/// The hints with the setting of an authority, and the one that turns verification off.
macro_rules! trust {
    ($ca:literal, $off:literal) => {
        Trust {
            // `openssl req -x509` creates such a certificate unless told otherwise.
            authority: concat!(
                "that server uses a CA certificate as its own, which TLS does not allow. Create one that works for both that server and `",
                $ca,
                "` here: openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=HOST -addext subjectAltName=DNS:HOST \
                 -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem; or accept any certificate: `",
                $off,
                "`"
            ),
            name: concat!(
                "the certificate is for another name: use that name in the address, or get a certificate with this name in \
                 subjectAltName; or accept any certificate: `",
                $off,
                "`"
            ),
            expired: "the certificate has expired: renew it",
            unknown: concat!(
                "the certificate is self-signed, or of an authority that this machine does not know: set `",
                $ca,
                "` to the PEM file of that certificate or authority, or accept any certificate: `",
                $off,
                "`"
            ),
        }
    };
}

impl Trust {
    /// For `authHost` and the URLs of webhooks.
    pub const APPLICATION: Self = trust!("auth.tls.ca", "auth.tls.verify = false");
    /// For Redis, its sentinels and the nodes of its cluster.
    pub const REDIS: Self = trust!("databaseConfig.redis.tls.ca", "databaseConfig.redis.tls.rejectUnauthorized = false");

    /// What to do about a certificate that was refused for this reason; `None` if the reason is not about a certificate.
    #[must_use]
    pub fn hint(&self, reason: &str) -> Option<&'static str> {
        let says = |parts: &[&str]| parts.iter().any(|part| reason.contains(part));
        if says(&["CaUsedAsEndEntity"]) {
            Some(self.authority)
        } else if says(&["not valid for name", "NotValidForName"]) {
            Some(self.name)
        } else if says(&["expired", "Expired"]) {
            Some(self.expired)
        } else {
            says(&["certificate"]).then_some(self.unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hint_about_an_untrusted_certificate_names_both_settings() {
        for reason in ["invalid peer certificate: UnknownIssuer", "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))"] {
            let hint = Trust::APPLICATION.hint(reason).unwrap();
            assert!(hint.contains("`auth.tls.ca`") && hint.contains("`auth.tls.verify = false`"), "{hint}");
            let hint = Trust::REDIS.hint(reason).unwrap();
            let keys = ["`databaseConfig.redis.tls.ca`", "`databaseConfig.redis.tls.rejectUnauthorized = false`"];
            assert!(keys.iter().all(|key| hint.contains(key)), "{hint}");
        }
        assert_eq!(Trust::REDIS.hint("Connection refused (os error 111)"), None);
    }
}
