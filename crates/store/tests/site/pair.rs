//! Two stores with journals of one identity: one that is written, and one that is rebuilt from it.

use std::{collections::BTreeMap, sync::Arc};

use store::{Base, Error, History, Install, Installed, Keys, Lineage, Options, Store};
use wal::{Journal, Lsn};
use world::Disk;

use super::{Running, Site};

pub(crate) struct Pair {
    pub(crate) source: Site,
    pub(crate) target: Site,
    pub(crate) leader: Running,
}

/// All that a store answers: for each table what each key held, and what can be read at each
/// position; the moments of commits; what requests with a key came to.
#[derive(Debug, PartialEq)]
struct Answers {
    commits: Vec<store::Commit>,
    tables: BTreeMap<String, (Vec<Lineage>, Vec<Moment>)>,
    once: Vec<Option<store::Commit>>,
}

type Moment = Vec<(Vec<u8>, Vec<u8>)>;

/// Keys that requests are given in these tests.
pub(crate) const ONCE_KEYS: u64 = 40;

impl Pair {
    pub(crate) fn new(tables: &[(&str, History)]) -> Self {
        let (source, target) = (Site::new(tables), Site::new(tables));
        let leader = source.open();
        Self {
            source,
            target,
            leader,
        }
    }

    /// A target as the death of its process would leave it now, in place of the one that is there.
    pub(crate) fn put_aside(&mut self) -> Site {
        let died = self.target.process_death();
        std::mem::replace(&mut self.target, died)
    }

    /// Gives the target's journal what it has not of the source's.
    pub(crate) fn ship(&self) -> Arc<wal::Local> {
        let journal = self.target.journal().unwrap();
        let from = journal.safe_point().next();
        for record in self.leader.journal.read(from).unwrap() {
            let record = record.unwrap();
            let appended = journal.append(&[(record.kind, &record.bytes)]).unwrap();
            assert_eq!(appended.last, record.lsn);
        }
        journal
    }

    pub(crate) fn begin(&self, base: &Base) -> Result<Install, Error> {
        self.begin_on(base, self.target.options())
    }

    pub(crate) fn begin_on(&self, base: &Base, options: Options) -> Result<Install, Error> {
        let identity = self.leader.journal.identity();
        Install::begin(options, identity, &base.part(0)?)
    }

    /// All parts from the next one on.
    pub(crate) fn install(&self, base: &Base) -> Result<Installed, Error> {
        transfer(base, self.begin(base)?)
    }

    pub(crate) fn install_with(
        &self,
        base: &Base,
        disk: Arc<dyn Disk>,
    ) -> Result<Installed, Error> {
        let mut options = self.target.options();
        options.disk = disk;
        transfer(base, self.begin_on(base, options)?)
    }

    /// Opens what was rebuilt over a journal that has all that the source's has.
    pub(crate) fn open_target(&self) -> Running {
        let journal = self.ship();
        let (store, report) =
            Store::open_following(self.target.options(), Arc::clone(&journal) as _).unwrap();
        Running {
            store,
            journal,
            report,
        }
    }

    /// The rebuilt store answers as the source does.
    #[track_caller]
    pub(crate) fn check_equal(&self) {
        let target = self.open_target();
        check_same(&self.leader.store, &target.store);
    }
}

/// The same answers at every position that both retain.
#[track_caller]
pub(crate) fn check_same(one: &Store, other: &Store) {
    let mut floors = floors(one);
    for (name, floor) in self::floors(other) {
        let least = floors.get_mut(&name).expect("the same tables");
        *least = floor.max(*least);
    }
    let (one, other) = (answers(one, &floors), answers(other, &floors));
    // Piece by piece, so that a difference can be read.
    assert_eq!(one.commits, other.commits);
    assert_eq!(one.once, other.once);
    for (name, (lineages, moments)) in &one.tables {
        let (others, there) = &other.tables[name];
        for (lineage, other) in lineages.iter().zip(others) {
            assert_eq!(lineage, other, "{name}");
        }
        assert_eq!(lineages.len(), others.len(), "{name}");
        for (number, (moment, other)) in moments.iter().zip(there).enumerate() {
            let floor = floors[name];
            assert_eq!(moment, other, "{name} at {number} above {floor}");
        }
    }
    assert!(one == other);
}

fn floors(store: &Store) -> BTreeMap<String, Lsn> {
    let tables = store.stats().tables.into_iter();
    tables.map(|table| (table.name, table.floor.lsn)).collect()
}

pub(crate) fn transfer(base: &Base, mut install: Install) -> Result<Installed, Error> {
    for index in install.durable()..install.parts() {
        install.store(index, &base.part(index)?)?;
    }
    install.finish()
}

fn answers(store: &Store, floors: &BTreeMap<String, Lsn>) -> Answers {
    let lowest = floors.values().min().copied().unwrap_or(Lsn::ZERO);
    let commits = store.commits(lowest).unwrap();
    let commits: Vec<_> = commits.map(Result::unwrap).collect();
    let newest = store.snapshot().unwrap().lsn();
    let mut tables = BTreeMap::new();
    for (name, floor) in floors {
        let id = store.table(name).unwrap();
        let lineages = store.lineages(id, &Keys::all()).unwrap();
        let lineages = lineages.map(Result::unwrap).collect();
        let moments = (floor.get()..=newest.get()).map(|lsn| {
            let snapshot = store.snapshot_at(Lsn::new(lsn)).unwrap();
            let rows = snapshot.range(id, &Keys::all()).unwrap();
            let rows = rows.map(Result::unwrap);
            rows.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .collect()
        });
        tables.insert(name.clone(), (lineages, moments.collect()));
    }
    for commit in &commits {
        let dated = store.snapshot_at_time(commit.time).unwrap();
        assert_eq!(dated.lsn(), commit.lsn);
    }
    let once = (0..ONCE_KEYS).map(|key| store.outcome_of(&key.to_be_bytes()).unwrap());
    Answers {
        once: once.collect(),
        commits,
        tables,
    }
}

/// Writes, deletes and requests with keys, differently for each `seed`, to all tables.
pub(crate) fn live(running: &Running, site: &Site, rounds: u64, seed: u64) {
    let tables: Vec<_> = running
        .store
        .stats()
        .tables
        .iter()
        .map(|table| running.store.table(&table.name).unwrap())
        .collect();
    for round in 0..rounds {
        site.advance(std::time::Duration::from_millis(7));
        let number = seed * 1_000 + round * 31;
        let mut transaction = running.store.begin().unwrap();
        for (index, table) in tables.iter().enumerate() {
            let key = ((number / 7 + index as u64) % 50).to_be_bytes();
            if number % 5 == 3 {
                transaction.delete(*table, &key).unwrap();
            } else {
                let value = format!("{number} {}", "value ".repeat((number % 9) as usize));
                transaction.put(*table, &key, value.as_bytes()).unwrap();
            }
        }
        if round % 6 == 0 {
            let key = (number % ONCE_KEYS).to_be_bytes();
            transaction.commit_once(&key).unwrap();
        } else {
            transaction.commit().unwrap();
        }
    }
}
