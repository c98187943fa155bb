//! Following: the journal is written by somebody else, and the commits in it are applied as they
//! become readable. Snapshots, feeds and time travel work as ever, up to what is applied; nothing is
//! committed here until [`crate::Store::lead`].
//!
//! A reader here may not be told of a moment that the writer has not yet passed: a commit dated
//! before it could still come.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use wal::{Lsn, RecordKind};

use crate::{
    Commit, Error, Kind, TableId,
    cursor::Cursor,
    history::CommitTimes,
    local::Inner,
    once::OnceKeys,
    record::{self, CommitRecord, len_u16},
    tree::Memory,
};

/// Kind of the record that names the tables: written by whoever begins to lead, and compared by
/// those that follow, because commits name tables by number.
pub(crate) const TABLES: RecordKind = RecordKind(17);
const TABLES_VERSION: u8 = 1;

/// How often the end of following, and a disk that was full, are looked at. Arbitrary.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long commits gather before they are applied: what each group costs beside its commits is paid less often, and
/// readers here are behind by so much more. Arbitrary.
const GATHER: Duration = Duration::from_millis(5);
/// Commits applied at once: readers see them together, and memory is bounded with them. Arbitrary.
const GROUP_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Default)]
pub(crate) struct Following {
    is_on: AtomicBool,
    /// Every record up to here was dealt with, those that are no commits among them.
    applied: AtomicU64,
    failed: Mutex<Option<Error>>,
    /// Held while records are applied, and while following ends.
    turn: Mutex<()>,
}

type Turn<'a> = MutexGuard<'a, ()>;

impl Following {
    pub(crate) fn new(is_on: bool, applied: Lsn) -> Self {
        Self {
            is_on: AtomicBool::new(is_on),
            applied: AtomicU64::new(applied.get()),
            ..Self::default()
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    pub(crate) fn applied(&self) -> Lsn {
        Lsn::new(self.applied.load(Ordering::Acquire))
    }

    /// The error that ended following, if one did.
    pub(crate) fn failed(&self) -> Option<Error> {
        self.failure().clone()
    }

    fn turn(&self) -> Turn<'_> {
        self.turn
            .lock()
            .expect("who panicked here ended the process")
    }

    fn failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.failed
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

pub(crate) fn start(inner: &Arc<Inner>) -> Result<JoinHandle<()>, Error> {
    let held = Arc::clone(inner);
    world::spawn_spine("store-follow", move || follow_loop(&held))
        .map_err(|error| Error::io("starting to follow in", &inner.dir, error))
}

fn follow_loop(inner: &Inner) {
    let following = &inner.following;
    while following.is_on() && !inner.upkeep.is_stopping() {
        let applied = following.applied();
        if inner.journal.wait_above(applied, LOOK_EVERY) <= applied {
            continue;
        }
        match inner.catch_up() {
            Ok(()) => inner.clock.sleep(GATHER),
            // Goes on once there is room, which upkeep says by itself.
            Err(error) if error.kind() == Kind::Full => inner.clock.sleep(LOOK_EVERY),
            Err(error) if inner.upkeep.is_stopping() => {
                tracing::debug!(%error, "following ended");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "commits of the journal cannot be applied, following ends");
                following.failure().get_or_insert(error);
                return;
            }
        }
    }
}

impl Inner {
    /// Refused to whoever wants to commit while somebody else does.
    pub(crate) fn check_leads(&self) -> Result<(), Error> {
        if !self.following.is_on() {
            return Ok(());
        }
        let message = "this copy of the store follows another one and commits nothing itself";
        Err(Error::new(Kind::Fenced, message))
    }

    /// Applies everything that the journal lets one read.
    fn catch_up(&self) -> Result<(), Error> {
        self.catch_up_in(&self.following.turn())
    }

    fn catch_up_in(&self, _turn: &Turn<'_>) -> Result<(), Error> {
        // What comes after it is this store's own, and applied already.
        while self.following.is_on() && self.following.applied() < self.journal.safe_point() {
            self.upkeep.wait_for_room()?;
            self.apply_some()?;
        }
        Ok(())
    }

