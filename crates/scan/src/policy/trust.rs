//! What a document is measured against: trusted and revoked keys, and what is in force.

use std::collections::BTreeMap;

use world::Timestamp;

use super::{
    Version,
    document::Document,
    envelope::Envelope,
    key::{KeyId, PublicKey},
    refusal::{Reason, Refused},
    revocation::RevocationList,
};

/// Everything outside a document that decides whether it is taken.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// The list in force, if there ever was one.
    pub list: Option<RevocationList>,
    /// Version and SHA-256 of the policy in force.
    pub in_force: Option<(Version, String)>,
}

impl Trust {
    fn key(&self, id: &KeyId) -> Option<PublicKey> {
        self.keys.get(id).cloned()
    }

    pub(super) fn revoked(&self, id: &KeyId) -> Option<&str> {
        let list = self.list.as_ref()?;
        list.revoked.get(id).map(String::as_str)
    }

    fn must_not_be_revoked(&self, id: &KeyId) -> Result<(), Refused> {
        match self.revoked(id) {
            None => Ok(()),
            Some(why) => Err(Refused::new(
                Reason::RevokedKey,
                format!("the key {id} that signed it is revoked: {why}"),
                "sign it with another trusted key",
            )),
        }
    }

    /// What is wrong with a policy that is to come into force, the gravest first. Empty: nothing.
    pub fn examine(
        &self,
        bytes: &[u8],
        file: &str,
        now: Timestamp,
    ) -> (Option<Document>, Vec<Refused>) {
        let mut wrong = Vec::new();
        let document = match Document::parse(bytes, file) {
            Ok(document) => Some(document),
            Err(faults) => {
                wrong.push(Refused::of_faults("document", &faults));
                None
            }
        };
        // The signature of a document with faults is looked at too, to tell everything at once.
        if let Ok(envelope) = Envelope::parse(bytes) {
            let signed = envelope.verify(|id| self.key(id));
            wrong.extend(signed.and_then(|key| self.must_not_be_revoked(&key)).err());
        }
        wrong.extend(self.list_is_out_of_date(now));
        if let Some(document) = &document {
            wrong.extend(document.must_hold(now).err());
            wrong.extend(self.regression(document));
        }
        (document, wrong)
    }

    /// A policy that was in force before: the same, but for what only a newcomer must meet. Out of
    /// date revocations keep policies out and put none out of force: a fleet that is not scanned any
    /// more is worse than one scanned by the rules of last month.
    pub fn examine_stored(&self, document: &Document, now: Timestamp) -> Result<KeyId, Refused> {
        let key = document.verify(|id| self.key(id))?;
        self.must_not_be_revoked(&key)?;
        document.must_hold(now)?;
        Ok(key)
    }

    fn list_is_out_of_date(&self, now: Timestamp) -> Option<Refused> {
        let list = self.list.as_ref().filter(|list| list.expires <= now)?;
        Some(Refused::new(
            Reason::RevocationExpired,
            format!(
                "the revocation list {} is out of date: whose keys are revoked since is not known",
                list.serial
            ),
            "load a newer list with `holdfast policy reload --revocations FILE`",
        ))
    }

    fn regression(&self, document: &Document) -> Option<Refused> {
        let (version, sha256) = self.in_force.as_ref()?;
        let offered = document.policy.version;
        if offered > *version || document.sha256() == *sha256 {
            return None;
        }
        Some(Refused::new(
            Reason::VersionRegression,
            format!("version {offered} is not above {version}, which is in force"),
            format!(
                "raise `version` to {} or higher and sign it again",
                version.next()
            ),
        ))
    }

    /// Checks a revocation list that is to come into force. Its signer is none of its own: a list
    /// that takes away the key it stands on could not be checked when it is read again.
    pub(super) fn examine_list(
        &self,
        list: &RevocationList,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let key = list.verify(|id| self.key(id))?;
        self.must_not_be_revoked(&key)?;
        if list.revoked.contains_key(&key) {
            return Err(Refused::new(
                Reason::RevokedKey,
                format!("the list revokes the key {key} that signed it"),
                "sign it with another trusted key",
            ));
        }
        if list.expires <= now {
            return Err(Refused::new(
                Reason::Expired,
                format!("the revocation list {} is out of date", list.serial),
                "get the newest from who signs it",
            ));
        }
        let Some(held) = &self.list else {
            return Ok(());
        };
        let regression = |detail: String| {
            Refused::new(
                Reason::RevocationRegression,
                detail,
                "get the newest list from who signs it",
            )
        };
        if list.serial <= held.serial && list.sha256() != held.sha256() {
            return Err(regression(format!(
                "revocation list {} is not above {}, which is in force",
                list.serial, held.serial
            )));
        }
        match held
            .revoked
            .keys()
            .find(|key| !list.revoked.contains_key(key))
        {
            None => Ok(()),
            Some(key) => Err(regression(format!(
                "revocation list {} leaves out the key {key}, which is revoked",
                list.serial
            ))),
        }
    }
}
