//! Ed25519 keys that sign policies and revocation lists, and the ids by which they are named.
//!
//! Private keys are PKCS #8 in PEM and public ones SPKI in PEM or their 32 bytes in base64, so that
//! other programs can make and check signatures too. A private key is wiped when it is dropped, and
//! nothing here prints one.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{
    Signature, Signer as _, SigningKey, VerifyingKey,
    pkcs8::{
        DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
        spki::der::pem::LineEnding,
    },
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::judge::hex;

/// Bytes of a key file; one in PEM has about 120.
pub const KEY_FILE_BYTES_MAX: u64 = 4096;
/// Bytes of the fingerprint that are the id: 128 bits, out of reach of a second key with the same.
const ID_BYTES: usize = 16;

/// Fingerprint of a public key: the first half of its SHA-256, hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(String);

impl KeyId {
    /// `None` for what cannot be an id.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 2 * ID_BYTES
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        plain.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What checks signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// PEM, or the 32 bytes in base64 on one line. `None` for anything else, also for a key of
    /// small order, under which one signature would fit many messages.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let key = if text.starts_with("-----BEGIN") {
            VerifyingKey::from_public_key_pem(text).ok()?
        } else {
            let bytes: [u8; 32] = STANDARD.decode(text).ok()?.try_into().ok()?;
            VerifyingKey::from_bytes(&bytes).ok()?
        };
        (!key.is_weak()).then_some(Self(key))
    }

    pub fn id(&self) -> KeyId {
        KeyId(hex(&Sha256::digest(self.0.as_bytes())[..ID_BYTES]))
    }

    /// The 32 bytes in base64.
    pub fn base64(&self) -> String {
        STANDARD.encode(self.0.as_bytes())
    }

    pub fn to_pem(&self) -> String {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .expect("32 bytes have a PEM form")
    }

    /// `value` in base64. Strict: what has a second spelling (padding, a scalar that was not
    /// reduced) is refused, so that nobody makes another valid signature from a valid one.
    pub(crate) fn verifies(&self, message: &[u8], value: &str) -> bool {
        let Some(bytes) = STANDARD
            .decode(value)
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
        else {
            return false;
        };
        self.0
            .verify_strict(message, &Signature::from_bytes(&bytes))
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// What makes signatures.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    pub fn generate(random: &dyn world::Random) -> std::io::Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(seed.as_mut())?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// `None` for what is no Ed25519 key in PKCS #8, PEM.
    pub fn from_pem(text: &str) -> Option<Self> {
        SigningKey::from_pkcs8_pem(text.trim()).ok().map(Self)
    }

    pub fn to_pem(&self) -> Zeroizing<String> {
        self.0
            .to_pkcs8_pem(LineEnding::LF)
            .expect("32 bytes have a PEM form")
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.0.sign(message).to_bytes())
    }
}

/// Shows which key it is, never the key.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public().id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey(SigningKey::from_bytes(&[seed; 32]))
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let private = key(7);
        let again = PrivateKey::from_pem(&private.to_pem()).expect("its own form");
        assert_eq!(again.public(), private.public());
        for text in [private.public().to_pem(), private.public().base64()] {
            assert_eq!(PublicKey::parse(&text), Some(private.public()), "{text}");
        }
        assert_eq!(
            KeyId::parse(private.public().id().as_str()),
            Some(private.public().id())
        );
    }

    #[test]
    fn what_is_no_key_or_a_weak_one_is_refused() {
        for text in [
            "",
            "AAAA",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            // The neutral element: everything verifies under it somewhere.
            "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            assert_eq!(PublicKey::parse(text), None, "{text}");
        }
        assert!(PrivateKey::from_pem(&key(1).public().to_pem()).is_none());
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let private = key(9);
        let shown = format!("{private:?}");
        assert_eq!(shown, format!("PrivateKey({})", private.public().id()));
        let secret = private.to_pem();
        let body = secret.lines().nth(1).expect("one line of base64");
        assert!(!shown.contains(body));
    }
}
