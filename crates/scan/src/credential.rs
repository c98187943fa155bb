//! Credentials: what logs in to hosts, sealed at rest (EXE-3).
//!
//! The credential `default` is for every host that has none of its own; a host's own one replaces
//! it wholly, nothing is blended. Secrets are in memory from [`Vault::resolve`] to the drop of the
//! [`Secret`], in buffers that are wiped; no message and no `Debug` shows one. Nothing here connects.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use store::{History, Keys, Order, Store, Table, TableId, Transaction};
use world::{Disk, Random, Timestamp};
use zeroize::Zeroizing;

use crate::{
    audit::{Audit, Record},
    failure::{Failure, Reason},
    inventory::{Error, Host, Inventory, Kind, Reach, field},
    site_key::{SiteKey, SiteKeys},
};

mod data_key;
pub mod private_key;
mod seal;
#[cfg(test)]
mod tests;

use data_key::KeyFiles;
use seal::Row;

pub use data_key::{DataKey, NAME as DATA_KEY_FILE, NEXT_NAME as NEXT_DATA_KEY_FILE};
pub use private_key::PublicKeyShown;
pub use seal::{Credential, Field};

/// The credential of every host that has none of its own.
pub const DEFAULT: &str = "default";
/// The directory of key files in a data directory.
pub const KEYS_DIR: &str = "keys";
/// Most credentials: rotating the data key seals all of them in one transaction.
pub const CREDENTIALS_MAX: usize = 10_000;
/// Bytes of a password or passphrase; what people paste by mistake is longer.
pub const PASSWORD_LEN_MAX: usize = 1024;

/// Latest only: a secret that was replaced is not kept.
const SEALED: &str = "credential.sealed";

/// How root is reached on a host (EXE-8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sudo {
    /// Not at all: what needs root is not assessed.
    Never,
    /// Only where sudo asks for no password.
    #[default]
    NoPassword,
    /// With the password, once, where sudo asks for it.
    Password,
}

impl Sudo {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::NoPassword => "nopassword",
            Self::Password => "password",
        }
    }
}

/// A credential in the open. Wiped when it is dropped.
#[derive(Clone, Default)]
pub struct Secret {
    /// The name of the credential that it comes from.
    pub credential: String,
    pub user: String,
    pub password: Option<Zeroizing<String>>,
    /// The text of the key file.
    pub private_key: Option<Zeroizing<String>>,
    /// Opens `private_key`.
    pub passphrase: Option<Zeroizing<String>>,
    /// None with [`Sudo::Password`]: the login password is sudo's too.
    pub sudo_password: Option<Zeroizing<String>>,
    pub sudo: Sudo,
}

impl Secret {
    pub fn of_user(user: &str, sudo: Sudo) -> Self {
        Self {
            user: user.to_owned(),
            sudo,
            ..Self::default()
        }
    }

    /// What sudo is told where it asks.
    pub fn sudo_answer(&self) -> Option<&Zeroizing<String>> {
        match self.sudo {
            Sudo::Password => self.sudo_password.as_ref().or(self.password.as_ref()),
            Sudo::Never | Sudo::NoPassword => None,
        }
    }

    fn field(&self, field: Field) -> Option<&Zeroizing<String>> {
        match field {
            Field::Password => self.password.as_ref(),
            Field::PrivateKey => self.private_key.as_ref(),
            Field::Passphrase => self.passphrase.as_ref(),
            Field::SudoPassword => self.sudo_password.as_ref(),
        }
    }

    fn field_mut(&mut self, field: Field) -> &mut Option<Zeroizing<String>> {
        match field {
            Field::Password => &mut self.password,
            Field::PrivateKey => &mut self.private_key,
            Field::Passphrase => &mut self.passphrase,
            Field::SudoPassword => &mut self.sudo_password,
        }
    }

