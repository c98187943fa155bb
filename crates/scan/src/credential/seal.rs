//! Sealing: XChaCha20-Poly1305 under the data key, one field at a time.
//!
//! The associated data of a field is everything of the row that is not sealed, and the field's name:
//! a ciphertext moved to another credential, field or version does not open, and neither does any
//! when the user, the way to root or the set of fields was changed beside it.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};
use world::Random;
use zeroize::Zeroizing;

use super::{DataKey, PublicKeyShown, Secret, Sudo};
use crate::inventory::{Error, Kind};

const NONCE_LEN: usize = 24;
const DOMAIN: &[u8] = b"holdfast.credential/1\0";

/// A secret part of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    Password,
    PrivateKey,
    Passphrase,
    SudoPassword,
}

impl Field {
    pub(super) const ALL: [Self; 4] = [
        Self::Password,
        Self::PrivateKey,
        Self::Passphrase,
        Self::SudoPassword,
    ];

    /// Part of the associated data: never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::PrivateKey => "private_key",
            Self::Passphrase => "passphrase",
            Self::SudoPassword => "sudo_password",
        }
    }
}

/// What of a credential may be shown. Its JSON is associated data: a field that is added later must
/// not be written while it has its default, or rows from before do not open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    pub name: String,
    /// Counts sealings of this name, from 1.
    pub version: u64,
    pub user: String,
    pub sudo: Sudo,
    pub fields: BTreeSet<Field>,
    pub public_key: Option<PublicKeyShown>,
    /// [`DataKey::id`] of what it is sealed under.
    pub data_key: String,
    /// Nanoseconds since the epoch.
    pub added: u64,
    /// When its secrets were last replaced.
    pub rotated: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) heading: Credential,
    pub(super) sealed: BTreeMap<Field, Sealed>,
}

/// Both in base64.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    pub(super) nonce: String,
    pub(super) ciphertext: String,
}

impl Row {
    /// `heading.fields` and `heading.data_key` are set here.
    pub(super) fn seal(
        mut heading: Credential,
        secret: &Secret,
        key: &DataKey,
        random: &dyn Random,
    ) -> Result<Self, Error> {
        heading.fields = Field::ALL
            .into_iter()
            .filter(|field| secret.field(*field).is_some())
            .collect();
        heading.data_key = key.id();
        let cipher = cipher(key);
        let mut sealed = BTreeMap::new();
        for field in heading.fields.iter().copied() {
            let plain = secret.field(field).map_or("", |word| word.as_str());
            let mut nonce = [0; NONCE_LEN];
            random
                .fill(&mut nonce)
                .map_err(|error| Error::new(Kind::Storage, "no random bytes").with_source(error))?;
            let payload = Payload {
                msg: plain.as_bytes(),
                aad: &associated(&heading, field),
            };
            let ciphertext = cipher
                .encrypt(&XNonce::from(nonce), payload)
                .map_err(|_| Error::new(Kind::Storage, "a secret is too long to seal"))?;
            let row = Sealed {
                nonce: BASE64.encode(nonce),
                ciphertext: BASE64.encode(ciphertext),
            };
            sealed.insert(field, row);
        }
        Ok(Self { heading, sealed })
    }

    /// One answer for every damage: which byte is wrong is nobody's business.
    pub(super) fn open(&self, key: &DataKey) -> Result<Secret, Error> {
        let mut secret = Secret::of_user(&self.heading.user, self.heading.sudo);
        secret.credential.clone_from(&self.heading.name);
        if self.sealed.keys().copied().collect::<BTreeSet<_>>() != self.heading.fields {
            return Err(damaged(&self.heading.name));
        }
        let cipher = cipher(key);
        for (field, sealed) in &self.sealed {
            let plain = self
                .open_field(&cipher, *field, sealed)
                .ok_or_else(|| damaged(&self.heading.name))?;
            *secret.field_mut(*field) = Some(plain);
        }
        Ok(secret)
    }

    fn open_field(
        &self,
        cipher: &XChaCha20Poly1305,
        field: Field,
        sealed: &Sealed,
    ) -> Option<Zeroizing<String>> {
        let nonce: [u8; NONCE_LEN] = BASE64.decode(&sealed.nonce).ok()?.try_into().ok()?;
        let ciphertext = BASE64.decode(&sealed.ciphertext).ok()?;
        let payload = Payload {
            msg: &ciphertext,
            aad: &associated(&self.heading, field),
        };
        let plain = Zeroizing::new(cipher.decrypt(&XNonce::from(nonce), payload).ok()?);
        let text = std::str::from_utf8(&plain).ok()?;
        Some(Zeroizing::new(text.to_owned()))
    }
}

fn cipher(key: &DataKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.bytes().into())
}

/// The heading is a struct: serde writes its fields in the order of their declaration.
fn associated(heading: &Credential, field: Field) -> Vec<u8> {
    let mut bytes = DOMAIN.to_vec();
    bytes.extend_from_slice(field.name().as_bytes());
    bytes.push(0);
    serde_json::to_writer(&mut bytes, heading).expect("a heading is a plain struct");
    bytes
}

fn damaged(name: &str) -> Error {
    let message = format!(
        "credential `{}` does not open: wrong data key, or what is stored was changed",
        name.escape_debug()
    );
    Error::new(Kind::Sealed, message)
}
