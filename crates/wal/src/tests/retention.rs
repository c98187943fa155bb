//! What goes by the limits of a retention, and what never does.

use std::{path::Path, sync::Arc, time::Duration};

use world::{
    Disk, Random, Timestamp,
    sim::{self, Call, Fault},
};

use super::{DIR, append, bodies, open, options};
use crate::{Journal, Kind, Limits, Local, Lsn, Options, Retention, segment::base_of};

/// 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp::from_nanos(1_767_225_600 * 1_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn with(disk: &sim::Disk, clock: &sim::Clock, retention: Retention) -> Local {
    let (journal, _) = Local::open(Options {
        retention,
        clock: Arc::new(clock.clone()),
        ..options(disk)
    })
    .unwrap();
    journal
}

fn bytes(most: u64) -> Limits {
    Limits {
        bytes_max: Some(most),
        age_max: None,
    }
}

fn age(most: Duration) -> Limits {
    Limits {
        bytes_max: None,
        age_max: Some(most),
    }
}

/// Base and length of each segment file, as the directory has them.
fn segments(disk: &sim::Disk) -> Vec<(u64, u64)> {
    disk.list(Path::new(DIR))
        .unwrap()
        .into_iter()
        .filter_map(|entry| Some((base_of(&entry.name)?.get(), entry.len)))
        .collect()
}

/// Bases that a limit of bytes leaves, of those that are there, given where the lowest pin is.
fn left_by_bytes(segments: &[(u64, u64)], most: u64, floor: u64) -> Vec<u64> {
    let mut left = segments.to_vec();
    while left.len() > 1
        && left.iter().map(|(_, len)| len).sum::<u64>() > most
        && left[1].0 <= floor
    {
        left.remove(0);
    }
    left.into_iter().map(|(base, _)| base).collect()
}

/// Random appends, pins and limits against a model that sees only the directory.
///
/// Proves: JRN-19
#[test]
fn a_limit_of_bytes_removes_the_oldest_that_no_pin_holds_and_nothing_else() {
    let mut removed = 0;
    let mut held_back = 0;
    for seed in 0..40 {
        let before_seed = removed;
        let random = sim::Random::new(seed);
        let below = |limit: u64| random.number().unwrap() % limit;
        let most = 12_000 + below(80_000);
        let disk = sim::Disk::new(seed);
        let clock = sim::Clock::new(START);
        let journal = with(&disk, &clock, Retention::Policy(bytes(most)));
        let mut appended: Vec<Vec<u8>> = Vec::new();
        let mut pins = Vec::new();
        for step in 0..40 {
            match below(8) {
                0 => {
                    let range = journal.safe_point().get() + 2 - journal.first_retained().get();
                    let from = Lsn::new(journal.first_retained().get() + below(range));
                    pins.push(journal.pin_named("reader", from).unwrap());
                }
                1 if !pins.is_empty() => {
                    pins.remove(usize::try_from(below(pins.len() as u64)).unwrap());
                }
                _ => {
                    let record = vec![step; usize::try_from(below(20_000)).unwrap()];
                    append(&journal, &record).unwrap();
                    appended.push(record);
                }
            }
            let before = segments(&disk);
            let floor = pins.iter().map(|pin| pin.from().get()).min();
            let expected = left_by_bytes(&before, most, floor.unwrap_or(u64::MAX));
            held_back += usize::from(expected.len() > left_by_bytes(&before, most, u64::MAX).len());
            let gone = journal.apply_retention().unwrap();
            let after: Vec<u64> = segments(&disk).iter().map(|it| it.0).collect();
            assert_eq!(after, expected, "seed {seed}, step {step}, limit {most}");
            assert_eq!(gone, (before.len() - after.len()) as u64);
            removed += gone;
            assert_eq!(journal.counts().retention_segments, removed - before_seed);
            let first = usize::try_from(journal.first_retained().get()).unwrap();
            assert!(bodies(&journal) == appended[first - 1..], "seed {seed}");
        }
    }
    assert!(
        removed > 100 && held_back > 50,
        "{removed} removed, {held_back} held back"
    );
}

