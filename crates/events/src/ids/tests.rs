//! The parts of the index: a run's search, the filter, and how far a table reaches.

use std::{path::Path, sync::Arc};

use wal::{Generation, Identity, JournalId, Lsn};
use world::{Disk as _, sim};

use super::{
    Key,
    run::{BLOCK_ENTRIES, Entry, Run, Span, Unusable, Writer},
    table::{Seen, Table},
};

const DIR: &str = "/ids";

fn key(number: u128) -> Key {
    Key(number.to_be_bytes())
}

fn span() -> Span {
    Span {
        identity: Identity {
            journal: JournalId([3; 16]),
            generation: Generation(1),
        },
        first: Lsn::new(1),
        last: Lsn::new(9_999),
    }
}

/// A run of these, as it is after it was opened again.
fn run(disk: &sim::Disk, keys: &[u128]) -> Run {
    disk.create_dir_all_synced(Path::new(DIR)).unwrap();
    let mut writer = Writer::create(disk, Path::new(DIR), span(), keys.len() as u64).unwrap();
    for (lsn, number) in (1..).zip(keys) {
        writer
            .push(Entry {
                key: key(*number),
                lsn: Lsn::new(lsn),
            })
            .unwrap();
    }
    let path = writer.finish().unwrap().path;
    Run::open(disk, &path, span().identity, u64::MAX).unwrap()
}

fn check_search(keys: &[u128]) {
    let disk = sim::Disk::new(1);
    let mut run = run(&disk, keys);
    for with_filter in [true, false] {
        if !with_filter {
            run.filter = None;
        }
        let mut wanted: Vec<u128> = keys.to_vec();
        wanted.extend(
            keys.iter()
                .flat_map(|key| [key.wrapping_sub(1), key.wrapping_add(1)]),
        );
        wanted.extend([0, u128::MAX, 1 << 64]);
        for number in wanted {
            let expected: Vec<Lsn> = (1..)
                .zip(keys)
                .filter(|(_, key)| **key == number)
                .map(|(lsn, _)| Lsn::new(lsn))
                .take(8)
                .collect();
            let mut found = Vec::new();
            run.find(key(number), 8, &mut found).unwrap();
            assert_eq!(found, expected, "{number:x} of {} keys", keys.len());
        }
    }
    let entries: Vec<u128> = run
        .iter()
        .map(|entry| u128::from_be_bytes(entry.unwrap().key.0))
        .collect();
    assert_eq!(entries, keys);
}

#[test]
fn every_key_of_a_run_is_found_and_no_other_however_they_lie() {
    let block = BLOCK_ENTRIES as u128;
    let spread = |count: u128| {
        (0..count)
            .map(|n| n * (u128::MAX / count))
            .collect::<Vec<_>>()
    };
    for count in [1, 2, block - 1, block, block + 1, 5 * block, 20 * block + 7] {
        check_search(&spread(count));
    }
    check_search(&[]);
    // What nobody's hashes do, and somebody may make: all beside each other, at either end, or far from
    // where their share of the range is.
    check_search(&(0..5 * block).collect::<Vec<_>>());
    check_search(
        &(0..5 * block)
            .map(|n| u128::MAX - 5 * block + n)
            .collect::<Vec<_>>(),
    );
    let mut lopsided: Vec<u128> = (0..6 * block).collect();
    lopsided.extend((0..10).map(|n| u128::MAX - 10 + n));
    check_search(&lopsided);
}

#[test]
fn the_positions_of_one_key_are_found_on_both_sides_of_a_block() {
    let block = BLOCK_ENTRIES as u128;
    let mut keys: Vec<u128> = (0..block - 2).collect();
    keys.extend([block; 5]);
    keys.extend(block + 1..3 * block);
    check_search(&keys);
}

#[test]
fn a_run_that_was_changed_anywhere_is_not_read() {
    let disk = sim::Disk::new(1);
    let keys: Vec<u128> = (0..200).map(|n| n << 100).collect();
    let path = run(&disk, &keys).path;
    let bytes = disk.read(&path, 1 << 20).unwrap();
    for at in (0..bytes.len())
        .step_by(37)
        .chain(0..80)
        .chain([bytes.len() - 1])
    {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        disk.replace(&path, &changed).unwrap();
        let read = Run::open(&disk, &path, span().identity, u64::MAX)
            .and_then(|run| run.iter().try_for_each(|entry| entry.map(drop)));
        assert!(matches!(read, Err(Unusable::Unverified(_))), "byte {at}");
    }
    for len in [0, 1, 4095, 4096, 8192, bytes.len() - 1] {
        disk.replace(&path, &bytes[..len]).unwrap();
        let read = Run::open(&disk, &path, span().identity, u64::MAX);
        assert!(matches!(read, Err(Unusable::Unverified(_))), "{len} bytes");
    }
}

/// Appends end out of order. A table that went into a run while position 2 was still under way must
/// not tell that it holds 3 and then lose it, nor that it reaches beyond 1.
#[test]
fn a_table_reaches_as_far_as_there_is_no_gap_and_keeps_what_lies_beyond() {
    let lsn = Lsn::new;
    let mut table = Table::new(Vec::new(), Seen::default(), Lsn::ZERO);
    table.keep(&[(key(1), lsn(1))], lsn(1), lsn(1));
    table.keep(&[(key(3), lsn(3))], lsn(3), lsn(4));
    assert_eq!(table.covered, lsn(1));
    table.seal();
    let sealed = Arc::clone(table.sealed.as_ref().unwrap());
    assert_eq!((sealed.first, sealed.last), (lsn(1), lsn(1)));
    assert_eq!(sealed.seen.of(key(1)), [lsn(1)]);
    assert_eq!(table.active.of(key(3)), [lsn(3)]);
    table.keep(&[(key(2), lsn(2))], lsn(2), lsn(2));
    assert_eq!(table.covered, lsn(4));
    assert_eq!((table.active_first(), table.unwritten()), (lsn(2), 3));
    assert_eq!(table.active.of(key(2)), [lsn(2)]);
}
