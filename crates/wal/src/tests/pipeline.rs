//! Appends that do not wait.

use std::sync::{Arc, Mutex, mpsc};

use world::sim::{self, Call, Fault};

use super::{
    KIND, MODES, append,
    replicated::{body, durable, open_replica},
};
use crate::{
    APPEND_LEN_MAX, Appended, Epoch, Error, Kind, Local, Lsn, Misplaced, Mode, PIPELINE_BYTES_MAX,
    Pipeline, Run, Upkeep, hold,
};

type Told = Arc<Mutex<Vec<Result<u64, Kind>>>>;

/// A pipeline that the test drives, and what it tells.
fn by_hand(disk: &sim::Disk, mode: Mode) -> (Arc<Local>, Pipeline, Told) {
    let journal = Arc::new(open_replica(disk, mode).unwrap());
    let told = Told::default();
    let theirs = Arc::clone(&told);
    let on_durable = Box::new(move |done: Result<Lsn, Error>| {
        hold(&theirs).push(done.map(Lsn::get).map_err(|error| error.kind()));
    });
    let pipeline = Pipeline::new(Arc::clone(&journal), Upkeep::Caller, on_durable).unwrap();
    (journal, pipeline, told)
}

fn submit(pipeline: &Pipeline, epoch: u64, len: usize) -> Result<Appended, Error> {
    let first = pipeline.next();
    let bytes = body(epoch, first.get(), len);
    let run = Run {
        epoch: Epoch(epoch),
        records: &[(KIND, &bytes)],
    };
    pipeline.submit(first, &run)
}

fn told(told: &Told) -> Vec<Result<u64, Kind>> {
    std::mem::take(&mut hold(told))
}

/// Proves: JRN-4, JRN-7
#[test]
fn what_is_handed_in_meanwhile_shares_a_batch_and_is_told_in_order() {
    for mode in MODES {
        let disk = sim::Disk::new(1);
        let (journal, pipeline, durable_told) = by_hand(&disk, mode);
        let before = journal.counts();
        for epoch in [1, 1, 1, 2, 2, 4] {
            submit(&pipeline, epoch, 100).unwrap();
        }
        assert_eq!(journal.durable(), Lsn::ZERO);
        assert_eq!(pipeline.next(), Lsn::new(7));
        assert!(pipeline.waiting_bytes() > 600);
        while pipeline.drive() {}
        assert_eq!(told(&durable_told), [Ok(3), Ok(5), Ok(6)]);
        assert_eq!(pipeline.waiting_bytes(), 0);
        let syncs = if mode == Mode::Strict { 6 } else { 3 };
        assert_eq!(journal.counts().groups - before.groups, 3);
        assert_eq!(journal.counts().syncs - before.syncs, syncs);
        let expected: Vec<_> = (1..)
            .zip([1, 1, 1, 2, 2, 4])
            .map(|(lsn, epoch)| (epoch, body(epoch, lsn, 100)))
            .collect();
        assert!(durable(&journal) == expected);
        let again = open_replica(&disk.power_loss_total(), mode).unwrap();
        assert!(
            durable(&again) == expected,
            "it was durable when it was told"
        );
    }
}

#[test]
fn records_are_handed_in_at_the_next_position_only_and_under_no_lower_epoch() {
    let disk = sim::Disk::new(1);
    let (_journal, pipeline, _) = by_hand(&disk, Mode::Ordinary);
    submit(&pipeline, 2, 10).unwrap();
    let run = Run {
        epoch: Epoch(2),
        records: &[(KIND, b"x")],
    };
    for at in [0, 1, 3] {
        let error = pipeline.submit(Lsn::new(at), &run).unwrap_err();
        let next = Lsn::new(2);
        assert_eq!(error.misplaced(), Some(Misplaced::NotNext { next }));
    }
    assert_eq!(submit(&pipeline, 1, 10).unwrap_err().kind(), Kind::Fenced);
    let none = Run {
        records: &[],
        ..run
    };
    let error = pipeline.submit(Lsn::new(2), &none).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let appended = pipeline.submit(Lsn::new(2), &run).unwrap();
    assert_eq!((appended.first.get(), appended.last.get()), (2, 2));
}

