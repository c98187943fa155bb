//! The machine ends at every effect of a run, by process death and by power loss, and the journal
//! that opens afterwards is compared with what the run was told.

use std::collections::BTreeSet;

use world::{Random as _, sim};

use super::{KIND, MODES, append, bodies, open_in, path};
use crate::{Error, Journal, Local, Lsn, Mode, RecordKind, Recovery, slots};

/// What a run did and was told.
#[derive(Clone, Debug)]
struct Model {
    /// In which the journal was open last.
    mode: Mode,
    /// The last write of all was one of a slot: it may vouch for the append in flight.
    slot_was_last: bool,
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
    /// In the same mode, or in the other one.
    Reopen,
    ReopenInOther,
}

/// Every kind of write the journal makes: rolls, a batch longer than a segment, releases, rolls into
/// recycled files whose stale batches begin at the same offsets, settling, a change of mode and back.
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
    Step::ReopenInOther,
    Step::Append(1, 4000),
    Step::Append(1, 4000),
    Step::Append(1, 4000),
    Step::ReleaseBelow(21),
    Step::Append(1, 4000),
    Step::Append(1, 100),
    Step::Append(1, 3000),
    Step::Append(1, 1500),
    Step::ReopenInOther,
    Step::Append(1, 2000),
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
        Step::Reopen | Step::ReopenInOther => journal.close(),
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
            1 if below(2) == 0 => Step::ReopenInOther,
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

fn other(mode: Mode) -> Mode {
    match mode {
        Mode::Ordinary => Mode::Strict,
        Mode::Strict => Mode::Ordinary,
    }
}

/// Runs until the machine ends or the steps do.
fn run(disk: &sim::Disk, steps: &[Step], mode: Mode) -> Model {
    let mut model = Model {
        mode,
        slot_was_last: false,
        attempted: Vec::new(),
        acknowledged: 0,
        released: 0,
    };
    run_into(disk, steps, &mut model);
    let writes = |op: &sim::Op| op.done && matches!(op.effect, sim::Effect::Write { .. });
    model.slot_was_last = disk
        .log()
        .iter()
        .rfind(|op| writes(op))
        .is_some_and(|op| op.path == path(slots::NAME));
    model
}

fn run_into(disk: &sim::Disk, steps: &[Step], model: &mut Model) {
    let Ok((mut journal, _)) = open_in(disk, model.mode) else {
        return;
    };
    for &step in steps {
        if perform(&journal, step, model).is_err() {
            return;
        }
        if matches!(step, Step::Reopen | Step::ReopenInOther) {
            drop(journal);
            if matches!(step, Step::ReopenInOther) {
                model.mode = other(model.mode);
            }
            match open_in(disk, model.mode) {
                Ok((again, _)) => journal = again,
                Err(_) => return,
            }
        }
    }
}

