//! A journal under a disk ceiling, against a model that sees only the directory.

use std::path::Path;

use tracing::Level;
use world::{Disk, Random, disk::EntryKind, sim};

use super::{DIR, SEGMENT_BYTES, append, bodies, open, options, start::Log};
use crate::{
    Ceiling, Error, Journal, Kind, Limits, Local, Lsn, OnReaching, Options, Retention, batch,
    segment::{HEADER_LEN, base_of},
};

fn with(disk: &sim::Disk, bytes: u64, on_reaching: OnReaching) -> Result<Local, Error> {
    let retention = match on_reaching {
        OnReaching::Refuse => Retention::Owner,
        OnReaching::DropOldest => Retention::Policy(Limits::default()),
    };
    Local::open(Options {
        retention,
        ceiling: Some(Ceiling { bytes, on_reaching }),
        reserve_bytes: 8192,
        ..options(disk)
    })
    .map(|opened| opened.0)
}

/// Bytes of every file below the journal's directory.
fn used(disk: &sim::Disk, dir: &Path) -> u64 {
    let entries = disk.list(dir).unwrap();
    let len = |entry: &world::disk::Entry| match entry.kind {
        EntryKind::Dir => used(disk, &dir.join(&entry.name)),
        _ => entry.len,
    };
    entries.iter().map(len).sum()
}

fn segments(disk: &sim::Disk) -> Vec<(u64, u64)> {
    disk.list(Path::new(DIR))
        .unwrap()
        .into_iter()
        .filter_map(|entry| Some((base_of(&entry.name)?.get(), entry.len)))
        .collect()
}

/// A cut of an earlier recovery, which counts like everything else.
fn put_into_quarantine(disk: &sim::Disk, bytes: usize) {
    let dir = Path::new(DIR).join(crate::quarantine::DIR);
    disk.create_dir_all_synced(&dir).unwrap();
    disk.replace(&dir.join("cut.bytes"), &vec![1; bytes])
        .unwrap();
}

/// What a segment for one record of this length has at least.
fn segment_least(record_len: usize) -> u64 {
    let batch = batch::HEADER_LEN + batch::RECORD_HEADER_LEN + record_len;
    (HEADER_LEN + batch.next_multiple_of(batch::ALIGNMENT)).next_multiple_of(4096) as u64
}

/// A journal, and what a test knows of it.
struct Model {
    on_reaching: OnReaching,
    ceiling: u64,
    random: sim::Random,
    disk: sim::Disk,
    journal: Local,
    appended: Vec<Vec<u8>>,
    pins: Vec<crate::Pin>,
    refused: u64,
    refused_by_pin: u64,
    /// Segment files that went, and their bytes.
    gone: (u64, u64),
}

impl Model {
    fn new(seed: u64, on_reaching: OnReaching) -> Self {
        let random = sim::Random::new(seed);
        let ceiling = 64_000 + random.number().unwrap() % 100_000;
        let disk = sim::Disk::new(seed);
        let journal = with(&disk, ceiling, on_reaching).unwrap();
        put_into_quarantine(&disk, usize::try_from(seed * 200).unwrap());
        Self {
            on_reaching,
            ceiling,
            random,
            disk,
            journal,
            appended: Vec::new(),
            pins: Vec::new(),
            refused: 0,
            refused_by_pin: 0,
            gone: (0, 0),
        }
    }

    fn below(&self, limit: u64) -> u64 {
        self.random.number().unwrap() % limit
    }

