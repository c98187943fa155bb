//! R1 to R5, each by constructing exactly its violation, and the words of the refusals.

use tracing::Level;

use super::{Logged, contents, frame, frames, get, log_of, open, options, payload, put, with};
use crate::v1::{
    Cause, Kind, LOCK, SAFE_SEQ, SAFE_SEQ_TMP, SafeSequence, Seq, WAL, judge::after, sequence_of,
    survey,
};

/// The refusal, the same from opening, opening again and surveying, and nothing changed.
fn refused(log: &[u8], safe_seq: u64, cause: Cause, text: &str) {
    let disk = with(log, Some(safe_seq));
    let before = contents(&disk);
    for _ in 0..2 {
        let error = open(&disk).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert_eq!(error.cause(), Some(cause), "{error}");
        assert_eq!(error.to_string(), text);
    }
    let survey = survey(super::dir(), &options(&disk)).unwrap();
    assert_eq!(survey.refusal.unwrap().to_string(), text);
    assert_eq!(contents(&disk), before, "a refusal changed something");
}

fn accepted(log: &[u8], safe_seq: u64) {
    let disk = with(log, Some(safe_seq));
    let surveyed = survey(super::dir(), &options(&disk)).unwrap();
    assert!(surveyed.refusal.is_none(), "{surveyed:?}");
    assert_eq!(surveyed.safe_seq, SafeSequence::Is(Seq(safe_seq)));
    let (opened, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.safe_seq, Seq(safe_seq));
    let sequences: Vec<u64> = frames(&opened).iter().map(|(seq, _)| *seq).collect();
    assert_eq!(sequences, (1..=safe_seq).collect::<Vec<_>>());
    let left = get(&disk, WAL).unwrap();
    assert_eq!(left.len() as u64, surveyed.committed_len);
    assert_eq!(left, log[..left.len()]);
    assert_eq!(recovery.cut.is_some(), left.len() < log.len());
    // Done once: the next open finds nothing to cut, whatever becomes of the power.
    let next = disk.power_loss_total();
    drop(opened);
    assert_eq!(open(&next).unwrap().1.cut, None);
}

/// Proves: JRN-31
#[test]
fn a_first_frame_that_is_not_one_is_refused_whatever_the_safe_sequence() {
    for safe_seq in [0, 1, 2, 5] {
        let text = "telemetry/wal: FIRST_SEQ_NOT_ONE — first frame Seq=2 (expected 1)";
        refused(&log_of(&[2, 3]), safe_seq, Cause::FirstSeqNotOne, text);
    }
    let text = "telemetry/wal: FIRST_SEQ_NOT_ONE — first frame Seq=0 (expected 1)";
    refused(&frame("{}"), 1, Cause::FirstSeqNotOne, text);
}

/// Proves: JRN-31
#[test]
fn a_gap_or_a_repetition_inside_the_committed_range_is_refused() {
    let text = "telemetry/wal: SEQ_GAP — frame Seq=3 follows Seq=1 (expected 2)";
    refused(&log_of(&[1, 3, 4]), 4, Cause::SeqGap, text);
    let text = "telemetry/wal: SEQ_GAP — frame Seq=2 follows Seq=2 (expected 3)";
    refused(&log_of(&[1, 2, 2, 3]), 3, Cause::SeqGap, text);
}

/// Proves: JRN-31
#[test]
fn a_gap_beyond_the_safe_sequence_is_a_phantom() {
    accepted(&log_of(&[1, 2, 3, 7, 9]), 3);
    accepted(&log_of(&[1, 2, 3, 1]), 3);
    accepted(&log_of(&[1, 5]), 0);
}

/// Proves: JRN-31
#[test]
fn a_safe_sequence_above_the_highest_found_is_refused() {
    let text = "telemetry/wal: SAFESEQ_GT_MAXSEQ — safe_seq=7 but maxSeq=5";
    refused(&log_of(&[1, 2, 3, 4, 5]), 7, Cause::SafeseqGtMaxseq, text);
    let mut torn = log_of(&[1, 2, 3, 4, 5, 6, 7]);
    torn.truncate(log_of(&[1, 2, 3, 4, 5]).len() + 9);
    refused(&torn, 7, Cause::SafeseqGtMaxseq, text);
}

