//! JSON Web Tokens as keys of the HTTP API (`clients[].jwt`).
//!
//! Input: `clients[].jwt`, and the token of a request. Output: whether the token grants access to an application. A token
//! must expire (`exp`) and name the application: `{"exp":1767225600,"apps":["my-app"]}`.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use crate::jws;

/// A client's `jwt` is not a usable key.
#[derive(Debug, thiserror::Error)]
#[error("clients: `jwt` of `{app_id}` is not a PEM public key (RSA of 2048 bits or more, EC or Ed25519)")]
pub struct TokenKeyError {
    /// The client's id.
    pub app_id: String,
    /// The cause.
    #[source]
    source: jsonwebtoken::errors::Error,
}

/// Why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Not a token, signed with another key, or with an algorithm that does not match the key.
    #[error("the token is not signed with the key of this application")]
    Untrusted,
    /// It demands an extension that is not supported.
    #[error("the token's header has `crit`, and no such extension is supported")]
    Critical,
    /// It has expired.
    #[error("the token has expired (exp)")]
    Expired,
    /// It is not valid yet.
    #[error("the token is not valid yet (nbf)")]
    Early,
    /// A claim is missing or has the wrong type.
    #[error("the token must hold exp (seconds since 1970) and apps (a list of application ids)")]
    Claims,
    /// It is for other applications.
    #[error("apps in the token does not name this application")]
    OtherApp,
}

impl TokenError {
    /// How to fix it.
    pub(crate) const fn hint(self) -> &'static str {
        match self {
            Self::Untrusted => "sign it with the `jwt` of this entry of `clients`, or with the private key of that public key",
            Self::Critical => "make tokens without `crit` in their header",
            Self::Expired => "make a new token for each request, and compare the clocks of both machines",
            Self::Early => "compare the clocks of both machines",
            Self::Claims | Self::OtherApp => {
                "a token holds {\"exp\":1893456000,\"apps\":[\"…\"]}, with the `appId` of this entry of `clients`"
            }
        }
    }
}

/// Verifies the tokens of one client.
pub(crate) struct TokenKey {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    apps: Value,
}

