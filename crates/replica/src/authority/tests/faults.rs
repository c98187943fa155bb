//! Calls that fail or lie while a record is kept: the old record is in force or the handle is dead,
//! and no epoch is used that is not on the disk.

use std::{env, io::ErrorKind, process::Command};

use world::sim::{Call, Fault};

use super::*;

/// Fails each call of one kind in turn. Whatever the caller was told, the disk holds no less.
#[test]
fn after_any_call_that_fails_the_handle_is_dead_and_the_file_decides() {
    let fail = Fault::Fail(ErrorKind::Other);
    let scattered = Fault::FailScattered(ErrorKind::Other);
    let mut faults = 0;
    for (call, fault) in [
        (Call::Write, fail),
        (Call::Write, Fault::Fail(ErrorKind::StorageFull)),
        (Call::SyncData, fail),
        (Call::SyncData, scattered),
    ] {
        for nth in 1..=4 {
            for seed in 0..12 {
                let disk = prepared(seed);
                let mut authority = create(&disk).unwrap();
                disk.inject(call, nth, fault);
                let error = keep(&mut authority, 2).unwrap_err();
                assert_eq!(error.kind(), Kind::Io, "{error}");
                assert_eq!(disk.unmet_faults(), 0);
                assert_eq!(number(&authority), 1, "memory follows the disk");
                assert_eq!(keep(&mut authority, 2).unwrap_err().kind(), Kind::Poisoned);
                faults += 1;
                drop(authority);

                // Another process, on the same machine: it may see what is only in memory.
                let (mut again, _) = open(&disk).unwrap();
                let opened = number(&again);
                assert!((1..=2).contains(&opened));
                let lost = open(&disk.fork().power_loss_total()).unwrap().0;
                assert_eq!(number(&lost), opened, "{call:?} {nth}: opened, then lost");
                keep(&mut again, opened + 1).unwrap();
            }
        }
    }
    assert_eq!(faults, 4 * 4 * 12);
}

/// The same, and the power goes at once: what is there was whole before or after.
#[test]
fn a_power_loss_behind_a_failed_sync_leaves_a_record_that_opens() {
    for nth in 1..=4 {
        for seed in 0..40 {
            let disk = prepared(seed);
            let mut authority = create(&disk).unwrap();
            disk.inject(Call::SyncData, nth, Fault::FailScattered(ErrorKind::Other));
            keep(&mut authority, 2).unwrap_err();
            let (found, _) = open(&disk.fork().power_loss(seed)).unwrap();
            assert!(number(&found) <= 2);

            // Opened by another process that ends amid it.
            for step in 1..=8 {
                let again = disk.fork();
                again.crash_at(step);
                assert!(open(&again).is_err());
                for seed in 0..4 {
                    let (found, _) = open(&again.power_loss(seed)).unwrap();
                    assert!(number(&found) <= 2);
                }
            }
        }
    }
}

#[test]
fn a_write_that_the_disk_lost_or_put_elsewhere_is_found_by_reading_back() {
    let places = [0, 1, 2, 3].map(|index| index * COPY_LEN);
    let mut astray = vec![Fault::Lost];
    astray.extend(places.map(Fault::Misdirected));
    for &fault in &astray {
        for nth in 1..=4_u64 {
            let disk = kept(5);
            let mut authority = open(&disk).unwrap().0;
            disk.inject(Call::Write, nth, fault);
            let told = keep(&mut authority, 6);
            let story = format!("{fault:?}, write {nth}");
            let on_disk = open(&disk.fork().power_loss_total());
            match told {
                Ok(()) => assert_eq!(number(&on_disk.unwrap().0), 6, "{story}"),
                // A copy landed on one that was written before: two are left, and they are the new ones.
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Corrupt, "{story}");
                    assert_eq!(number(&on_disk.unwrap().0), 6, "{story}");
                    assert_eq!(number(&authority), 5, "{story}");
                }
            }
        }
    }
    for (lost, is_kept) in [(1, true), (2, false), (3, false), (4, false)] {
        let disk = kept(5);
        let mut authority = open(&disk).unwrap().0;
        for _ in 0..lost {
            disk.inject(Call::Write, 1, Fault::Lost);
        }
        let told = keep(&mut authority, 6);
        assert_eq!(told.is_ok(), is_kept, "{lost} lost");
        if let Err(error) = told {
            let shown = error.to_string();
            let text = format!(
                "{} of 4 copies of the authority record were read back",
                4 - lost
            );
            assert!(shown.starts_with(&text), "{shown}");
        }
    }
}

/// A bad place of the disk is written first from then on: while it is, three others agree.
#[test]
fn with_one_bad_copy_a_crash_still_leaves_a_record_that_opens() {
    for step in 1..=8 {
        for seed in 0..16 {
            let disk = kept(5);
            let mut authority = open(&disk).unwrap().0;
            disk.inject(Call::Write, 3, Fault::Lost);
            keep(&mut authority, 6).unwrap();
            assert_eq!(authority.sound_copies(), 3);
            disk.crash_at(step);
            keep(&mut authority, 7).unwrap_err();
            let (found, _) = open(&disk.power_loss(seed)).unwrap();
            assert!((6..=7).contains(&number(&found)), "step {step} seed {seed}");
        }
    }
}

