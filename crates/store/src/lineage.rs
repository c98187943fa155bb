//! Everything that a store holds, its past included, for whoever is to keep it elsewhere.

use std::{fmt, sync::Arc};

use wal::{Identity, Lsn};
use world::Timestamp;

use crate::{
    Bytes, Commit, Error, History, Keys, Kind, Store, TableId,
    horizon::{Hold, Holder},
    local::Inner,
    tree::{Tree, TreeRange},
};

/// A value while it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The commit that wrote it.
    pub from: Lsn,
    /// The commit that replaced or deleted it; `None`: it holds.
    pub until: Option<Lsn>,
    pub value: Bytes,
}

/// What a key held, oldest first. Never empty. Of a table that keeps no past, what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    pub key: Bytes,
    pub spans: Vec<Span>,
}

/// Lineages of a table in order of their keys.
pub struct Lineages {
    tree: Arc<Tree>,
    range: TreeRange,
    /// Whether all of the past is kept.
    is_whole: bool,
    /// For its drop: what is read is kept until then.
    _hold: Hold,
}

/// Commits in order of their positions.
pub struct Commits {
    range: TreeRange,
    _hold: Hold,
}

impl Store {
    /// Whose record this is: of a store of this machine only.
    pub fn identity(&self) -> Result<Identity, Error> {
        Ok(self.here("the identity of a journal")?.journal.identity())
    }

    /// Everything that `table` holds of `keys`: of a store of this machine only. Reads nothing that is
    /// committed later.
    pub fn lineages(&self, table: TableId, keys: &Keys) -> Result<Lineages, Error> {
        let inner = self.here("reading all versions")?;
        inner.open()?;
        let (hold, newest) = inner.horizon.hold_visible(Holder::Snapshot);
        let tree = Arc::clone(inner.readable(table, newest.lsn)?);
        Ok(Lineages {
            range: tree.range(keys, newest.lsn),
            is_whole: inner.table(table)?.history == History::Forever,
            tree,
            _hold: hold,
        })
    }

    /// Every commit above `after`: of a store of this machine only.
    pub fn commits(&self, after: Lsn) -> Result<Commits, Error> {
        let inner = self.here("reading all commits")?;
        inner.open()?;
        let (hold, newest) = inner.horizon.hold_visible(Holder::Snapshot);
        let keys = Keys::after(&after.get().to_be_bytes());
        Ok(Commits {
            range: inner.times.0.range(&keys, newest.lsn),
            _hold: hold,
        })
    }

    pub(crate) fn here(&self, what: &str) -> Result<&Arc<Inner>, Error> {
        self.inner_here().ok_or_else(|| {
            let message = format!("{what} needs the store's own files, which are elsewhere");
            Error::new(Kind::Invalid, message)
        })
    }
}

impl Lineages {
    fn lineage(&self, key: Bytes, newest: (Lsn, Option<Bytes>)) -> Result<Option<Lineage>, Error> {
        let mut spans = Vec::new();
        let mut until = None;
        let mut version = Some(newest);
        while let Some((from, value)) = version {
            spans.extend(value.map(|value| Span { from, until, value }));
            until = Some(from);
            if !self.is_whole || from <= Lsn::new(1) {
                break;
            }
            let before = self.tree.find(&key, Lsn::new(from.get() - 1))?;
            version = before.map(|found| (found.lsn, found.value));
        }
        spans.reverse();
        Ok((!spans.is_empty()).then_some(Lineage { key, spans }))
    }
}

impl Iterator for Lineages {
    type Item = Result<Lineage, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let item = self
                .range
                .next_found()?
                .and_then(|(key, found)| self.lineage(key, (found.lsn, found.value)));
            match item {
                Ok(None) => {}
                Ok(Some(lineage)) => return Some(Ok(lineage)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Iterator for Commits {
    type Item = Result<Commit, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.range.next()?.and_then(|(key, value)| {
            let (Ok(lsn), Ok(nanos)) = ((*key).try_into(), (*value).try_into()) else {
                let message = "the index of commit times holds an entry of the wrong length";
                return Err(Error::new(Kind::Corrupt, message));
            };
            Ok(Commit {
                lsn: Lsn::new(u64::from_be_bytes(lsn)),
                time: Timestamp::from_nanos(u64::from_le_bytes(nanos)),
            })
        });
        Some(item)
    }
}

impl fmt::Debug for Lineages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lineages").finish_non_exhaustive()
    }
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use tempfile::TempDir;
    use wal::Lsn;