    fn step(&mut self, step: u8, story: &str) {
        let before = segments(&self.disk);
        match self.below(10) {
            0 => {
                let first = self.journal.first_retained().get();
                let range = self.journal.safe_point().get() + 2 - first;
                let from = Lsn::new(first + self.below(range));
                self.pins
                    .push(self.journal.pin_named("drain", from).unwrap());
            }
            1 | 2 if !self.pins.is_empty() => {
                let which = self.below(self.pins.len() as u64);
                self.pins.remove(usize::try_from(which).unwrap());
            }
            3 if self.on_reaching == OnReaching::Refuse => {
                let keep_from = Lsn::new(self.below(self.appended.len() as u64 + 2));
                self.journal.release_below(keep_from).unwrap();
            }
            4 => drop(self.journal.prepare_ahead()),
            _ => self.append(
                vec![step; usize::try_from(self.below(15_000)).unwrap()],
                story,
            ),
        }
        let after = segments(&self.disk);
        for (base, len) in before {
            if after.iter().all(|it| it.0 != base) {
                self.gone = (self.gone.0 + 1, self.gone.1 + len);
            }
        }
        let used = used(&self.disk, Path::new(DIR));
        assert!(used <= self.ceiling, "{story}: {used} bytes used");
        for pin in &self.pins {
            let first = self.journal.first_retained();
            assert!(pin.from() >= first, "{story}: a pinned segment went");
        }
        self.compare(&self.journal, story);
    }

    fn append(&mut self, record: Vec<u8>, story: &str) {
        match append(&self.journal, &record) {
            Ok(_) => self.appended.push(record),
            Err(error) => {
                self.refused += 1;
                let room = used(&self.disk, Path::new(DIR)) + segment_least(record.len());
                assert!(room > self.ceiling, "{story}: refused without need");
                self.check_refusal(&error, story);
            }
        }
    }

    fn check_refusal(&mut self, error: &Error, story: &str) {
        assert_eq!(error.kind(), Kind::Full, "{story}: {error}");
        let text = error.to_string();
        for part in [
            format!("ceiling of {} bytes", self.ceiling),
            format!("{} are used", used(&self.disk, Path::new(DIR))),
            "raise the ceiling".to_owned(),
        ] {
            assert!(text.contains(&part), "{story}: {part} in {text}");
        }
        if self.on_reaching == OnReaching::DropOldest
            && let Some(second) = segments(&self.disk).get(1)
        {
            let lowest = self.pins.iter().map(|pin| pin.from()).min();
            let lowest = lowest.unwrap_or_else(|| panic!("{story}: {second:?} is not pinned"));
            assert!(lowest.get() < second.0, "{story}: one more could have gone");
            let held = format!("\"drain\" holds {lowest} to ");
            assert!(text.contains(&held), "{story}: {held} in {text}");
            self.refused_by_pin += 1;
        }
    }

    fn compare(&self, journal: &Local, story: &str) {
        let first = usize::try_from(journal.first_retained().get()).unwrap();
        assert!(bodies(journal) == self.appended[first - 1..], "{story}");
    }

    fn check_counts(&self, story: &str) {
        let counts = self.journal.counts();
        assert_eq!(counts.refused, self.refused, "{story}");
        assert_eq!(counts.refused_for_ceiling, self.refused, "{story}");
        let dropped = (counts.dropped_segments, counts.dropped_bytes);
        match self.on_reaching {
            OnReaching::Refuse => assert_eq!((dropped, counts.dropped_records), ((0, 0), 0)),
            OnReaching::DropOldest => {
                assert_eq!(dropped, self.gone, "{story}");
                let below = self.journal.first_retained().get() - 1;
                assert_eq!(counts.dropped_records, below, "{story}");
            }
        }
    }
}

/// Random steps; returns how many appends were refused, how many for a pin, and how many segments went.
fn run(seed: u64, on_reaching: OnReaching) -> [u64; 3] {
    let mut model = Model::new(seed, on_reaching);
    for step in 0..60 {
        let story = format!("{on_reaching:?}, seed {seed}, step {step}");
        model.step(step, &story);
    }
    let story = format!("{on_reaching:?}, seed {seed}, at the end");
    model.check_counts(&story);
    let (journal, _) = open(&model.disk.power_loss_total()).unwrap();
    model.compare(&journal, &story);
    [model.refused, model.refused_by_pin, model.gone.0]
}

fn run_all(on_reaching: OnReaching) -> [u64; 3] {
    let runs = (0..40).map(|seed| run(seed, on_reaching));
    runs.fold([0; 3], |all, run| {
        [0, 1, 2].map(|index| all[index] + run[index])
    })
}

