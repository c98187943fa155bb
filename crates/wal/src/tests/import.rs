//! Importing: into an empty journal only, whole or not at all to whoever opens it.

use world::sim;

use super::{KIND, append, bodies, open, options};
use crate::{
    Epoch, Error, Identity, Importing, Journal, Kind, Local, Lsn, RecordKind, import, reset,
};

const SOURCE: [u8; 32] = [7; 32];
const RECORDS: u64 = 12;

fn body(number: u64) -> Vec<u8> {
    vec![u8::try_from(number).unwrap(); 900]
}

/// The first half under epoch 1, the second under epoch 2.
fn run(disk: &sim::Disk) -> Result<Identity, Error> {
    match import(&options(disk), SOURCE, RECORDS)? {
        Importing::Done(identity) => Ok(identity),
        Importing::Goes(mut import) => {
            for number in import.taken() + 1..=RECORDS {
                let epoch = Epoch(1 + u64::from(number > RECORDS / 2));
                import.append(epoch, &[(KIND, &body(number))])?;
            }
            import.finish()
        }
    }
}

fn is_imported(disk: &sim::Disk, story: &str) {
    let (journal, _) = open(disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    let records: Vec<_> = journal
        .read(Lsn::FIRST)
        .unwrap()
        .map(|record| record.unwrap())
        .filter(|record| record.kind == KIND)
        .collect();
    let found: Vec<Vec<u8>> = records.iter().map(|record| record.bytes.clone()).collect();
    assert!(
        found == (1..=RECORDS).map(body).collect::<Vec<_>>(),
        "{story}"
    );
    assert_eq!(records[0].epoch, Epoch(1), "{story}");
    assert_eq!(records[11].epoch, Epoch(2), "{story}");
}

#[test]
fn records_are_imported_once_however_often_it_is_asked() {
    let disk = sim::Disk::new(1);
    let identity = run(&disk).unwrap();
    is_imported(&disk, "once");
    assert_eq!(run(&disk).unwrap(), identity);
    is_imported(&disk, "twice");
}

#[test]
fn a_journal_with_records_takes_no_import_and_one_that_was_reset_does() {
    let (disk, journal) = super::fresh();
    append(&journal, b"mine").unwrap();
    journal.close().unwrap();
    drop(journal);
    let error = run(&disk).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    assert_eq!(bodies(&open(&disk).unwrap().0), [b"mine".to_vec()]);
    let done = reset(&options(&disk), "to import").unwrap();
    assert_eq!(run(&disk).unwrap(), done.identity);
    is_imported(&disk, "after a reset");
    let (journal, _) = open(&disk).unwrap();
    let first = journal.read(Lsn::FIRST).unwrap().next().unwrap().unwrap();
    assert_eq!(first.kind, RecordKind::RESET);
}

/// The machine ends in place of each effect: nobody ever opens half an import, and importing again
/// ends as it would have.
#[test]
fn an_import_that_a_crash_interrupts_is_refused_until_it_is_whole() {
    let whole = sim::Disk::new(1);
    run(&whole).unwrap();
    let effects = whole.effects();
    for effect in 1..=effects {
        let disk = sim::Disk::new(1);
        disk.crash_at(effect);
        assert!(run(&disk).is_err(), "effect {effect} was not taken");
        let mut found = vec![(disk.process_death(), "process death".to_owned())];
        found.extend((0..6).map(|seed| (disk.power_loss(seed), format!("seed {seed}"))));
        for (after, how) in found {
            let story = format!("effect {effect} of {effects}, {how}");
            match Local::open(options(&after.fork())) {
                Err(error) => assert_eq!(error.kind(), Kind::Invalid, "{story}: {error}"),
                Ok((journal, _)) => {
                    let count = journal.safe_point().get();
                    assert!(count == 0 || count == RECORDS, "{story}: {count} records");
                }
            }
            run(&after).unwrap_or_else(|error| panic!("{story}: {error}"));
            is_imported(&after, &story);
        }
    }
}

#[test]
fn another_source_does_not_go_on_where_one_was_interrupted() {
    let disk = sim::Disk::new(1);
    let Importing::Goes(mut begun) = import(&options(&disk), SOURCE, RECORDS).unwrap() else {
        panic!("nothing was imported yet");
    };
    begun.append(Epoch(0), &[(KIND, b"one")]).unwrap();
    drop(begun);
    let error = import(&options(&disk), [8; 32], 3).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    let Importing::Goes(begun) = import(&options(&disk), SOURCE, RECORDS).unwrap() else {
        panic!("it is not whole");
    };
    assert_eq!(begun.taken(), 1);
    assert_eq!(begun.finish().unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn after_an_error_an_import_ends_in_errors_and_another_one_carries_on() {
    let whole = sim::Disk::new(1);
    run(&whole).unwrap();
    let mut hit = 0;
    for nth in 1..=whole.count(sim::Call::SyncData) {
        let disk = sim::Disk::new(1);
        disk.inject(
            sim::Call::SyncData,
            nth,
            sim::Fault::Fail(std::io::ErrorKind::Other),
        );
        if let Ok(Importing::Goes(mut import)) = import(&options(&disk), SOURCE, RECORDS) {
            let mut failed = false;
            for number in import.taken() + 1..=RECORDS {
                let epoch = Epoch(1 + u64::from(number > RECORDS / 2));
                failed |= import.append(epoch, &[(KIND, &body(number))]).is_err();
                if failed {
                    hit += 1;
                    assert!(import.append(epoch, &[(KIND, b"again")]).is_err());
                    assert!(import.taken() < RECORDS);
                    assert!(import.finish().is_err(), "sync {nth}");
                    break;
                }
            }
        }
        run(&disk).unwrap_or_else(|error| panic!("sync {nth}: {error}"));
        is_imported(&disk, &format!("sync {nth}"));
    }
    assert!(hit > 0);
}

#[test]
fn options_that_cannot_be_are_refused_before_anything_is_made() {
    let disk = sim::Disk::new(1);
    let options = crate::Options {
        segment_bytes: 1,
        ..options(&disk)
    };
    let error = import(&options, SOURCE, RECORDS).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    assert_eq!(disk.effects(), 0);
}
