//! What every [`Journal`] must do, as cases that a test runs against an implementation.
//!
//! A subject opens one journal: empty the first time, the same one again after the last handle was
//! dropped. What happens in a crash is not asked here; that needs the implementation's own disk.

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

fn read(journal: &dyn Journal, from: Lsn) -> Vec<Record> {
    journal
        .read(from)
        .expect("a position in the retained range")
        .map(|record| record.expect("a record below the safe point"))
        .collect()
}

fn empty(subject: &mut Subject) {
    let journal = subject();
    assert_eq!(journal.safe_point(), Lsn::ZERO);
    assert_eq!(journal.first_retained(), Lsn::FIRST);
    assert_eq!(read(&*journal, Lsn::FIRST), []);
    let refused = journal.read(Lsn::ZERO).err().expect("no position 0");
    assert_eq!(refused.kind(), Kind::OutOfRange);
}

fn contiguous(subject: &mut Subject) {
    let journal = subject();
    let mut expected = 1;
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
    assert_eq!(positions, (1..expected).collect::<Vec<_>>());
}

fn refused(subject: &mut Subject) {
    let journal = subject();
    append(&*journal, b"before");
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
    assert_eq!(append(&*journal, b"after").first, Lsn::new(2));
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
    for number in 1..=50_u8 {
        append(&*journal, &[number]);
    }
    let numbers = |from: u64| -> Vec<u8> {
        read(&*journal, Lsn::new(from))
            .iter()
            .map(|record| record.bytes[0])
            .collect()
    };
    assert_eq!(numbers(1), (1..=50).collect::<Vec<_>>());
    assert_eq!(numbers(37), (37..=50).collect::<Vec<_>>());
    assert_eq!(numbers(50), [50]);
    assert_eq!(numbers(51), []);
    let begun = journal.read(Lsn::new(49)).expect("a retained position");
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
    append(&*journal, b"two");
    drop(journal);
    let journal = subject();
    assert_eq!(journal.identity(), identity);
    assert_eq!(journal.safe_point(), Lsn::new(2));
    assert_eq!(append(&*journal, b"three").first, Lsn::new(3));
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
    assert_eq!(journal.safe_point(), Lsn::new(count));
}

fn follows(subject: &mut Subject) {
    let journal = subject();
    let nothing = journal.wait_above(Lsn::ZERO, Duration::ZERO);
    assert_eq!(nothing, Lsn::ZERO);
    thread::scope(|scope| {
        let journal = &journal;
        let follower = scope.spawn(move || {
            let mut seen = Lsn::ZERO;
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
    fill(&*journal);
    let pin = journal.pin(Lsn::new(3)).expect("a retained position");
    assert_eq!(pin.from(), Lsn::new(3));
    let other = journal.pin(Lsn::new(3)).expect("pinned twice");
    drop(other);
    let end = journal.safe_point().next();
    journal.release_below(end).expect("releasing");
    assert!(journal.first_retained() <= Lsn::new(3));
    let kept = read(&*journal, Lsn::new(3));
    assert_eq!(kept.len() as u64, journal.safe_point().get() - 2);
    drop(pin);
    journal.release_below(end).expect("releasing");
    assert!(journal.first_retained() <= end);
}

fn released(subject: &mut Subject) {
    let journal = subject();
    fill(&*journal);
    let safe_point = journal.safe_point();
    let keep_from = Lsn::new(safe_point.get() / 2);
    journal.release_below(keep_from).expect("releasing");
    let first = journal.first_retained();
    assert!(first <= keep_from, "released {first}, asked {keep_from}");
    let kept = read(&*journal, first);
    assert_eq!(kept.len() as u64, safe_point.get() - first.get() + 1);
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
    assert_eq!(journal.safe_point(), safe_point.next());
    assert_eq!(read(&*journal, safe_point.next()).len(), 1);
}

fn settled(subject: &mut Subject) {
    let journal = subject();
    journal.settle().expect("settling an empty journal");
    append(&*journal, b"one");
    for _ in 0..3 {
        journal.settle().expect("settling");
        assert_eq!(journal.safe_point(), Lsn::FIRST);
    }
    assert_eq!(append(&*journal, b"two").first, Lsn::new(2));
}

/// Enough for several segments of a subject that has small ones.
fn fill(journal: &dyn Journal) {
    for number in 0..200_u8 {
        append(journal, &[number; 300]);
    }
}