/// Proves: JRN-31
#[test]
fn a_missing_frame_at_the_safe_sequence_is_refused() {
    let text = "telemetry/wal: SAFESEQ_NOT_FOUND — no frame with Seq=3";
    refused(&[], 3, Cause::SafeseqNotFound, text);
    refused(&[0, 0], 3, Cause::SafeseqNotFound, text);
    // The highest found is 4, so it is not R3; nothing up to 3 is out of order, so it is not R2.
    refused(&log_of(&[1, 2, 4]), 3, Cause::SafeseqNotFound, text);
    // No file at all counts as an empty one.
    let disk = super::sim::Disk::new(1);
    put(&disk, SAFE_SEQ, &3_u64.to_le_bytes());
    assert_eq!(open(&disk).unwrap_err().to_string(), text);
    assert_eq!(get(&disk, WAL), None);
}

/// Proves: JRN-31
#[test]
fn r3_is_asked_only_when_both_numbers_are_not_zero() {
    use Cause::{SafeseqGtMaxseq as R3, SafeseqNotFound as R4};
    for (safe, highest, is_found, cause) in [
        (0, 0, false, None),
        (0, 0, true, None),
        (0, 5, false, None),
        (0, 5, true, None),
        (5, 0, false, Some(R4)),
        (5, 3, false, Some(R3)),
        (5, 5, false, Some(R4)),
        (5, 5, true, None),
        (5, 7, false, Some(R4)),
        (5, 7, true, None),
    ] {
        let error = after(Seq(safe), Seq(highest), is_found);
        let found = error.and_then(|error| error.cause());
        assert_eq!(found, cause, "safe {safe}, highest {highest}, {is_found}");
    }
}

/// Proves: JRN-31
#[test]
fn invalid_json_in_the_committed_range_is_its_own_cause_before_r3_and_r4() {
    for bad in [
        "",
        "{",
        "nonsense",
        "[1]",
        "4",
        "null",
        r#"{"seq":"4"}"#,
        r#"{"seq":-4}"#,
        r#"{"seq":4.0}"#,
        r#"{"seq":4} x"#,
        r#"{"seq":18446744073709551616}"#,
    ] {
        let mut log = log_of(&[1, 2, 3]);
        log.extend(frame(bad));
        // Of these, 9 would be R3 and 4 would be R4 were the frame passed over.
        for safe_seq in [4, 9] {
            let text =
                "telemetry/wal: WAL_CORRUPT_INVALID_JSON — frame at Seq=4 contains invalid JSON";
            refused(&log, safe_seq, Cause::WalCorruptInvalidJson, text);
        }
        log.extend(log_of(&[5, 6]));
        accepted(&log, 3);
    }
    let text = "telemetry/wal: WAL_CORRUPT_INVALID_JSON — frame at Seq=1 contains invalid JSON";
    refused(&frame("{"), 9, Cause::WalCorruptInvalidJson, text);
}

/// Proves: JRN-31
#[test]
fn a_safe_sequence_of_another_length_than_eight_bytes_is_refused() {
    for len in (0..20).filter(|len| *len != 8) {
        let disk = with(&log_of(&[1]), None);
        put(&disk, SAFE_SEQ, &vec![1; len]);
        let before = contents(&disk);
        let error = open(&disk).unwrap_err();
        assert_eq!(error.cause(), Some(Cause::SafePointCorrupt), "{error}");
        let survey = survey(super::dir(), &options(&disk)).unwrap();
        assert_eq!(survey.safe_seq, SafeSequence::Unreadable);
        assert_eq!(survey.refusal.unwrap().to_string(), error.to_string());
        assert_eq!(contents(&disk), before);
    }
}

/// Proves: JRN-31
#[test]
fn nothing_beyond_the_safe_sequence_is_read_after_opening() {
    let whole = log_of(&[1, 2, 3, 4, 5, 6]);
    for safe_seq in 0..=6 {
        for len in log_of(&(1..=safe_seq).collect::<Vec<_>>()).len()..=whole.len() {
            accepted(&whole[..len], safe_seq);
        }
    }
}

