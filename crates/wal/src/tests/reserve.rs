//! Full disks, and the space that is kept for the last word.

use std::io::ErrorKind;

use tracing::Level;
use world::{
    Disk,
    disk::Open,
    sim::{self, Call, Fault},
};

use super::{KIND, SEGMENT_BYTES, append, bodies, options, path, segment, start::Log};
use crate::{
    Appended, Error, Journal, Kind, Local, Lsn, Options, Recovery, reserve, segment::HEADER_LEN,
};

fn with(disk: &sim::Disk, reserve_bytes: u64) -> Result<(Local, Recovery), Error> {
    Local::open(Options {
        reserve_bytes,
        ..options(disk)
    })
}

fn closing(journal: &Local, bytes: &[u8]) -> Result<Appended, Error> {
    journal.append_closing(&[(KIND, bytes)])
}

fn has_reserve(disk: &sim::Disk) -> bool {
    disk.stat(&path(reserve::NAME)).unwrap().is_some()
}

/// Appends records of `len` bytes until one is refused; returns them.
fn fill(disk: &sim::Disk, journal: &Local, len: usize) -> Vec<Vec<u8>> {
    let mut acknowledged = Vec::new();
    loop {
        let record = vec![u8::try_from(acknowledged.len() % 251).unwrap(); len];
        match append(journal, &record) {
            Ok(_) => acknowledged.push(record),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Full, "{error}");
                disk.set_available(0);
                return acknowledged;
            }
        }
    }
}

/// Proves: JRN-9
#[test]
fn a_closing_record_fits_on_a_full_disk_and_the_reserve_comes_back_with_the_space() {
    let disk = sim::Disk::new(1);
    let (journal, _) = with(&disk, 8192).unwrap();
    assert!(has_reserve(&disk) && journal.metrics().has_reserve);
    disk.set_available(30_000);
    let mut acknowledged = fill(&disk, &journal, 3000);
    assert!(journal.metrics().is_disk_full);
    assert_eq!(journal.counts().refused, 1);
    for refused in [&[1; 3000][..], &[2; 3500]] {
        assert_eq!(append(&journal, refused).unwrap_err().kind(), Kind::Full);
    }
    let appended = closing(&journal, &[9; 3000]).unwrap();
    assert_eq!(appended.first.get(), acknowledged.len() as u64 + 1);
    acknowledged.push(vec![9; 3000]);
    assert!(!has_reserve(&disk) && !journal.metrics().has_reserve);
    assert_eq!(
        closing(&journal, &[9; 6000]).unwrap_err().kind(),
        Kind::Full
    );
    assert!(bodies(&journal) == acknowledged);
    for seed in 0..8 {
        let after = disk.fork().power_loss(seed);
        let (found, report) = with(&after, 8192).unwrap();
        assert!(bodies(&found) == acknowledged && report.cut.is_none());
        assert!(!found.metrics().has_reserve, "the disk is full still");
    }

    disk.set_available(1 << 20);
    append(&journal, &[3; 9000]).unwrap();
    acknowledged.push(vec![3; 9000]);
    journal.tend().unwrap();
    assert!(has_reserve(&disk) && journal.metrics().has_reserve);
    assert!(!journal.metrics().is_disk_full);
    fill(&disk, &journal, 9000);
    closing(&journal, &[9; 3000]).unwrap();
    assert_eq!(bodies(&open_after(&disk)).last().unwrap(), &[9; 3000]);
}

fn open_after(disk: &sim::Disk) -> Local {
    with(&disk.power_loss_total(), 8192).unwrap().0
}

/// No open, no call: the thread notices that appends go on. The test waits for what it leaves.
///
/// Proves: JRN-9
#[test]
fn the_upkeep_thread_makes_the_reserve_again_once_there_is_room() {
    let disk = sim::Disk::new(1);
    let (journal, _) = Local::open(Options {
        reserve_bytes: 8192,
        upkeep: crate::Upkeep::Thread,
        clock: std::sync::Arc::new(world::RealClock::new()),
        ..options(&disk)
    })
    .unwrap();
    disk.set_available(30_000);
    fill(&disk, &journal, 3000);
    closing(&journal, &[9; 3000]).unwrap();
    assert!(!has_reserve(&disk));
    disk.set_available(1 << 20);
    append(&journal, &[1; 6000]).unwrap();
    while !journal.metrics().has_reserve {
        std::thread::yield_now();
    }
    assert!(has_reserve(&disk) && !journal.metrics().is_disk_full);
}

