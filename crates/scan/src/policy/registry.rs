//! Policies in the store: the one in force, those before it, trusted keys and the revocation list.
//!
//! What is kept is the signed document itself, and it is checked again whenever it is read: a row
//! that was changed behind our back is refused like a file that was. A refused reload leaves
//! everything as it was. Times and names of who did it are parameters.

use std::{collections::BTreeMap, fmt, io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use store::{History, Keys, Order, Store, Table, TableId, Transaction};
use world::{Disk, Random, Timestamp};
use zeroize::Zeroizing;

use super::{
    Clamp, Policy, Version,
    document::{self, Document, Metadata},
    key::{KEY_FILE_BYTES_MAX, KeyId, PrivateKey, PublicKey},
    refusal::{Reason, Refused},
    revocation::{self, RevocationList},
    span,
    trust::Trust,
};
use crate::audit::{Audit, Record};
use crate::backend::Counts;

/// Trusted keys: people who sign policies of one site, over years.
const KEYS_MAX: usize = 64;
/// Rows of one answer of the history; a policy a day for three years.
const HISTORY_MAX: usize = 1000;
/// Name of the private key below the keys of the data directory.
pub const KEY_FILE: &str = "policy.key";

const ACTIVE: &str = "policy.active";
const LOADED: &str = "policy.loaded";
const TRUSTED: &str = "policy.trusted";
const REVOCATION: &str = "policy.revocation";
/// There is one row in the tables of what is in force.
const ONE: &[u8] = b"in force";

#[derive(Clone, Copy, Debug)]
struct Tables {
    active: TableId,
    loaded: TableId,
    trusted: TableId,
    revocation: TableId,
}

/// One policy that came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    pub version: Version,
    pub sha256: String,
    pub key_id: KeyId,
    /// Nanoseconds since the epoch.
    pub loaded_at: u64,
    pub loaded_by: String,
    /// The signed document.
    pub text: String,
}

/// A key that may sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// Base64.
    pub public_key: String,
    pub trusted_at: u64,
    pub trusted_by: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ListRow {
    text: String,
    loaded_at: u64,
    loaded_by: String,
}

/// The policy in force, checked.
#[derive(Clone, Debug)]
pub struct Active {
    pub document: Document,
    pub loaded: Loaded,
}

impl Active {
    pub fn policy(&self) -> &Policy {
        &self.document.policy
    }
}

/// What a start found.
#[derive(Clone, Debug)]
pub enum Start {
    InForce(Active),
    /// The first one: built-in defaults, signed by a key that was made for it.
    FirstStart(Active),
}

/// What is to be loaded: a policy, a revocation list, or both in one step. Names are for faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer<'a> {
    pub policy: Option<(&'a [u8], &'a str)>,
    pub list: Option<(&'a [u8], &'a str)>,
}

/// What a reload did.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The policy in force afterwards, if there is one.
    pub active: Option<Active>,
    /// False: what was offered is in force already, to the byte.
    pub changed: bool,
    /// The key of the policy in force is revoked: the next look at it refuses it, and nothing is
    /// dispatched until another is loaded.
    pub active_key_revoked: bool,
}

/// Policies on a store that has [`Registry::tables`] and [`Audit::tables`].
#[derive(Clone)]
pub struct Registry {
    store: Store,
    tables: Tables,
    audit: Audit,
    counts: Counts,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    pub fn tables() -> Vec<Table> {
        [
            (ACTIVE, History::Forever),
            (LOADED, History::Latest),
            (TRUSTED, History::Forever),
            (REVOCATION, History::Forever),
        ]
        .into_iter()
        .map(|(name, history)| Table::new(name, history))
        .collect()
    }

    pub fn new(store: Store) -> Result<Self, Refused> {
        let tables = Tables {
            active: store.table(ACTIVE)?,
            loaded: store.table(LOADED)?,
            trusted: store.table(TRUSTED)?,
            revocation: store.table(REVOCATION)?,
        };
        let audit = Audit::of(&store)?;
        let counts = Counts::of(&store)?;
        Ok(Self {
            store,
            tables,
            audit,
            counts,
        })
    }

