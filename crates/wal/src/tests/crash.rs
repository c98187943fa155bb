//! The machine ends at every effect of a run, by process death and by power loss, and the journal
//! that opens afterwards is compared with what the run was told.

use std::collections::BTreeSet;

use world::{Random, sim};

use super::{KIND, append, bodies, open};
use crate::{Error, Journal, Local, Lsn, RecordKind, Recovery};

/// What a run did and was told.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Every record handed in, by position.
    attempted: Vec<Vec<u8>>,
    acknowledged: usize,
    /// Everything below may be gone.
    released: u64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// This many records of this length in one append.
    Append(usize, usize),
    Settle,
    ReleaseBelow(u64),
    Reopen,
}

/// Every kind of write the journal makes: rolls, a batch longer than a segment, releases, settling.
const STEPS: &[Step] = &[
    Step::Append(1, 100),
    Step::Append(3, 10),
    Step::Settle,
    Step::Append(1, 3000),
    Step::Append(1, 700),
    Step::Append(2, 3000),
    Step::Append(1, 1),
    Step::Append(1, 9000),
    Step::Append(1, 50),
    Step::ReleaseBelow(5),
    Step::Reopen,
    Step::Append(1, 4000),
    Step::Append(4, 900),
    Step::Settle,
    Step::Append(1, 20_000),
    Step::Append(1, 30),
    Step::ReleaseBelow(12),
    Step::Append(1, 4000),
    Step::Append(1, 4000),
];

fn body(position: usize, len: usize) -> Vec<u8> {
    let mut state = position as u64 + 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_le_bytes()[7]
        })
        .collect()
}

fn perform(journal: &Local, step: Step, model: &mut Model) -> Result<(), Error> {
    match step {
        Step::Append(count, len) => {
            model.attempted.truncate(model.acknowledged);
            let first = model.attempted.len();
            let new: Vec<_> = (0..count).map(|index| body(first + index, len)).collect();
            model.attempted.extend(new.iter().cloned());
            let records: Vec<(RecordKind, &[u8])> =
                new.iter().map(|bytes| (KIND, &bytes[..])).collect();
            let appended = journal.append(&records)?;
            assert_eq!(appended.first, Lsn::new(first as u64 + 1));
            model.acknowledged = model.attempted.len();
            Ok(())
        }
        Step::Settle => journal.settle(),
        Step::ReleaseBelow(keep_from) => {
            model.released = model.released.max(keep_from);
            journal.release_below(Lsn::new(keep_from))
        }
        Step::Reopen => journal.close(),
    }
}

/// A run that nobody thought of.
fn steps_of(seed: u64) -> Vec<Step> {
    let random = sim::Random::new(seed);
    let below = |limit: u64| random.number().unwrap() % limit;
    let size = |number: u64| usize::try_from(number).unwrap();
    let mut appended = 0;
    (0..14)
        .map(|_| match below(10) {
            0 => Step::Settle,
            1 => Step::Reopen,
            2 => Step::ReleaseBelow(below(appended + 2)),
            kind => {
                let count = 1 + below(3);
                appended += count;
                let len_max = if kind == 3 { 12_000 } else { 2500 };
                Step::Append(size(count), size(below(len_max)))
            }
        })
        .collect()
}

/// Runs until the machine ends or the steps do.
fn run(disk: &sim::Disk, steps: &[Step]) -> Model {
    let mut model = Model::default();
    let Ok((mut journal, _)) = open(disk) else {
        return model;
    };
    for &step in steps {
        if perform(&journal, step, &mut model).is_err() {
            return model;
        }
        if matches!(step, Step::Reopen) {
            drop(journal);
            match open(disk) {
                Ok((again, _)) => journal = again,
                Err(_) => return model,
            }
        }
    }
    model
}

/// What is there is what was acknowledged, and at most the append in flight besides, whole.
fn compare(journal: &Local, report: &Recovery, model: &Model, story: &str) {
    let first = journal.first_retained();
    let end = usize::try_from(journal.safe_point().get()).unwrap();
    assert!(
        end == model.acknowledged || end == model.attempted.len(),
        "{story}: {} acknowledged, {} attempted, {end} found: {report:?}",
        model.acknowledged,
        model.attempted.len()
    );
    assert!(
        first.get() <= model.released.max(1),
        "{story}: {first} is the first position, {} may be gone",
        model.released
    );
    let start = usize::try_from(first.get()).unwrap() - 1;
    assert!(
        bodies(journal) == model.attempted[start..end],
        "{story}: other records than were appended"
    );
}

