//! Beginning after a base, and the machine ending at every disk call of it.

use world::{
    Disk as _,
    sim::{self, Call, Fault},
};

use super::{
    DIR, MODES, append, options, path,
    replicated::{durable, follow, open_replica},
    segment,
};
use crate::{
    Base, Birth, Cause, Epoch, EpochStart, Error, Generation, Identity, Journal, JournalId, Kind,
    Local, Lsn, Mode, Old, Options, begin_after, identity, order, reset, slots,
};

const THEIRS: Identity = Identity {
    journal: JournalId([7; 16]),
    generation: Generation(3),
};

fn starts() -> Vec<EpochStart> {
    [(1, 1), (4, 70), (6, 90)]
        .map(|(epoch, first)| EpochStart {
            epoch: Epoch(epoch),
            first: Lsn::new(first),
            id: Some(u128::from(epoch) + 1000),
            is_exact: true,
        })
        .into()
}

/// The simulated dice begin anew with each opening; these do not.
fn replica(disk: &sim::Disk, mode: Mode) -> Options {
    Options {
        mode,
        shown: Some(Lsn::new(100)),
        random: std::sync::Arc::new(sim::Random::new(disk.effects())),
        ..options(disk)
    }
}

fn begin(disk: &sim::Disk, mode: Mode, old: Old) -> Result<Local, Error> {
    let history = starts();
    let base = Base {
        identity: THEIRS,
        lsn: Lsn::new(100),
        epoch: Epoch(6),
        history: &history,
        old,
    };
    begin_after(&replica(disk, mode), &base).map(|(journal, _)| journal)
}

/// A log with records that the base does not have, in three segments.
fn old_log(mode: Mode) -> sim::Disk {
    let disk = sim::Disk::new(1);
    let journal = open_replica(&disk, mode).unwrap();
    for epoch in [1, 1, 5, 5] {
        follow(&journal, epoch, 2, 1800).unwrap();
    }
    journal.close().unwrap();
    disk.create_dir_all_synced(&path("quarantine")).unwrap();
    disk.replace(&path("quarantine/a.records"), b"cut before")
        .unwrap();
    disk
}

/// The log is empty, begins behind the base as its identity and history, and goes on.
fn is_begun(disk: &sim::Disk, mode: Mode, story: &str) -> Birth {
    let (journal, report) =
        Local::open(replica(disk, mode)).unwrap_or_else(|error| panic!("{story}: {error}"));
    assert_eq!(report.identity, THEIRS, "{story}");
    assert_eq!(report.safe_point, Lsn::new(100), "{story}");
    assert_eq!(journal.safe_point(), Lsn::new(100), "{story}");
    assert_eq!(journal.first_retained(), Lsn::new(101), "{story}");
    assert_eq!(journal.last_epoch(), Epoch(6), "{story}");
    assert_eq!(journal.epochs(), starts(), "{story}");
    let birth = journal.birth().unwrap();
    assert_eq!(order::pending(disk, DIR.as_ref()).unwrap(), None, "{story}");
    // Own records wait for an epoch of their own, and those of an epoch below the base do not exist.
    let fork = disk.fork();
    drop(journal);
    let (journal, _) = Local::open(replica(&fork, mode)).unwrap();
    assert_eq!(append(&journal, b"own").unwrap_err().kind(), Kind::Fenced);
    assert_eq!(follow(&journal, 5, 1, 10).unwrap_err().kind(), Kind::Fenced);
    for epoch in [6, 6, 7] {
        follow(&journal, epoch, 2, 1800).unwrap();
    }
    journal.raise_epoch(Epoch(8)).unwrap();
    append(&journal, b"own").unwrap();
    let again = fork.power_loss_total();
    drop(journal);
    let (journal, _) = Local::open(replica(&again, mode)).unwrap();
    let epochs: Vec<u64> = durable(&journal).iter().map(|it| it.0).collect();
    assert_eq!(epochs, [6, 6, 6, 6, 7, 7, 8], "{story}");
    let firsts: Vec<u64> = journal.epochs().iter().map(|it| it.first.get()).collect();
    assert_eq!(firsts, [1, 70, 90, 105, 107], "{story}");
    assert_eq!(journal.birth(), Some(birth), "{story}");
    birth
}

fn moved(disk: &sim::Disk) -> Vec<String> {
    disk.list(DIR.as_ref())
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| order::is_moved_aside(name))
        .collect()
}