    /// The policy to start with. On the very first start, with neither policy nor trusted key, that
    /// is the built-in one, signed by the key in `keys_dir`, which is made if it is not there. A
    /// start that is refused leaves nothing running and is told by its reason.
    pub fn start(
        &self,
        disk: &dyn Disk,
        keys_dir: &Path,
        random: &dyn Random,
        now: Timestamp,
        by: &str,
    ) -> Result<Start, Refused> {
        if !self.is_first_start(disk, keys_dir)? {
            let found = self.in_force(now).map(Start::InForce);
            if let Err(refused) = &found {
                let detail = json!({ "reason": refused.reason, "detail": refused.detail });
                self.audit_alone(now, by, "policy.startup.refused", "policy", detail)?;
            }
            return found;
        }
        // The key's file, then its row and the policy at once: a crash in between leaves a first start
        // that goes on. Of several machines' only one comes about, and the others start with that.
        let key = key_of_first_start(disk, keys_dir, random)?;
        let text = built_in(&key, by, now)?;
        let offer = Offer {
            policy: Some((text.as_bytes(), "built-in policy")),
            list: None,
        };
        let first = self.store.transact(|transaction| {
            if !self.is_first_start_in(transaction, disk, keys_dir)? {
                return Ok(None);
            }
            self.trust_in(transaction, &key.public(), now, by)?;
            self.load_in(transaction, offer, now, by).map(Some)
        });
        let Some(first) = first? else {
            return self.in_force(now).map(Start::InForce);
        };
        first
            .active
            .map(Start::FirstStart)
            .ok_or_else(|| missing("the built-in policy was not loaded"))
    }

    /// Nothing was ever in force, and nobody is trusted but the key that a first start made.
    fn is_first_start(&self, disk: &dyn Disk, keys_dir: &Path) -> Result<bool, Refused> {
        self.is_first_start_in(&mut self.store.begin()?, disk, keys_dir)
    }

    fn is_first_start_in(
        &self,
        transaction: &mut Transaction,
        disk: &dyn Disk,
        keys_dir: &Path,
    ) -> Result<bool, Refused> {
        if self.active_row(transaction)?.is_some() {
            return Ok(false);
        }
        let trusted = self.trusted_rows(transaction)?;
        if trusted.is_empty() {
            return Ok(true);
        }
        let made = read_key(disk, &keys_dir.join(KEY_FILE)).map(|key| key.public().id());
        Ok(made.is_ok_and(|made| trusted.keys().all(|key| *key == made)))
    }

    /// The policy in force, checked again: signature, revocation, from when to when it holds.
    pub fn in_force(&self, now: Timestamp) -> Result<Active, Refused> {
        let mut transaction = self.store.begin()?;
        let row = self
            .active_row(&mut transaction)?
            .ok_or_else(|| missing("no policy is in force"))?;
        let trust = self.trust_of(&mut transaction)?;
        let document = stored(&row)?;
        trust.examine_stored(&document, now)?;
        Ok(Active {
            document,
            loaded: row,
        })
    }

    /// Everything that decides whether a document is taken.
    pub fn trust_now(&self) -> Result<Trust, Refused> {
        self.trust_of(&mut self.store.begin()?)
    }

    /// Makes `key` one that may sign.
    pub fn trust(&self, key: &PublicKey, now: Timestamp, by: &str) -> Result<bool, Refused> {
        self.store
            .transact(|transaction| self.trust_in(transaction, key, now, by))
    }

    fn trust_in(
        &self,
        transaction: &mut Transaction,
        key: &PublicKey,
        now: Timestamp,
        by: &str,
    ) -> Result<bool, Refused> {
        let id = key.id();
        let trust = self.trust_of(transaction)?;
        if let Some(why) = trust.revoked(&id) {
            return Err(Refused::new(
                Reason::RevokedKey,
                format!("the key {id} is revoked: {why}"),
                "make another with `holdfast policy keygen`",
            ));
        }
        if trust.keys.contains_key(&id) {
            return Ok(false);
        }
        if trust.keys.len() >= KEYS_MAX {
            return Err(Refused::new(
                Reason::Invalid,
                format!("{KEYS_MAX} keys are trusted already"),
                "have fewer people sign policies",
            ));
        }
        let row = Trusted {
            public_key: key.base64(),
            trusted_at: now.nanos(),
            trusted_by: by.to_owned(),
        };
        transaction.put(self.tables.trusted, id.as_str().as_bytes(), &encode(&row))?;
        let detail = json!({ "public_key": row.public_key });
        let record = Record::new(now, by, "policy.key.trusted", id.as_str(), detail);
        self.audit.append(transaction, &record)?;
        Ok(true)
    }