/// Each segment of these journals holds the records of one hour.
fn one_segment_an_hour(disk: &sim::Disk, clock: &sim::Clock, retention: Retention) -> Local {
    let journal = with(disk, clock, retention);
    for hour in 0..6 {
        append(&journal, &[hour; 5000]).unwrap();
        clock.advance(HOUR);
    }
    journal
}

/// A segment is as old as its newest record, and that is younger than the next segment's beginning.
///
/// Proves: JRN-19
#[test]
fn a_limit_of_age_removes_what_is_older_also_after_opening_again() {
    // (age limit in hours, first record that is left); it is six hours after the first record, and
    // a record ended its segment one hour after it was written.
    for (hours, first) in [(0, 6), (1, 5), (2, 4), (4, 2), (5, 1), (6, 1), (1000, 1)] {
        for reopens in [false, true] {
            let disk = sim::Disk::new(1);
            let clock = sim::Clock::new(START);
            let limits = age(HOUR * hours + HOUR / 2);
            let mut journal = one_segment_an_hour(&disk, &clock, Retention::Policy(limits));
            if reopens {
                drop(journal);
                journal = with(&disk, &clock, Retention::Policy(limits));
            }
            journal.apply_retention().unwrap();
            assert_eq!(
                journal.first_retained().get(),
                first,
                "{hours} hours, {reopens}"
            );
        }
    }
}

/// A board without a battery logs at 1970 until it learns the time; a clock that was ahead is set
/// back. Neither makes records old that are not.
#[test]
fn a_clock_that_is_stepped_makes_nothing_older_than_it_is() {
    let steps: [(&str, Timestamp, Timestamp, u64); 3] = [
        ("not set, then set", Timestamp::from_nanos(1), START, 1),
        ("set back", START.plus(HOUR * 10_000), START, 1),
        ("set ahead", START, START.plus(HOUR * 10_000), 4),
    ];
    for (story, first, then, retained) in steps {
        let disk = sim::Disk::new(1);
        let clock = sim::Clock::new(first);
        let journal = with(&disk, &clock, Retention::Policy(age(HOUR * 100)));
        for number in 0..4 {
            append(&journal, &[number; 5000]).unwrap();
        }
        clock.set_now(then);
        for number in 4..6 {
            append(&journal, &[number; 5000]).unwrap();
        }
        journal.apply_retention().unwrap();
        assert_eq!(journal.first_retained().get(), retained, "{story}");
    }
}

/// Proves: JRN-19
#[test]
fn limits_on_what_was_released_never_reach_what_was_not() {
    for released in 0..=7 {
        let disk = sim::Disk::new(1);
        let clock = sim::Clock::new(START);
        let journal = one_segment_an_hour(&disk, &clock, Retention::Released(bytes(0)));
        journal.apply_retention().unwrap();
        assert_eq!(journal.first_retained(), Lsn::FIRST, "nothing was released");
        journal.release_below(Lsn::new(released)).unwrap();
        assert_eq!(journal.first_retained().get(), released.clamp(1, 6));
    }
    // And what was released stays while it is within the limits.
    let disk = sim::Disk::new(1);
    let clock = sim::Clock::new(START);
    let journal = one_segment_an_hour(&disk, &clock, Retention::Released(age(HOUR * 100)));
    journal.release_below(Lsn::new(6)).unwrap();
    assert_eq!(journal.first_retained(), Lsn::FIRST);
    clock.advance(HOUR * 98);
    journal.apply_retention().unwrap();
    assert_eq!(journal.first_retained().get(), 4);
}

#[test]
fn without_limits_only_the_owner_removes() {
    let disk = sim::Disk::new(1);
    let clock = sim::Clock::new(START);
    let journal = one_segment_an_hour(&disk, &clock, Retention::Owner);
    clock.advance(HOUR * 1_000_000);
    assert_eq!(journal.apply_retention().unwrap(), 0);
    assert_eq!(journal.first_retained(), Lsn::FIRST);
    journal.release_below(Lsn::new(3)).unwrap();
    assert_eq!(journal.first_retained().get(), 3);
    assert_eq!(journal.counts().retention_segments, 0);
}