#[test]
fn a_log_begins_after_a_base_under_the_identity_and_history_it_is_given() {
    for mode in MODES {
        let disk = old_log(mode);
        let before = identity::read_born(&disk, DIR.as_ref()).unwrap().unwrap();
        let bytes = disk.read(&segment(5), u64::MAX).unwrap();
        drop(begin(&disk, mode, Old::MoveAside).unwrap());
        let birth = is_begun(&disk, mode, "moved aside");
        assert_ne!(before.1, Some(birth));
        let kept = moved(&disk);
        assert_eq!(kept.len(), 1);
        let aside = path(&kept[0]);
        let name = segment(5);
        let name = name.file_name().unwrap();
        assert_eq!(disk.read(&aside.join(name), u64::MAX).unwrap(), bytes);
        assert!(
            disk.stat(&aside.join("quarantine/a.records"))
                .unwrap()
                .is_some()
        );

        let disk = old_log(mode);
        drop(begin(&disk, mode, Old::Discard).unwrap());
        is_begun(&disk, mode, "discarded");
        assert_eq!(moved(&disk), [""; 0]);
        assert!(disk.stat(&path("quarantine/a.records")).unwrap().is_some());

        let disk = sim::Disk::new(1);
        drop(begin(&disk, mode, Old::MoveAside).unwrap());
        is_begun(&disk, mode, "no directory");
        assert_eq!(moved(&disk), [""; 0]);
        // Again, with another birth: who relied on the one before is not fooled.
        let first = identity::read_born(&disk, DIR.as_ref()).unwrap().unwrap();
        drop(begin(&disk, mode, Old::Discard).unwrap());
        assert_ne!(Some(is_begun(&disk, mode, "again")), first.1);
    }
}

/// A replica that is fed from the first record on takes the identity alone.
#[test]
fn a_base_that_holds_nothing_begins_an_empty_log() {
    let disk = old_log(Mode::Ordinary);
    let base = Base {
        identity: THEIRS,
        lsn: Lsn::ZERO,
        epoch: Epoch(0),
        history: &[],
        old: Old::Discard,
    };
    let (journal, report) = begin_after(&replica(&disk, Mode::Ordinary), &base).unwrap();
    assert_eq!(report.identity, THEIRS);
    follow(&journal, 1, 3, 10).unwrap();
    let again = disk.power_loss_total();
    drop(journal);
    let journal = open_replica(&again, Mode::Ordinary).unwrap();
    assert_eq!(journal.durable(), Lsn::new(3));
    assert_eq!(journal.epochs()[0].first, Lsn::FIRST);
}

#[test]
fn a_beginning_that_a_crash_interrupts_has_not_begun_or_is_ended() {
    for (mode, old) in [
        (Mode::Ordinary, Old::MoveAside),
        (Mode::Strict, Old::Discard),
    ] {
        let whole = old_log(mode);
        let before = whole.effects();
        drop(begin(&whole, mode, old).unwrap());
        let effects = whole.effects() - before;
        let mut ends = [0, 0];
        for effect in 1..=effects {
            let disk = old_log(mode);
            disk.crash_at(effect);
            drop(begin(&disk, mode, old));
            let mut found = vec![
                (disk.process_death(), "process death".to_owned()),
                (
                    disk.power_loss_total(),
                    "power loss, nothing kept".to_owned(),
                ),
            ];
            for seed in 0..4 {
                found.push((
                    disk.power_loss(effect * 4 + seed),
                    format!("power loss, seed {seed}"),
                ));
            }
            for (after, how) in found {
                let story = format!("{mode:?}, {old:?}, effect {effect} of {effects}, {how}");
                ends[usize::from(ends_well(&after, mode, &story))] += 1;
            }
        }
        assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
    }
}

