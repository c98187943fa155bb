//! What every [`Journal`] must do, as cases that a test runs against an implementation.
//!
//! A subject opens one journal: empty the first time, the same one again after the last handle was
//! dropped. What happens in a crash is not asked here; that needs the implementation's own disk.
//!
//! An implementation may put records of its own kinds between those of its callers, when it is opened
//! and whenever it needs to; while a case runs on one open journal, it does not.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::{APPEND_LEN_MAX, Appended, Journal, Kind, Lsn, RECORD_LEN_MAX, Record, RecordKind};

/// Opens one journal, again and again.
pub type Subject = Box<dyn FnMut() -> Box<dyn Journal>>;

/// One thing that holds for every journal.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub run: fn(&mut Subject),
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

pub const CASES: &[Case] = &[
    case("an empty journal has no positions", empty),
    case("positions are contiguous from 1", contiguous),
    case("a refused append leaves no hole", refused),
    case("records of every length come back", lengths),
    case(
        "a read begins where it is told and ends at its safe point",
        reads,
    ),
    case("a journal opened again goes on where it ended", reopened),
    case(
        "concurrent appenders get positions of their own",
        concurrent,
    ),
    case("a reader follows the tail", follows),
    case("what is pinned stays", pinned),
    case("what is released below is refused with the range", released),
    case("settling changes nothing that is seen", settled),
];

const fn case(name: &'static str, run: fn(&mut Subject)) -> Case {
    Case { name, run }
}

/// Runs every case on a journal of its own. Panics at the first that does not hold, in the line
/// that says what should have been.
pub fn check(mut make: impl FnMut() -> Subject) {
    for case in CASES {
        (case.run)(&mut make());
    }
}

const KIND: RecordKind = RecordKind(7);
/// Longer than any wait of these cases takes on a machine that runs at all.
const LONG: Duration = Duration::from_secs(60);

fn append(journal: &dyn Journal, bytes: &[u8]) -> Appended {
    journal
        .append(&[(KIND, bytes)])
        .expect("a valid append on a sound disk")
}

/// The records of these cases.
fn read(journal: &dyn Journal, from: Lsn) -> Vec<Record> {
    journal
        .read(from)
        .expect("a position in the retained range")
        .map(|record| record.expect("a record below the safe point"))
        .filter(|record| record.kind == KIND)
        .collect()
}

/// The position so many behind `start`.
fn after(start: Lsn, count: u64) -> Lsn {
    Lsn::new(start.get() + count)
}

fn empty(subject: &mut Subject) {
    let journal = subject();
    assert_eq!(journal.first_retained(), Lsn::FIRST);
    assert_eq!(read(&*journal, Lsn::FIRST), []);
    let refused = journal.read(Lsn::ZERO).err().expect("no position 0");
    assert_eq!(refused.kind(), Kind::OutOfRange);
}

fn contiguous(subject: &mut Subject) {
    let journal = subject();
    let first = journal.safe_point().next().get();
    let mut expected = first;
    for count in [1_u8, 3, 1, 40, 2] {
        let bodies: Vec<Vec<u8>> = (0..count).map(|index| vec![count, index]).collect();
        let records: Vec<_> = bodies.iter().map(|body| (KIND, &body[..])).collect();
        let appended = journal.append(&records).expect("a valid append");
        assert_eq!(appended.first, Lsn::new(expected));
        expected += u64::from(count);
        assert_eq!(appended.last, Lsn::new(expected - 1));
        assert_eq!(journal.safe_point(), appended.last);
    }
    let positions: Vec<u64> = read(&*journal, Lsn::FIRST)
        .iter()
        .map(|record| record.lsn.get())
        .collect();
    assert_eq!(positions, (first..expected).collect::<Vec<_>>());
}