#[test]
fn a_full_disk_has_room_for_every_record_but_the_first() {
    let disk = prepared(1);
    disk.set_available(FILE_LEN as u64 - 1);
    assert_eq!(create(&disk).unwrap_err().kind(), Kind::Io);
    assert!(disk.stat(path()).unwrap().is_none());
    disk.set_available(FILE_LEN as u64);
    let mut authority = create(&disk).unwrap();
    disk.set_available(0);
    for number in 2..20 {
        keep(&mut authority, number).unwrap();
    }
    assert_eq!(number(&open(&disk).unwrap().0), 19);
}

#[test]
fn what_has_no_room_in_a_record_changes_nothing() {
    let disk = kept(5);
    let before = bytes(&disk);
    let mut authority = open(&disk).unwrap().0;
    let effects = disk.effects();
    let mut crowded = record(6);
    crowded.config.members = testing::nodes(0..17);
    let error = authority.keep(&crowded, BIRTH, time(6)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "17 members do not fit in an authority record, 16 do, /node/authority"
    );
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(disk.effects(), effects);
    assert!(bytes(&disk) == before);
    keep(&mut authority, 6).unwrap();

    let mut wordy = record(7);
    wordy.reason = "ä".repeat(400);
    authority.keep(&wordy, BIRTH, time(7)).unwrap();
    let again = open(&disk).unwrap().0;
    assert_eq!(again.entry().record.reason, "ä".repeat(REASON_LEN_MAX / 2));
}

#[test]
fn the_file_is_made_once_and_each_record_names_the_one_before() {
    let disk = prepared(1);
    let mut authority = create(&disk).unwrap();
    let error = create(&disk).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(
        error.to_string(),
        "an authority record is there already, /node/authority"
    );
    assert_eq!(authority.entry().predecessor, Digest([0; 32]));
    for number in 2..5 {
        let before = authority.digest();
        keep(&mut authority, number).unwrap();
        assert_eq!(authority.entry().predecessor, before);
        assert_ne!(authority.digest(), before);
    }
    disk.clear_log();
    let removed = |op: &sim::Op| {
        matches!(
            op.effect,
            sim::Effect::RemoveFile | sim::Effect::Rename { .. }
        )
    };
    keep(&mut authority, 5).unwrap();
    assert!(!disk.log().iter().any(removed), "overwritten in place");
}

#[test]
fn the_history_keeps_the_newest_epochs_and_none_that_was_cut() {
    let start = |epoch: u64, first| EpochStart {
        epoch: Epoch(epoch),
        id: EpochId(epoch.into()),
        first: Lsn::new(first),
    };
    let mut history = Vec::new();
    for epoch in 1..=HISTORY_MAX as u64 + 5 {
        history = history_with(&history, Some(start(epoch, epoch * 10)));
    }
    assert_eq!(history.len(), HISTORY_MAX);
    assert_eq!(history[0], start(6, 60));
    assert_eq!(history_with(&history, None), history);
    assert_eq!(
        history_with(&history, Some(start(3, 30))),
        history,
        "an old one"
    );
    // Epochs 68 and 69 were never committed: 70 begins where 68 did.
    history = history_with(&history, Some(start(70, 680)));
    let last: Vec<u64> = history
        .iter()
        .rev()
        .take(2)
        .map(|start| start.epoch.0)
        .collect();
    assert_eq!(last, [70, 67]);
}

const FALLS: &str = "REPLICA_TEST_EPOCH_FALLS";

/// An epoch that falls is our own bug: the process ends before it is on disk.
///
/// Proves: AUT-2
#[test]
fn an_epoch_that_falls_ends_the_process() {
    let name = "authority::tests::faults::an_epoch_that_falls_ends_the_process";
    let change = env::var(FALLS).unwrap_or_default();
    if change.is_empty() {
        #[allow(
            clippy::disallowed_methods,
            reason = "an abort needs a process of its own"
        )]
        for (case, text) in [
            ("promised", "promised epoch 2 id"),
            ("granted", "granted epoch 2 id"),
            ("id", "promised epoch 3 id"),
        ] {
            let output = Command::new(env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(FALLS, case)
                .output()
                .unwrap();
            assert!(!output.status.success(), "{case}");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                told.contains("invariant broken") && told.contains(text),
                "{case}: {told}"
            );
        }
        return;
    }
    let disk = kept(6);
    let mut authority = open(&disk).unwrap().0;
    let mut next = record(6);
    match change.as_str() {
        "promised" => next.promised.0 = Epoch(2),
        "granted" => next.granted.0 = Epoch(2),
        _ => next.promised.1 = EpochId(77),
    }
    let result = authority.keep(&next, BIRTH, time(7));
    panic!("kept: {result:?}");
}
