//! Opening: from what is on disk to a store that serves.
//!
//! The same bytes give the same state: tables are opened as the manifest says, then the commits of
//! the journal above the checkpoint are applied in order. A table that already has a commit, because
//! it was flushed after the last checkpoint, skips it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use lsm_tree::{Cache, DescriptorTable};
use wal::{Journal, Lsn};
use world::Disk;

use crate::{
    Commit, Error, Kind, Options, RecoveryReport, TableId, base,
    checkpoint::Checkpointer,
    commit::CommitLine,
    follow::Following,
    history::CommitTimes,
    horizon::Horizon,
    index,
    local::{Begins, FIRST_TABLE, Inner, TableState},
    manifest::{Identity, Manifest, TableEntry},
    once::OnceKeys,
    recent::KeyHasher,
    record::{self, CommitRecord},
    stats::Counters,
    swap,
    sweep::Rule,
    tree::{Shared, Tree},
    upkeep::Upkeep,
};

const LOCK_FILE: &str = "lock";
pub(crate) const TABLES_DIR: &str = "tables";
pub(crate) const TIMES: TableId = TableId(1);
pub(crate) const ONCE: TableId = TableId(2);
/// The store's own trees, and what their floors mean.
pub(crate) const OWN: [(TableId, Rule); 2] = [(TIMES, Rule::Before), (ONCE, Rule::Dated)];
/// Table files held open over all tables.
const DESCRIPTORS: usize = 256;

pub(crate) fn open(
    options: Options,
    journal: Arc<dyn Journal>,
    begins: Begins,
) -> Result<(Inner, RecoveryReport), Error> {
    options.check()?;
    let (disk, dir) = (Arc::clone(&options.disk), options.dir.clone());
    disk.create_dir_all_synced(&dir)
        .map_err(|error| Error::io("creating store directory", &dir, error))?;
    let lock = take_lock(&options)?;
    swap::settle(&*disk, &dir)?;
    base::forget(&*disk, &dir)?;
    if swap::is_superseded(&*disk, &dir)? {
        return Err(superseded(&dir));
    }
    let shared = shared(&options);
    let (identity, mut manifest, created) = load_or_create(&options, &*journal, &shared)?;
    check_journal(&manifest, &*journal)?;
    let keep_from = manifest.feed_from.max(journal.first_retained());
    let pin = journal.pin(keep_from.min(manifest.checkpoint.next()));
    let pin = pin.map_err(|error| Error::journal("keeping the journal", error))?;

    let mut trees = Trees::open(&options, &manifest, &shared)?;
    trees.add_new(&options, &mut manifest, &shared)?;
    trees.check_persisted(&*journal)?;
    let mut report = RecoveryReport {
        created,
        checkpoint: manifest.checkpoint,
        replayed: None,
        records: 0,
        commits: 0,
        changes: 0,
        bytes: 0,
        visible: Commit {
            lsn: manifest.checkpoint,
            time: manifest.checkpoint_time,
        },
    };
    // A copy that begins with the first record has missed none.
    let is_whole = begins == Begins::Following && journal.first_retained() == Lsn::FIRST;
    let must_be_new = created && !is_whole;
    trees.replay(&*journal, options.memtable_bytes, must_be_new, &mut report)?;
    let applied = report.replayed.map_or(report.checkpoint, |(_, last)| last);

    let milestones = journal.milestones(pin.from());
    let checkpointer = Checkpointer::new(manifest, options.feed_bytes, pin, &milestones);
    let horizon = Horizon::default();
    horizon.publish(report.visible);
    let hasher = KeyHasher::default();
    let inner = Inner {
        created: identity.created,
        tables: trees.tables,
        times: CommitTimes(Arc::new(trees.times)),
        once: OnceKeys::new(Arc::new(trees.once), options.idempotency),
        cache: shared.cache,
        horizon: Arc::new(horizon),
        hasher: hasher.clone(),
        line: CommitLine::new(hasher, report.visible),
        following: Following::new(begins == Begins::Following, applied),
        counters: Counters::default(),
        upkeep: Upkeep::new(
            options.memtable_bytes,
            options.checkpoint_bytes,
            report.bytes,
        ),
        checkpointer: Mutex::new(checkpointer),
        applying: Mutex::new(()),
        is_closed: AtomicBool::new(false),
        journal,
        clock: options.clock,
        disk,
        dir,
        _lock: lock,
    };
    Ok((inner, report))
}

