//! Which keys a site has that several machines share: by what each is known, and a machine that has it.
//!
//! The keys themselves are files of each machine. A machine that made one of its own instead of being
//! given the site's would seal and sign what no other can open or verify; a row tells it so before it
//! does. A site that one machine has alone has no row.

use serde::{Deserialize, Serialize};
use store::{Error, History, Kind, Store, Table, TableId, Transaction};
use world::Timestamp;

const TABLE: &str = "site.key";

/// A key of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteKey {
    /// Names the key and tells nothing of it.
    pub fingerprint: String,
    /// The machine and the directory that it can be copied from.
    pub holder: String,
    /// Nanoseconds since the epoch.
    pub since: u64,
}

/// The keys of a site, by the names of their files.
#[derive(Clone, Debug)]
pub struct SiteKeys {
    store: Store,
    table: TableId,
}

impl SiteKeys {
    pub fn tables() -> Vec<Table> {
        vec![Table::new(TABLE, History::Latest)]
    }

    pub fn new(store: Store) -> Result<Self, Error> {
        Ok(Self {
            table: store.table(TABLE)?,
            store,
        })
    }

    pub fn get(&self, name: &str) -> Result<Option<SiteKey>, Error> {
        let found = self.store.snapshot()?.get(self.table, name.as_bytes())?;
        found.map(|value| decode(name, &value)).transpose()
    }

    /// Makes `fingerprint` the site's key of this name where there is none. Gives the one that the site
    /// has: of several machines that come at once all are given the same.
    pub fn settle(
        &self,
        name: &str,
        fingerprint: &str,
        holder: &str,
        now: Timestamp,
    ) -> Result<SiteKey, Error> {
        self.store.transact(|transaction| {
            if let Some(value) = transaction.get(self.table, name.as_bytes())? {
                return decode(name, &value);
            }
            let key = SiteKey {
                fingerprint: fingerprint.to_owned(),
                holder: holder.to_owned(),
                since: now.nanos(),
            };
            self.put_in(transaction, name, &key)?;
            Ok(key)
        })
    }

    /// Notes the key that took the place of another, where the site has a row.
    pub fn changed_in(
        &self,
        transaction: &mut Transaction,
        name: &str,
        fingerprint: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let Some(value) = transaction.get(self.table, name.as_bytes())? else {
            return Ok(());
        };
        let key = SiteKey {
            fingerprint: fingerprint.to_owned(),
            since: now.nanos(),
            ..decode(name, &value)?
        };
        self.put_in(transaction, name, &key)
    }

    fn put_in(
        &self,
        transaction: &mut Transaction,
        name: &str,
        key: &SiteKey,
    ) -> Result<(), Error> {
        let bytes = serde_json::to_vec(key).expect("a plain struct with string keys");
        transaction.put(self.table, name.as_bytes(), &bytes)
    }
}

fn decode(name: &str, value: &[u8]) -> Result<SiteKey, Error> {
    serde_json::from_slice(value).map_err(|error| {
        Error::caused(
            Kind::Corrupt,
            format!("the row of the site's {name}"),
            error,
        )
    })
}
