//! Calls that fail, are short, or find the disk full, at each call in turn.

use std::io::ErrorKind;

use world::sim::{Call, Disk, Fault};

use super::{frames, open, path};
use crate::v1::{Kind, SAFE_SEQ_TMP, Seq, WAL};

/// Appends until an append fails, then opens again and compares; `plan` is laid after two appends.
fn check(story: &str, expected: Option<Kind>, plan: impl Fn(&Disk)) {
    let disk = Disk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    for _ in 0..2 {
        log.append(&["{}"]).unwrap();
    }
    plan(&disk);
    let first = match log.append(&["{}", "{}"]) {
        Ok(last) => {
            assert_eq!((last, expected), (Seq(4), None), "{story}");
            return;
        }
        Err(first) => first,
    };
    assert_eq!(Some(first.kind()), expected, "{story}: {first}");
    for _ in 0..2 {
        let effects = disk.effects();
        let error = log.append(&["{}"]).unwrap_err();
        assert_eq!(error.kind(), Kind::Poisoned, "{story}");
        assert!(
            error.to_string().contains(&first.to_string()),
            "{story}: {error}"
        );
        assert_eq!(disk.effects(), effects, "{story}: a poisoned log wrote");
    }
    assert_eq!(log.safe_seq(), Seq(2), "{story}");
    assert_eq!(frames(&log).len(), 2, "{story}: reading goes on");
    assert_eq!(disk.unmet_faults(), 0, "{story}");
    disk.set_capacity(1 << 40);
    drop(log);
    for (after, how) in [
        (disk.power_loss(7), "power loss"),
        (disk.power_loss_total(), "nothing kept"),
        (disk.process_death(), "process death"),
    ] {
        let (mut log, recovery) = open(&after).unwrap_or_else(|e| panic!("{story}, {how}: {e}"));
        let found = recovery.safe_seq;
        assert!(
            found == Seq(2) || found == Seq(4),
            "{story}, {how}: {found}"
        );
        let (again, _) = open(&after.fork().power_loss_total()).unwrap();
        assert_eq!(again.safe_seq(), found, "{story}, {how}: read and lost");
        assert_eq!(log.append(&["{}"]).unwrap(), found.next(), "{story}, {how}");
        let lost = after.power_loss_total();
        drop(log);
        assert_eq!(
            open(&lost).unwrap().0.safe_seq(),
            found.next(),
            "{story}, {how}"
        );
    }
}

/// Proves: JRN-30
#[test]
fn after_a_failed_call_nothing_is_appended_until_the_log_is_opened_again() {
    for (call, name) in [
        (Call::Write, WAL),
        (Call::SyncAll, WAL),
        (Call::Create, SAFE_SEQ_TMP),
        (Call::Write, SAFE_SEQ_TMP),
        (Call::SyncAll, SAFE_SEQ_TMP),
        (Call::Rename, SAFE_SEQ_TMP),
        (Call::SyncDir, ""),
    ] {
        for (error, kind) in [
            (ErrorKind::Other, Kind::Io),
            (ErrorKind::StorageFull, Kind::Full),
        ] {
            for fault in [Fault::Fail(error), Fault::FailScattered(error)] {
                let path = if name.is_empty() {
                    path("").join("")
                } else {
                    path(name)
                };
                let path = path.components().collect::<std::path::PathBuf>();
                let story = format!("{call:?} of {name}, {fault:?}");
                check(&story, Some(kind), |disk| {
                    disk.inject_on(&path, call, 1, fault)
                });
            }
        }
    }
}

#[test]
fn a_short_write_is_written_on_and_a_full_disk_poisons() {
    for len in [0, 1, 4, 11] {
        let expected = (len == 0).then_some(Kind::Io);
        check(&format!("short write of {len}"), expected, |disk| {
            disk.inject_on(&path(WAL), Call::Write, 1, Fault::Short(len));
        });
    }
    for available in 0..40 {
        // Two frames of 13 bytes, then 8 of the safe sequence.
        let expected = (available < 34).then_some(Kind::Full);
        check(&format!("{available} bytes available"), expected, |disk| {
            disk.set_available(available);
        });
    }
}

#[test]
fn an_opening_whose_calls_fail_can_be_tried_again() {
    let damaged = || super::with(&super::log_of(&[1, 2, 3]), Some(2));
    for call in [
        Call::Open,
        Call::Create,
        Call::Read,
        Call::Write,
        Call::SetLen,
        Call::SyncAll,
        Call::List,
        Call::Stat,
        Call::Rename,
        Call::SyncDir,
        Call::Lock,
        Call::CreateDir,
    ] {
        for nth in 1..40 {
            let disk = damaged();
            disk.inject(call, nth, Fault::Fail(ErrorKind::Other));
            let failed = open(&disk).is_err();
            if disk.unmet_faults() > 0 {
                assert!(nth > 1, "{call:?} is never called");
                break;
            }
            assert!(failed, "{call:?} {nth} failed and nobody was told");
            let (log, _) = open(&disk).unwrap_or_else(|e| panic!("{call:?} {nth}: {e}"));
            assert_eq!(log.safe_seq(), Seq(2));
        }
    }
}
