//! A store on a real directory, over a journal on a simulated disk, at a simulated time.
//!
//! The journal can lose power; the table files can only be copied as they are at a moment, which is
//! what the death of the process leaves, because the table library makes its own calls.
#![allow(dead_code, reason = "each test binary uses another part")]

pub(crate) mod dying;
pub(crate) mod pair;

use std::{path::Path, sync::Arc, time::Duration};

use store::{Commit, History, Options, RecoveryReport, Store, Table, TableId};
use wal::{Journal, Local};
use world::{Clock, RealDisk, Timestamp, sim};

/// 2026-01-01T00:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_nanos(1_767_225_600_000_000_000);

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) disk: sim::Disk,
    /// Of the journal's identity.
    pub(crate) seed: u64,
    /// The journal on the real disk too: syncs take their time, so committers meet in groups.
    pub(crate) syncs_for_real: bool,
    pub(crate) clock: sim::Clock,
    pub(crate) tables: Vec<Table>,
    pub(crate) change: fn(&mut Options),
}

/// One process's hold on a site.
pub(crate) struct Running {
    pub(crate) store: Store,
    pub(crate) journal: Arc<Local>,
    pub(crate) report: RecoveryReport,
}

impl Site {
    pub(crate) fn new(tables: &[(&str, History)]) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            disk: sim::Disk::new(1),
            seed: 7,
            syncs_for_real: false,
            clock: sim::Clock::new(START),
            tables: tables
                .iter()
                .map(|(name, history)| Table::new(*name, *history))
                .collect(),
            change: |_| {},
        }
    }

    /// One table `t` that keeps everything.
    pub(crate) fn forever() -> Self {
        Self::new(&[("t", History::Forever)])
    }

    pub(crate) fn journal(&self) -> Result<Arc<Local>, wal::Error> {
        if self.syncs_for_real {
            let dir = self.dir.path().join("journal");
            let options = wal::Options::on_this_machine(dir);
            return Local::open(options).map(|(journal, _)| Arc::new(journal));
        }
        let mut options = wal::Options::new(
            "/journal",
            Arc::new(self.disk.clone()),
            Arc::new(self.clock.clone()),
            Arc::new(sim::Random::new(self.seed)),
        );
        options.segment_bytes = 1 << 20;
        options.upkeep = wal::Upkeep::Caller;
        Local::open(options).map(|(journal, _)| Arc::new(journal))
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(
            self.dir.path().join("store"),
            Arc::new(RealDisk),
            Arc::new(self.clock.clone()),
            self.tables.clone(),
        );
        (self.change)(&mut options);
        options
    }

    pub(crate) fn try_open(&self) -> Result<Running, store::Error> {
        let journal = self.journal().unwrap();
        let (store, report) = Store::open(self.options(), Arc::clone(&journal) as _)?;
        Ok(Running {
            store,
            journal,
            report,
        })
    }

    pub(crate) fn open(&self) -> Running {
        self.try_open().unwrap()
    }

    /// What the death of the process would leave at this moment, while nothing commits. Half-written
    /// files of a flush or compaction under way are part of it.
    pub(crate) fn process_death(&self) -> Self {
        loop {
            let dir = tempfile::tempdir().unwrap();
            let before = self.roots();
            copy(self.dir.path(), dir.path());
            let disk = self.disk.fork().process_death();
            // A copy takes longer than a death. It is one moment's picture if nothing that other
            // files are reached from was replaced meanwhile; such files go away only after that.
            if self.roots() == before {
                return Self {
                    dir,
                    disk,
                    seed: self.seed,
                    syncs_for_real: self.syncs_for_real,
                    clock: sim::Clock::new(self.clock.now()),
                    tables: self.tables.clone(),
                    change: self.change,
                };
            }
        }
    }

    fn roots(&self) -> Vec<Option<Vec<u8>>> {
        let store = self.dir.path().join("store");
        let tables = (0..64).map(|id| store.join(format!("tables/{id}/current")));
        let own = ["identity", "manifest"].map(|name| store.join(name));
        let paths = own.into_iter().chain(tables);
        paths.map(|path| std::fs::read(path).ok()).collect()
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.report.fmt(f)
    }
}

impl Running {
    pub(crate) fn t(&self) -> TableId {
        self.store.table("t").unwrap()
    }

    pub(crate) fn put(&self, key: &str, value: &str) -> Commit {
        let mut transaction = self.store.begin().unwrap();
        transaction
            .put(self.t(), key.as_bytes(), value.as_bytes())
            .unwrap();
        transaction.commit().unwrap()
    }

    pub(crate) fn delete(&self, key: &str) -> Commit {
        let mut transaction = self.store.begin().unwrap();
        transaction.delete(self.t(), key.as_bytes()).unwrap();
        transaction.commit().unwrap()
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let snapshot = self.store.snapshot().unwrap();
        text(snapshot.get(self.t(), key.as_bytes()).unwrap())
    }

    pub(crate) fn get_at(&self, key: &str, lsn: wal::Lsn) -> Option<String> {
        let snapshot = self.store.snapshot_at(lsn).unwrap();
        text(snapshot.get(self.t(), key.as_bytes()).unwrap())
    }

    pub(crate) fn safe_point(&self) -> wal::Lsn {
        self.journal.safe_point()
    }
}

pub(crate) fn text(value: Option<store::Bytes>) -> Option<String> {
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// Copies a directory that may be changing: a file that goes away meanwhile was going away.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&entry.path(), &target),
            Ok(_) => match std::fs::copy(entry.path(), &target) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("copying {}: {error}", entry.path().display()),
            },
            Err(_) => {}
        }
    }
}