/// Proves: JRN-32
#[test]
fn a_tail_of_zeros_beyond_the_safe_sequence_is_cut() {
    for zeros in [1, 3, 4, 5, 8, 511, 4096] {
        for safe_seq in [0, 3] {
            let mut log = log_of(&(1..=safe_seq).collect::<Vec<_>>());
            log.extend(vec![0; zeros]);
            accepted(&log, safe_seq);
        }
        // Below it, zeros are what was acknowledged and is not there.
        let mut log = log_of(&[1, 2, 3]);
        log.extend(vec![0; zeros.max(4)]);
        let text = "telemetry/wal: WAL_CORRUPT_INVALID_JSON — frame at Seq=4 contains invalid JSON";
        refused(&log, 4, Cause::WalCorruptInvalidJson, text);
    }
}

/// Proves: JRN-32
#[test]
fn a_staged_safe_sequence_goes_only_when_the_real_one_is_there() {
    let disk = with(&log_of(&[1, 2]), Some(1));
    put(&disk, SAFE_SEQ_TMP, &2_u64.to_le_bytes());
    let (log, recovery) = open(&disk).unwrap();
    assert!(recovery.leftover_removed);
    assert_eq!(get(&disk, SAFE_SEQ_TMP), None);
    assert_eq!(log.safe_seq(), Seq(1));

    // A first run: left alone by any number of opens.
    let disk = super::sim::Disk::new(1);
    put(&disk, SAFE_SEQ_TMP, &2_u64.to_le_bytes());
    for _ in 0..2 {
        let (log, recovery) = open(&disk).unwrap();
        assert!(recovery.is_first_run && !recovery.leftover_removed);
        drop(log);
        assert_eq!(get(&disk, SAFE_SEQ_TMP), Some(2_u64.to_le_bytes().to_vec()));
        assert_eq!(get(&disk, SAFE_SEQ), None);
    }
    // Kept elsewhere once it would be replaced.
    let (mut log, _) = open(&disk).unwrap();
    assert_eq!(log.append(&["{}"]).unwrap(), Seq(1));
    drop(log);
    let aside: Vec<_> = contents(&disk)
        .into_iter()
        .filter(|(name, _)| name.starts_with("quarantine/safe_seq.tmp-"))
        .collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0].1, 2_u64.to_le_bytes());
    assert_eq!(open(&disk).unwrap().1.safe_seq, Seq(1));

    // Steady state: refused, and left alone.
    let disk = with(&log_of(&[1, 2]), None);
    put(&disk, SAFE_SEQ_TMP, &2_u64.to_le_bytes());
    open(&disk).unwrap_err();
    assert_eq!(get(&disk, SAFE_SEQ_TMP), Some(2_u64.to_le_bytes().to_vec()));
}

/// Proves: JRN-31
#[test]
fn a_refusal_is_one_error_record_with_cause_dir_and_error() {
    let disk = with(&log_of(&[1, 3]), Some(3));
    let lines = Logged::of(|| drop(open(&disk).unwrap_err()));
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].0, Level::ERROR);
    assert_eq!(
        lines[0].1,
        " message=WAL_RECOVERY_FAIL_HARD cause=\"SEQ_GAP\" dir=/telemetry \
         error=telemetry/wal: SEQ_GAP — frame Seq=3 follows Seq=1 (expected 2)"
    );
}

#[test]
fn a_cut_is_one_warning_and_the_bytes_are_kept_with_a_report() {
    let disk = with(&log_of(&[1, 2, 3]), Some(1));
    let lines = Logged::of(|| drop(open(&disk).unwrap()));
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].0, Level::WARN);
    let kept: Vec<_> = contents(&disk)
        .into_iter()
        .filter(|(name, _)| name.starts_with("quarantine/"))
        .collect();
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0].1, log_of(&[2, 3]));
    let offset = log_of(&[1]).len();
    let report = format!(
        "offset {offset}\nlength {}\nfirst sequence not kept 2\nwhy beyond the safe sequence\n",
        2 * offset
    );
    assert_eq!(kept[1].1, report.as_bytes());
}