#[test]
fn without_a_reserve_a_closing_record_is_refused_like_any_other() {
    let disk = sim::Disk::new(1);
    let (journal, _) = with(&disk, 0).unwrap();
    assert!(!has_reserve(&disk));
    disk.set_available(30_000);
    let acknowledged = fill(&disk, &journal, 3000);
    assert_eq!(
        closing(&journal, &[9; 3000]).unwrap_err().kind(),
        Kind::Full
    );
    assert!(bodies(&journal) == acknowledged);
    disk.set_available(30_000);
    append(&journal, &[9; 3000]).unwrap();
}

/// Where there is room, a closing record is a record: the reserve stays.
#[test]
fn a_closing_record_that_fits_leaves_the_reserve() {
    let disk = sim::Disk::new(1);
    let (journal, _) = with(&disk, 8192).unwrap();
    for _ in 0..8 {
        closing(&journal, &[9; 3000]).unwrap();
    }
    assert!(has_reserve(&disk));
    assert_eq!(journal.counts().appends, 8);
}

/// Proves: JRN-9
#[test]
fn a_full_disk_is_told_once_and_so_is_its_end() {
    let disk = sim::Disk::new(1);
    let log = Log::of(|| {
        let (journal, _) = with(&disk, 8192).unwrap();
        for _ in 0..2 {
            disk.set_available(30_000);
            fill(&disk, &journal, 3000);
            for _ in 0..5 {
                append(&journal, &[1; 3000]).unwrap_err();
            }
            disk.set_available(1 << 20);
            for _ in 0..5 {
                append(&journal, &[1; 3000]).unwrap();
            }
        }
        assert_eq!(journal.counts().refused, 12);
    });
    let expected = ["is full", "has room", "is full", "has room"];
    assert_eq!(log.len(), expected.len(), "{log:#?}");
    for ((level, line), part) in log.iter().zip(expected) {
        assert!(*level == Level::WARN && line.contains(part), "{line}");
    }
}

/// A journal that ended in the middle of a batch of `len` bytes, on a disk that is full since.
fn torn_on_a_full_disk(reserve_bytes: u64, len: usize) -> sim::Disk {
    let disk = sim::Disk::new(1);
    let (journal, _) = with(&disk, reserve_bytes).unwrap();
    append(&journal, b"one").unwrap();
    let after = disk.process_death();
    drop(journal);
    let file = after.open(&segment(1), Open::Write).unwrap();
    let at = HEADER_LEN as u64 + 64;
    file.write_all_at(&vec![0xA5; len], at).unwrap();
    after.set_available(0);
    after
}

/// Proves: JRN-9, JRN-14
#[test]
fn a_torn_tail_on_a_full_disk_is_kept_aside_in_the_space_of_the_reserve() {
    let disk = torn_on_a_full_disk(8192, 4000);
    let (journal, report) = with(&disk, 8192).unwrap();
    let cut = report.cut.unwrap();
    assert_eq!(disk.read(&cut.quarantine, 1 << 20).unwrap(), [0xA5; 4000]);
    assert!(
        disk.stat(&cut.quarantine.with_extension("txt"))
            .unwrap()
            .is_some()
    );
    assert_eq!(bodies(&journal), [b"one"]);
    append(&journal, b"two").unwrap();
    drop(journal);
    assert_eq!(
        with(&disk, 8192).unwrap().1.cut,
        None,
        "nothing is left to repair"
    );
}

/// Proves: JRN-9
#[test]
fn an_open_that_the_reserve_cannot_help_says_what_to_free_and_changes_no_record() {
    for (reserve_bytes, len) in [(0, 4000), (4096, 6000)] {
        let disk = torn_on_a_full_disk(reserve_bytes, len);
        for _ in 0..2 {
            let refused = with(&disk, reserve_bytes).unwrap_err();
            assert_eq!((refused.kind(), refused.cause()), (Kind::Full, None));
            let text = refused.to_string();
            for part in [format!("{len} bytes of a torn tail"), "free ".to_owned()] {
                assert!(text.contains(&part), "{part} in {text}");
            }
        }
        disk.set_available(1 << 20);
        let (journal, report) = with(&disk, reserve_bytes).unwrap();
        assert_eq!(report.cut.unwrap().len, len as u64);
        assert_eq!(bodies(&journal), [b"one"]);
    }
}

