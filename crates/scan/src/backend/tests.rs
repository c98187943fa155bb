//! The embedded backend: the cases of every backend, and what needs its own disk.

use std::{path::Path, sync::Arc};

use store::{Options, Store};
use uuid::Uuid;
use world::{Disk, RealDisk, Timestamp, sim};

use super::{
    Backend, Embedded,
    conformance::{self, Forgery, Subject},
    queue::{Job, Status},
};
use crate::{
    audit::{Audit, Filter, Record},
    ledger::Ledger,
    schedule::{QueueKey, Rows},
};

mod crash;
mod pace;

pub(super) const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

pub(super) struct Place {
    dir: tempfile::TempDir,
    pub(super) backend: Arc<Embedded>,
    handles: std::sync::Mutex<u64>,
}

/// The journal on a disk of its own; the tables are always on the real one.
pub(super) fn open(
    dir: &Path,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    seed: u64,
) -> Result<Embedded, String> {
    let (options, journal) = parts(dir, disk, segment_bytes)?;
    let (store, _) = Store::open(options, journal).map_err(|error| error.to_string())?;
    embedded(store, seed)
}

fn parts(
    dir: &Path,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
) -> Result<(Options, Arc<dyn wal::Journal>), String> {
    let mut journal = wal::Options::on_this_machine(dir.join("journal"));
    journal.disk = disk;
    journal.segment_bytes = segment_bytes;
    // In the order of the calls, so that the same effect is the same one in each run.
    journal.upkeep = wal::Upkeep::Caller;
    let (journal, _) = wal::Local::open(journal).map_err(|error| error.to_string())?;
    let tables = [
        Audit::tables(),
        Embedded::tables(),
        Ledger::tables(),
        Rows::tables(),
    ];
    let tables = tables.concat();
    let options = Options::new(
        dir.join("tables"),
        Arc::new(RealDisk),
        Arc::new(sim::Clock::new(START)),
        tables,
    );
    Ok((options, Arc::new(journal)))
}

fn embedded(store: Store, seed: u64) -> Result<Embedded, String> {
    let random = Arc::new(sim::Random::new(seed));
    Embedded::new(store, QueueKey::from_bytes([7; 32]), random).map_err(|error| error.to_string())
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = scratch();
        let (options, journal) = parts(dir.path(), Arc::new(RealDisk), wal::SEGMENT_BYTES).unwrap();
        let backend = embedded(crate::test_store::open(options, journal).unwrap(), 0).unwrap();
        Self {
            dir,
            backend: Arc::new(backend),
            handles: std::sync::Mutex::new(0),
        }
    }

    fn write(&self, id: &str, job: &Job) {
        let queue = self.backend.queue;
        let mut transaction = self.backend.store.begin().unwrap();
        queue.put_in(&mut transaction, id, None, job).unwrap();
        transaction.commit().unwrap();
    }
}

/// In memory where the machine has such a place: a store of twenty tables syncs a hundred times before
/// it is there, and nothing here asks whether these files survive.
pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

pub(super) fn audit(backend: &Embedded) -> Vec<Record> {
    let audit = Audit::of(&backend.store).unwrap();
    let mut records = audit
        .list(&backend.store, &Filter::default(), usize::MAX)
        .unwrap();
    records.reverse();
    records
}

impl Subject for Place {
    fn backend(&self) -> Arc<dyn Backend> {
        assert!(self.dir.path().exists());
        let mut handles = self.handles.lock().unwrap();
        *handles += 1;
        Arc::new(embedded(self.backend.store.clone(), *handles).unwrap())
    }

    fn audit(&self) -> Vec<Record> {
        audit(&self.backend)
    }

