//! What we agree to in a key exchange.
//!
//! Nothing with SHA-1 in a signature or a MAC, no CBC, no 3DES, no group below 2048 bits; the strict key
//! exchange, which is the answer to cut packets (CVE-2023-48795), wherever the server has it. Every
//! server of the platforms that have rules offers something of this, FIPS mode included: that is what
//! the NIST curves and the fixed groups are for.

use std::borrow::Cow;

use russh::{
    Preferred, SshId, cipher, client, compression, kex,
    keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, ssh_key::public::KeyData},
    mac,
};

/// Below this an RSA key is refused, the host's and ours.
pub(super) const RSA_BITS_MIN: u32 = 2048;

/// Several times what a usual host answers in all, so that no answer waits a round trip for our leave.
/// It costs no memory: [`WAITING_MESSAGES_MAX`] is what stops a sender.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Messages of a channel that wait for us before the library stops reading from the host. Each is at
/// most a packet of 256 KiB: this bounds what a host can make us hold.
const WAITING_MESSAGES_MAX: usize = 16;

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_G14_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

const CIPHERS: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

const MACS: &[mac::Name] = &[
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA512,
    mac::HMAC_SHA256,
];

const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP521,
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha512),
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha256),
    },
];

/// `known` are the types of key that are known for this host.
pub(super) fn config(known: &[Algorithm]) -> client::Config {
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-Holdfast_",
            env!("CARGO_PKG_VERSION")
        ))),
        window_size: WINDOW_BYTES,
        channel_buffer_size: WAITING_MESSAGES_MAX,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Owned(host_keys(known)),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        nodelay: true,
        ..client::Config::default()
    }
}

/// Known types first: a server with several keys shows the one that we know, and is not taken for
/// another. The rest stay on the list, so that a server that lost that key is told from one that is
/// not there.
fn host_keys(known: &[Algorithm]) -> Vec<Algorithm> {
    let is_known = |offer: &&Algorithm| known.iter().any(|known| is_of_type(offer, known));
    let (mut first, rest): (Vec<&Algorithm>, Vec<&Algorithm>) =
        HOST_KEYS.iter().partition(is_known);
    first.extend(rest);
    first.into_iter().cloned().collect()
}

/// The hash is of a signature, not of the key.
fn is_of_type(offer: &Algorithm, known: &Algorithm) -> bool {
    let is_rsa = |algorithm: &Algorithm| matches!(algorithm, Algorithm::Rsa { .. });
    offer == known || (is_rsa(offer) && is_rsa(known))
}

/// Why this key proves too little, if it does.
pub(super) fn weakness(key: &PublicKey) -> Option<String> {
    match key.key_data() {
        KeyData::Rsa(rsa) if rsa.key_size() < RSA_BITS_MIN => Some(format!(
            "an RSA key of {} bits; at least {RSA_BITS_MIN} are asked for",
            rsa.key_size()
        )),
        KeyData::Rsa(_) | KeyData::Ed25519(_) | KeyData::Ecdsa(_) => None,
        _ => Some(format!("a key of type {}", key.algorithm())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_that_is_known_is_asked_for_first() {
        let check = |known: &[Algorithm], first: &[&str]| {
            let asked = host_keys(known);
            let names: Vec<&str> = asked.iter().map(Algorithm::as_str).collect();
            assert_eq!(&names[..first.len()], first, "{known:?}");
            assert_eq!(names.len(), HOST_KEYS.len());
        };
        check(&[], &["ssh-ed25519"]);
        check(
            &[Algorithm::Rsa { hash: None }],
            &["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"],
        );
        check(
            &[Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP384,
            }],
            &["ecdsa-sha2-nistp384", "ssh-ed25519"],
        );
    }

    #[test]
    fn nothing_old_is_offered() {
        let config = config(&[]);
        let names: Vec<String> = [
            KEX.iter()
                .map(|name| name.as_ref().to_owned())
                .collect::<Vec<_>>(),
            CIPHERS
                .iter()
                .map(|name| name.as_ref().to_owned())
                .collect(),
            MACS.iter().map(|name| name.as_ref().to_owned()).collect(),
            config
                .preferred
                .key
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect(),
        ]
        .concat();
        for name in names {
            for old in [
                "sha1",
                "cbc",
                "3des",
                "group1-",
                "group-exchange",
                "ssh-rsa",
                "dss",
            ] {
                assert!(!name.contains(old), "{name}");
            }
        }
        assert!(KEX.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT));
        assert_eq!(config.preferred.compression.as_ref(), &[compression::NONE]);
    }
}