pub(crate) fn shared(options: &Options) -> Shared {
    Shared {
        cache: Arc::new(Cache::with_capacity_bytes(options.cache_bytes)),
        descriptors: Arc::new(DescriptorTable::new(DESCRIPTORS)),
        compress: options.compress,
        pin_indexes: options.pin_indexes,
    }
}

pub(crate) fn take_lock(options: &Options) -> Result<Box<dyn world::disk::Lock>, Error> {
    let path = options.dir.join(LOCK_FILE);
    let holder = format!("process {}", std::process::id());
    options.disk.lock(&path, &holder).map_err(|error| {
        if error.kind() == std::io::ErrorKind::WouldBlock {
            let message = format!("store {} is open in {error}", options.dir.display());
            Error::new(Kind::Locked, message)
        } else {
            Error::io("locking", &path, error)
        }
    })
}

/// The identity is written last, so where it is, the manifest and the store's own trees are too.
fn load_or_create(
    options: &Options,
    journal: &dyn Journal,
    shared: &Shared,
) -> Result<(Identity, Manifest, bool), Error> {
    let (disk, dir) = (&*options.disk, &*options.dir);
    let identity = Identity::load(disk, dir)?;
    let manifest = Manifest::load(disk, dir)?;
    match (identity, manifest) {
        (Some(identity), Some(manifest)) => {
            if identity.journal != journal.identity() {
                return Err(other_journal(dir, &identity, journal));
            }
            Ok((identity, manifest, false))
        }
        (Some(_), None) => Err(missing(dir, "manifest")),
        // Tables are added after the identity.
        (None, Some(manifest)) if !manifest.tables.is_empty() => Err(missing(dir, "identity")),
        // Nothing, or what a crash while creating left.
        (None, _) => {
            let identity = Identity {
                journal: journal.identity(),
                created: options.clock.now(),
            };
            // The journal may have had other owners before, and no longer their first records.
            let first = journal.first_retained();
            let manifest = Manifest {
                checkpoint: Lsn::new(first.get() - 1),
                checkpoint_time: identity.created,
                feed_from: first,
                next_table: FIRST_TABLE,
                tables: Vec::new(),
            };
            manifest.store(disk, dir)?;
            for (id, rule) in OWN {
                create_tree(disk, &tree_dir(dir, id), own_name(id), rule, shared)?;
            }
            identity.store(disk, dir)?;
            Ok((identity, manifest, true))
        }
    }
}

fn missing(dir: &Path, file: &str) -> Error {
    let message = format!(
        "store {} has lost its file {file}: restore the directory from a backup",
        dir.display()
    );
    Error::new(Kind::Corrupt, message)
}

fn superseded(dir: &Path) -> Error {
    let message = format!(
        "store {} is of a log that was thrown away, and the base that takes its place has not come \
         whole: it comes from the node that writes",
        dir.display()
    );
    Error::new(Kind::Corrupt, message)
}

fn other_journal(dir: &Path, identity: &Identity, journal: &dyn Journal) -> Error {
    let (ours, theirs) = (identity.journal, journal.identity());
    let message = format!(
        "store {} belongs to journal {} generation {}, not to {} generation {}",
        dir.display(),
        ours.journal,
        ours.generation.0,
        theirs.journal,
        theirs.generation.0
    );
    Error::new(Kind::Invalid, message)
}