    fn apply_some(&self) -> Result<(), Error> {
        let from = self.following.applied().next();
        let reading = |error| Error::journal(format!("following from lsn {from}"), error);
        let (mut group, mut bytes, mut last) = (Vec::new(), 0, from);
        for found in self.journal.read(from).map_err(reading)? {
            let found = found.map_err(reading)?;
            let corrupt = |what| Error::new(Kind::Corrupt, format!("lsn {}: {what}", found.lsn));
            last = found.lsn;
            if found.kind == TABLES {
                self.compare_tables(&found.bytes).map_err(corrupt)?;
            }
            if found.kind == record::COMMIT {
                let commit = record::decode(&found.bytes).map_err(corrupt)?;
                bytes += found.bytes.len();
                let place = Commit {
                    lsn: found.lsn,
                    time: commit.time,
                };
                group.push((place, commit));
            }
            if group.len() >= GROUP_MAX || bytes >= GROUP_BYTES_MAX {
                break;
            }
        }
        self.apply_recorded(&group)?;
        self.following.applied.store(last.get(), Ordering::Release);
        self.counters.committed(group.len(), bytes as u64);
        self.upkeep.appended(bytes as u64);
        Ok(())
    }

    /// As the commit path applies a group: all of it, then published.
    fn apply_recorded(&self, group: &[(Commit, CommitRecord)]) -> Result<(), Error> {
        let Some((newest, _)) = group.last() else {
            return Ok(());
        };
        let applying = self.applying();
        let times = self.times.0.memory();
        let mut memories = BTreeMap::<TableId, Memory>::new();
        for (commit, recorded) in group {
            for change in &recorded.changes {
                let memory = match memories.entry(change.table) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(place) => {
                        let tree = self.tree(change.table).map_err(|_| {
                            let message = format!(
                                "lsn {} changes table {}, which the manifest does not name",
                                commit.lsn, change.table.0
                            );
                            Error::new(Kind::Corrupt, message)
                        })?;
                        place.insert(tree.memory())
                    }
                };
                memory.set(&change.key, change.value.as_deref(), commit.lsn);
            }
            CommitTimes::record(&times, *commit);
            if let Some(once) = &recorded.once {
                OnceKeys::record(&self.once.tree().memory(), once, *commit);
            }
        }
        self.horizon.publish(*newest);
        self.upkeep.rotate_full(self, &memories);
        drop(applying);
        Ok(())
    }

    /// Ends following: applies what is there, and announces the tables. From then on commits are
    /// made here. An error leaves the store following.
    pub(crate) fn take_over(&self) -> Result<(), Error> {
        if let Some(failed) = self.following.failed() {
            return Err(Error::poisoned_by(&failed));
        }
        self.catch_up()?;
        // Nobody commits, and nobody asks for a moment, until the first date is known.
        let mut writer = self.line.writer();
        let turn = self.following.turn();
        if !self.following.is_on() {
            return Ok(());
        }
        self.catch_up_in(&turn)?;
        self.journal
            .append(&[(TABLES, &self.announce_tables())])
            .map_err(|error| Error::journal("announcing the tables", error))?;
        // Only now is it certain what lies below: a record may have become readable with this one.
        self.catch_up_in(&turn)?;
        writer.begin(self.horizon.visible());
        self.following.is_on.store(false, Ordering::Release);
        Ok(())
    }

    /// Version, then for each table its number, the length of its name, its name.
    fn announce_tables(&self) -> Vec<u8> {
        let mut bytes = vec![TABLES_VERSION];
        for table in &self.tables {
            let name = table.tree.name();
            bytes.extend_from_slice(&table.id.0.to_le_bytes());
            bytes.extend_from_slice(&len_u16(name.len()).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes
    }

    /// A number must mean the same table here and there.
    fn compare_tables(&self, bytes: &[u8]) -> Result<(), String> {
        let mut cursor = Cursor::new(bytes);
        let short = || format!("record of tables of {} bytes ends early", bytes.len());
        let version = cursor.u8().ok_or_else(short)?;
        if version != TABLES_VERSION {
            return Err(format!(
                "record of tables has version {version}, this program reads {TABLES_VERSION}"
            ));
        }
        while !cursor.is_empty() {
            let number = cursor.u32().ok_or_else(short)?;
            let len = usize::from(cursor.u16().ok_or_else(short)?);
            let name = cursor.take(len).ok_or_else(short)?;
            let ours = self.table(TableId(number)).ok();
            if ours.is_none_or(|table| table.tree.name().as_bytes() != name) {
                let here = ours.map_or("no table", |table| table.tree.name());
                return Err(format!(
                    "table {number} is {:?} where it is written and {here:?} here: run the same \
                     version on all nodes, or rebuild this copy",
                    String::from_utf8_lossy(name)
                ));
            }
        }
        Ok(())
    }
}
