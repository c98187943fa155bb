//! First runs, steady state, locks, epochs, closing.

use std::{
    fmt,
    path::Path,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use world::{Disk, disk::Open, sim};

use super::{DIR, append, bodies, fresh, open, options, path, segment};
use crate::{
    Cause, Epoch, Evidence, Generation, Journal, Kind, Local, Lsn, Options, Sign, identity, slots,
};

/// Keeps what is logged on this thread, one line each: level, message, fields.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl Log {
    pub(super) fn of(body: impl FnOnce()) -> Vec<(Level, String)> {
        // With one subscriber alive, `tracing` asks the thread that meets a line first whether anybody
        // listens, and remembers the answer for all: a test that runs beside this one would silence
        // it. With two it asks both.
        static LISTENING: LazyLock<[Dispatch; 2]> =
            LazyLock::new(|| [(); 2].map(|()| Dispatch::new(Log::default())));
        LazyLock::force(&LISTENING);
        let log = Self::default();
        tracing::subscriber::with_default(log.clone(), body);
        let lines = log.0.lock().unwrap();
        lines.clone()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0
            .lock()
            .unwrap()
            .push((*event.metadata().level(), line.0));
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Proves: JRN-15
#[test]
fn a_first_run_opens_silently() {
    let disk = sim::Disk::new(1);
    let log = Log::of(|| {
        let (journal, report) = open(&disk).unwrap();
        assert!(report.is_new);
        assert_eq!(journal.identity().generation, Generation(1));
        drop(journal);
        assert!(!open(&disk).unwrap().1.is_new);
    });
    assert_eq!(log, []);
}

/// Proves: JRN-10
#[test]
fn a_refusal_is_one_error_record_with_cause_dir_lsn_offset_and_error() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    journal.close().unwrap();
    drop(journal);
    disk.rot(&segment(1), crate::segment::HEADER_LEN + 60, 1)
        .unwrap();
    let log = Log::of(|| drop(open(&disk).unwrap_err()));
    assert_eq!(log.len(), 1);
    let (level, line) = &log[0];
    assert_eq!(*level, Level::ERROR);
    for part in [
        "message=WAL_RECOVERY_FAIL_HARD",
        "cause=\"FRAME_CORRUPT\"",
        "dir=/journal",
        "lsn=1",
        "offset=4096",
        "error=FRAME_CORRUPT: a batch does not verify",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

/// Proves: JRN-14
#[test]
fn a_cut_is_logged_once_at_warn() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    let disk = {
        let after = disk.process_death();
        drop(journal);
        after
    };
    let file = disk.open(&segment(1), Open::Write).unwrap();
    file.write_all_at(b"torn", crate::segment::HEADER_LEN as u64 + 64)
        .unwrap();
    let log = Log::of(|| {
        assert!(open(&disk).unwrap().1.cut.is_some());
        assert!(open(&disk).unwrap().1.cut.is_none());
    });
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0].0, Level::WARN);
    assert!(log[0].1.contains("quarantine="), "{log:?}");
}

/// Proves: JRN-15
#[test]
fn registered_evidence_stops_a_start_without_a_safe_point() {
    let evidence = |name: &str, sign| Evidence::new("trace", Path::new("/site").join(name), sign);
    let cases = [
        (evidence("file", Sign::Present), true),
        (evidence("file", Sign::NotEmpty), true),
        (evidence("empty", Sign::Present), true),
        (evidence("empty", Sign::NotEmpty), false),
        (evidence("dir", Sign::Present), true),
        (evidence("dir", Sign::NotEmpty), false),
        (evidence("none", Sign::Present), false),
        (evidence("none", Sign::NotEmpty), false),
    ];
    for (evidence, refuses) in cases {
        let disk = sim::Disk::new(1);
        disk.create_dir_all_synced(Path::new("/site/dir")).unwrap();
        disk.replace(Path::new("/site/file"), b"x").unwrap();
        disk.replace(Path::new("/site/empty"), b"").unwrap();
        let opened = Local::open(Options {
            evidence: vec![evidence.clone()],
            ..options(&disk)
        });
        match opened {
            Ok((_, report)) => assert!(report.is_new && !refuses, "{evidence:?}"),
            Err(error) => {
                assert!(refuses, "{evidence:?}: {error}");
                assert_eq!(error.cause(), Some(Cause::SafePointMissing));
                let text = error.to_string();
                assert!(text.contains("trace /site/"), "{text}");
                assert!(
                    text.contains("journal export --salvage --dir /journal"),
                    "{text}"
                );
                assert!(
                    text.contains("journal reset --dir /journal --reason TEXT"),
                    "{text}"
                );
            }
        }
    }
}

/// Proves: JRN-15
#[test]
fn evidence_does_not_matter_to_a_journal_that_is_whole() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    journal.close().unwrap();
    drop(journal);
    disk.replace(Path::new("/trace"), b"x").unwrap();
    let (journal, _) = Local::open(Options {
        evidence: vec![Evidence::new("trace", "/trace", Sign::Present)],
        ..options(&disk)
    })
    .unwrap();
    assert_eq!(bodies(&journal), [b"one"]);
}