    fn forge(&self, job: Uuid, forgery: &Forgery) {
        let mut id = job.to_string();
        let snapshot = self.backend.store.snapshot().unwrap();
        let mut job = self.backend.queue.get(&snapshot, &id).unwrap().unwrap();
        match forgery {
            Forgery::Host(host) => job.payload.host.clone_from(host),
            Forgery::PolicyVersion(version) => job.payload.policy_version.clone_from(version),
            Forgery::Later => {
                let hour = 3_600_000_000_000;
                job.payload.expires += hour;
            }
            Forgery::Nonce(nonce) => job.payload.nonce = nonce.to_string(),
            Forgery::Seal(seal) => job.seal.clone_from(seal),
            Forgery::CopyAs(name) => {
                id = name.to_string();
                job.status = Status::Queued;
            }
            Forgery::Again => job.status = Status::Queued,
        }
        if matches!(forgery, Forgery::Host(_)) {
            // The entry that leads to it stays as it was: it is another table.
            let key = id.as_bytes();
            let mut transaction = self.backend.store.begin().unwrap();
            let jobs = self.backend.store.table("queue.job").unwrap();
            let value = serde_json::to_vec(&job).unwrap();
            transaction.put(jobs, key, &value).unwrap();
            transaction.commit().unwrap();
        } else {
            self.write(&id, &job);
        }
    }
}

/// Proves: SCH-1, SCH-2, SCH-4, SCH-5, SCH-7, SCH-8, SCH-10, SCH-13, SCH-14, SCH-15, SCH-16, SCH-17
#[test]
fn the_embedded_backend_does_what_every_backend_must() {
    conformance::check(&mut || Box::new(Place::new()));
}

fn put(backend: &Embedded, table: &str, key: &[u8], value: &[u8]) {
    let table = backend.store.table(table).unwrap();
    let mut transaction = backend.store.begin().unwrap();
    transaction.put(table, key, value).unwrap();
    transaction.commit().unwrap();
}

/// Proves: SCH-14
#[test]
fn a_row_that_does_not_decode_stops_no_other_host() {
    let place = Place::new();
    let backend = &place.backend;
    let policy = crate::policy::Policy::default();
    for host in ["a", "b", "c"] {
        let at = crate::schedule::Place {
            host: host.to_owned(),
            site: "s".to_owned(),
            groups: Default::default(),
        };
        backend.place(&at, START, "test").unwrap();
    }
    put(backend, "schedule.host", b"c", b"?");
    let jobs = backend.dispatch(START, &policy).unwrap().jobs;
    let of = |jobs: &[(String, Uuid)]| jobs.iter().map(|job| job.0.clone()).collect::<Vec<_>>();
    assert_eq!(of(&jobs), ["a", "b"]);
    put(backend, "queue.job", jobs[0].1.to_string().as_bytes(), b"?");
    let claims = backend.claim("w", 9, START, &policy).unwrap();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].host, "b");
    let refused = audit(backend)
        .into_iter()
        .filter(|it| it.action == "job.refused");
    let refused: Vec<_> = refused.collect();
    assert_eq!((refused.len(), refused[0].object.as_str()), (1, "a"));
    assert_eq!(refused[0].detail["failure"], "tampered");
    assert_eq!(of(&backend.dispatch(START, &policy).unwrap().jobs), ["a"]);
}

/// Proves: SCH-7
#[test]
fn a_clock_that_was_a_year_ahead_keeps_no_host_waiting_for_a_year() {
    let place = Place::new();
    let backend = &place.backend;
    let policy = crate::policy::Policy::default();
    let ahead = START.plus(std::time::Duration::from_secs(365 * 24 * 3600));
    for host in ["done", "failed"] {
        let at = crate::schedule::Place {
            host: host.to_owned(),
            site: "s".to_owned(),
            groups: Default::default(),
        };
        backend.place(&at, START, "test").unwrap();
    }
    let mut now = ahead;
    for _ in 0..3 {
        backend.dispatch(now, &policy).unwrap();
        for claimed in backend.claim("w", 9, now, &policy).unwrap() {
            if claimed.host == "done" {
                let scan = conformance::scan_of(&claimed, 1, 0, now);
                let sink = &crate::ledger::LogSink;
                backend
                    .complete(&claimed, &scan, now, &policy, sink)
                    .unwrap();
            } else {
                let failure = crate::failure::Failure::new(
                    crate::failure::Reason::HostUnreachable,
                    "no route",
                );
                backend.fail(&claimed, &failure, now, &policy).unwrap();
            }
        }
        now = now.plus(std::time::Duration::from_secs(49 * 3600));
    }
    let mut jobs = backend.dispatch(START, &policy).unwrap().jobs;
    jobs.sort();
    let hosts: Vec<_> = jobs.iter().map(|job| job.0.as_str()).collect();
    assert_eq!(hosts, ["done", "failed"]);
}
