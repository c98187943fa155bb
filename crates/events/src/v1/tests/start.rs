//! First runs, steady state, and the operator's two ways out of a missing safe sequence.

use tracing::Level;
use world::{Disk, sim};

use super::{Logged, contents, dir, frame, frames, get, log_of, open, options, path, put, with};
use crate::v1::{
    Cause, Error, Log, Options, POS, Recovery, SAFE_SEQ, Seq, WAL,
    upgrade::{KEPT_DIR, RESET_MARKER, UPGRADE_MARKER},
};

const MISSING: &str = "telemetry/wal: safe_seq missing in steady-state at \
    \"/telemetry/telemetry.safe_seq\"; to upgrade from a pre-Phase-1 WAL set \
    AUTONOMYOPS_WAL_LEGACY_UPGRADE=1; to accept telemetry loss after deleting telemetry.wal set \
    AUTONOMYOPS_WAL_OPERATOR_RESET=1";

fn upgraded(disk: &sim::Disk) -> Result<(Log, Recovery), Error> {
    let options = Options {
        legacy_upgrade: true,
        ..options(disk)
    };
    Log::open(dir(), &options)
}

fn reset(disk: &sim::Disk) -> Result<(Log, Recovery), Error> {
    let options = Options {
        operator_reset: true,
        ..options(disk)
    };
    Log::open(dir(), &options)
}

fn bytes(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
    frames
        .iter()
        .flat_map(|(_, payload)| frame(&text(payload)))
        .collect()
}

/// Proves: JRN-33
#[test]
fn a_first_run_opens_without_error_or_warning_and_begins_with_a_safe_sequence_of_zero() {
    let disk = sim::Disk::new(1);
    let lines = Logged::of(|| {
        let (log, recovery) = open(&disk).unwrap();
        assert!(recovery.is_first_run);
        assert_eq!((log.safe_seq(), frames(&log).len()), (Seq(0), 0));
        drop(log);
        assert!(!open(&disk).unwrap().1.is_first_run, "zero is not missing");
    });
    assert_eq!(lines, []);
    assert_eq!(get(&disk, SAFE_SEQ), Some(vec![0; 8]));
}

/// Proves: JRN-33
#[test]
fn each_sign_of_an_earlier_run_makes_a_missing_safe_sequence_a_refusal() {
    for name in ["lock.fingerprint", "activation", "runtime.db", WAL] {
        let disk = sim::Disk::new(1);
        if name == "activation" {
            disk.create_dir_all_synced(&path(name)).unwrap();
        } else {
            put(&disk, name, b"x");
        }
        let before = contents(&disk);
        let error = open(&disk).unwrap_err();
        assert_eq!(error.cause(), Some(Cause::SafePointMissing));
        assert_eq!(error.to_string(), MISSING, "{name}");
        assert_eq!(contents(&disk), before, "{name}");
        let survey = crate::v1::survey(dir(), &options(&disk)).unwrap();
        assert_eq!(survey.evidence, [name]);
        assert_eq!(survey.refusal.unwrap().to_string(), MISSING);
    }
}

/// Proves: JRN-30, JRN-33
#[test]
fn a_consumers_position_and_an_empty_log_are_no_sign() {
    for name in [POS, WAL, "active-lock.json"] {
        let disk = sim::Disk::new(1);
        put(&disk, name, if name == WAL { b"" } else { b"17" });
        assert!(open(&disk).unwrap().1.is_first_run, "{name}");
    }
    let disk = sim::Disk::new(1);
    put(&disk, "active-lock.json", b"{}");
    let mut told = options(&disk);
    told.other_state.push("active-lock.json".to_owned());
    let error = Log::open(dir(), &told).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::SafePointMissing));
}

/// Proves: JRN-34
#[test]
fn an_old_log_without_breaks_is_taken_over_byte_for_byte() {
    let old = log_of(&[1, 2, 3]);
    let mut torn = old.clone();
    torn.extend([0, 0, 0, 0, 0, 0]);
    let disk = with(&torn, None);
    let (log, recovery) = upgraded(&disk).unwrap();
    let report = recovery.upgrade.unwrap();
    assert_eq!(
        (report.frames, report.gaps, report.duplicates, report.cut),
        (3, 0, 0, 6)
    );
    assert_eq!(bytes(&frames(&log)), old);
    assert_eq!(get(&disk, WAL).unwrap(), old);
    assert_eq!(get(&disk, &format!("{KEPT_DIR}/{WAL}")).unwrap(), torn);
}

/// Proves: JRN-34
#[test]
fn gaps_and_duplicates_are_listed_and_every_frame_is_taken_over() {
    let old = log_of(&[3, 4, 4, 9, 2]);
    let disk = with(&old, None);
    let mut recovery = Recovery::default();
    let lines = Logged::of(|| recovery = upgraded(&disk).unwrap().1);
    let report = recovery.upgrade.unwrap();
    assert_eq!(
        (report.frames, report.gaps, report.duplicates, report.cut),
        (5, 2, 2, 0)
    );
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].0, Level::WARN);
    assert!(lines[0].1.contains("gaps=2 duplicates=2"), "{}", lines[0].1);
    let listed = String::from_utf8(get(&disk, &format!("{KEPT_DIR}/report.txt")).unwrap()).unwrap();
    let len = log_of(&[1]).len();
    assert_eq!(
        listed,
        format!(
            "frames 5\ngaps 2\nduplicates 2\nbytes behind the last frame 0\n\
             gap at frame 1, byte 0: sequence 3 instead of 1\n\
             duplicate at frame 3, byte {}: sequence 4 instead of 5\n\
             gap at frame 4, byte {}: sequence 9 instead of 5\n\
             duplicate at frame 5, byte {}: sequence 2 instead of 10\n",
            2 * len,
            3 * len,
            4 * len
        )
    );
    assert_eq!(get(&disk, &format!("{KEPT_DIR}/{WAL}")).unwrap(), old);
    let (log, _) = open(&disk).unwrap();
    let expected: Vec<(u64, Vec<u8>)> = (1..)
        .zip([3, 4, 4, 9, 2])
        .map(|(seq, old)| {
            let payload =
                format!(r#"{{"legacy_seq":{old},"seq":{seq},"kind":"decision","allow":true}}"#);
            (seq, payload.into_bytes())
        })
        .collect();
    assert_eq!(frames(&log), expected);
}