/// Everything a journal does for space: appends that grow and roll, a closing record, releases,
/// opens. Returns what was acknowledged and the first position that may be needed.
fn exercise(disk: &sim::Disk, reserve_bytes: u64, full_from: usize) -> Vec<Vec<u8>> {
    let mut acknowledged: Vec<Vec<u8>> = Vec::new();
    let mut journal = None;
    for step in 0..16_u8 {
        if usize::from(step) == full_from {
            disk.set_available(u64::from(step) * 700);
        }
        if step % 5 == 0 {
            drop(journal.take());
        }
        let opened = match journal.take() {
            Some(journal) => Ok(journal),
            None => with(disk, reserve_bytes).map(|opened| opened.0),
        };
        let this = match opened {
            Ok(this) => this,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Full, "step {step}: {error}");
                continue;
            }
        };
        let record = vec![step; 1000 + usize::from(step % 4) * 2500];
        let outcome = match step % 4 {
            3 => closing(&this, &record),
            _ => this.append(&[(KIND, &record)]),
        };
        match outcome {
            Ok(appended) => {
                assert_eq!(appended.first.get(), acknowledged.len() as u64 + 1);
                acknowledged.push(record);
            }
            Err(error) => assert_eq!(error.kind(), Kind::Full, "step {step}: {error}"),
        }
        assert!(
            bodies(&this) == acknowledged,
            "step {step}: readable while full"
        );
        journal = Some(this);
    }
    acknowledged
}

/// The disk fills up before each step of a run, with a little left or nothing; later it has space
/// again. The journal never poisons, stays readable, goes on by itself, and loses nothing.
///
/// Proves: JRN-9
#[test]
fn a_disk_that_fills_up_at_any_moment_refuses_and_then_goes_on_by_itself() {
    let mut refused = 0;
    for reserve_bytes in [0, 4096, SEGMENT_BYTES] {
        for full_from in 0..16 {
            let disk = sim::Disk::new(1);
            let mut acknowledged = exercise(&disk, reserve_bytes, full_from);
            refused += 16 - acknowledged.len();
            disk.set_available(1 << 20);
            let (journal, _) = with(&disk, reserve_bytes).unwrap();
            append(&journal, b"room again").unwrap();
            acknowledged.push(b"room again".to_vec());
            assert!(bodies(&journal) == acknowledged);
            let end = Lsn::new(acknowledged.len() as u64);
            assert_eq!(journal.safe_point(), end, "a failed append leaves no hole");
            for seed in 0..4 {
                let after = disk.fork().power_loss(seed);
                let (journal, _) = with(&after, reserve_bytes).unwrap();
                assert!(
                    bodies(&journal) == acknowledged,
                    "full from {full_from}, seed {seed}"
                );
            }
        }
    }
    assert!(refused > 200, "{refused} refused");
}

/// The same at every amount of space, a sector at a time: each write of growth, roll and open is
/// the one that does not fit, cut short at every sector.
///
/// Proves: JRN-9
#[test]
fn whatever_space_is_left_the_journal_refuses_and_then_goes_on() {
    let whole = sim::Disk::new(1);
    let most = 16 * SEGMENT_BYTES;
    exercise(&whole, SEGMENT_BYTES, 99);
    for available in (0..most).step_by(1536) {
        for reserve_bytes in [0, SEGMENT_BYTES] {
            let disk = sim::Disk::new(1);
            disk.set_capacity(available);
            let mut acknowledged = exercise(&disk, reserve_bytes, 99);
            disk.set_capacity(1 << 30);
            let story = format!("{available} bytes, reserve {reserve_bytes}");
            let (journal, _) =
                with(&disk, reserve_bytes).unwrap_or_else(|e| panic!("{story}: {e}"));
            append(&journal, b"room again").unwrap();
            acknowledged.push(b"room again".to_vec());
            let (journal, _) = with(&disk.power_loss_total(), reserve_bytes).unwrap();
            assert!(bodies(&journal) == acknowledged, "{story}");
        }
    }
}

/// Every call of making space says that the disk is full, once each: only a batch of records that
/// was being written leaves a doubt, and that one poisons.
///
/// Proves: JRN-8, JRN-9
#[test]
fn a_full_disk_at_any_call_harms_nothing_acknowledged() {
    let whole = sim::Disk::new(1);
    run(&whole);
    for call in [
        Call::Create,
        Call::Write,
        Call::CreateDir,
        Call::SyncAll,
        Call::Lock,
    ] {
        for nth in 1..=whole.count(call) {
            let disk = sim::Disk::new(1);
            disk.inject(call, nth, Fault::Fail(ErrorKind::StorageFull));
            let (acknowledged, attempted) = run(&disk);
            let story = format!("{call:?} number {nth}");
            for found in [disk.process_death(), disk.power_loss_total()] {
                let (journal, _) = with(&found, 8192).unwrap_or_else(|e| panic!("{story}: {e}"));
                let end = usize::try_from(journal.safe_point().get()).unwrap();
                assert!((acknowledged..=attempted).contains(&end), "{story}: {end}");
                let expected: Vec<Vec<u8>> = (0..end).map(numbered).collect();
                assert!(bodies(&journal) == expected, "{story}");
                append(&journal, b"on").unwrap();
            }
        }
    }
}