#[test]
fn the_sequence_is_the_last_key_of_that_name_in_any_case() {
    for (payload, sequence) in [
        (r#"{"seq":7}"#, Ok(7)),
        (r#" { "Seq" : 7 , "a":[{"seq":1}] } "#, Ok(7)),
        (r#"{"SEQ":1,"seq":2,"sEq":3}"#, Ok(3)),
        (r#"{"\u0073eq":9}"#, Ok(9)),
        (r#"{"seq":5,"Seq":null}"#, Ok(5)),
        (r#"{"sequence":5}"#, Ok(0)),
        (r#"{"a":"\ud800","seq":4}"#, Ok(4)),
        (r#"{"seq":true}"#, Err(())),
        (r#"{"seq":1e0}"#, Err(())),
        (r#"{"seq":1,}"#, Err(())),
    ] {
        let found = sequence_of(payload.as_bytes());
        assert_eq!(
            found.map(|seq| seq.0).map_err(|_| ()),
            sequence,
            "{payload}"
        );
    }
    let not_utf8 = b"{\"a\xff\":\"\xff\",\"seq\":3}";
    assert_eq!(sequence_of(not_utf8), Ok(Seq(3)));
    let deep = format!(
        "{{\"a\":{}{},\"seq\":3}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(sequence_of(deep.as_bytes()), Ok(Seq(3)));
}

#[test]
fn a_frame_beyond_the_limit_is_refused_before_memory_is_taken_for_it() {
    let disk = with(&log_of(&[1]), Some(1));
    let short = crate::v1::Options {
        frame_len_max: 8,
        ..options(&disk)
    };
    let error = crate::v1::Log::open(super::dir(), &short).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::WalCorruptInvalidJson));
    assert!(error.to_string().contains("beyond the limit"), "{error}");
    // A length of 4 GiB in a file without as many bytes is a torn frame.
    let mut log = log_of(&[1]);
    log.extend([0xFF; 64]);
    accepted(&log, 1);

    let disk = with(&log_of(&[1]), Some(1));
    let (mut log, _) = open(&disk).unwrap();
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(16 << 20));
    assert_eq!(log.append(&[&long]).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(log.append(&["{}"]).unwrap(), Seq(2), "not poisoned by it");
}

#[test]
fn a_second_writer_is_told_who_has_the_log() {
    let disk = with(&log_of(&[1]), Some(1));
    let first = open(&disk).unwrap();
    let error = open(&disk).unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    assert!(error.to_string().contains("the test"), "{error}");
    assert!(get(&disk, LOCK).is_some());
    drop(first);
    open(&disk).unwrap();
}

#[test]
fn a_body_gets_its_sequence_first_and_keeps_its_own_bytes() {
    let disk = with(&[], Some(0));
    let (mut log, _) = open(&disk).unwrap();
    log.append(&["{}", r#" { "b": 1.50 , "a":"\u00e9"} "#])
        .unwrap();
    assert_eq!(
        get(&disk, WAL).unwrap(),
        [
            frame(r#"{"seq":1}"#),
            frame("{\"seq\":2,\"b\": 1.50 , \"a\":\"\\u00e9\"} ")
        ]
        .concat()
    );
    for bad in ["", "[]", "{", "null", r#"{"SEQ":1}"#, r#"{"seq":null}"#] {
        let error = log.append(&["{}", bad]).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{bad}");
        assert!(error.to_string().contains("body 1 "), "{error}");
    }
    assert_eq!(log.safe_seq(), Seq(2));
    drop(log);
    let capital = crate::v1::Options {
        sequence_name: crate::v1::SequenceName::Capital,
        ..options(&disk)
    };
    let (mut log, _) = crate::v1::Log::open(super::dir(), &capital).unwrap();
    log.append(&["{\"a\":1}"]).unwrap();
    let (seq, last) = frames(&log).pop().unwrap();
    assert_eq!((seq, last), (3, br#"{"Seq":3,"a":1}"#.to_vec()));
    assert_eq!(log.read_from(Seq(3)).count(), 1);
    assert_eq!(payload(1), r#"{"seq":1,"kind":"decision","allow":true}"#);
}