/// Opens what a crash left, compares, appends, opens again: nothing more to repair.
fn check(disk: &sim::Disk, model: &Model, story: &str) {
    let (journal, report) = open(disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    compare(&journal, &report, model, story);
    let mut model = model.clone();
    model
        .attempted
        .truncate(usize::try_from(journal.safe_point().get()).unwrap());
    model.attempted.push(b"after the crash".to_vec());
    append(&journal, b"after the crash").unwrap();
    model.acknowledged = model.attempted.len();
    // Not closed: the next program finds it as a crash would leave it.
    let next = disk.power_loss_total();
    drop(journal);
    let (journal, report) = open(&next).unwrap_or_else(|error| panic!("{story}, again: {error}"));
    compare(&journal, &report, &model, story);
    assert_eq!(report.cut, None, "{story}: the second open repairs");
    assert!(!report.slot_mended, "{story}: the second open repairs");
}

/// The disks that the next program may find, with how to get them again.
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

fn effects_of_run(steps: &[Step]) -> u64 {
    let disk = sim::Disk::new(1);
    let model = run(&disk, steps);
    assert_eq!(model.acknowledged, model.attempted.len());
    disk.effects()
}

/// Proves: JRN-2, JRN-4, JRN-5, JRN-10, JRN-13, JRN-14
#[test]
fn nothing_acknowledged_is_lost_whichever_effect_is_the_last() {
    let effects = effects_of_run(STEPS);
    let mut ends = BTreeSet::new();
    for effect in 1..=effects {
        let disk = sim::Disk::new(1);
        disk.crash_at(effect);
        let model = run(&disk, STEPS);
        ends.insert(model.acknowledged);
        for (after, how) in aftermaths(&disk, 12) {
            check(
                &after,
                &model,
                &format!("effect {effect} of {effects}, {how}"),
            );
        }
    }
    assert!(
        ends.len() > 10,
        "the crashes were spread over the run: {ends:?}"
    );
}

/// Proves: JRN-5, JRN-10, JRN-13, JRN-14
#[test]
fn runs_of_any_seed_lose_nothing_acknowledged() {
    for seed in 0..60 {
        let steps = steps_of(seed);
        let effects = effects_of_run(&steps);
        for crash in 0..8 {
            let effect = 1 + sim_number(seed, crash) % effects;
            let disk = sim::Disk::new(seed);
            disk.crash_at(effect);
            let model = run(&disk, &steps);
            for (after, how) in aftermaths(&disk, 4) {
                let story = format!("seed {seed}, effect {effect} of {effects}, {how}; {REPLAY}");
                check(&after, &model, &story);
            }
        }
    }
}

const REPLAY: &str = "cargo test -p wal runs_of_any_seed";

fn sim_number(seed: u64, index: u64) -> u64 {
    sim::Random::new(seed << 8 | index).number().unwrap()
}

/// Proves: JRN-14
#[test]
fn a_crash_during_recovery_changes_nothing_about_its_result() {
    let effects = effects_of_run(STEPS);
    let mut repaired = 0;
    for effect in 1..=effects {
        let disk = sim::Disk::new(1);
        disk.crash_at(effect);
        let model = run(&disk, STEPS);
        for seed in 0..6 {
            let found = disk.power_loss(seed);
            let whole = found.fork();
            let before = whole.effects();
            let (journal, report) = open(&whole).unwrap();
            let expected = bodies(&journal);
            let steps = whole.effects() - before;
            drop(journal);
            repaired += u64::from(report.cut.is_some());
            for step in 1..=steps {
                let interrupted = found.fork();
                interrupted.crash_at(step);
                let failed = open(&interrupted).is_err();
                assert!(failed, "effect {effect}, step {step} was not taken");
                for (after, how) in aftermaths(&interrupted, 2) {
                    let story =
                        format!("effect {effect}, seed {seed}, recovery step {step}, {how}");
                    let (journal, report) =
                        open(&after).unwrap_or_else(|error| panic!("{story}: {error}"));
                    compare(&journal, &report, &model, &story);
                    if !report.is_new {
                        assert!(bodies(&journal) == expected, "{story}: another result");
                    }
                }
            }
        }
    }
    assert!(repaired > 10, "only {repaired} recoveries had a torn tail");
}