fn numbered(number: usize) -> Vec<u8> {
    vec![u8::try_from(number).unwrap(); 3000]
}

/// Appends eight records, the last one as a closing record; returns how many were acknowledged and how
/// many may be there.
fn run(disk: &sim::Disk) -> (usize, usize) {
    let Ok((journal, _)) = with(disk, 8192) else {
        return (0, 0);
    };
    let mut acknowledged = 0;
    while acknowledged < 8 {
        let record = numbered(acknowledged);
        let outcome = match acknowledged {
            7 => closing(&journal, &record),
            _ => journal.append(&[(KIND, &record)]),
        };
        match outcome.map_err(|error| error.kind()) {
            Ok(_) => acknowledged += 1,
            Err(Kind::Full) => {}
            Err(kind) => {
                assert_eq!(kind, Kind::Poisoned);
                return (acknowledged, acknowledged + 1);
            }
        }
    }
    (acknowledged, acknowledged)
}

/// The machine ends at every effect of filling up, closing and being given space again.
///
/// Proves: JRN-9
#[test]
fn a_crash_while_the_reserve_is_used_or_made_loses_nothing_acknowledged() {
    let run = |disk: &sim::Disk| -> Vec<Vec<u8>> {
        let mut acknowledged = Vec::new();
        let mut attempt = || -> Result<(), Error> {
            let (journal, _) = with(disk, 8192)?;
            for _ in 0..2 {
                disk.set_available(20_000);
                while append(&journal, &numbered(acknowledged.len())).is_ok() {
                    acknowledged.push(numbered(acknowledged.len()));
                }
                disk.set_available(0);
                closing(&journal, &numbered(acknowledged.len()))?;
                acknowledged.push(numbered(acknowledged.len()));
                disk.set_available(1 << 20);
                append(&journal, &numbered(acknowledged.len()))?;
                acknowledged.push(numbered(acknowledged.len()));
                journal.tend()?;
            }
            Ok(())
        };
        drop(attempt());
        acknowledged
    };
    let whole = sim::Disk::new(1);
    let all = run(&whole).len();
    assert!(all >= 10 && has_reserve(&whole), "{all}");
    for effect in 1..=whole.effects() {
        let disk = sim::Disk::new(1);
        disk.crash_at(effect);
        let acknowledged = run(&disk);
        for seed in 0..6 {
            let story = format!("effect {effect}, seed {seed}");
            let after = disk.power_loss(seed);
            after.set_available(1 << 20);
            let (journal, _) = with(&after, 8192).unwrap_or_else(|e| panic!("{story}: {e}"));
            let found = bodies(&journal);
            let extra = found.len() - acknowledged.len();
            assert!(
                extra <= 1 && found[..acknowledged.len()] == acknowledged,
                "{story}"
            );
            assert!(has_reserve(&after), "{story}");
            append(&journal, b"on").unwrap();
        }
    }
}

/// The disk stays full, and the owner's releases give each next segment its file: appends go on, and
/// the journal must not say for ever that they are refused.
#[test]
fn a_full_disk_is_over_when_appends_go_on_in_released_files() {
    let disk = sim::Disk::new(1);
    let (journal, _) = with(&disk, 0).unwrap();
    disk.set_available(60_000);
    fill(&disk, &journal, 5000);
    assert!(journal.metrics().is_disk_full);
    journal.release_below(journal.safe_point()).unwrap();
    append(&journal, &[1; 5000]).unwrap();
    assert_eq!(journal.counts().recycled, 1);
    assert!(!journal.metrics().is_disk_full);
}

/// On a file system that copies on write, even the header of a segment that a released file becomes
/// may find no room. The file goes: nobody would give its space back until the journal is opened again.
///
/// Proves: JRN-9
#[test]
fn a_released_file_that_finds_no_room_for_a_header_is_not_kept() {
    let disk = sim::Disk::new(1);
    let (journal, _) = with(&disk, 0).unwrap();
    for number in 0..4 {
        append(&journal, &[number; 5000]).unwrap();
    }
    journal.release_below(Lsn::new(2)).unwrap();
    let released = crate::spare::Spare::path_of(super::DIR.as_ref(), Lsn::FIRST);
    assert!(disk.stat(&released).unwrap().is_some());
    disk.inject_on(
        &released,
        Call::Write,
        1,
        Fault::Fail(ErrorKind::StorageFull),
    );
    append(&journal, &[4; 5000]).unwrap();
    assert_eq!(disk.unmet_faults(), 0);
    assert!(disk.stat(&released).unwrap().is_none());
    assert_eq!(bodies(&journal).len(), 4);
}