impl TokenKey {
    /// Uses a PEM public key as such, and any other text as the secret of HS256, HS384 and HS512.
    ///
    /// # Errors
    /// [`TokenKeyError`] for PEM text that contains no public key.
    pub(crate) fn new(app_id: &str, jwt: &str) -> Result<Self, TokenKeyError> {
        jws::install();
        let pem = jwt.trim_start();
        let (key, algorithms) = if pem.starts_with("-----BEGIN") {
            Self::public_key(pem.as_bytes()).map_err(|source| TokenKeyError { app_id: app_id.to_owned(), source })?
        } else {
            (DecodingKey::from_secret(jwt.as_bytes()), vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512])
        };
        let mut validation = Validation::new(algorithms[0]);
        validation.algorithms = algorithms;
        validation.leeway = 0;
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp"]);
        Ok(Self { key, validation })
    }

    fn public_key(pem: &[u8]) -> Result<(DecodingKey, Vec<Algorithm>), jsonwebtoken::errors::Error> {
        let rsa = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            return Ok((jws::usable(key)?, rsa.to_vec()));
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            return Ok((key, vec![Algorithm::ES256, Algorithm::ES384]));
        }
        DecodingKey::from_ed_pem(pem).map(|key| (key, vec![Algorithm::EdDSA]))
    }

    /// Whether text has the form of a token.
    #[must_use]
    pub(crate) fn is_token(text: &str) -> bool {
        text.split('.').count() == 3 && text.starts_with("ey")
    }

    /// Verifies that a token grants access to an application.
    ///
    /// # Errors
    /// [`TokenError`] with the reason.
    pub(crate) fn verify(&self, token: &str, app_id: &str) -> Result<(), TokenError> {
        if decode_header(token).map_err(|_| TokenError::Untrusted)?.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let token = decode::<Claims>(token, &self.key, &self.validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::Early,
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => TokenError::Claims,
            _ => TokenError::Untrusted,
        })?;
        let is_app = |value: &Value| match value {
            Value::String(text) => text == app_id,
            Value::Number(number) => number.to_string() == app_id,
            _ => false,
        };
        match &token.claims.apps {
            Value::Array(apps) if apps.iter().any(is_app) => Ok(()),
            app if is_app(app) => Ok(()),
            Value::Array(_) | Value::String(_) | Value::Number(_) => Err(TokenError::OtherApp),
            _ => Err(TokenError::Claims),
        }
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const FAR: u64 = 4_102_444_800;
    const SECRET: &str = "a secret of the tests";
    const RSA: &str = include_str!("../../fixtures/jwt/rsa.pub.pem");

    fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
        crate::jws::install();
        encode(&Header::new(algorithm), claims, key).unwrap()
    }

    fn hs256(claims: &Value) -> String {
        sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
    }

    fn verdict(claims: &Value) -> Result<(), TokenError> {
        TokenKey::new("app", SECRET).unwrap().verify(&hs256(claims), "app")
    }

    #[test]
    fn a_token_must_expire_and_name_the_application() {
        for claims in [json!({ "exp": FAR, "apps": ["other", "app"] }), json!({ "exp": FAR, "apps": "app" })] {
            assert_eq!(verdict(&claims), Ok(()), "{claims}");
        }
        for (claims, error) in [
            (json!({ "apps": ["app"] }), TokenError::Claims),
            (json!({ "exp": "tomorrow", "apps": ["app"] }), TokenError::Claims),
            (json!({ "exp": FAR }), TokenError::Claims),
            (json!({ "exp": FAR, "apps": null }), TokenError::Claims),
            (json!({ "exp": FAR, "apps": [] }), TokenError::OtherApp),
            (json!({ "exp": FAR, "apps": ["application", 1, ["app"]] }), TokenError::OtherApp),
            (json!({ "exp": 1_000, "apps": ["app"] }), TokenError::Expired),
            (json!({ "exp": FAR, "nbf": FAR, "apps": ["app"] }), TokenError::Early),
        ] {
            assert_eq!(verdict(&claims), Err(error), "{claims}");
        }
    }

    #[test]
    fn ids_that_are_numbers_can_be_named_by_number() {
        let token = hs256(&json!({ "exp": FAR, "apps": [7] }));
        assert_eq!(TokenKey::new("7", SECRET).unwrap().verify(&token, "7"), Ok(()));
    }

    #[test]
    fn each_kind_of_key_verifies_only_its_own_tokens() {
        let claims = json!({ "exp": FAR, "apps": ["app"] });
        let rsa = EncodingKey::from_rsa_pem(include_bytes!("../../fixtures/jwt/rsa.pem")).unwrap();
        let ec = EncodingKey::from_ec_pem(include_bytes!("../../fixtures/jwt/p256.pem")).unwrap();
        let ed = EncodingKey::from_ed_pem(include_bytes!("../../fixtures/jwt/ed25519.pem")).unwrap();
        let tokens = [
            hs256(&claims),
            sign(Algorithm::RS256, &rsa, &claims),
            sign(Algorithm::ES256, &ec, &claims),
            sign(Algorithm::EdDSA, &ed, &claims),
        ];
        let keys = [SECRET, RSA, include_str!("../../fixtures/jwt/p256.pub.pem"), include_str!("../../fixtures/jwt/ed25519.pub.pem")];
        for (k, key) in keys.into_iter().enumerate() {
            let key = TokenKey::new("app", key).unwrap();
            for (t, token) in tokens.iter().enumerate() {
                let expected = if k == t { Ok(()) } else { Err(TokenError::Untrusted) };
                assert_eq!(key.verify(token, "app"), expected, "key {k}, token {t}");
            }
        }
    }

    #[test]
    fn forged_tokens_are_refused() {
        let claims = json!({ "exp": FAR, "apps": ["app"] });
        // The public key is public: a token signed with it as an HMAC secret must not be accepted.
        let confused = sign(Algorithm::HS256, &EncodingKey::from_secret(RSA.as_bytes()), &claims);
        assert_eq!(TokenKey::new("app", RSA).unwrap().verify(&confused, "app"), Err(TokenError::Untrusted));
        // {"alg":"none"}, with and without a signature.
        let unsigned = hs256(&claims).split('.').nth(1).map(|claims| format!("eyJhbGciOiJub25lIn0.{claims}.")).unwrap();
        for token in [unsigned.clone(), unsigned + "AAAA", "eyJ.eyJ.x".into(), String::new()] {
            assert_eq!(TokenKey::new("app", SECRET).unwrap().verify(&token, "app"), Err(TokenError::Untrusted), "{token}");
        }
    }

    #[test]
    fn pem_text_without_a_public_key_is_refused() {
        let error = TokenKey::new("app", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----").err().unwrap();
        assert_eq!(error.to_string(), "clients: `jwt` of `app` is not a PEM public key (RSA of 2048 bits or more, EC or Ed25519)");
        assert!(TokenKey::new("app", include_str!("../../fixtures/jwt/rsa-1024.pub.pem")).is_err());
    }

    #[test]
    fn a_token_that_demands_to_be_understood_is_refused() {
        let key = TokenKey::new("app", SECRET).unwrap();
        for (crit, expected) in
            [(None, Ok(())), (Some(vec!["b64".to_owned()]), Err(TokenError::Critical)), (Some(Vec::new()), Err(TokenError::Critical))]
        {
            let header = Header { crit, ..Header::new(Algorithm::HS256) };
            let token = encode(&header, &json!({ "exp": FAR, "apps": ["app"] }), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
            assert_eq!(key.verify(&token, "app"), expected);
        }
    }
}