    /// Loads what is offered, all of it or nothing. What is refused is audited with its reason.
    pub fn reload(&self, offer: Offer<'_>, now: Timestamp, by: &str) -> Result<Reloaded, Refused> {
        let done = self
            .store
            .transact(|transaction| self.load_in(transaction, offer, now, by));
        if let Err(refused) = &done {
            let (action, detail) = self.rejection(offer, refused)?;
            self.audit_alone(now, by, action, "policy", detail)?;
        }
        done
    }

    fn rejection(
        &self,
        offer: Offer<'_>,
        refused: &Refused,
    ) -> Result<(&'static str, Value), Refused> {
        let attempted = offer
            .policy
            .and_then(|(bytes, file)| Document::parse(bytes, file).ok())
            .map(|document| document.policy.version);
        let active = self.active_row(&mut self.store.begin()?)?;
        let action = match refused.reason {
            Reason::RevokedKey => "policy.revoked_key.rejected",
            _ => "policy.reload.rejected",
        };
        let detail = json!({
            "reason": refused.reason,
            "detail": refused.detail,
            "version_attempted": attempted,
            "version_active": active.map(|row| row.version),
        });
        Ok((action, detail))
    }

    /// For what changed nothing else.
    fn audit_alone(
        &self,
        now: Timestamp,
        by: &str,
        action: &str,
        object: &str,
        detail: Value,
    ) -> Result<(), Refused> {
        let mut transaction = self.store.begin()?;
        let record = Record::new(now, by, action, object, detail);
        self.audit.append(&mut transaction, &record)?;
        transaction.commit()?;
        record.tell();
        Ok(())
    }

    fn load_in(
        &self,
        transaction: &mut Transaction,
        offer: Offer<'_>,
        now: Timestamp,
        by: &str,
    ) -> Result<Reloaded, Refused> {
        let mut trust = self.trust_of(transaction)?;
        let mut changed = false;
        // The list first: it decides about the policy that comes with it.
        if let Some((bytes, file)) = offer.list {
            let list = RevocationList::parse(bytes, file)
                .map_err(|faults| Refused::of_faults("list", &faults))?;
            trust.examine_list(&list, now)?;
            if trust
                .list
                .as_ref()
                .is_none_or(|held| held.sha256() != list.sha256())
            {
                let row = ListRow {
                    text: list.text().to_owned(),
                    loaded_at: now.nanos(),
                    loaded_by: by.to_owned(),
                };
                transaction.put(self.tables.revocation, ONE, &encode(&row))?;
                let detail = json!({ "serial": list.serial, "revoked": list.revoked });
                let record = Record::new(now, by, "policy.revocations.loaded", "policy", detail);
                self.audit.append(transaction, &record)?;
                changed = true;
            }
            trust.list = Some(list);
        }
        if let Some((bytes, file)) = offer.policy {
            changed |= self.take(transaction, &trust, bytes, file, now, by)?;
        }
        let row = self.active_row(transaction)?;
        let active = row
            .map(|loaded| stored(&loaded).map(|document| Active { document, loaded }))
            .transpose()?;
        Ok(Reloaded {
            active_key_revoked: active
                .as_ref()
                .is_some_and(|active| trust.revoked(&active.loaded.key_id).is_some()),
            active,
            changed,
        })
    }