/// Proves: JRN-20
#[test]
fn a_ceiling_is_never_exceeded_and_refuses_only_what_does_not_fit() {
    let [refused, _, _] = run_all(OnReaching::Refuse);
    assert!(refused > 100, "{refused} refused");
}

/// Proves: JRN-19, JRN-20
#[test]
fn dropping_the_oldest_keeps_what_is_pinned_and_refuses_when_nothing_else_is_left() {
    let [_, by_pin, gone] = run_all(OnReaching::DropOldest);
    assert!(
        gone > 100 && by_pin > 20,
        "{gone} dropped, {by_pin} refused for a pin"
    );
}

/// Proves: JRN-20
#[test]
fn a_ceiling_is_told_at_open_on_reaching_it_and_when_there_is_room_again() {
    let disk = sim::Disk::new(1);
    let log = Log::of(|| {
        let journal = with(&disk, 64_000, OnReaching::Refuse).unwrap();
        for _ in 0..2 {
            while append(&journal, &[1; 5000]).is_ok() {}
            for _ in 0..3 {
                append(&journal, &[1; 5000]).unwrap_err();
            }
            assert!(journal.metrics().is_at_ceiling);
            journal.release_below(journal.safe_point().next()).unwrap();
            append(&journal, &[2; 5000]).unwrap();
            assert!(!journal.metrics().is_at_ceiling);
        }
        assert_eq!(journal.counts().refused_for_ceiling, 8);
    });
    let expected = ["has a disk ceiling", "reached", "below", "reached", "below"];
    assert_eq!(log.len(), expected.len(), "{log:#?}");
    for ((level, line), part) in log.iter().zip(expected) {
        assert_eq!(*level, Level::WARN);
        assert!(
            line.contains(part) && line.contains("64000"),
            "{part} in {line}"
        );
    }
}

/// At the ceiling for long: every segment drops one, and that is one transition, not one each.
#[test]
fn a_log_that_lives_at_its_ceiling_says_so_once() {
    let disk = sim::Disk::new(1);
    let log = Log::of(|| {
        let journal = with(&disk, 64_000, OnReaching::DropOldest).unwrap();
        for number in 0..40 {
            append(&journal, &[number; 5000]).unwrap();
        }
        assert!(journal.counts().dropped_segments > 30);
    });
    assert_eq!(log.len(), 2, "{log:#?}");
}

#[test]
fn a_ceiling_that_cannot_work_is_refused_at_open() {
    let cases = [
        (
            3 * SEGMENT_BYTES,
            OnReaching::Refuse,
            Retention::Owner,
            "three segments",
        ),
        (
            1 << 20,
            OnReaching::DropOldest,
            Retention::Owner,
            "policy alone",
        ),
        (
            1 << 20,
            OnReaching::DropOldest,
            Retention::Released(Limits::default()),
            "policy alone",
        ),
    ];
    let huge = Local::open(Options {
        ceiling: Some(Ceiling {
            bytes: u64::MAX - 1,
            on_reaching: OnReaching::Refuse,
        }),
        segment_bytes: u64::MAX / 2,
        ..options(&sim::Disk::new(1))
    });
    assert_eq!(huge.unwrap_err().kind(), Kind::Invalid);
    for (bytes, on_reaching, retention, part) in cases {
        let disk = sim::Disk::new(1);
        let refused = Local::open(Options {
            ceiling: Some(Ceiling { bytes, on_reaching }),
            retention,
            ..options(&disk)
        })
        .unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(refused.to_string().contains(part), "{refused}");
    }
}

