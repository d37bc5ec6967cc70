//! Signatures of JSON web tokens with ring, the crypto library of TLS, so that tokens need no second one.
//!
//! Input: calls of jsonwebtoken. Output: verified signatures, and signatures, which the server itself never makes.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{hmac, signature};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match key.family() == algorithm.family() {
        true => Ok(Box::new(RingSigner { algorithm: *algorithm, key: key.clone() })),
        false => Err(Error::from(ErrorKind::InvalidKeyFormat)),
    },
    verifier_factory: |algorithm, key| match key.family() == algorithm.family() {
        true => Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() })),
        false => Err(Error::from(ErrorKind::InvalidKeyFormat)),
    },
    // Would derive a JWK from a private key; not used here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Installs ring as the crypto provider of jsonwebtoken for this process; further calls have no effect.
pub fn install() {
    let _ = PROVIDER.install_default();
}

/// Rejects a key with which every verification would fail: ring requires RSA keys of at least 2048 bits, as RFC 7518 does.
///
/// # Errors
/// `InvalidRsaKey` with the reason.
pub fn usable(key: DecodingKey) -> Result<DecodingKey, Error> {
    const SHORTEST_BYTES: usize = 2048 / 8;
    let length = match key.kind() {
        DecodingKeyKind::SecretOrDer(_) if key.family() != AlgorithmFamily::Rsa => return Ok(key),
        DecodingKeyKind::SecretOrDer(der) => der.len(),
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
    };
    if length < SHORTEST_BYTES {
        return Err(ErrorKind::InvalidRsaKey("it has less than 2048 bits".to_owned()).into());
    }
    Ok(key)
}

/// The parameters that ring needs for an algorithm, to verify and to sign.
enum Scheme {
    Hmac(hmac::Algorithm),
    Rsa(&'static signature::RsaParameters, &'static dyn signature::RsaEncoding),
    Ec(&'static signature::EcdsaVerificationAlgorithm, &'static signature::EcdsaSigningAlgorithm),
    Ed,
}

fn scheme(algorithm: Algorithm) -> Result<Scheme, SignatureError> {
    Ok(match algorithm {
        Algorithm::HS256 => Scheme::Hmac(hmac::HMAC_SHA256),
        Algorithm::HS384 => Scheme::Hmac(hmac::HMAC_SHA384),
        Algorithm::HS512 => Scheme::Hmac(hmac::HMAC_SHA512),
        Algorithm::RS256 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256, &signature::RSA_PKCS1_SHA256),
        Algorithm::RS384 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384, &signature::RSA_PKCS1_SHA384),
        Algorithm::RS512 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512, &signature::RSA_PKCS1_SHA512),
        Algorithm::PS256 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA256, &signature::RSA_PSS_SHA256),
        Algorithm::PS384 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA384, &signature::RSA_PSS_SHA384),
        Algorithm::PS512 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA512, &signature::RSA_PSS_SHA512),
        Algorithm::ES256 => Scheme::Ec(&signature::ECDSA_P256_SHA256_FIXED, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => Scheme::Ec(&signature::ECDSA_P384_SHA384_FIXED, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::EdDSA => Scheme::Ed,
        _ => return Err(SignatureError::new()),
    })
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], given: &Vec<u8>) -> Result<(), SignatureError> {
        let verified = match (scheme(self.algorithm)?, self.key.kind()) {
            (Scheme::Hmac(hash), DecodingKeyKind::SecretOrDer(secret)) => hmac::verify(&hmac::Key::new(hash, secret), message, given),
            (Scheme::Rsa(rsa, _), DecodingKeyKind::SecretOrDer(key)) => UnparsedPublicKey::new(rsa, key).verify(message, given),
            (Scheme::Rsa(rsa, _), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(rsa, message, given)
            }
            (Scheme::Ec(ec, _), DecodingKeyKind::SecretOrDer(key)) => UnparsedPublicKey::new(ec, key).verify(message, given),
            (Scheme::Ed, DecodingKeyKind::SecretOrDer(key)) => UnparsedPublicKey::new(&signature::ED25519, key).verify(message, given),
            (_, DecodingKeyKind::RsaModulusExponent { .. }) => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

struct RingSigner {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let (key, random) = (self.key.as_bytes(), SystemRandom::new());
        let signed = match scheme(self.algorithm)? {
            Scheme::Hmac(hash) => return Ok(hmac::sign(&hmac::Key::new(hash, key), message).as_ref().to_vec()),
            Scheme::Rsa(_, encoding) => {
                let pair = RsaKeyPair::from_der(key).map_err(|_| SignatureError::new())?;
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, message, &mut signed).map(|()| signed)
            }
            Scheme::Ec(_, signing) => {
                let pair = EcdsaKeyPair::from_pkcs8(signing, key, &random).map_err(|_| SignatureError::new())?;
                pair.sign(&random, message).map(|signed| signed.as_ref().to_vec())
            }
            Scheme::Ed => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).map_err(|_| SignatureError::new())?;
                Ok(pair.sign(message).as_ref().to_vec())
            }
        };
        signed.map_err(|_| SignatureError::new())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