    /// Refuses what could not log in anywhere, and gives what may be shown of the key.
    fn check(&self) -> Result<Option<PublicKeyShown>, Error> {
        let invalid = |message: String| Err(Error::new(Kind::Invalid, message));
        field::name("user", &self.user)?;
        let words = [
            ("password", &self.password),
            ("passphrase", &self.passphrase),
            ("sudo password", &self.sudo_password),
        ];
        for (what, word) in words {
            let Some(word) = word else { continue };
            if word.is_empty() || word.len() > PASSWORD_LEN_MAX {
                return invalid(format!(
                    "the {what} has {} bytes; 1 to {PASSWORD_LEN_MAX} can be",
                    word.len()
                ));
            }
            // A line break ends what sudo and a prompt read; none of them can be typed.
            if word.contains(['\n', '\r', '\0']) {
                return invalid(format!("the {what} has a line break or a zero byte"));
            }
        }
        let Some(key) = &self.private_key else {
            return match (&self.password, &self.passphrase) {
                (None, _) => invalid("a credential needs a key, a password, or both".to_owned()),
                (_, Some(_)) => invalid("a passphrase without a key".to_owned()),
                _ => Ok(None),
            };
        };
        private_key::check(key, self.passphrase.as_ref().map(|word| word.as_str()))
            .map(Some)
            .map_err(|fault| Error::new(Kind::Invalid, fault.to_string()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("credential", &self.credential)
            .field("user", &self.user)
            .field("sudo", &self.sudo)
            .finish_non_exhaustive()
    }
}

/// The sealed credentials of a store, and the key to them.
#[derive(Clone, Debug)]
pub struct Vault {
    store: Store,
    sealed: TableId,
    audit: Audit,
    files: KeyFiles,
    site_keys: SiteKeys,
    random: Arc<dyn Random>,
}

impl Vault {
    pub fn tables() -> Vec<Table> {
        vec![Table::new(SEALED, History::Latest)]
    }

    /// `keys`: the directory [`KEYS_DIR`] of the data directory; made when the first key is.
    pub fn new(
        store: Store,
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        keys: PathBuf,
    ) -> Result<Self, Error> {
        Ok(Self {
            sealed: store.table(SEALED)?,
            audit: Audit::of(&store)?,
            site_keys: SiteKeys::new(store.clone())?,
            store,
            files: KeyFiles::new(disk, keys),
            random,
        })
    }

    /// The data key, made when there is none, nothing is sealed yet, and the site has none elsewhere.
    pub fn data_key(&self) -> Result<DataKey, Error> {
        self.settle()?;
        let site_key = self.site_keys.get(DATA_KEY_FILE)?;
        match (self.files.current()?, site_key) {
            (Some(key), None) => return Ok(key),
            (Some(key), Some(site_key)) if key.id() == site_key.fingerprint => return Ok(key),
            (_, Some(site_key)) => return Err(self.key_elsewhere(&site_key)),
            (None, None) => {}
        }
        let sealed = self.list()?.len();
        if sealed > 0 {
            return Err(self.key_missing(sealed));
        }
        let key = DataKey::random(self.random.as_ref())?;
        self.files.write(&key)?;
        Ok(key)
    }

    /// As [`Vault::data_key`], on a store that several machines share: the first one's key is the site's
    /// from here on, and another is refused. `holder` says from where it can be copied.
    pub fn shared_data_key(&self, holder: &str, now: Timestamp) -> Result<DataKey, Error> {
        self.settle()?;
        let is_made_here = self.files.current()?.is_none();
        let key = self.data_key()?;
        let sealed = self.list()?;
        if let Some(other) = sealed.iter().find(|heading| heading.data_key != key.id()) {
            return Err(self.key_differs(other));
        }
        let settled = self
            .site_keys
            .settle(DATA_KEY_FILE, &key.id(), holder, now)?;
        if settled.fingerprint == key.id() {
            return Ok(key);
        }
        if is_made_here {
            // Nothing is sealed under it, and it would be taken for the site's.
            self.files.remove()?;
        }
        Err(self.key_elsewhere(&settled))
    }

    /// Seals a credential under a name that is free.
    pub fn add(
        &self,
        name: &str,
        secret: &Secret,
        at: Timestamp,
        actor: &str,
    ) -> Result<Credential, Error> {
        self.store
            .transact(|transaction| self.add_in(transaction, name, secret, at, actor))
    }

    /// As [`Vault::add`], in somebody else's transaction.
    pub fn add_in(
        &self,
        transaction: &mut Transaction,
        name: &str,
        secret: &Secret,
        at: Timestamp,
        actor: &str,
    ) -> Result<Credential, Error> {
        field::label("credential", name)?;
        let public_key = secret.check()?;
        let key = self.data_key()?;
        if self.row_in(transaction, name)?.is_some() {
            let message = format!("credential `{}` is there already", name.escape_debug());
            return Err(Error::new(Kind::Exists, message));
        }
        let rows = self.rows_in(transaction)?;
        // Two keys for the rows of one directory: whichever file is put back, some would not open.
        if let Some(other) = rows.iter().find(|row| row.heading.data_key != key.id()) {
            return Err(self.key_differs(&other.heading));
        }
        if rows.len() >= CREDENTIALS_MAX {
            let message = format!("{CREDENTIALS_MAX} credentials are there, and no more can be");
            return Err(Error::new(Kind::Invalid, message));
        }
        let heading = Credential {
            name: name.to_owned(),
            version: 1,
            user: secret.user.clone(),
            sudo: secret.sudo,
            fields: Default::default(),
            public_key,
            data_key: String::new(),
            added: at.nanos(),
            rotated: None,
        };
        let heading = self.seal_in(transaction, heading, secret, &key)?;
        let detail = serde_json::to_value(&heading).expect("a heading is a plain struct");
        let record = Record::new(at, actor, "credential.added", name, detail);
        self.audit.append(transaction, &record)?;
        Ok(heading)
    }

    /// Replaces all secrets of a credential; what was sealed before is gone.
    pub fn replace(
        &self,
        name: &str,
        secret: &Secret,
        at: Timestamp,
        actor: &str,
    ) -> Result<Credential, Error> {
        self.store
            .transact(|transaction| self.replace_in(transaction, name, secret, at, actor))
    }

    /// As [`Vault::replace`], in somebody else's transaction.
    pub fn replace_in(
        &self,
        transaction: &mut Transaction,
        name: &str,
        secret: &Secret,
        at: Timestamp,
        actor: &str,
    ) -> Result<Credential, Error> {
        let public_key = secret.check()?;
        let key = self.data_key()?;
        let found = self
            .row_in(transaction, name)?
            .ok_or_else(|| missing(name))?
            .heading;
        let heading = Credential {
            version: found.version + 1,
            user: secret.user.clone(),
            sudo: secret.sudo,
            public_key,
            rotated: Some(at.nanos()),
            ..found
        };
        let heading = self.seal_in(transaction, heading, secret, &key)?;
        let detail = serde_json::to_value(&heading).expect("a heading is a plain struct");
        let record = Record::new(at, actor, "credential.rotated", name, detail);
        self.audit.append(transaction, &record)?;
        Ok(heading)
    }

    /// Removes a credential. While hosts name it, or the default one stands for hosts without their
    /// own, only with `force`: they cannot be logged in to any more.
    pub fn remove(
        &self,
        inventory: &Inventory,
        name: &str,
        force: bool,
        at: Timestamp,
        actor: &str,
    ) -> Result<Vec<String>, Error> {
        self.store
            .transact(|transaction| self.remove_in(transaction, inventory, name, force, at, actor))
    }

    /// As [`Vault::remove`], in somebody else's transaction.
    pub fn remove_in(
        &self,
        transaction: &mut Transaction,
        inventory: &Inventory,
        name: &str,
        force: bool,
        at: Timestamp,
        actor: &str,
    ) -> Result<Vec<String>, Error> {
        if self.row_in(transaction, name)?.is_none() {
            return Err(missing(name));
        }
        let users: Vec<String> = inventory
            .list_in(transaction)?
            .into_iter()
            .filter(|host| host.retired.is_none() && uses(host, name))
            .map(|host| host.name)
            .collect();
        if !users.is_empty() && !force {
            let message = format!(
                "credential `{}` is in use, by {} of the hosts: `{}` is one",
                name.escape_debug(),
                users.len(),
                users[0].escape_debug()
            );
            return Err(Error::new(Kind::InUse, message));
        }
        transaction.delete(self.sealed, name.as_bytes())?;
        let detail = serde_json::json!({ "hosts_without": users.len() });
        let record = Record::new(at, actor, "credential.removed", name, detail);
        self.audit.append(transaction, &record)?;
        Ok(users)
    }

    /// What may be shown of every credential, by name.
    pub fn list(&self) -> Result<Vec<Credential>, Error> {
        self.store
            .snapshot()?
            .range(self.sealed, &Keys::all())?
            .take(CREDENTIALS_MAX)
            .map(|row| Ok(decode(&row?.1)?.heading))
            .collect()
    }

    pub fn get(&self, name: &str) -> Result<Option<Credential>, Error> {
        Ok(self.row(name)?.map(|row| row.heading))
    }

    /// A credential in the open, by its name.
    pub fn open(&self, name: &str) -> Result<Secret, Error> {
        let row = self.row(name)?.ok_or_else(|| missing(name))?;
        row.open(&self.key_of(&row.heading)?)
    }

    /// What logs in to `host`: its own credential or, when it names none, the default one. A user
    /// of the host's own replaces the credential's.
    pub fn resolve(&self, host: &Host) -> Result<Secret, Failure> {
        let name = host.credential.as_deref().unwrap_or(DEFAULT);
        let mut secret = self.open(name).map_err(|error| {
            let reason = match error.kind() {
                Kind::Missing => Reason::CredentialMissing,
                Kind::Sealed => Reason::CredentialDecryptionFailed,
                _ => Reason::Internal,
            };
            Failure::new(reason, error.to_string())
        })?;
        if let Reach::Ssh {
            user: Some(user), ..
        } = &host.reach
        {
            secret.user.clone_from(user);
        }
        Ok(secret)
    }

    /// Whether [`Self::resolve`] has something to give. What it opens for that is wiped at once.
    pub fn check(&self, host: &Host) -> Result<(), Failure> {
        self.resolve(host).map(drop)
    }

    /// Seals everything again under a key that nobody saw.
    ///
    /// Order, and what a crash in between leaves:
    /// 1. the next key is written beside the current one: nothing is sealed under it, and the next
    ///    rotation drops it. Nobody else does: this one may be under way in another process;
    /// 2. all rows are sealed under it, in one transaction: either all are or none is; from here on
    ///    the next use finds rows under the next key and makes it the current one;
    /// 3. it is renamed over the current one.
    ///
    /// So every row can be opened by a key that is in one of the two files, at any moment.
    pub fn rotate_data_key(&self, at: Timestamp, actor: &str) -> Result<usize, Error> {
        self.rotate_data_key_after(at, actor, &|| Ok(()))
    }

    /// As [`Vault::rotate_data_key`]; between 1 and 2 `carry` brings the next key to every other machine
    /// that is to open what is sealed, or says why not, and then nothing was changed.
    pub fn rotate_data_key_after(
        &self,
        at: Timestamp,
        actor: &str,
        carry: &dyn Fn() -> Result<(), String>,
    ) -> Result<usize, Error> {
        let _lock = self.files.lock()?;
        self.settle()?;
        if self.files.next()?.is_some() {
            self.files.drop_next()?;
        }
        let count = self
            .store
            .transact(|transaction| self.rotate_in(transaction, at, actor, carry))?;
        self.files.promote()?;
        Ok(count)
    }

    fn rotate_in(
        &self,
        transaction: &mut Transaction,
        at: Timestamp,
        actor: &str,
        carry: &dyn Fn() -> Result<(), String>,
    ) -> Result<usize, Error> {
        let rows = self.rows_in(transaction)?;
        let next = DataKey::random(self.random.as_ref())?;
        let mut secrets = Vec::with_capacity(rows.len());
        for row in rows {
            let secret = row.open(&self.key_of(&row.heading)?)?;
            secrets.push((row.heading, secret));
        }
        self.files.write_next(&next)?;
        if let Err(why) = carry() {
            self.files.drop_next()?;
            return Err(Error::new(Kind::Invalid, why));
        }
        let count = secrets.len();
        for (mut heading, secret) in secrets {
            heading.version += 1;
            self.seal_in(transaction, heading, &secret, &next)?;
        }
        let detail = serde_json::json!({ "data_key": next.id(), "credentials": count });
        let record = Record::new(at, actor, "data_key.rotated", &next.id(), detail);
        self.audit.append(transaction, &record)?;
        self.site_keys
            .changed_in(transaction, DATA_KEY_FILE, &next.id(), at)?;
        Ok(count)
    }

    /// Ends a rotation that a crash cut short, when anything is sealed under the next key or the site
    /// has it.
    fn settle(&self) -> Result<(), Error> {
        let Some(next) = self.files.next()? else {
            return Ok(());
        };
        let id = next.id();
        let site_key = self.site_keys.get(DATA_KEY_FILE)?;
        let is_in_use = self.list()?.iter().any(|row| row.data_key == id)
            || site_key.is_some_and(|site_key| site_key.fingerprint == id);
        match is_in_use {
            true => self.files.promote(),
            false => Ok(()),
        }
    }

    fn key_of(&self, heading: &Credential) -> Result<DataKey, Error> {
        self.settle()?;
        let key = self.files.current()?.ok_or_else(|| self.key_missing(1))?;
        if key.id() != heading.data_key {
            return Err(self.key_differs(heading));
        }
        Ok(key)
    }

    fn key_differs(&self, heading: &Credential) -> Error {
        let message = format!(
            "credential `{}` is sealed under another data key than {}",
            heading.name.escape_debug(),
            self.files.path().display()
        );
        Error::new(Kind::Sealed, message)
    }

    fn key_elsewhere(&self, site_key: &SiteKey) -> Error {
        let message = format!(
            "{} is not the data key of the site, which has the id {} and is at `{}`",
            self.files.path().display(),
            site_key.fingerprint,
            site_key.holder.escape_debug(),
        );
        Error::new(Kind::Sealed, message)
    }

    fn key_missing(&self, sealed: usize) -> Error {
        let message = format!(
            "the data key {} is missing, and {sealed} or more credentials are sealed under it",
            self.files.path().display()
        );
        Error::new(Kind::Sealed, message)
    }

    fn seal_in(
        &self,
        transaction: &mut Transaction,
        heading: Credential,
        secret: &Secret,
        key: &DataKey,
    ) -> Result<Credential, Error> {
        let row = Row::seal(heading, secret, key, self.random.as_ref())?;
        let bytes = serde_json::to_vec(&row).expect("rows are plain structs with string keys");
        transaction.put(self.sealed, row.heading.name.as_bytes(), &bytes)?;
        Ok(row.heading)
    }

    fn row(&self, name: &str) -> Result<Option<Row>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = self.store.snapshot()?.get(self.sealed, name.as_bytes())?;
        found.map(|row| decode_as(name, &row)).transpose()
    }

    fn row_in(&self, transaction: &mut Transaction, name: &str) -> Result<Option<Row>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = transaction.get(self.sealed, name.as_bytes())?;
        found.map(|row| decode_as(name, &row)).transpose()
    }