/// The journal must reach back to the checkpoint, and up to it.
fn check_journal(manifest: &Manifest, journal: &dyn Journal) -> Result<(), Error> {
    let (first, safe) = (journal.first_retained(), journal.safe_point());
    let checkpoint = manifest.checkpoint;
    if safe < checkpoint {
        let message = format!(
            "table files hold commits up to lsn {checkpoint}, the journal ends at lsn {safe}"
        );
        return Err(Error::new(Kind::Corrupt, message));
    }
    if first > checkpoint.next() {
        let message = format!(
            "table files hold commits up to lsn {checkpoint}, the journal begins at lsn {first}"
        );
        return Err(Error::new(Kind::Corrupt, message));
    }
    Ok(())
}

pub(crate) fn own_name(id: TableId) -> &'static str {
    if id == TIMES {
        "commit times"
    } else {
        "idempotency keys"
    }
}

/// Where a tree lies in the store `dir`.
fn tree_dir(dir: &Path, id: TableId) -> PathBuf {
    dir.join(TABLES_DIR).join(id.0.to_string())
}

/// Makes an empty tree. What is in its place was left by a crash before any manifest named it.
pub(crate) fn create_tree(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    rule: Rule,
    shared: &Shared,
) -> Result<Tree, Error> {
    let found = disk
        .stat(dir)
        .map_err(|error| Error::io("looking for", dir, error))?;
    if found.is_some() {
        disk.remove_dir_all(dir)
            .map_err(|error| Error::io("removing", dir, error))?;
    }
    disk.create_dir_all_synced(dir)
        .map_err(|error| Error::io("creating", dir, error))?;
    Tree::open(name, dir, shared, rule, 0)
}

pub(crate) fn open_tree(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    rule: Rule,
    floor: u64,
    shared: &Shared,
) -> Result<Tree, Error> {
    index::check(disk, name, dir)?;
    Tree::open(name, dir, shared, rule, floor)
}

struct Trees {
    tables: Vec<TableState>,
    times: Tree,
    once: Tree,
}

impl Trees {
    fn open(options: &Options, manifest: &Manifest, shared: &Shared) -> Result<Self, Error> {
        let open = |id, name: &str, rule, floor| {
            let dir = tree_dir(&options.dir, id);
            open_tree(&*options.disk, &dir, name, rule, floor, shared)
        };
        let [times, once] = OWN.map(|(id, rule)| open(id, own_name(id), rule, 0));
        let mut trees = Self {
            times: times?,
            once: once?,
            tables: Vec::with_capacity(manifest.tables.len()),
        };
        for entry in &manifest.tables {
            let floor = entry.floor.get();
            let tree = open(entry.id, &entry.name, Rule::Versions, floor)?;
            let asked = options.tables.iter().find(|table| table.name == entry.name);
            let history = asked.map_or(entry.history, |table| table.history);
            trees.push(entry.id, history, tree, entry)?;
        }
        Ok(trees)
    }

