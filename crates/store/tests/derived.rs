//! Up to where the files of a store reach, over a journal whose readers end at what is committed.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod site;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use site::Site;
use store::{Derived, History, Store};
use wal::{Appended, Identity, Journal, Lsn, Pin, RecordKind, Records};

/// A journal of a replica: it has records that are not committed, and its readers do not see them.
#[derive(Debug)]
struct Replicated {
    journal: Arc<wal::Local>,
    committed: AtomicU64,
}

impl Replicated {
    fn commit(&self, lsn: Lsn) {
        self.committed.store(lsn.get(), Ordering::Release);
    }
}

impl Journal for Replicated {
    fn identity(&self) -> Identity {
        self.journal.identity()
    }

    fn append(&self, records: &[(RecordKind, &[u8])]) -> Result<Appended, wal::Error> {
        self.journal.append(records)
    }

    fn safe_point(&self) -> Lsn {
        let committed = Lsn::new(self.committed.load(Ordering::Acquire));
        committed.min(self.journal.safe_point())
    }

    fn first_retained(&self) -> Lsn {
        self.journal.first_retained()
    }

    fn read(&self, from: Lsn) -> Result<Records<'_>, wal::Error> {
        let safe = self.safe_point();
        let records = self.journal.read(from)?;
        let is_committed = move |record: &Result<wal::Record, wal::Error>| {
            record.as_ref().map_or(true, |record| record.lsn <= safe)
        };
        Ok(Box::new(records.take_while(is_committed)))
    }

    fn wait_above(&self, seen: Lsn, _: Duration) -> Lsn {
        std::thread::yield_now();
        self.safe_point()
            .max(Lsn::new(seen.get().min(self.safe_point().get())))
    }

    fn pin(&self, from: Lsn) -> Result<Pin, wal::Error> {
        self.journal.pin(from)
    }

    fn release_below(&self, keep_from: Lsn) -> Result<(), wal::Error> {
        self.journal.release_below(keep_from)
    }

    fn settle(&self) -> Result<(), wal::Error> {
        self.journal.settle()
    }
}

/// Proves: REP-16
#[test]
fn no_file_ever_holds_anything_above_what_is_committed() {
    let tables = [("t", History::Forever), ("queue", History::Latest)];
    let source = Site::new(&tables);
    let leader = source.open();
    let target = Site {
        // Flushed after every few commits.
        change: |options| {
            options.memtable_bytes = 2 << 10;
            options.checkpoint_bytes = 4 << 10;
        },
        ..Site::new(&tables)
    };
    assert_eq!(Derived::on_disk(&target.options()).unwrap(), None);
    let journal = Arc::new(Replicated {
        journal: target.journal().unwrap(),
        committed: AtomicU64::new(0),
    });
    let (mut store, _) =
        Store::open_following(target.options(), Arc::clone(&journal) as _).unwrap();
    for turn in 0..12 {
        site::pair::live(&leader, &source, 40, turn);
        for record in leader
            .journal
            .read(journal.journal.safe_point().next())
            .unwrap()
        {
            let record = record.unwrap();
            journal.append(&[(record.kind, &record.bytes)]).unwrap();
        }
        let flushed = journal.journal.safe_point();
        // All of it is here, some of it is committed.
        let committed = Lsn::new(flushed.get() - 7 - turn);
        journal.commit(committed);
        store.wait_for(committed, Duration::from_secs(60)).unwrap();
        assert_eq!(store.newest().unwrap().lsn, committed);
        if turn % 3 == 0 {
            store.compact().unwrap();
        }
        let derived = store.derived().unwrap();
        assert!(derived.reaches <= committed, "{derived:?} of {committed}");
        // Whatever moment a process dies at.
        let died = target.process_death();
        let derived = Derived::on_disk(&died.options()).unwrap().unwrap();
        assert!(derived.reaches <= committed, "{derived:?} of {committed}");
        assert!(derived.checkpoint <= derived.reaches);
        if turn % 4 == 3 {
            store.close().unwrap();
            drop(store);
            let derived = Derived::on_disk(&target.options()).unwrap().unwrap();
            assert_eq!(derived.checkpoint, committed);
            assert_eq!(derived.reaches, committed);
            (store, _) =
                Store::open_following(target.options(), Arc::clone(&journal) as _).unwrap();
            // Replayed up to what is committed, too.
            assert_eq!(store.newest().unwrap().lsn, committed);
        }
    }
    store.close().unwrap();
}