/// Proves: JRN-19
#[test]
fn a_pin_below_the_retained_range_is_refused_with_the_range() {
    let disk = sim::Disk::new(1);
    let clock = sim::Clock::new(START);
    let journal = one_segment_an_hour(&disk, &clock, Retention::Policy(bytes(30_000)));
    journal.apply_retention().unwrap();
    let first = journal.first_retained();
    assert!(first > Lsn::FIRST);
    drop(journal.pin_named("in range", first).unwrap());
    for refused in [
        journal.pin(Lsn::FIRST).unwrap_err(),
        journal
            .pin_named("late", Lsn::new(first.get() - 1))
            .unwrap_err(),
        journal.read(Lsn::FIRST).err().unwrap(),
    ] {
        assert_eq!(refused.kind(), Kind::OutOfRange);
        let range = format!("retained range {first} to 6");
        assert!(refused.to_string().contains(&range), "{refused}");
    }
    for name in ["", &"n".repeat(65)] {
        let refused = journal.pin_named(name, first).unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
}

/// The machine ends at every effect of a run under a limit: what is found is a whole end of what was
/// acknowledged, no shorter than the limit keeps.
#[test]
fn a_crash_during_removal_by_limits_loses_nothing_that_they_keep() {
    let run = |disk: &sim::Disk| -> Vec<Vec<u8>> {
        let mut acknowledged = Vec::new();
        let opened = Local::open(Options {
            retention: Retention::Policy(bytes(40_000)),
            ..options(disk)
        });
        let Ok((journal, _)) = opened else {
            return acknowledged;
        };
        for number in 0..12 {
            let record = vec![number; 5000];
            if append(&journal, &record).is_err() || journal.apply_retention().is_err() {
                return acknowledged;
            }
            acknowledged.push(record);
        }
        acknowledged
    };
    let whole = sim::Disk::new(1);
    assert_eq!(run(&whole).len(), 12);
    for effect in 1..=whole.effects() {
        let disk = sim::Disk::new(1);
        disk.crash_at(effect);
        let acknowledged = run(&disk);
        for seed in 0..4 {
            let story = format!("effect {effect}, seed {seed}");
            let (journal, _) = open(&disk.power_loss(seed)).unwrap();
            let (first, end) = (journal.first_retained().get(), journal.safe_point().get());
            assert!(end >= acknowledged.len() as u64, "{story}");
            // Three segments of 12 KiB are within 40,000 bytes.
            assert!(end - (first - 1) >= end.min(3), "{story}: {first} to {end}");
            for (at, body) in (first..).zip(bodies(&journal)) {
                assert!(body == vec![u8::try_from(at - 1).unwrap(); 5000], "{story}");
            }
        }
    }
}

/// A removal failed half-way: the files are still there, though no segment of the journal any more.
/// They count towards no limit, or each further look would take as many bytes of what must be kept;
/// so does a list of the directory that another release made old.
///
/// Proves: JRN-19
#[test]
fn files_that_a_failed_removal_left_cost_no_other_segment() {
    for call in [Call::Rename, Call::RemoveFile, Call::SyncDir] {
        let disk = sim::Disk::new(1);
        let clock = sim::Clock::new(START);
        let journal = with(&disk, &clock, Retention::Policy(bytes(40_000)));
        for number in 0..12 {
            append(&journal, &[number; 5000]).unwrap();
        }
        disk.inject(call, 1, Fault::Fail(std::io::ErrorKind::Other));
        journal.apply_retention().unwrap_err();
        for _ in 0..3 {
            // Three segments of 12 KiB are within 40,000 bytes.
            assert_eq!(journal.first_retained().get(), 10, "{call:?}");
            journal.apply_retention().unwrap();
        }
    }
}