    /// Makes the tables that the options name and the manifest does not.
    fn add_new(
        &mut self,
        options: &Options,
        manifest: &mut Manifest,
        shared: &Shared,
    ) -> Result<(), Error> {
        let before = manifest.tables.len();
        for table in &options.tables {
            if manifest.tables.iter().any(|known| known.name == table.name) {
                continue;
            }
            let id = TableId(manifest.next_table);
            let dir = tree_dir(&options.dir, id);
            let tree = create_tree(&*options.disk, &dir, &table.name, Rule::Versions, shared)?;
            let entry = TableEntry {
                id,
                name: table.name.clone(),
                history: table.history,
                floor: manifest.checkpoint,
                floor_time: manifest.checkpoint_time,
            };
            self.push(id, table.history, tree, &entry)?;
            manifest.next_table += 1;
            manifest.tables.push(entry);
        }
        if manifest.tables.len() > Options::TABLES_MAX {
            let message = format!(
                "store would have {} tables, at most {}",
                manifest.tables.len(),
                Options::TABLES_MAX
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        // Before any commit can name them: replay knows no other tables.
        if manifest.tables.len() > before {
            manifest.store(&*options.disk, &options.dir)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        id: TableId,
        history: crate::History,
        tree: Tree,
        entry: &TableEntry,
    ) -> Result<(), Error> {
        if usize::try_from(id.0).ok() != Some(FIRST_TABLE as usize + self.tables.len()) {
            let message = format!("manifest names table {} out of order", id.0);
            return Err(Error::new(Kind::Corrupt, message));
        }
        let floor = Commit {
            lsn: entry.floor,
            time: entry.floor_time,
        };
        self.tables.push(TableState::new(id, history, tree, floor));
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Tree> {
        let own = [&self.times, &self.once];
        self.tables.iter().map(|table| &*table.tree).chain(own)
    }

    /// Only acknowledged commits are ever flushed, so the journal must have them.
    fn check_persisted(&self, journal: &dyn Journal) -> Result<(), Error> {
        let safe = journal.safe_point();
        for tree in self.all() {
            if tree.persisted() > safe {
                let message = format!(
                    "table {:?} holds lsn {}, the journal ends at lsn {safe}",
                    tree.name(),
                    tree.persisted()
                );
                return Err(Error::new(Kind::Corrupt, message));
            }
        }
        Ok(())
    }

    fn replay(
        &self,
        journal: &dyn Journal,
        memtable_bytes: u64,
        must_be_new: bool,
        report: &mut RecoveryReport,
    ) -> Result<(), Error> {
        let from = report.checkpoint.next();
        if from > journal.safe_point() {
            return Ok(());
        }
        let reading = |error| Error::journal(format!("replaying from lsn {from}"), error);
        let persisted = Persisted {
            tables: self.tables.iter().map(|t| t.tree.persisted()).collect(),
            times: self.times.persisted(),
            once: self.once.persisted(),
        };
        for record in journal.read(from).map_err(reading)? {
            let record = record.map_err(reading)?;
            report.records += 1;
            report.replayed = Some((from, record.lsn));
            if record.kind != record::COMMIT {
                continue;
            }
            if must_be_new {
                let message = format!(
                    "journal holds commits, lsn {} is one, but the store's directory was empty: \
                     restore it from a backup",
                    record.lsn
                );
                return Err(Error::new(Kind::Corrupt, message));
            }
            let commit = record::decode(&record.bytes)
                .map_err(|what| Error::new(Kind::Corrupt, format!("lsn {}: {what}", record.lsn)))?;
            report.commits += 1;
            report.bytes += record.bytes.len() as u64;
            report.visible = Commit {
                lsn: record.lsn,
                time: commit.time,
            };
            report.changes += self.apply(report.visible, &commit, &persisted)?;
            self.flush_full(memtable_bytes)?;
        }
        Ok(())
    }

    /// Number of changes that were not in table files yet.
    fn apply(
        &self,
        commit: Commit,
        record: &CommitRecord,
        persisted: &Persisted,
    ) -> Result<u64, Error> {
        let mut applied = 0;
        for change in &record.changes {
            let index = change.table.0.checked_sub(FIRST_TABLE).map(usize::try_from);
            let table = match index {
                Some(Ok(index)) => self.tables.get(index).zip(persisted.tables.get(index)),
                _ => None,
            };
            let Some((table, persisted)) = table else {
                let message = format!(
                    "lsn {} changes table {}, which the manifest does not name",
                    commit.lsn, change.table.0
                );
                return Err(Error::new(Kind::Corrupt, message));
            };
            if commit.lsn > *persisted {
                let memory = table.tree.memory();
                memory.set(&change.key, change.value.as_deref(), commit.lsn);
                applied += 1;
            }
        }
        if commit.lsn > persisted.times {
            CommitTimes::record(&self.times.memory(), commit);
        }
        if let Some(once) = &record.once
            && commit.lsn > persisted.once
        {
            OnceKeys::record(&self.once.memory(), once, commit);
        }
        Ok(applied)
    }

    /// Keeps the memory of a long replay bounded.
    fn flush_full(&self, memtable_bytes: u64) -> Result<(), Error> {
        for tree in self.all() {
            if tree.memory_bytes() >= memtable_bytes {
                tree.rotate();
                tree.flush()?;
            }
        }
        Ok(())
    }
}

/// Up to where each table had been flushed when it was opened.
struct Persisted {
    tables: Vec<Lsn>,
    times: Lsn,
    once: Lsn,
}
