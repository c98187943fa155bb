//! Where clients find the nodes of a site that several machines keep: each that begins to write says it
//! in a row of its own, and the others have the row as they have everything else.

use serde::{Deserialize, Serialize};
use store::{Error, History, Kind, Store, Table, TableId};
use world::Timestamp;

const TABLE: &str = "site.node";

/// A node that writes, or wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What people call it.
    pub name: String,
    /// Of its console and HTTP interface; none where other machines cannot reach them.
    pub url: Option<String>,
    /// Nanoseconds since the epoch.
    pub since: u64,
}

/// The nodes of a site that have written, by their ids.
#[derive(Clone, Debug)]
pub struct Nodes {
    store: Store,
    table: TableId,
}

impl Nodes {
    pub fn tables() -> Vec<Table> {
        vec![Table::new(TABLE, History::Latest)]
    }

    pub fn new(store: Store) -> Result<Self, Error> {
        Ok(Self {
            table: store.table(TABLE)?,
            store,
        })
    }

    pub fn get(&self, id: u128) -> Result<Option<Node>, Error> {
        let found = self.store.snapshot()?.get(self.table, &id.to_be_bytes())?;
        found.map(|value| decode(id, &value)).transpose()
    }

    /// Notes where the node is found, unless the row says so already.
    pub fn found_at(
        &self,
        id: u128,
        name: &str,
        url: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.store.transact(|transaction| {
            let known = transaction.get(self.table, &id.to_be_bytes())?;
            let known = known.map(|value| decode(id, &value)).transpose()?;
            if known.is_some_and(|known| known.name == name && known.url.as_deref() == url) {
                return Ok(());
            }
            let node = Node {
                name: name.to_owned(),
                url: url.map(str::to_owned),
                since: now.nanos(),
            };
            let value = serde_json::to_vec(&node).expect("a plain struct with string keys");
            transaction.put(self.table, &id.to_be_bytes(), &value)
        })
    }
}

fn decode(id: u128, value: &[u8]) -> Result<Node, Error> {
    serde_json::from_slice(value).map_err(|error| {
        let what = format!("row of node {id:032x} in {TABLE}: {error}");
        Error::new(Kind::Corrupt, what)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::Options;
    use world::{RealDisk, sim};

    use super::*;

    #[test]
    fn a_node_is_found_where_it_said_last() {
        let dir = tempfile::tempdir().unwrap();
        let journal = wal::Options::on_this_machine(dir.path().join("journal"));
        let (journal, _) = wal::Local::open(journal).unwrap();
        let at = Timestamp::from_nanos;
        let options = Options::new(
            dir.path().join("tables"),
            Arc::new(RealDisk),
            Arc::new(sim::Clock::new(at(1))),
            crate::tables(),
        );
        let store = crate::test_store::open(options, Arc::new(journal)).unwrap();
        let nodes = Nodes::new(store).unwrap();
        assert_eq!(nodes.get(7).unwrap(), None);
        for (url, now) in [
            (Some("https://10.0.0.1:8420"), 1),
            (Some("https://10.0.0.1:8420"), 2),
            (None, 3),
            (None, 4),
        ] {
            nodes.found_at(7, "first", url, at(now)).unwrap();
        }
        let found = nodes.get(7).unwrap().unwrap();
        assert_eq!((found.url, found.since), (None, 3));
        assert_eq!(nodes.get(8).unwrap(), None);
    }
}