    fn rows_in(&self, transaction: &mut Transaction) -> Result<Vec<Row>, Error> {
        transaction
            .range(self.sealed, &Keys::all(), Order::Ascending, CREDENTIALS_MAX)?
            .iter()
            .map(|(_, row)| decode(row))
            .collect()
    }
}

/// Whether this credential is what logs in to `host`.
fn uses(host: &Host, name: &str) -> bool {
    match (&host.reach, &host.credential) {
        (Reach::Ssh { .. }, None) => name == DEFAULT,
        (_, own) => own.as_deref() == Some(name),
    }
}

fn missing(name: &str) -> Error {
    let shown: String = name.escape_debug().take(field::LABEL_LEN_MAX).collect();
    Error::new(Kind::Missing, format!("no credential `{shown}`"))
}

/// A row that was put in the place of another would open: it says itself whose it is.
fn decode_as(name: &str, row: &[u8]) -> Result<Row, Error> {
    let row = decode(row)?;
    if row.heading.name != name {
        let message = format!(
            "in the place of credential `{}` lies `{}`",
            name.escape_debug(),
            row.heading.name.escape_debug()
        );
        return Err(Error::new(Kind::Sealed, message));
    }
    Ok(row)
}

/// A row that is no row was changed by somebody: the same answer as a seal that is broken.
fn decode(row: &[u8]) -> Result<Row, Error> {
    serde_json::from_slice(row).map_err(|error| {
        Error::new(Kind::Sealed, "a sealed credential does not decode").with_source(error)
    })
}
