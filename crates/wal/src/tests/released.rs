//! Journals that an earlier build wrote, kept under `fixtures/journal-1`: they open for ever, and every record
//! is the one that was appended then. `manifest.txt` beside the files lists the records.

use std::{fs, path::PathBuf};

use world::{Disk, disk::Open, sim};

use super::{DIR, append, open_in, path};
use crate::{Generation, Journal, Lsn, Mode};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/journal-1")
}

/// The files of a fixture on a simulated disk: opening must not change what is kept.
fn load(name: &str) -> sim::Disk {
    let disk = sim::Disk::new(1);
    disk.create_dir_all_synced(DIR.as_ref()).unwrap();
    for entry in fs::read_dir(fixtures().join(name)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() == "manifest.txt" {
            continue;
        }
        let to = path(entry.file_name().to_str().unwrap());
        let file = disk.open(&to, Open::CreateNew).unwrap();
        file.write_all_at(&fs::read(entry.path()).unwrap(), 0)
            .unwrap();
        file.sync_all().unwrap();
    }
    disk.sync_dir(DIR.as_ref()).unwrap();
    disk
}

/// A line of the manifest: position, kind, length and checksum of a record.
fn lines(journal: &crate::Local) -> Vec<String> {
    journal
        .read(journal.first_retained())
        .unwrap()
        .map(|record| {
            let record = record.unwrap();
            let checksum = crc32c::crc32c(&record.bytes);
            format!(
                "{} {} {} {checksum:08x}",
                record.lsn,
                record.kind.0,
                record.bytes.len()
            )
        })
        .collect()
}

fn check(name: &str, mode: Mode, first: u64, cut: bool) {
    let manifest = fs::read_to_string(fixtures().join(name).join("manifest.txt")).unwrap();
    let expected: Vec<&str> = manifest.lines().collect();
    // In the mode it was written in and in the other one.
    for opened_in in [mode, Mode::Ordinary, Mode::Strict] {
        let disk = load(name);
        let (journal, report) = open_in(&disk, opened_in).unwrap();
        assert_eq!(report.cut.is_some(), cut, "{name}");
        assert_eq!(journal.identity().generation, Generation(1));
        assert_eq!(journal.first_retained(), Lsn::new(first), "{name}");
        assert_eq!(lines(&journal), expected, "{name}");
        let next = append(&journal, b"appended by today's build").unwrap();
        assert_eq!(next.get(), first + expected.len() as u64, "{name}");
        journal.close().unwrap();
        drop(journal);
        let (journal, report) = open_in(&disk, opened_in).unwrap();
        assert_eq!(report.cut, None, "{name}");
        assert_eq!(lines(&journal).len(), expected.len() + 1, "{name}");
    }
}

#[test]
fn a_journal_in_ordinary_mode_opens_with_every_record() {
    check("ordinary", Mode::Ordinary, 1, false);
}

#[test]
fn a_journal_in_strict_mode_opens_with_every_record() {
    check("strict", Mode::Strict, 1, false);
}

#[test]
fn a_journal_of_recycled_segments_opens_with_every_record() {
    check("recycled", Mode::Ordinary, RECYCLED_FIRST, false);
}

#[test]
fn a_journal_with_a_torn_batch_opens_with_every_record_before_it() {
    check("torn", Mode::Ordinary, 1, true);
}

/// First position that the fixture of recycled segments retains.
const RECYCLED_FIRST: u64 = 56;
