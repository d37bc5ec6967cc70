//! Private keys in all formats that OpenSSL writes, including encrypted ones.
//!
//! Input: the contents of `sslKeyPath`, and `sslPassphrase`. Output: the key for rustls, or why it cannot be read.

use aes::cipher::{BlockCipherDecrypt, BlockModeDecrypt as _, InnerIvInit, KeyInit, block_padding::Pkcs7};
use data_encoding::HEXLOWER_PERMISSIVE;
use md5::{Digest as _, Md5};
use pem::Pem;
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

/// Bytes of the initialisation vector that also serve as the key's salt in the legacy format.
const SALT_LENGTH: usize = 8;

/// Why a file has no usable private key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyError {
    /// It contains no private key.
    Missing,
    /// The key is encrypted, and no passphrase is set.
    NoPassphrase,
    /// The passphrase does not decrypt the key.
    WrongPassphrase,
    /// The encryption is not supported.
    Cipher(String),
}

/// The first private key in a PEM file.
pub(super) fn parse(file: &[u8], passphrase: &str) -> Result<PrivateKeyDer<'static>, KeyError> {
    let blocks = pem::parse_many(file).map_err(|_| KeyError::Missing)?;
    let key = blocks.into_iter().find(|block| block.tag().ends_with("PRIVATE KEY")).ok_or(KeyError::Missing)?;
    match key.tag() {
        "ENCRYPTED PRIVATE KEY" => open_pkcs8(key.contents(), passphrase),
        _ if is_encrypted(&key) => open_legacy(&key, passphrase),
        tag => plain(tag, key.contents().to_vec()).ok_or(KeyError::Missing),
    }
}

fn plain(tag: &str, der: Vec<u8>) -> Option<PrivateKeyDer<'static>> {
    match tag {
        "PRIVATE KEY" => Some(PrivatePkcs8KeyDer::from(der).into()),
        "RSA PRIVATE KEY" => Some(PrivatePkcs1KeyDer::from(der).into()),
        "EC PRIVATE KEY" => Some(PrivateSec1KeyDer::from(der).into()),
        _ => None,
    }
}

/// `ENCRYPTED PRIVATE KEY`, PKCS #8 with PBES2, as written by `openssl genpkey` and `openssl pkcs8`.
fn open_pkcs8(der: &[u8], passphrase: &str) -> Result<PrivateKeyDer<'static>, KeyError> {
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| KeyError::Cipher("no PBES2".to_owned()))?;
    if passphrase.is_empty() {
        return Err(KeyError::NoPassphrase);
    }
    match encrypted.decrypt(passphrase) {
        Ok(key) => Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into()),
        Err(pkcs8::Error::EncryptedPrivateKey(
            error @ (pkcs8::pkcs5::Error::AlgorithmParametersInvalid { .. }
            | pkcs8::pkcs5::Error::NoPbes1CryptSupport
            | pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. }),
        )) => Err(KeyError::Cipher(error.to_string())),
        Err(_) => Err(KeyError::WrongPassphrase),
    }
}

/// Whether a block has the headers of the legacy format: `Proc-Type: 4,ENCRYPTED` and `DEK-Info: <cipher>,<iv>`.
fn is_encrypted(block: &Pem) -> bool {
    block.headers().get("Proc-Type").is_some_and(|kind| kind.ends_with("ENCRYPTED"))
}

/// The legacy format, as written by `openssl genrsa -aes256` and `ssh-keygen -m PEM`.
fn open_legacy(block: &Pem, passphrase: &str) -> Result<PrivateKeyDer<'static>, KeyError> {
    let info = block.headers().get("DEK-Info").unwrap_or_default();
    let unknown = || KeyError::Cipher(format!("DEK-Info: {info}"));
    let (cipher, iv) = info.split_once(',').ok_or_else(unknown)?;
    let iv = HEXLOWER_PERMISSIVE.decode(iv.trim().as_bytes()).ok().filter(|iv| iv.len() >= SALT_LENGTH).ok_or_else(unknown)?;
    if passphrase.is_empty() {
        return Err(KeyError::NoPassphrase);
    }
    let (data, secret) = (block.contents(), passphrase.as_bytes());
    let opened = match cipher {
        "AES-128-CBC" => decrypt::<aes::Aes128>(data, secret, &iv),
        "AES-192-CBC" => decrypt::<aes::Aes192>(data, secret, &iv),
        "AES-256-CBC" => decrypt::<aes::Aes256>(data, secret, &iv),
        "DES-EDE3-CBC" => decrypt::<des::TdesEde3>(data, secret, &iv),
        _ => return Err(unknown()),
    };
    // One wrong passphrase in 256 yields valid padding; the result is then not a DER sequence.
    let der = opened.filter(|der| der.first() == Some(&0x30)).ok_or(KeyError::WrongPassphrase)?;
    plain(block.tag(), der).ok_or(KeyError::Missing)
}

fn decrypt<C>(data: &[u8], passphrase: &[u8], iv: &[u8]) -> Option<Vec<u8>>
where
    C: BlockCipherDecrypt + KeyInit,
    cbc::Decryptor<C>: InnerIvInit<Inner = C>,
{
    let key = derive_key(passphrase, &iv[..SALT_LENGTH], C::key_size());
    let cipher = C::new_from_slice(&key).ok()?;
    let decryptor = cbc::Decryptor::<C>::inner_iv_slice_init(cipher, iv).ok()?;
    decryptor.decrypt_padded_vec::<Pkcs7>(data).ok()
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round.
fn derive_key(passphrase: &[u8], salt: &[u8], length: usize) -> Vec<u8> {
    let mut key = Vec::new();
    let mut last = Vec::new();
    while key.len() < length {
        last = Md5::new().chain_update(&last).chain_update(passphrase).chain_update(salt).finalize().to_vec();
        key.extend_from_slice(&last);
    }
    key.truncate(length);
    key
}