    /// False when it is in force already.
    fn take(
        &self,
        transaction: &mut Transaction,
        trust: &Trust,
        bytes: &[u8],
        file: &str,
        now: Timestamp,
        by: &str,
    ) -> Result<bool, Refused> {
        let (document, mut wrong) = trust.examine(bytes, file, now);
        let document = match document {
            Some(document) if wrong.is_empty() => document,
            // Examined, so that one of them is there.
            _ => return Err(wrong.swap_remove(0)),
        };
        let sha256 = document.sha256();
        if trust
            .in_force
            .as_ref()
            .is_some_and(|(_, held)| *held == sha256)
        {
            return Ok(false);
        }
        let row = Loaded {
            version: document.policy.version,
            key_id: document.verify(|id| trust.keys.get(id).cloned())?,
            sha256,
            loaded_at: now.nanos(),
            loaded_by: by.to_owned(),
            text: document.text().to_owned(),
        };
        let bytes = encode(&row);
        transaction.put(self.tables.active, ONE, &bytes)?;
        transaction.put(self.tables.loaded, &history_key(&row), &bytes)?;
        let object = row.version.to_string();
        let detail = json!({
            "sha256": row.sha256,
            "key_id": row.key_id,
            "version_before": trust.in_force.as_ref().map(|(version, _)| version),
        });
        let record = Record::new(now, by, "policy.loaded", &object, detail);
        self.audit.append(transaction, &record)?;
        for clamp in &document.policy.clamps {
            let record = Record::new(now, by, "policy.clamped", &object, clamp_detail(clamp));
            self.audit.append(transaction, &record)?;
        }
        let clamped = document.policy.clamps.len() as u64;
        if clamped > 0 {
            self.counts.clamped_in(transaction, clamped)?;
        }
        Ok(true)
    }

    /// The next list: everything that is revoked, and `key`; signed by `by_key` and loaded.
    pub fn revoke(
        &self,
        key: &KeyId,
        why: &str,
        expires: Timestamp,
        by_key: &PrivateKey,
        now: Timestamp,
        by: &str,
    ) -> Result<(RevocationList, Reloaded), Refused> {
        let trust = self.trust_now()?;
        let (serial, mut revoked) = match &trust.list {
            Some(list) => (list.serial.saturating_add(1), list.revoked.clone()),
            None => (1, BTreeMap::new()),
        };
        if trust.revoked(key).is_some() {
            return Err(Refused::new(
                Reason::Invalid,
                format!("the key {key} is revoked already"),
                "nothing is left to do",
            ));
        }
        revoked.insert(key.clone(), why.to_owned());
        let text = revocation::sign_list(serial, expires, &revoked, by_key, by, now)
            .map_err(|fault| Refused::of_faults("list", &[fault]))?;
        let offer = Offer {
            policy: None,
            list: Some((text.as_bytes(), "revocation list")),
        };
        let reloaded = self.reload(offer, now, by)?;
        let list = RevocationList::parse(text.as_bytes(), "revocation list")
            .map_err(|faults| Refused::of_faults("list", &faults))?;
        Ok((list, reloaded))
    }

    /// Policies that came into force, the newest first.
    pub fn history(&self) -> Result<Vec<Loaded>, Refused> {
        let rows = self.store.begin()?.range(
            self.tables.loaded,
            &Keys::all(),
            Order::Descending,
            HISTORY_MAX,
        )?;
        rows.iter().map(|(_, value)| decode(value)).collect()
    }

    /// Keys that may sign, revoked ones included.
    pub fn trusted(&self) -> Result<Vec<(KeyId, Trusted)>, Refused> {
        let rows = self.trusted_rows(&mut self.store.begin()?)?;
        Ok(rows.into_iter().collect())
    }

    fn active_row(&self, transaction: &mut Transaction) -> Result<Option<Loaded>, Refused> {
        let found = transaction.get(self.tables.active, ONE)?;
        found.map(|value| decode(&value)).transpose()
    }

    fn trusted_rows(
        &self,
        transaction: &mut Transaction,
    ) -> Result<BTreeMap<KeyId, Trusted>, Refused> {
        let rows = transaction.range(
            self.tables.trusted,
            &Keys::all(),
            Order::Ascending,
            KEYS_MAX,
        )?;
        rows.iter()
            .map(|(_, value)| {
                let row: Trusted = decode(value)?;
                let key =
                    PublicKey::parse(&row.public_key).ok_or_else(|| unreadable("a trusted key"))?;
                Ok((key.id(), row))
            })
            .collect()
    }