/// The machine ends at every effect of a log that lives at its ceiling: appends that drop, upkeep that
/// drops ahead and uses the file again. What is found is a whole end of what was acknowledged.
///
/// Proves: JRN-20
#[test]
fn a_crash_while_the_oldest_is_dropped_loses_nothing_else() {
    let run = |disk: &sim::Disk| -> u8 {
        let mut acknowledged = 0;
        let Ok(journal) = with(disk, 64_000, OnReaching::DropOldest) else {
            return acknowledged;
        };
        while acknowledged < 14 {
            if acknowledged % 3 == 0 {
                journal.prepare_ahead();
            }
            if append(&journal, &vec![acknowledged; 5000]).is_err() {
                break;
            }
            acknowledged += 1;
        }
        acknowledged
    };
    let whole = sim::Disk::new(1);
    assert_eq!(run(&whole), 14);
    for effect in 1..=whole.effects() {
        let disk = sim::Disk::new(1);
        disk.crash_at(effect);
        let acknowledged = u64::from(run(&disk));
        for seed in 0..5 {
            let story = format!("effect {effect}, seed {seed}");
            let after = disk.power_loss(seed);
            let (journal, _) = open(&after).unwrap_or_else(|error| panic!("{story}: {error}"));
            let (first, end) = (journal.first_retained().get(), journal.safe_point().get());
            assert!(end >= acknowledged, "{story}");
            // Three segments of one record are below the ceiling; one may have gone for the next one.
            assert!(end + 1 - first >= end.min(2), "{story}: {first} to {end}");
            for (at, body) in (first..).zip(bodies(&journal)) {
                assert!(body == vec![u8::try_from(at - 1).unwrap(); 5000], "{story}");
            }
        }
    }
}

/// Upkeep prepares and drops, owners release and ask, appenders append, all at once: nobody takes
/// a file from under another, and the ceiling holds at every look.
#[test]
fn a_ceiling_holds_while_upkeep_retention_and_appenders_take_and_give_space() {
    let disk = sim::Disk::new(1);
    // Two segments of a group of all three, neither of which can go while the second begins, and the
    // reserve and the slots.
    let ceiling = 80_000;
    let (journal, _) = Local::open(Options {
        retention: Retention::Policy(Limits {
            bytes_max: Some(4 * SEGMENT_BYTES),
            age_max: None,
        }),
        ceiling: Some(Ceiling {
            bytes: ceiling,
            on_reaching: OnReaching::DropOldest,
        }),
        reserve_bytes: 8192,
        upkeep: crate::Upkeep::Thread,
        ..options(&disk)
    })
    .unwrap();
    std::thread::scope(|scope| {
        let appenders: Vec<_> = (0..3_u8)
            .map(|number| {
                let journal = &journal;
                scope.spawn(move || {
                    for round in 0..150 {
                        let len = 200 + usize::from(number) * 3000 + round * 17;
                        append(journal, &vec![number; len]).unwrap();
                    }
                })
            })
            .collect();
        while appenders.iter().any(|appender| !appender.is_finished()) {
            journal.apply_retention().unwrap();
            journal.tend().unwrap();
            let used = used(&disk, Path::new(DIR));
            assert!(used <= ceiling, "{used} bytes used");
        }
    });
    assert_eq!(journal.counts().records, 450);
    assert_eq!(journal.counts().poisonings + journal.counts().refused, 0);
    assert!(!bodies(&journal).is_empty());
}

/// One record that can never fit below the ceiling took all the others with it, and was refused all the
/// same.
///
/// Proves: JRN-20
#[test]
fn an_append_that_no_drop_makes_room_for_drops_nothing() {
    let disk = sim::Disk::new(1);
    let journal = with(&disk, 80_000, OnReaching::DropOldest).unwrap();
    for number in 0..4 {
        append(&journal, &[number; 5000]).unwrap();
    }
    let before = bodies(&journal);
    for _ in 0..2 {
        let refused = append(&journal, &vec![9; 70_000]).unwrap_err();
        assert_eq!(refused.kind(), Kind::Full, "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains("dropping all that is older would not be enough"),
            "{text}"
        );
        assert!(bodies(&journal) == before, "records were dropped");
    }
    assert_eq!(journal.counts().dropped_segments, 0);
    append(&journal, &[9; 5000]).unwrap();
}