/// What is there is what was acknowledged, and at most the append in flight besides, whole. In strict
/// mode that one only if a slot may vouch for it.
fn compare(journal: &Local, report: &Recovery, model: &Model, story: &str) {
    let first = journal.first_retained();
    let end = usize::try_from(journal.safe_point().get()).unwrap();
    let keeps = model.mode == Mode::Ordinary || model.slot_was_last;
    assert!(
        end == model.acknowledged || (keeps && end == model.attempted.len()),
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

/// Opens what a crash left, in either mode, compares, appends, opens again: nothing more to repair.
fn check(disk: &sim::Disk, model: &Model, next_mode: Mode, story: &str) {
    let (journal, report) =
        open_in(disk, next_mode).unwrap_or_else(|error| panic!("{story}: {error}"));
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
    let (journal, report) =
        open_in(&next, model.mode).unwrap_or_else(|error| panic!("{story}, again: {error}"));
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

fn effects_of_run(steps: &[Step], mode: Mode) -> u64 {
    let disk = sim::Disk::new(1);
    let model = run(&disk, steps, mode);
    assert_eq!(model.acknowledged, model.attempted.len());
    disk.effects()
}

/// Proves: JRN-2, JRN-4, JRN-5, JRN-10, JRN-13, JRN-14
#[test]
fn nothing_acknowledged_is_lost_whichever_effect_is_the_last() {
    for mode in MODES {
        let effects = effects_of_run(STEPS, mode);
        let mut ends = BTreeSet::new();
        for effect in 1..=effects {
            let disk = sim::Disk::new(1);
            disk.crash_at(effect);
            let model = run(&disk, STEPS, mode);
            ends.insert(model.acknowledged);
            for (index, (after, how)) in aftermaths(&disk, 8).into_iter().enumerate() {
                let next_mode = MODES[index % 2];
                let story =
                    format!("{mode:?}, effect {effect} of {effects}, {how}, then {next_mode:?}");
                check(&after, &model, next_mode, &story);
            }
        }
        assert!(
            ends.len() > 20,
            "the crashes were spread over the run: {ends:?}"
        );
    }
}

/// Proves: JRN-5, JRN-10, JRN-13, JRN-14
#[test]
fn runs_of_any_seed_lose_nothing_acknowledged() {
    for seed in 0..80 {
        let steps = steps_of(seed);
        let mode = MODES[usize::from(seed % 2 == 1)];
        let effects = effects_of_run(&steps, mode);
        for crash in 0..8 {
            let effect = 1 + sim_number(seed, crash) % effects;
            let disk = sim::Disk::new(seed);
            disk.crash_at(effect);
            let model = run(&disk, &steps, mode);
            for (after, how) in aftermaths(&disk, 4) {
                let story = format!("seed {seed}, effect {effect} of {effects}, {how}; {REPLAY}");
                check(&after, &model, mode, &story);
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
    let mut repaired = 0;
    for mode in MODES {
        for effect in 1..=effects_of_run(STEPS, mode) {
            let disk = sim::Disk::new(1);
            disk.crash_at(effect);
            let model = run(&disk, STEPS, mode);
            // Seeds that differ from effect to effect: many tears, few of each.
            for seed in 0..3 {
                let found = disk.power_loss(effect * 3 + seed);
                let story = format!("{mode:?}, effect {effect}, seed {seed}");
                repaired += u64::from(interrupt_recovery(&found, &model, &story));
            }
        }
    }
    assert!(repaired > 10, "only {repaired} recoveries had a torn tail");
}

/// Ends the machine at each effect of opening; whether there was something to cut.
fn interrupt_recovery(found: &sim::Disk, model: &Model, story: &str) -> bool {
    let whole = found.fork();
    let before = whole.effects();
    let (journal, report) = open_in(&whole, model.mode).unwrap();
    let expected = bodies(&journal);
    let steps = whole.effects() - before;
    drop(journal);
    for step in 1..=steps {
        let interrupted = found.fork();
        interrupted.crash_at(step);
        let failed = open_in(&interrupted, model.mode).is_err();
        assert!(failed, "{story}, step {step} was not taken");
        for (after, how) in aftermaths(&interrupted, 2) {
            let story = format!("{story}, recovery step {step}, {how}");
            let (journal, report) =
                open_in(&after, model.mode).unwrap_or_else(|error| panic!("{story}: {error}"));
            compare(&journal, &report, model, &story);
            if !report.is_new {
                assert!(bodies(&journal) == expected, "{story}: another result");
            }
        }
    }
    report.cut.is_some()
}

/// The runs above roll into recycled files, in both modes.
///
/// Proves: JRN-2
#[test]
fn the_runs_recycle() {
    for mode in MODES {
        let disk = sim::Disk::new(1);
        let Ok((journal, _)) = open_in(&disk, mode) else {
            panic!("a new journal opens");
        };
        let mut model = run(&sim::Disk::new(1), &[], mode);
        let upto = STEPS.iter().rposition(|step| matches!(step, Step::Reopen));
        let parts = STEPS.split_at(upto.unwrap()).1;
        for &step in parts
            .iter()
            .filter(|step| !matches!(step, Step::Reopen | Step::ReopenInOther))
        {
            perform(&journal, step, &mut model).unwrap();
        }
        assert!(journal.counts().recycled >= 2, "{:?}", journal.counts());
    }
}
