//! Every byte truncated, every byte flipped, every sector zeroed, and the outcome compared with the
//! second reader; a crash harness that adds phantoms.

use std::collections::BTreeMap;

use world::{Random, sim};

use super::{contents, frame, frames, get, log_of, open, options, reader, with};
use crate::v1::{SAFE_SEQ, Seq, WAL, survey};

/// Opens, compares with what the document says about these bytes, appends, opens again.
fn check(log: &[u8], safe_seq: &[u8], outcomes: &mut BTreeMap<String, u64>, story: &str) {
    let disk = with(log, None);
    super::put(&disk, SAFE_SEQ, safe_seq);
    let before = contents(&disk);
    let surveyed = survey(super::dir(), &options(&disk)).unwrap();
    match (open(&disk), reader::read(log, safe_seq)) {
        (Err(error), reader::Outcome::Refused(code)) => {
            assert_eq!(error.cause().unwrap().code(), code, "{story}");
            assert_eq!(
                surveyed.refusal.unwrap().to_string(),
                error.to_string(),
                "{story}"
            );
            assert_eq!(
                contents(&disk),
                before,
                "{story}: a refusal changed something"
            );
            *outcomes.entry(code.to_owned()).or_default() += 1;
        }
        (Ok((mut opened, recovery)), reader::Outcome::Frames(payloads, len)) => {
            assert!(surveyed.refusal.is_none(), "{story}");
            let mut expected: Vec<_> = (1..).zip(payloads).collect();
            assert_eq!(frames(&opened), expected, "{story}");
            assert_eq!(get(&disk, WAL).unwrap(), log[..len], "{story}");
            let kept = recovery.cut.map(|cut| {
                let name = cut.kept.strip_prefix(super::dir()).unwrap().to_owned();
                get(&disk, name.to_str().unwrap()).unwrap()
            });
            assert_eq!(kept.as_deref().unwrap_or_default(), &log[len..], "{story}");
            let seq = opened.append(&[r#"{"after":true}"#]).unwrap();
            expected.push((
                seq.0,
                format!("{{\"seq\":{seq},\"after\":true}}").into_bytes(),
            ));
            drop(opened);
            let (again, recovery) = open(&disk.power_loss_total()).unwrap();
            assert_eq!(recovery.cut, None, "{story}: the second open repairs");
            assert_eq!(frames(&again), expected, "{story}");
            *outcomes.entry("opens".to_owned()).or_default() += 1;
        }
        (opened, expected) => {
            let opened = opened.map(|(_, recovery)| recovery);
            panic!("{story}: {opened:?}, the second reader says {expected:?}");
        }
    }
}

/// Five frames, two phantoms and the beginning of a third.
fn small() -> (Vec<u8>, u64) {
    let mut log = log_of(&[1, 2, 3, 4, 5, 6, 7, 8]);
    log.truncate(log.len() - 20);
    (log, 5)
}

/// Frames of some hundred bytes, so that sectors hold a few.
fn large() -> (Vec<u8>, u64) {
    let log = (1..=24)
        .flat_map(|seq: u64| {
            let filler = "x".repeat(usize::try_from(seq * 53 % 400).unwrap());
            frame(&format!(r#"{{"seq":{seq},"text":"{filler}"}}"#))
        })
        .collect();
    (log, 20)
}

/// Proves: JRN-30, JRN-31, JRN-32
#[test]
fn every_truncation_is_what_the_document_says() {
    let mut outcomes = BTreeMap::new();
    let (log, safe) = small();
    for len in 0..=log.len() {
        check(
            &log[..len],
            &safe.to_le_bytes(),
            &mut outcomes,
            &format!("{len} bytes"),
        );
    }
    let kinds: Vec<&str> = outcomes.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["SAFESEQ_GT_MAXSEQ", "SAFESEQ_NOT_FOUND", "opens"]);
}

/// Proves: JRN-31
#[test]
fn every_flipped_bit_is_what_the_document_says() {
    let mut outcomes = BTreeMap::new();
    let (log, safe) = small();
    for at in 0..log.len() {
        for mask in [1, 2, 4, 8, 16, 32, 64, 128, 0xFF] {
            let mut log = log.clone();
            log[at] ^= mask;
            let story = format!("byte {at} of the log, mask {mask:#x}");
            check(&log, &safe.to_le_bytes(), &mut outcomes, &story);
        }
    }
    for at in 0..8 {
        for mask in [1, 2, 4, 8, 16, 32, 64, 128, 0xFF] {
            let mut safe_seq = safe.to_le_bytes();
            safe_seq[at] ^= mask;
            let story = format!("byte {at} of the safe sequence, mask {mask:#x}");
            check(&log, &safe_seq, &mut outcomes, &story);
        }
    }
    assert_eq!(outcomes.len(), 6, "every code and success: {outcomes:?}");
}

/// Proves: JRN-31, JRN-32
#[test]
fn every_zeroed_sector_is_what_the_document_says() {
    let mut outcomes = BTreeMap::new();
    let (log, safe) = large();
    assert!(log.len() > 8 * 512);
    for sector in [4, 64, 512] {
        for from in (0..log.len()).step_by(sector) {
            for sectors in 1..=3 {
                let mut log = log.clone();
                let to = log.len().min(from + sectors * sector);
                log[from..to].fill(0);
                let story = format!("zeros from {from} to {to}");
                check(&log, &safe.to_le_bytes(), &mut outcomes, &story);
                // To the end, too: what a power cut leaves of a lengthened file.
                log[from..].fill(0);
                check(&log, &safe.to_le_bytes(), &mut outcomes, &story);
            }
        }
    }
    assert!(outcomes.contains_key("opens") && outcomes.contains_key("WAL_CORRUPT_INVALID_JSON"));
}

#[test]
fn any_bytes_at_all_are_what_the_document_says() {
    let mut outcomes = BTreeMap::new();
    for seed in 0..3000 {
        let random = sim::Random::new(seed);
        let below =
            |limit: usize| usize::try_from(random.number().unwrap() % limit as u64).unwrap();
        let (mut log, _) = small();
        for _ in 0..=below(4) {
            let at = below(log.len());
            match below(5) {
                0 => log.truncate(at + 1),
                1 => log[at] = u8::try_from(below(256)).unwrap(),
                2 => log.extend(vec![0; below(40)]),
                3 => drop(log.splice(at..at, frame(&super::payload(below(9) as u64)))),
                _ => {
                    let end = at + below(log.len() - at);
                    log.drain(at..end);
                    log.push(b'}');
                }
            }
        }
        let safe = below(10) as u64;
        let story = format!("seed {seed}; cargo test -p events any_bytes_at_all");
        check(&log, &safe.to_le_bytes(), &mut outcomes, &story);
    }
    assert_eq!(outcomes.len(), 6, "{outcomes:?}");
}

/// The harness of the original: commits, a phantom straight into the file, opening again.
///
/// Proves: JRN-31
#[test]
fn a_phantom_between_commits_is_never_read() {
    for seed in 0..200 {
        let random = sim::Random::new(seed);
        let commits = 1 + random.number().unwrap() % 10;
        let disk = sim::Disk::new(seed);
        let (mut log, _) = open(&disk).unwrap();
        for _ in 0..commits {
            log.append(&[r#"{"kind":"action"}"#]).unwrap();
        }
        drop(log);
        let mut bytes = get(&disk, WAL).unwrap();
        let skipped = random.number().unwrap() % 3;
        bytes.extend(log_of(&[commits + 1 + skipped]));
        super::put(&disk, WAL, &bytes);
        let (log, recovery) = open(&disk).unwrap();
        assert!(recovery.cut.is_some());
        let sequences: Vec<u64> = frames(&log).iter().map(|(seq, _)| *seq).collect();
        assert_eq!(sequences, (1..=commits).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(log.read_from(Seq(commits + 1)).count(), 0);
        assert_eq!(get(&disk, SAFE_SEQ).unwrap(), commits.to_le_bytes());
    }
}