/// What a crash during the first open leaves is a first run again, not a steady state.
///
/// Proves: JRN-15
#[test]
fn an_interrupted_first_open_is_done_again() {
    let whole = sim::Disk::new(1);
    drop(open(&whole).unwrap());
    for effect in 1..=whole.effects() {
        let disk = sim::Disk::new(1);
        disk.crash_at(effect);
        drop(open(&disk));
        for seed in 0..10 {
            let found = disk.power_loss(seed);
            let (journal, _) = open(&found)
                .unwrap_or_else(|error| panic!("effect {effect}, seed {seed}: {error}"));
            append(&journal, b"one").unwrap();
        }
    }
}

/// Proves: JRN-1
#[test]
fn a_second_open_fails_at_once_and_names_the_holder() {
    let (disk, journal) = fresh();
    let error = open(&disk).unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    assert!(error.to_string().contains("the test"), "{error}");
    assert!(error.to_string().contains(DIR), "{error}");
    drop(journal);
    drop(open(&disk).unwrap());
}

/// Proves: JRN-1
#[test]
fn a_journal_is_a_directory_of_segments_a_safe_point_an_identity_and_a_lock() {
    let (disk, journal) = fresh();
    append(&journal, &[1; 5000]).unwrap();
    append(&journal, &[1; 5000]).unwrap();
    let names: Vec<String> = disk
        .list(Path::new(DIR))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(
        names,
        [
            "00000000000000000001.seg",
            "00000000000000000002.seg",
            identity::NAME,
            "lock",
            slots::NAME,
        ]
    );
}

#[test]
fn this_machines_holder_is_a_pid_and_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Local::open(Options::on_this_machine(dir.path())).unwrap();
    let error = Local::open(Options::on_this_machine(dir.path())).unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    let command = std::env::args().next().unwrap();
    for part in [format!("pid {} ", std::process::id()), command] {
        assert!(error.to_string().contains(&part), "{error}");
    }
    drop(journal);
}

#[test]
fn an_epoch_is_stamped_kept_and_never_lowered() {
    let disk = sim::Disk::new(1);
    let with = |epoch: Option<u64>| {
        Local::open(Options {
            epoch: epoch.map(Epoch),
            ..options(&disk)
        })
    };
    let mut expected = Vec::new();
    for (given, stamped) in [(None, 0), (Some(3), 3), (None, 3), (Some(8), 8)] {
        let (journal, _) = with(given).unwrap();
        append(&journal, &[0; 3000]).unwrap();
        append(&journal, &[0; 3000]).unwrap();
        expected.extend([stamped; 2]);
        let epochs: Vec<u64> = journal
            .read(Lsn::FIRST)
            .unwrap()
            .map(|record| record.unwrap().epoch.0)
            .collect();
        assert_eq!(epochs, expected);
    }
    let error = with(Some(7)).unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert_eq!(error.cause(), None);
    // An authority that appended nothing leaves no trace here; its own record does.
    drop(with(Some(9)).unwrap());
    drop(with(Some(8)).unwrap());
}

#[test]
fn a_closed_journal_refuses_and_lets_go() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    journal.close().unwrap();
    journal.close().unwrap();
    let refusals = [
        append(&journal, b"two").err(),
        journal.settle().err(),
        journal.release_below(Lsn::FIRST).err(),
        journal.read(Lsn::FIRST).err(),
        journal.pin(Lsn::FIRST).err(),
    ];
    for refused in refusals {
        assert_eq!(refused.unwrap().kind(), Kind::Closed);
    }
    assert_eq!(
        journal.wait_above(Lsn::FIRST, Duration::from_secs(60)),
        Lsn::FIRST,
        "nobody waits for a closed journal"
    );
    let (_, report) = open(&disk).unwrap();
    assert_eq!(report.watermark, Lsn::FIRST, "closing settles");
}

#[test]
fn segments_that_are_too_small_are_refused() {
    let disk = sim::Disk::new(1);
    let error = Local::open(Options {
        segment_bytes: 4096,
        ..options(&disk)
    })
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(disk.stat(&path("lock")).unwrap(), None);
}

/// Another version may have another length of segment: what is there stays as it is.
#[test]
fn the_length_of_segments_may_change_between_opens() {
    let disk = sim::Disk::new(1);
    let mut expected = Vec::new();
    for (round, segment_bytes) in [8192, 65_536, 12_288, 1 << 20].into_iter().enumerate() {
        let (journal, _) = Local::open(Options {
            segment_bytes,
            ..options(&disk)
        })
        .unwrap();
        for _ in 0..5 {
            let record = vec![u8::try_from(round).unwrap(); 3000];
            append(&journal, &record).unwrap();
            expected.push(record);
        }
        assert!(bodies(&journal) == expected);
    }
}
