//! What a transaction wrote, in the order of tables and keys.

use std::collections::{BTreeMap, btree_map};

use lsm_tree::Slice;

use crate::{Keys, TableId};

/// The last write to each key; `None` deletes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    tables: BTreeMap<TableId, BTreeMap<Slice, Option<Slice>>>,
    count: usize,
    bytes: usize,
}

impl Writes {
    pub(crate) fn set(&mut self, table: TableId, key: &[u8], value: Option<&[u8]>) {
        let added = value.map_or(0, <[u8]>::len);
        let keys = self.tables.entry(table).or_default();
        match keys.entry(Slice::from(key)) {
            btree_map::Entry::Vacant(entry) => {
                entry.insert(value.map(Slice::from));
                self.count += 1;
                self.bytes += key.len() + added;
            }
            btree_map::Entry::Occupied(mut entry) => {
                let removed = entry.get().as_ref().map_or(0, |value| value.len());
                entry.insert(value.map(Slice::from));
                self.bytes = self.bytes - removed + added;
            }
        }
    }

    /// `Some(None)` when the key was deleted here, `None` when it was not written here.
    pub(crate) fn get(&self, table: TableId, key: &[u8]) -> Option<Option<&Slice>> {
        let value = self.tables.get(&table)?.get(key)?;
        Some(value.as_ref())
    }

    pub(crate) fn range(
        &self,
        table: TableId,
        keys: &Keys,
    ) -> impl DoubleEndedIterator<Item = (&Slice, Option<&Slice>)> {
        let inside = if keys.is_empty() {
            None
        } else {
            self.tables
                .get(&table)
                .map(|written| written.range::<[u8], _>(keys.bounds()))
        };
        inside
            .into_iter()
            .flatten()
            .map(|(key, value)| (key, value.as_ref()))
    }

    pub(crate) fn tables(
        &self,
    ) -> impl Iterator<Item = (TableId, &BTreeMap<Slice, Option<Slice>>)> {
        self.tables.iter().map(|(table, keys)| (*table, keys))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keys written.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
