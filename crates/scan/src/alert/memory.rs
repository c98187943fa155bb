//! What is remembered of a host from scan to scan, to tell what is over and what is compared with what.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use store::{History, Keys, Snapshot, Store, Table, TableId, Transaction};

use super::{Error, Kind};
use crate::{drift::Unseen, inventory::HOSTS_MAX};

const TABLE: &str = "alert.memory";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// End of its latest scan.
    pub(super) last_finished: u64,
    /// Bounded by the rules of one scan, as the sets below.
    pub(super) unseen: Unseen,
    /// Alerts of the host that are over when none of these rules fails any more.
    pub(super) until_mended: BTreeMap<Kind, BTreeSet<String>>,
}

impl Memory {
    /// `rule` does not fail, or is not judged, any more. Gives the alerts that are over by it.
    pub(super) fn mended(&mut self, rule: &str) -> Vec<Kind> {
        let mut over = Vec::new();
        self.until_mended.retain(|kind, rules| {
            let is_over = rules.remove(rule) && rules.is_empty();
            if is_over {
                over.push(*kind);
            }
            !is_over
        });
        over
    }

    pub(super) fn is_awaited(&self, kind: Kind, rule: &str) -> bool {
        let rules = self.until_mended.get(&kind);
        rules.is_some_and(|rules| rules.contains(rule))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Memories {
    table: TableId,
}

impl Memories {
    pub(super) fn tables() -> Vec<Table> {
        vec![Table::new(TABLE, History::Latest)]
    }

    pub(super) fn of(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            table: store.table(TABLE)?,
        })
    }

    pub(super) fn get_in(
        &self,
        transaction: &mut Transaction,
        host: &str,
    ) -> Result<Memory, Error> {
        let found = transaction.get(self.table, host.as_bytes())?;
        found.map_or_else(|| Ok(Memory::default()), |row| decode(&row))
    }

    pub(super) fn all(&self, snapshot: &Snapshot) -> Result<BTreeMap<String, Memory>, Error> {
        let rows = snapshot.range(self.table, &Keys::all())?.take(HOSTS_MAX);
        rows.map(|item| {
            let (key, row) = item?;
            Ok((String::from_utf8_lossy(&key).into_owned(), decode(&row)?))
        })
        .collect()
    }

    pub(super) fn put_in(
        &self,
        transaction: &mut Transaction,
        host: &str,
        memory: &Memory,
    ) -> Result<(), Error> {
        let row = serde_json::to_vec(memory).expect("rows are plain structs with string keys");
        Ok(transaction.put(self.table, host.as_bytes(), &row)?)
    }
}

fn decode(row: &[u8]) -> Result<Memory, Error> {
    serde_json::from_slice(row)
        .map_err(|_| Error::storage("what is remembered of a host does not decode"))
}