    use super::Lineage;
    use crate::{History, Keys, Options, Store, Table};

    fn opened(dir: &TempDir) -> Store {
        let journal = wal::Local::open(wal::Options::on_this_machine(dir.path().join("journal")));
        let tables = vec![
            Table::new("kept", History::Forever),
            Table::new("new", History::Latest),
        ];
        let options = Options::on_this_machine(dir.path().join("tables"), tables);
        Store::open(options, Arc::new(journal.unwrap().0))
            .unwrap()
            .0
    }

    /// Writes and deletes a few keys again and again; answers what each key held at each position.
    fn lived(store: &Store) -> Vec<BTreeMap<Vec<u8>, Vec<u8>>> {
        let (kept, new) = (store.table("kept").unwrap(), store.table("new").unwrap());
        let mut model = BTreeMap::new();
        let mut moments = vec![model.clone()];
        for step in 0..60u8 {
            let mut transaction = store.begin().unwrap();
            let key = vec![step % 7];
            if step % 5 == 4 {
                transaction.delete(kept, &key).unwrap();
                transaction.delete(new, &key).unwrap();
                // Deleting what is not there is a version too.
                transaction.delete(kept, &[99]).unwrap();
                model.remove(&key);
            } else {
                transaction.put(kept, &key, &[step]).unwrap();
                transaction.put(new, &key, &[step]).unwrap();
                model.insert(key, vec![step]);
            }
            transaction.commit().unwrap();
            moments.push(model.clone());
            if step == 30 {
                store.compact().unwrap();
            }
        }
        moments
    }

    fn all(store: &Store, table: &str) -> Vec<Lineage> {
        let table = store.table(table).unwrap();
        let lineages = store.lineages(table, &Keys::all()).unwrap();
        lineages.map(Result::unwrap).collect()
    }

    #[test]
    fn lineages_tell_what_every_key_held_at_every_position() {
        let dir = TempDir::new().unwrap();
        let store = opened(&dir);
        let moments = lived(&store);
        let commits: Vec<_> = store
            .commits(Lsn::ZERO)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(commits.len(), moments.len() - 1);
        assert!(commits.windows(2).all(|pair| pair[0].time < pair[1].time));
        let lineages = all(&store, "kept");
        for (held, lsn) in moments
            .iter()
            .skip(1)
            .zip(commits.iter().map(|commit| commit.lsn))
        {
            let told: BTreeMap<Vec<u8>, Vec<u8>> = lineages
                .iter()
                .filter_map(|lineage| {
                    let holds = lineage.spans.iter().find(|span| {
                        span.from <= lsn && span.until.is_none_or(|until| lsn < until)
                    })?;
                    Some((lineage.key.to_vec(), holds.value.to_vec()))
                })
                .collect();
            assert_eq!(&told, held, "at {lsn}");
        }
        assert!(lineages.iter().all(|lineage| !lineage.spans.is_empty()));
    }

    #[test]
    fn a_table_without_a_past_tells_what_it_holds() {
        let dir = TempDir::new().unwrap();
        let store = opened(&dir);
        let held = lived(&store).pop().unwrap();
        let told: BTreeMap<Vec<u8>, Vec<u8>> = all(&store, "new")
            .into_iter()
            .map(|lineage| {
                let [span] = &lineage.spans[..] else {
                    panic!("{lineage:?}")
                };
                assert_eq!(span.until, None);
                (lineage.key.to_vec(), span.value.to_vec())
            })
            .collect();
        assert_eq!(told, held);
    }
}
