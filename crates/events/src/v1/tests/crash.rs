//! The machine ends at every effect of a run, by process death and by power loss.

use world::sim;

use super::{contents, dir, frames, get, log_of, open, options, put};
use crate::v1::{Error, Log, Options, Recovery, SAFE_SEQ, Seq, WAL, upgrade::KEPT_DIR};

/// What a run was told.
#[derive(Clone, Debug, Default)]
struct Model {
    acknowledged: u64,
    /// With the append in flight.
    attempted: u64,
}

/// Frames an append has, and opening again: everything the writer does.
const STEPS: &[u64] = &[1, 3, 0, 1, 1, 0, 2, 1];

fn run(disk: &sim::Disk) -> Model {
    let mut model = Model::default();
    let Ok((mut log, _)) = open(disk) else {
        return model;
    };
    for &step in STEPS {
        if step == 0 {
            drop(log);
            match open(disk) {
                Ok((again, _)) => log = again,
                Err(_) => return model,
            }
            continue;
        }
        model.attempted = model.acknowledged + step;
        let bodies = vec![r#"{"kind":"lifecycle"}"#; usize::try_from(step).unwrap()];
        match log.append(&bodies) {
            Ok(last) => {
                assert_eq!(last, Seq(model.attempted));
                model.acknowledged = last.0;
            }
            Err(_) => return model,
        }
    }
    model
}

fn aftermaths(disk: &sim::Disk, seeds: u64) -> Vec<(sim::Disk, String)> {
    let mut found = vec![
        (disk.process_death(), "process death".to_owned()),
        (
            disk.power_loss_total(),
            "power loss, nothing kept".to_owned(),
        ),
    ];
    for seed in 0..seeds {
        found.push((disk.power_loss(seed), format!("power loss, seed {seed}")));
    }
    found
}

/// All that was acknowledged, at most the append in flight besides, and that one whole.
fn check(disk: &sim::Disk, model: &Model, story: &str) {
    let (mut log, recovery) = open(disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    let found = recovery.safe_seq.0;
    assert!(
        found == model.acknowledged || found == model.attempted,
        "{story}: {model:?}, {found} found"
    );
    let sequences: Vec<u64> = frames(&log).iter().map(|(seq, _)| *seq).collect();
    assert_eq!(sequences, (1..=found).collect::<Vec<_>>(), "{story}");
    // What a reader saw stays: the next power loss must not take it back.
    let (again, _) = open(&disk.fork().power_loss_total()).unwrap();
    assert_eq!(frames(&again), frames(&log), "{story}: read and lost");
    assert_eq!(log.append(&["{}"]).unwrap(), Seq(found + 1), "{story}");
    let next = disk.power_loss_total();
    drop(log);
    let (log, recovery) = open(&next).unwrap_or_else(|error| panic!("{story}, again: {error}"));
    assert_eq!(log.safe_seq(), Seq(found + 1), "{story}");
    assert_eq!(recovery.cut, None, "{story}: the second open repairs");
}

/// Proves: JRN-30, JRN-31, JRN-32
#[test]
fn nothing_acknowledged_is_lost_whichever_effect_is_the_last() {
    let disk = sim::Disk::new(1);
    let whole = run(&disk);
    assert_eq!(whole.acknowledged, 9);
    let effects = disk.effects();
    for effect in 1..=effects {
        let disk = sim::Disk::new(1);
        disk.crash_at(effect);
        let model = run(&disk);
        for (after, how) in aftermaths(&disk, 12) {
            check(
                &after,
                &model,
                &format!("effect {effect} of {effects}, {how}"),
            );
        }
    }
}

/// Proves: JRN-31
#[test]
fn a_crash_while_phantoms_are_cut_changes_nothing_about_the_result() {
    let damaged = || super::with(&[log_of(&[1, 2, 3, 4]), vec![0; 9]].concat(), Some(2));
    let disk = damaged();
    let before = disk.effects();
    drop(open(&disk).unwrap());
    let effects = disk.effects() - before;
    let whole = contents(&disk);
    for effect in 1..=effects {
        let disk = damaged();
        disk.crash_at(effect);
        drop(open(&disk));
        for (after, how) in aftermaths(&disk, 8) {
            let story = format!("effect {effect} of {effects}, {how}");
            let (log, _) = open(&after).unwrap_or_else(|error| panic!("{story}: {error}"));
            assert_eq!(log.safe_seq(), Seq(2), "{story}");
            drop(log);
            // The kept bytes with it: nothing is cut that was not kept. A power loss amid the cut may
            // leave zeros in its place, which are then another cut.
            let found = contents(&after);
            assert!(
                whole.iter().all(|file| found.contains(file)),
                "{story}: {found:?}"
            );
        }
    }
}

fn with_variables(disk: &sim::Disk) -> Result<(Log, Recovery), Error> {
    let options = Options {
        legacy_upgrade: true,
        operator_reset: true,
        ..options(disk)
    };
    Log::open(dir(), &options)
}

/// Runs one opening to each of its effects, ends the machine there, opens again.
fn check_start(
    story: &str,
    make: impl Fn() -> sim::Disk,
    compare: impl Fn(&sim::Disk, &Log, &str),
) {
    let disk = make();
    let before = disk.effects();
    drop(with_variables(&disk).unwrap());
    let effects = disk.effects() - before;
    assert!(effects > 10, "{story}: {effects} effects");
    for effect in 1..=effects {
        let disk = make();
        disk.crash_at(effect);
        drop(with_variables(&disk));
        for (after, how) in aftermaths(&disk, 12) {
            let story = format!("{story}, effect {effect} of {effects}, {how}");
            let (log, _) = with_variables(&after).unwrap_or_else(|e| panic!("{story}: {e}"));
            compare(&after, &log, &story);
            drop(log);
            let whole = contents(&after);
            let (log, recovery) = with_variables(&after.power_loss_total()).unwrap();
            assert!(
                recovery.upgrade.is_none() && !recovery.was_reset,
                "{story}: twice"
            );
            assert_eq!(recovery.cut, None, "{story}");
            drop(log);
            assert!(whole.iter().any(|(name, _)| name == SAFE_SEQ), "{story}");
        }
    }
}

/// Proves: JRN-33, JRN-34
#[test]
fn an_upgrade_that_crashes_anywhere_ends_as_one_that_did_not() {
    for sequences in [&[3, 4, 4, 9][..], &[1, 2, 3], &[]] {
        let old = log_of(sequences);
        let count = sequences.len();
        let make = || {
            let disk = super::with(&old, None);
            put(&disk, "lock.fingerprint", b"x");
            disk
        };
        let report = |disk: &sim::Disk| get(disk, &format!("{KEPT_DIR}/report.txt"));
        let whole = make();
        drop(with_variables(&whole).unwrap());
        check_start(&format!("{sequences:?}"), make, |disk, log, story| {
            let found: Vec<u64> = frames(log).iter().map(|(seq, _)| *seq).collect();
            assert_eq!(found, (1..=count as u64).collect::<Vec<_>>(), "{story}");
            let kept = get(disk, &format!("{KEPT_DIR}/{WAL}"));
            assert_eq!(kept.as_deref(), Some(&old[..]), "{story}");
            assert_eq!(report(disk), report(&whole), "{story}: another report");
        });
    }
}

/// Proves: JRN-33
#[test]
fn a_reset_that_crashes_anywhere_ends_as_one_that_did_not() {
    let make = || {
        let disk = sim::Disk::new(1);
        put(&disk, "runtime.db", b"x");
        put(&disk, "telemetry.safe_seq.tmp", &9_u64.to_le_bytes());
        disk
    };
    check_start("reset", make, |disk, log, story| {
        assert_eq!(log.safe_seq(), Seq(0), "{story}");
        let is_kept = contents(disk).iter().any(|(name, bytes)| {
            name.contains("safe_seq.tmp-") && bytes[..] == 9_u64.to_le_bytes()
        });
        assert!(is_kept, "{story}: the staged safe sequence is gone");
    });
}
