//! Private keys as files hold them: OpenSSH, PKCS#8, PEM.
//!
//! Checked when they are taken in, so that a key that cannot log in is refused while its owner is
//! there to give another, and not by the first scan in the night.

use std::fmt;

use russh::keys::{HashAlg, PrivateKey, decode_secret_key, ssh_key::public::KeyData};
use serde::{Deserialize, Serialize};

/// Bytes of a key file. RSA of 16384 bits in PEM has 13 KiB.
pub const FILE_LEN_MAX: u64 = 64 << 10;
/// Bits of the smallest RSA key that OpenSSH itself takes by default is 1024; below 2048 NIST SP
/// 800-131A disallows.
const RSA_BITS_MIN: usize = 2048;

/// What may be shown of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKeyShown {
    /// As SSH names it, such as `ssh-ed25519`.
    pub algorithm: String,
    /// `SHA256:` and base64, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

/// Why a key is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    NeedsPassphrase,
    WrongPassphrase,
    /// What it is, and what to do about it.
    Refused(&'static str, &'static str),
    /// RSA of so many bits.
    Weak(usize),
}

impl Fault {
    /// The next step for whoever has the key.
    pub const fn next(&self) -> &'static str {
        match self {
            Self::NeedsPassphrase | Self::WrongPassphrase => "give the passphrase of the key",
            Self::Refused(_, next) => next,
            Self::Weak(_) => "make another: ssh-keygen -t ed25519",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedsPassphrase => f.write_str("the key has a passphrase, and none was given"),
            Self::WrongPassphrase => f.write_str("the passphrase does not open the key"),
            Self::Refused(what, _) => f.write_str(what),
            Self::Weak(bits) => write!(
                f,
                "an RSA key of {bits} bits; fewer than {RSA_BITS_MIN} are not safe"
            ),
        }
    }
}

/// Whether the text of a key file is sealed with a passphrase of its own.
pub fn is_encrypted(text: &str) -> bool {
    if let Ok(key) = PrivateKey::from_openssh(text) {
        return key.is_encrypted();
    }
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// Opens the key and throws it away again; gives what may be shown of it.
pub fn check(text: &str, passphrase: Option<&str>) -> Result<PublicKeyShown, Fault> {
    looks_like_one(text)?;
    let encrypted = is_encrypted(text);
    if encrypted && passphrase.is_none() {
        return Err(Fault::NeedsPassphrase);
    }
    let passphrase = passphrase.filter(|_| encrypted);
    let key = decode_secret_key(text, passphrase).map_err(|_| {
        if encrypted {
            Fault::WrongPassphrase
        } else {
            Fault::Refused(
                "the private key is damaged, or of a kind that is not supported",
                "give an OpenSSH key file of type ed25519, ecdsa or rsa",
            )
        }
    })?;
    let public = key.public_key();
    match public.key_data() {
        KeyData::Rsa(rsa) => {
            let bits = bits(rsa.n().as_positive_bytes().unwrap_or_default());
            if bits < RSA_BITS_MIN {
                return Err(Fault::Weak(bits));
            }
        }
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => {}
        _ => {
            return Err(Fault::Refused(
                "a key of a kind that is not supported (DSA, or one on a security token)",
                "give a key file of type ed25519, ecdsa or rsa",
            ));
        }
    }
    Ok(PublicKeyShown {
        algorithm: public.algorithm().as_str().to_owned(),
        fingerprint: public.fingerprint(HashAlg::Sha256).to_string(),
    })
}

/// The commonest wrong files, by name.
fn looks_like_one(text: &str) -> Result<(), Fault> {
    let first = text.trim_start();
    if ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|start| first.starts_with(start))
        || text.contains("-----BEGIN PUBLIC KEY-----")
    {
        return Err(Fault::Refused(
            "this is a public key",
            "give the private one: the file of the same name without .pub",
        ));
    }
    if first.starts_with("PuTTY-User-Key-File-") {
        return Err(Fault::Refused(
            "this is a key of PuTTY",
            "convert it: puttygen KEY.ppk -O private-openssh -o KEY",
        ));
    }
    let is_legacy = text.contains("DEK-Info:") && !text.contains("DEK-Info: AES-128-CBC,");
    if is_legacy {
        return Err(Fault::Refused(
            "the key is encrypted in an old way that is not supported",
            "convert it: ssh-keygen -p -f KEY",
        ));
    }
    if !text.contains("PRIVATE KEY-----") {
        return Err(Fault::Refused(
            "there is no private key in it",
            "give a key file such as ~/.ssh/id_ed25519",
        ));
    }
    Ok(())
}

fn bits(positive: &[u8]) -> usize {
    let leading = positive.iter().take_while(|byte| **byte == 0).count();
    positive[leading..].first().map_or(0, |first| {
        (positive.len() - leading) * 8 - first.leading_zeros() as usize
    })
}
