//! The revocation list: which keys sign nothing any more, as a signed document.
//!
//! Its serial only grows, and a key that is on a list is on every later one: an older list, or one
//! that leaves a key out, cannot bring a key back. It expires, so that whoever holds back a newer
//! list can do so only for a while: beyond that no policy is taken until a list is.

use std::collections::BTreeMap;

use world::Timestamp;

use super::{
    document::{check_type, rfc3339},
    envelope::{self, Envelope},
    key::{KeyId, PrivateKey, PublicKey},
    reader::Reader,
    refusal::Refused,
};
use crate::rule::Fault;

pub(super) const TYPE: &str = "revocation";
const FIELDS: [&str; 6] = [
    "type",
    "serial",
    "expires",
    "metadata",
    "revoked",
    "signature",
];
const METADATA: [&str; 3] = ["description", "signed_by", "signed_at"];
/// Keys on one list: a key a week for twenty years.
const REVOKED_MAX: usize = 1000;

/// A revocation list. Its signature is not checked yet.
#[derive(Clone, Debug)]
pub struct RevocationList {
    pub serial: u32,
    /// The first moment at which it is out of date.
    pub expires: Timestamp,
    /// Why, by key.
    pub revoked: BTreeMap<KeyId, String>,
    envelope: Envelope,
}

impl RevocationList {
    /// Everything that is wrong with it at once. `file` is only named in faults.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Vec<Fault>> {
        let named = |faults: Vec<Fault>| -> Vec<Fault> {
            faults
                .into_iter()
                .map(|fault| fault.in_file(file))
                .collect()
        };
        let envelope = Envelope::parse(bytes).map_err(|fault| named(vec![fault]))?;
        let mut reader = Reader::default();
        let document = reader.section(Some(&envelope.root), "the document", &FIELDS);
        check_type(&mut reader, &document, TYPE, &[TYPE]);
        reader.need(&document, "serial");
        let serial = reader.number_in(&document, "serial", 1..=u32::MAX, 1);
        let expires = reader.need(&document, "expires");
        let expires = reader.moment(expires, "expires");
        let metadata = reader.need(&document, "metadata");
        let metadata = reader.section(metadata, "`metadata`", &METADATA);
        reader.words(metadata.get("description"), "description");
        reader.words(metadata.get("signed_by"), "signed_by");
        reader.moment(metadata.get("signed_at"), "signed_at");
        let revoked = reader.need(&document, "revoked");
        let revoked = revoked.map_or_else(BTreeMap::new, |node| keys(&mut reader, node));
        match (reader.faults.is_empty(), expires) {
            (true, Some(expires)) => Ok(Self {
                serial,
                expires,
                revoked,
                envelope,
            }),
            _ => Err(named(reader.faults)),
        }
    }

    pub fn text(&self) -> &str {
        &self.envelope.text
    }

    pub fn sha256(&self) -> String {
        self.envelope.sha256()
    }

    pub(super) fn verify(
        &self,
        trusted: impl Fn(&KeyId) -> Option<PublicKey>,
    ) -> Result<KeyId, Refused> {
        self.envelope.verify(trusted)
    }
}

fn keys(reader: &mut Reader, node: &crate::rule::yaml::Node) -> BTreeMap<KeyId, String> {
    let mut revoked = BTreeMap::new();
    let list = match node.list("`revoked`") {
        Ok(list) => list,
        Err(fault) => {
            reader.fault(fault);
            &[]
        }
    };
    if list.len() > REVOKED_MAX {
        reader.fault(Fault::at(
            node.at,
            format!("`revoked` has {} keys, at most {REVOKED_MAX}", list.len()),
        ));
        return revoked;
    }
    for item in list {
        let section = reader.section(Some(item), "a revoked key", &["key_id", "reason"]);
        let id = reader.need(&section, "key_id");
        let id_text = reader.words(id, "key_id");
        let reason = reader.need(&section, "reason");
        let reason = reader.words(reason, "reason");
        match id_text.as_deref().map(KeyId::parse) {
            Some(Some(key)) => {
                revoked.insert(key, reason.unwrap_or_default());
            }
            Some(None) => reader.fault(Fault::at(
                item.at,
                "`key_id` is not 32 digits and letters a to f, in quotes",
            )),
            None => {}
        }
    }
    revoked
}

/// A list signed by `key`.
pub(super) fn sign_list(
    serial: u32,
    expires: Timestamp,
    revoked: &BTreeMap<KeyId, String>,
    key: &PrivateKey,
    signed_by: &str,
    signed_at: Timestamp,
) -> Result<String, Fault> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let rows: String = revoked
        .iter()
        .map(|(key, reason)| format!("  - key_id: \"{key}\"\n    reason: {}\n", quoted(reason)))
        .collect();
    let text = format!(
        "type: {TYPE}\nserial: {serial}\nexpires: \"{}\"\nmetadata:\n  description: keys that sign nothing any more\nrevoked:\n{rows}",
        rfc3339(expires)
    );
    envelope::sign(&text, key, signed_by, &rfc3339(signed_at))
}