#[test]
fn a_renumbered_frame_keeps_every_other_byte() {
    for (old, new) in [
        (
            r#" { "a":{"seq":1}, "Seq" : 7 , "b":1.50} "#,
            r#"{"legacy_seq":7, "a":{"seq":1}, "Seq" : 1 , "b":1.50} "#,
        ),
        (
            r#"{"seq":5,"seq":7}"#,
            r#"{"legacy_seq":7,"seq":5,"seq":1}"#,
        ),
        (
            r#"{"text":"a \" seq: , }","seq":7}"#,
            r#"{"legacy_seq":7,"text":"a \" seq: , }","seq":1}"#,
        ),
        (r#"{"a":1}"#, r#"{"legacy_seq":0,"seq":1,"a":1}"#),
        (r#"{ }"#, r#"{"legacy_seq":0,"seq":1}"#),
    ] {
        let disk = with(&frame(old), None);
        let (log, _) = upgraded(&disk).unwrap();
        let read = String::from_utf8(frames(&log).pop().unwrap().1).unwrap();
        assert_eq!(read, new);
    }
}

/// Proves: JRN-33, JRN-34
#[test]
fn an_upgrade_happens_once_and_again_changes_nothing() {
    let disk = with(&log_of(&[1, 3]), None);
    drop(upgraded(&disk).unwrap());
    let before = contents(&disk);
    let lines = Logged::of(|| {
        let (log, recovery) = upgraded(&disk).unwrap();
        assert_eq!(recovery.upgrade, None);
        assert_eq!(log.safe_seq(), Seq(2));
    });
    assert_eq!(contents(&disk), before);
    assert!(lines[0].1.contains("is set and not needed"), "{lines:?}");
    // Left set, it does not cover for a safe sequence that is lost later.
    disk.remove_file(&path(SAFE_SEQ)).unwrap();
    let error = upgraded(&disk).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::SafePointMissing));
    let text = error.to_string();
    assert!(
        text.starts_with(MISSING) && text.contains(UPGRADE_MARKER),
        "{text}"
    );
    // Until the operator allows it again; the log kept first stays.
    disk.remove_file(&path(UPGRADE_MARKER)).unwrap();
    let (_, recovery) = upgraded(&disk).unwrap();
    assert_eq!(
        recovery.upgrade.unwrap().kept,
        path(&format!("{KEPT_DIR}-2"))
    );
    assert_eq!(
        get(&disk, &format!("{KEPT_DIR}/{WAL}")).unwrap(),
        log_of(&[1, 3])
    );
}

/// Proves: JRN-34
#[test]
fn an_old_log_with_an_unreadable_frame_in_its_middle_is_refused_untouched() {
    let log = [log_of(&[1, 2]), frame("{"), log_of(&[4])].concat();
    let disk = with(&log, None);
    let before = contents(&disk);
    let error = upgraded(&disk).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::WalCorruptInvalidJson), "{error}");
    assert_eq!(contents(&disk), before);
}

/// Proves: JRN-33
#[test]
fn a_reset_is_refused_while_the_log_is_there_and_works_once() {
    let disk = with(&log_of(&[1, 2]), None);
    put(&disk, "runtime.db", b"x");
    put(&disk, POS, b"500");
    let before = contents(&disk);
    let text = reset(&disk).unwrap_err().to_string();
    assert!(
        text.starts_with(MISSING) && text.contains("is refused while"),
        "{text}"
    );
    assert_eq!(contents(&disk), before);

    disk.remove_file(&path(WAL)).unwrap();
    let mut opened = None;
    let lines = Logged::of(|| opened = Some(reset(&disk).unwrap()));
    let (mut log, recovery) = opened.unwrap();
    assert!(recovery.was_reset);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].0, Level::WARN);
    assert!(lines[0].1.contains("operator reset"), "{lines:?}");
    assert_eq!(log.append(&["{}"]).unwrap(), Seq(1));
    drop(log);
    assert_eq!(get(&disk, POS).unwrap(), b"500");

    let (log, recovery) = reset(&disk).unwrap();
    assert!(!recovery.was_reset);
    assert_eq!(log.safe_seq(), Seq(1), "a variable left set does nothing");
    drop(log);
    disk.remove_file(&path(SAFE_SEQ)).unwrap();
    disk.remove_file(&path(WAL)).unwrap();
    let text = reset(&disk).unwrap_err().to_string();
    assert!(
        text.starts_with(MISSING) && text.contains(RESET_MARKER),
        "{text}"
    );
}

#[test]
fn neither_variable_does_anything_on_a_first_run() {
    let disk = sim::Disk::new(1);
    let both = Options {
        legacy_upgrade: true,
        operator_reset: true,
        ..options(&disk)
    };
    let (log, recovery) = Log::open(dir(), &both).unwrap();
    assert!(recovery.is_first_run);
    drop(log);
    let names: Vec<String> = contents(&disk).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [SAFE_SEQ, WAL]);
}