fn refused(subject: &mut Subject) {
    let journal = subject();
    let before = append(&*journal, b"before").last;
    let long = vec![0; RECORD_LEN_MAX + 1];
    let half = &long[..APPEND_LEN_MAX / 2];
    let refusals: [&[(RecordKind, &[u8])]; 4] = [
        &[],
        &[(RecordKind(0), b"kind")],
        &[(KIND, b"fine"), (KIND, &long)],
        &[(KIND, half), (KIND, half)],
    ];
    for records in refusals {
        let refused = journal.append(records).expect_err("an invalid append");
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
    assert_eq!(append(&*journal, b"after").first, before.next());
}

fn lengths(subject: &mut Subject) {
    let journal = subject();
    let lengths = [0, 1, 7, 8, 4095, 4096, 70_000, RECORD_LEN_MAX];
    for len in lengths {
        append(&*journal, &vec![0xA5; len]);
    }
    drop(journal);
    let journal = subject();
    let found: Vec<usize> = read(&*journal, Lsn::FIRST)
        .iter()
        .map(|record| {
            assert!(record.bytes.iter().all(|&byte| byte == 0xA5));
            assert_eq!(record.kind, KIND);
            record.bytes.len()
        })
        .collect();
    assert_eq!(found, lengths);
}

fn reads(subject: &mut Subject) {
    let journal = subject();
    let start = journal.safe_point();
    for number in 1..=50_u8 {
        append(&*journal, &[number]);
    }
    let numbers = |from: u64| -> Vec<u8> {
        read(&*journal, after(start, from))
            .iter()
            .map(|record| record.bytes[0])
            .collect()
    };
    assert_eq!(numbers(1), (1..=50).collect::<Vec<_>>());
    assert_eq!(numbers(37), (37..=50).collect::<Vec<_>>());
    assert_eq!(numbers(50), [50]);
    assert_eq!(numbers(51), []);
    let begun = journal.read(after(start, 49)).expect("a retained position");
    append(&*journal, b"later");
    assert_eq!(
        begun.count(),
        2,
        "a read ends at the safe point it began with"
    );
}

fn reopened(subject: &mut Subject) {
    let journal = subject();
    let identity = journal.identity();
    append(&*journal, b"one");
    let last = append(&*journal, b"two").last;
    drop(journal);
    let journal = subject();
    assert_eq!(journal.identity(), identity);
    let reopened = journal.safe_point();
    assert!(reopened >= last, "ends at {reopened}, ended at {last}");
    assert_eq!(append(&*journal, b"three").first, reopened.next());
    drop(journal);
    let bodies: Vec<Vec<u8>> = read(&*subject(), Lsn::FIRST)
        .into_iter()
        .map(|record| record.bytes)
        .collect();
    assert_eq!(bodies, [&b"one"[..], b"two", b"three"]);
}

fn concurrent(subject: &mut Subject) {
    const APPENDERS: u8 = 8;
    const EACH: u8 = 50;
    let journal = subject();
    let start = journal.safe_point();
    let given = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for appender in 0..APPENDERS {
            let (journal, given) = (&journal, &given);
            scope.spawn(move || {
                for number in 0..EACH {
                    let lsn = append(&**journal, &[appender, number]).first;
                    let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
                    assert_eq!(given.insert(lsn, [appender, number]), None);
                }
            });
        }
    });
    let given = given.into_inner().unwrap_or_else(PoisonError::into_inner);
    let found: BTreeMap<Lsn, [u8; 2]> = read(&*journal, Lsn::FIRST)
        .into_iter()
        .map(|record| (record.lsn, [record.bytes[0], record.bytes[1]]))
        .collect();
    assert_eq!(found, given);
    let count = u64::from(APPENDERS) * u64::from(EACH);
    assert_eq!(journal.safe_point(), after(start, count));
}

fn follows(subject: &mut Subject) {
    let journal = subject();
    let start = journal.safe_point();
    let nothing = journal.wait_above(start, Duration::ZERO);
    assert_eq!(nothing, start);
    thread::scope(|scope| {
        let journal = &journal;
        let follower = scope.spawn(move || {
            let mut seen = start;
            let mut bodies = Vec::new();
            while bodies.len() < 20 {
                let safe_point = journal.wait_above(seen, LONG);
                assert!(safe_point > seen, "waited for nothing");
                for record in read(&**journal, seen.next()) {
                    seen = record.lsn;
                    bodies.push(record.bytes);
                }
            }
            bodies
        });
        for number in 0..20_u8 {
            append(&**journal, &[number]);
        }
        let bodies = follower.join().expect("the follower's assertions hold");
        let expected: Vec<Vec<u8>> = (0..20).map(|number| vec![number]).collect();
        assert_eq!(bodies, expected);
    });
}

fn pinned(subject: &mut Subject) {
    let journal = subject();
    let third = after(journal.safe_point(), 3);
    fill(&*journal);
    let pin = journal.pin(third).expect("a retained position");
    assert_eq!(pin.from(), third);
    let other = journal.pin(third).expect("pinned twice");
    drop(other);
    let end = journal.safe_point().next();
    journal.release_below(end).expect("releasing");
    assert!(journal.first_retained() <= third);
    let kept = read(&*journal, third);
    assert_eq!(
        kept.len() as u64,
        journal.safe_point().get() - third.get() + 1
    );
    drop(pin);
    journal.release_below(end).expect("releasing");
    assert!(journal.first_retained() <= end);
}

fn released(subject: &mut Subject) {
    let journal = subject();
    let begin = journal.safe_point().next();
    fill(&*journal);
    let safe_point = journal.safe_point();
    let keep_from = Lsn::new(safe_point.get() / 2);
    journal.release_below(keep_from).expect("releasing");
    let first = journal.first_retained();
    assert!(first <= keep_from, "released {first}, asked {keep_from}");
    let kept = read(&*journal, first);
    let expected = safe_point.get() - first.max(begin).get() + 1;
    assert_eq!(kept.len() as u64, expected);
    if first > Lsn::FIRST {
        let below = Lsn::new(first.get() - 1);
        let refusals = [journal.read(below).err(), journal.pin(below).err()];
        for refused in refusals {
            let refused = refused.expect("below the retained range");
            assert_eq!(refused.kind(), Kind::OutOfRange);
            let text = refused.to_string();
            for bound in [first, safe_point] {
                assert!(text.contains(&bound.to_string()), "{text}");
            }
        }
    }
    // More than there is: everything acknowledged may go, nothing else changes.
    journal
        .release_below(Lsn::new(u64::MAX))
        .expect("releasing everything");
    assert_eq!(append(&*journal, b"next").first, safe_point.next());
    drop(journal);
    let journal = subject();
    assert!(journal.safe_point() >= safe_point.next());
    assert_eq!(read(&*journal, safe_point.next()).len(), 1);
}

fn settled(subject: &mut Subject) {
    let journal = subject();
    journal.settle().expect("settling an empty journal");
    let one = append(&*journal, b"one").last;
    for _ in 0..3 {
        journal.settle().expect("settling");
        assert_eq!(journal.safe_point(), one);
    }
    assert_eq!(append(&*journal, b"two").first, one.next());
}

/// Enough for several segments of a subject that has small ones.
fn fill(journal: &dyn Journal) {
    for number in 0..200_u8 {
        append(journal, &[number; 300]);
    }
}
