//! The machine ends at every effect, by process death and by power loss: the record is the old one
//! or the new one, whole, and never one below what a caller was told.

use std::collections::BTreeSet;

use super::*;

const LAST: u64 = 6;

/// What a run was told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    in_force: u64,
    attempted: u64,
}

/// Makes the file, keeps, opens again half-way, until the machine ends.
fn run(disk: &sim::Disk) -> Told {
    let mut told = Told {
        in_force: 0,
        attempted: 1,
    };
    let Ok(mut authority) = create(disk) else {
        return told;
    };
    told.in_force = 1;
    for number in 2..=LAST {
        if number == 4 {
            drop(authority);
            match open(disk) {
                Ok((again, _)) => authority = again,
                Err(_) => return told,
            }
        }
        told.attempted = number;
        if keep(&mut authority, number).is_err() {
            return told;
        }
        told.in_force = number;
    }
    told
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

fn effects_of_run() -> u64 {
    let disk = prepared(1);
    let before = disk.effects();
    assert_eq!(run(&disk).in_force, LAST);
    disk.effects() - before
}

/// The record that opening finds, which is one that the run may have left; `None` before there is a
/// file.
fn found(disk: &sim::Disk, told: Told, story: &str) -> Option<(Authority, u64)> {
    if disk.stat(path()).unwrap().is_none() {
        assert_eq!(told.in_force, 0, "{story}: the file is gone");
        return None;
    }
    let (authority, _) = open(disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    let number = number(&authority);
    let least = told.in_force.max(1);
    assert!(
        (least..=told.attempted).contains(&number),
        "{story}: {told:?}, found {number}"
    );
    assert_eq!(authority.sound_copies(), COPIES);
    Some((authority, number))
}

/// Opens, goes on, and opens what a power loss leaves of that.
fn check(disk: &sim::Disk, told: Told, story: &str) {
    let Some((mut authority, first)) = found(disk, told, story) else {
        return;
    };
    // What was opened stands, whatever is lost behind it.
    let total = disk.fork().power_loss_total();
    let (again, opened) = open(&total).unwrap();
    assert_eq!((number(&again), opened.mended), (first, 0), "{story}");
    keep(&mut authority, first + 1).unwrap();
    let (again, opened) = open(&disk.power_loss_total()).unwrap();
    assert_eq!((number(&again), opened.mended), (first + 1, 0), "{story}");
}

/// Proves: AUT-2, AUT-5
#[test]
fn whichever_effect_is_the_last_the_record_is_the_old_one_or_the_new_one() {
    let effects = effects_of_run();
    let mut left = BTreeSet::new();
    for effect in 1..=effects {
        let disk = prepared(1);
        disk.crash_at(effect);
        let told = run(&disk);
        for (after, how) in aftermaths(&disk, 24) {
            let story = format!("effect {effect} of {effects}, {how}");
            check(&after, told, &story);
            left.insert(told.in_force);
        }
    }
    assert_eq!(left, (0..LAST).collect(), "the crashes are spread over all");
}

/// A start that is interrupted, and the start after it.
#[test]
fn a_crash_while_opening_leaves_a_record_that_opens() {
    let effects = effects_of_run();
    for effect in 1..=effects {
        let disk = prepared(1);
        disk.crash_at(effect);
        let told = run(&disk);
        for (after, how) in aftermaths(&disk, 6) {
            if after.stat(path()).unwrap().is_none() {
                continue;
            }
            let whole = after.fork();
            let before = whole.effects();
            open(&whole).unwrap();
            for step in 1..=whole.effects() - before {
                let interrupted = after.fork();
                interrupted.crash_at(step);
                assert!(open(&interrupted).is_err());
                for (last, then) in aftermaths(&interrupted, 4) {
                    let story = format!("effect {effect}, {how}, opening {step}, {then}");
                    found(&last, told, &story);
                }
            }
        }
    }
}

#[test]
fn what_a_crash_left_of_making_the_file_does_not_stand_in_the_way() {
    for effect in 1.. {
        let disk = prepared(1);
        disk.crash_at(effect);
        if create(&disk).is_ok() {
            assert!(effect > 4, "{effect} effects");
            return;
        }
        for (after, how) in aftermaths(&disk, 8) {
            if after.stat(path()).unwrap().is_none() {
                create(&after).unwrap_or_else(|error| panic!("effect {effect}, {how}: {error}"));
            }
            assert_eq!(number(&open(&after).unwrap().0), 1);
            let left = after.stat(&temporary()).unwrap();
            assert!(left.is_none() || how.contains("loss") || how.contains("death"));
        }
    }
}