/// The first failure is told once, and nothing behind it is written: its positions would be others.
#[test]
fn the_first_failure_ends_a_pipeline() {
    for (kind, of) in [
        (std::io::ErrorKind::Other, Kind::Poisoned),
        (std::io::ErrorKind::StorageFull, Kind::Full),
    ] {
        let disk = sim::Disk::new(1);
        let (journal, pipeline, durable_told) = by_hand(&disk, Mode::Ordinary);
        submit(&pipeline, 1, 10).unwrap();
        assert!(pipeline.drive());
        // A batch that begins a segment is the one that can be refused for space.
        submit(&pipeline, 1, 9000).unwrap();
        submit(&pipeline, 2, 10).unwrap();
        if of == Kind::Full {
            disk.set_available(0);
        } else {
            disk.inject(Call::SyncData, 2, Fault::Fail(kind));
        }
        while pipeline.drive() {}
        assert_eq!(told(&durable_told), [Ok(1), Err(of)]);
        assert_eq!(submit(&pipeline, 2, 10).unwrap_err().kind(), of);
        assert_eq!(pipeline.waiting_bytes(), 0);
        assert_eq!(journal.durable(), Lsn::FIRST);
    }
    // An append that came in between took the position.
    let disk = sim::Disk::new(1);
    let (journal, pipeline, durable_told) = by_hand(&disk, Mode::Ordinary);
    submit(&pipeline, 0, 10).unwrap();
    append(&journal, b"in between").unwrap();
    assert!(pipeline.drive());
    assert_eq!(told(&durable_told), [Err(Kind::Invalid)]);
    assert_eq!(durable(&journal).len(), 1);
}

#[test]
fn what_waits_is_bounded() {
    let disk = sim::Disk::new(1);
    let (journal, pipeline, _) = by_hand(&disk, Mode::Ordinary);
    let len = 8 << 20;
    let refused = loop {
        match submit(&pipeline, 1, len) {
            Ok(_) => assert!(pipeline.waiting_bytes() <= PIPELINE_BYTES_MAX),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), Kind::Full);
    assert!(pipeline.waiting_bytes() + len + 64 > PIPELINE_BYTES_MAX);
    let before = journal.counts().groups;
    while pipeline.drive() {}
    let batches = journal.counts().groups - before;
    assert!(batches >= (PIPELINE_BYTES_MAX / APPEND_LEN_MAX) as u64);
    submit(&pipeline, 1, len).unwrap();
}

/// While a sync takes its time, positions are given, and others can be sent the records.
#[test]
fn handing_in_does_not_wait_for_the_disk() {
    let disk = sim::Disk::new(1);
    let journal = Arc::new(open_replica(&disk, Mode::Ordinary).unwrap());
    let (told, durable_told) = mpsc::channel();
    let on_durable = Box::new(move |done: Result<Lsn, Error>| {
        told.send(done.unwrap().get()).unwrap();
    });
    let pipeline = Pipeline::new(Arc::clone(&journal), Upkeep::Thread, on_durable).unwrap();
    let slow = journal.hold_writer();
    for lsn in 1..=20 {
        assert_eq!(submit(&pipeline, 1, 10).unwrap().last, Lsn::new(lsn));
    }
    assert!(durable_told.try_recv().is_err());
    assert_eq!(journal.durable(), Lsn::ZERO);
    drop(slow);
    let mut last = 0;
    while last < 20 {
        let lsn = durable_told.recv().unwrap();
        assert!(lsn > last, "{lsn} after {last}");
        last = lsn;
    }
    submit(&pipeline, 1, 10).unwrap();
    // What was handed in is written before it ends.
    drop(pipeline);
    assert_eq!(durable_told.recv().unwrap(), 21);
    assert!(durable_told.recv().is_err());
    assert_eq!(journal.durable(), Lsn::new(21));
}