    fn trust_of(&self, transaction: &mut Transaction) -> Result<Trust, Refused> {
        let keys = self
            .trusted_rows(transaction)?
            .into_iter()
            .map(|(id, row)| {
                let key =
                    PublicKey::parse(&row.public_key).ok_or_else(|| unreadable("a trusted key"))?;
                Ok((id, key))
            })
            .collect::<Result<_, Refused>>()?;
        let mut trust = Trust {
            keys,
            ..Trust::default()
        };
        if let Some(value) = transaction.get(self.tables.revocation, ONE)? {
            let row: ListRow = decode(&value)?;
            let list = RevocationList::parse(row.text.as_bytes(), "revocation list in force")
                .map_err(|faults| Refused::of_faults("list", &faults))?;
            list.verify(|id| trust.keys.get(id).cloned())?;
            trust.list = Some(list);
        }
        trust.in_force = self
            .active_row(transaction)?
            .map(|row| (row.version, row.sha256));
        Ok(trust)
    }
}

/// What the row says beside the document is for people; what counts is the document.
fn stored(row: &Loaded) -> Result<Document, Refused> {
    Document::parse(row.text.as_bytes(), "policy in force")
        .map_err(|faults| Refused::of_faults("document", &faults))
}

fn missing(detail: &str) -> Refused {
    Refused::new(
        Reason::PolicyMissing,
        detail,
        "`holdfast policy show > p.yaml` prints the built-in one; then `policy sign` and `policy reload`",
    )
}

fn clamp_detail(clamp: &Clamp) -> Value {
    json!({
        "tier": clamp.tier,
        "original": span::words(clamp.original),
        "clamped": span::words(clamp.clamped),
        "bound": clamp.bound,
    })
}

/// By time, so that a range is the order in which they came into force.
fn history_key(row: &Loaded) -> Vec<u8> {
    let mut key = row.loaded_at.to_be_bytes().to_vec();
    key.extend_from_slice(row.version.to_string().as_bytes());
    key
}

/// The text of the built-in policy, unsigned: the first that a site edits. It holds from no moment
/// on: a clock that was ahead at the first start must not refuse the next one.
pub fn built_in_text() -> String {
    let policy = Policy {
        version: Version::new(0, 1, 0),
        ..Policy::default()
    };
    let metadata = Metadata {
        description: "built-in defaults".to_owned(),
        ..Metadata::default()
    };
    document::render(&policy, &metadata)
}

fn built_in(key: &PrivateKey, by: &str, now: Timestamp) -> Result<String, Refused> {
    document::sign(&built_in_text(), "built-in policy", key, by, now)
        .map_err(|faults| Refused::of_faults("document", &faults))
}

fn key_of_first_start(
    disk: &dyn Disk,
    keys_dir: &Path,
    random: &dyn Random,
) -> Result<PrivateKey, Refused> {
    let path = keys_dir.join(KEY_FILE);
    let refuse = |error: io::Error| {
        Refused::new(
            Reason::Storage,
            format!("the key of the first policy, {}: {error}", path.display()),
            "check disk and permissions of the data directory with `holdfast doctor`",
        )
    };
    if disk.stat(&path).map_err(refuse)?.is_some() {
        return read_key(disk, &path).map_err(refuse);
    }
    disk.create_dir_all_synced(keys_dir).map_err(refuse)?;
    let key = PrivateKey::generate(random).map_err(refuse)?;
    disk.replace(&path, key.to_pem().as_bytes())
        .map_err(refuse)?;
    Ok(key)
}

/// A private key from its file.
pub fn read_key(disk: &dyn Disk, path: &Path) -> io::Result<PrivateKey> {
    let bytes = Zeroizing::new(disk.read(path, KEY_FILE_BYTES_MAX)?);
    str::from_utf8(&bytes)
        .ok()
        .and_then(PrivateKey::from_pem)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Ed25519 key in PKCS #8, PEM"))
}

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are plain structs with string keys")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(bytes).map_err(|_| unreadable("a row"))
}

fn unreadable(what: &str) -> Refused {
    Refused::new(
        Reason::Storage,
        format!("{what} of the policies in the store does not decode"),
        "run `holdfast doctor`; nothing was changed",
    )
}
