//! First run or steady state: the truth table of what shows that a node ran before.

use std::path::Path;

use world::{Disk, sim};

use super::{DIR, append, fresh, open, options, path, segment};
use crate::{Cause, Error, Evidence, Local, Options, Sign, identity, slots};

/// What two planes register; whoever has more state registers more.
fn registry() -> Vec<Evidence> {
    vec![
        Evidence::new(
            "the store's manifest",
            "/site/tables/manifest",
            Sign::Present,
        ),
        Evidence::new("the activation records", "/site/activation", Sign::NotEmpty),
        Evidence::new("the runtime's state", "/site/runtime.db", Sign::NotEmpty),
    ]
}

fn start(disk: &sim::Disk) -> Result<bool, Error> {
    let (_, report) = Local::open(Options {
        evidence: registry(),
        ..options(disk)
    })?;
    Ok(report.is_new)
}

fn put(disk: &sim::Disk, file: &str) {
    let file = Path::new(file);
    disk.create_dir_all_synced(file.parent().unwrap()).unwrap();
    disk.replace(file, b"x").unwrap();
}

fn check_refused(refused: &Error, evidence: &str) {
    assert_eq!(refused.cause(), Some(Cause::SafePointMissing), "{refused}");
    let text = refused.to_string();
    for part in [
        evidence,
        "put a copy of the whole directory in its place",
        "holdfast journal export --salvage --dir /journal",
        "holdfast journal reset --dir /journal --reason TEXT",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// Proves: JRN-15
#[test]
fn each_registered_evidence_alone_stops_a_start_and_nothing_else_does() {
    let cases: [(&[&str], Option<&str>); 9] = [
        (&[], None),
        (
            &["/site/tables/manifest"],
            Some("the store's manifest /site/tables/manifest"),
        ),
        (
            &["/site/activation/first"],
            Some("the activation records /site/activation"),
        ),
        (
            &["/site/runtime.db"],
            Some("the runtime's state /site/runtime.db"),
        ),
        (
            &["/site/activation/first", "/site/runtime.db"],
            Some("the activation records /site/activation"),
        ),
        // Consumers' cursors, and whatever else nobody registered.
        (&["/site/events/cursors/errors"], None),
        (&["/site/telemetry.pos"], None),
        (&["/site/tables/other"], None),
        (&["/journal/lock", "/journal/spare", "/journal/notes"], None),
    ];
    for (files, evidence) in cases {
        let disk = sim::Disk::new(1);
        files.iter().for_each(|file| put(&disk, file));
        match (start(&disk), evidence) {
            (Ok(is_new), None) => assert!(is_new, "{files:?}"),
            (Err(refused), Some(evidence)) => check_refused(&refused, evidence),
            (started, _) => panic!("{files:?}: {started:?}"),
        }
    }
}

/// The journal's own bytes, one kind at a time, beside no safe point and no registered evidence.
///
/// Proves: JRN-15
#[test]
fn the_journals_own_bytes_alone_stop_a_start() {
    let names = [
        (identity::NAME, Some("/journal/identity")),
        (
            "00000000000000000001.seg",
            Some("/journal/00000000000000000001.seg"),
        ),
        (
            "00000000000000000002.seg",
            Some("/journal/00000000000000000002.seg"),
        ),
        ("ahead.spare", None),
    ];
    for (kept, evidence) in names {
        let (disk, journal) = fresh();
        append(&journal, &[1; 5000]).unwrap();
        append(&journal, &[2; 5000]).unwrap();
        journal.prepare_ahead();
        drop(journal);
        for entry in disk.list(Path::new(DIR)).unwrap() {
            if entry.name != kept {
                disk.remove_file(&path(&entry.name)).unwrap();
            }
        }
        match (start(&disk), evidence) {
            (Ok(is_new), None) => assert!(is_new, "{kept}"),
            (Err(refused), Some(evidence)) => check_refused(&refused, evidence),
            (started, _) => panic!("{kept}: {started:?}"),
        }
    }
}

/// A whole journal needs nothing registered, and evidence does not stop it.
///
/// Proves: JRN-15
#[test]
fn a_safe_point_that_is_there_needs_no_evidence() {
    for with_evidence in [false, true] {
        let (disk, journal) = fresh();
        append(&journal, b"one").unwrap();
        drop(journal);
        if with_evidence {
            put(&disk, "/site/runtime.db");
        }
        assert!(!start(&disk).unwrap());
        disk.remove_file(&path(slots::NAME)).unwrap();
        assert!(disk.stat(&segment(1)).unwrap().is_some());
        check_refused(&open(&disk).unwrap_err(), "/journal/identity");
    }
}