/// Whether the log begins anew. Opening is interrupted as well.
fn ends_well(after: &sim::Disk, mode: Mode, story: &str) -> bool {
    let is_ordered = order::pending(after, DIR.as_ref()).unwrap().is_some();
    let is_old = |disk: &sim::Disk, story: &str| {
        let journal = open_replica(disk, mode).unwrap_or_else(|error| panic!("{story}: {error}"));
        assert!(
            journal.identity() == THEIRS || journal.durable() == Lsn::new(8),
            "{story}"
        );
        journal.identity() != THEIRS
    };
    if is_ordered && !story.contains("seed") {
        let counted = after.fork();
        let before = counted.effects();
        drop(Local::open(replica(&counted, mode)).unwrap());
        for step in 1..=counted.effects() - before {
            let interrupted = after.fork();
            interrupted.crash_at(step);
            drop(Local::open(replica(&interrupted, mode)));
            for again in [interrupted.process_death(), interrupted.power_loss(step)] {
                let story = format!("{story}, opening step {step}");
                let was_ordered = order::pending(&again, DIR.as_ref()).unwrap().is_some();
                assert!(
                    !is_old(&again, &story) || !was_ordered,
                    "{story}: the order was not carried out"
                );
            }
        }
    }
    let is_begun_anew = !is_old(after, story);
    let kept = moved(after);
    if let [name] = &kept[..]
        && is_begun_anew
    {
        let mut names: Vec<_> = after.list(&path(name)).unwrap();
        names.retain(|entry| !entry.name.ends_with(".tmp"));
        let names: Vec<_> = names.iter().map(|entry| &*entry.name).collect();
        let bases = [1, 5].map(|base| segment(base).file_name().unwrap().to_owned());
        let bases = bases.each_ref().map(|it| it.to_str().unwrap());
        let expected = [
            bases[0],
            bases[1],
            identity::NAME,
            "quarantine",
            slots::NAME,
        ];
        assert_eq!(names, expected, "{story}: not what the old log was");
    }
    assert!(is_begun_anew || !is_ordered, "{story}: not carried out");
    if is_begun_anew {
        is_begun(after, mode, story);
    }
    is_begun_anew
}

/// What a rebuild is for: whatever is wrong with the old log.
#[test]
fn a_log_begins_after_a_base_whatever_is_damaged() {
    type Damage = fn(&sim::Disk);
    let cases: [(&str, Damage); 5] = [
        ("no identity", |disk| {
            disk.remove_file(&path(identity::NAME)).unwrap();
        }),
        ("identity damaged", |disk| {
            disk.rot(&path(identity::NAME), 20, 1).unwrap();
        }),
        ("no slots", |disk| {
            disk.remove_file(&path(slots::NAME)).unwrap();
        }),
        ("a batch damaged", |disk| {
            disk.rot(&segment(5), 5000, 1).unwrap();
        }),
        ("an order damaged", |disk| {
            disk.replace(&path(order::BASE_NAME), &[1; 4096]).unwrap();
        }),
    ];
    for (name, damage) in cases {
        let disk = old_log(Mode::Ordinary);
        damage(&disk);
        if name == "an order damaged" {
            let error = open_replica(&disk, Mode::Ordinary).unwrap_err();
            assert_eq!(error.cause(), Some(Cause::IdentityMismatch), "{error}");
        }
        drop(begin(&disk, Mode::Ordinary, Old::MoveAside).unwrap());
        is_begun(&disk, Mode::Ordinary, name);
    }
}

#[test]
fn a_base_that_does_not_fit_is_refused_and_changes_nothing() {
    let disk = old_log(Mode::Ordinary);
    let refused = |lsn: u64, epoch: u64, history: &[EpochStart]| {
        let base = Base {
            identity: THEIRS,
            lsn: Lsn::new(lsn),
            epoch: Epoch(epoch),
            history,
            old: Old::Discard,
        };
        let error = begin_after(&replica(&disk, Mode::Ordinary), &base).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    };
    let history = starts();
    refused(89, 6, &history);
    refused(100, 5, &history);
    refused(100, 6, &[history[1], history[0]]);
    refused(100, u64::MAX, &history);
    refused(u64::MAX, 6, &history);
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    assert_eq!(journal.durable(), Lsn::new(8));
    let error = begin(&disk, Mode::Ordinary, Old::Discard).unwrap_err();
    assert_eq!(error.kind(), Kind::Locked, "{error}");
    drop(journal);
    // An operator's reset that was interrupted goes first.
    disk.inject_on(
        &path("quarantine"),
        Call::RemoveDirAll,
        1,
        Fault::Fail(std::io::ErrorKind::Other),
    );
    assert!(reset(&options(&disk), "begin anew").is_err());
    let error = begin(&disk, Mode::Ordinary, Old::Discard).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
}

/// An operator's reset takes a half-begun log with everything else.
#[test]
fn a_reset_ends_a_beginning_that_was_interrupted() {
    let disk = old_log(Mode::Ordinary);
    disk.inject(Call::Create, 3, Fault::Fail(std::io::ErrorKind::Other));
    assert!(begin(&disk, Mode::Ordinary, Old::MoveAside).is_err());
    assert!(order::pending(&disk, DIR.as_ref()).unwrap().is_some());
    reset(&options(&disk), "begin anew").unwrap();
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    assert_eq!(journal.durable(), Lsn::FIRST);
    assert_ne!(journal.identity().generation, THEIRS.generation);
}
