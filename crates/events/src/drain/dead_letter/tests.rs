//! Dead letters as bytes, and what is read of them.

use proptest::prelude::*;
use wal::{Local, Upkeep};
use world::sim;

use super::*;
use crate::{Class, NewEvent};

fn letter(lsn: u64, drain: &str, why: &str) -> Letter {
    Letter {
        event: Event {
            id: EventId {
                journal: JournalId([9; 16]),
                generation: Generation(3),
                lsn: Lsn::new(lsn),
            },
            received: Timestamp::from_nanos(4),
            event: NewEvent {
                producer_id: Some("mine".to_owned()),
                time: Timestamp::from_nanos(2),
                source: "robot".to_owned(),
                class: Class::Decision,
                trace: Some(crate::TraceId([1; 16])),
                span: Some(crate::SpanId([2; 8])),
                body: "{\"n\": 1}".to_owned(),
            },
        },
        drain: drain.to_owned(),
        receiver: "otlp=http://there".to_owned(),
        why: why.to_owned(),
        when: Timestamp::from_nanos(77),
    }
}

fn letters() -> DeadLetters {
    let options = wal::Options {
        upkeep: Upkeep::Caller,
        holder: "the test".to_owned(),
        ..wal::Options::new(
            "/dead-letter",
            Arc::new(sim::Disk::new(1)),
            Arc::new(sim::Clock::new(Timestamp::from_nanos(1))),
            Arc::new(sim::Random::new(1)),
        )
    };
    DeadLetters::new(Arc::new(Local::open(options).unwrap().0))
}

fn entries(letters: &DeadLetters) -> Vec<Entry> {
    letters.entries().unwrap().map(Result::unwrap).collect()
}

/// Proves: EVT-5
#[test]
fn a_letter_comes_back_as_it_was_kept_and_once() {
    let letters = letters();
    let first = letter(5, "a", "unfit");
    let again = letter(5, "a", "unfit after a crash");
    let other = letter(5, "b", "refused elsewhere too");
    letters.append(std::slice::from_ref(&first)).unwrap();
    letters.append(&[again, other.clone()]).unwrap();
    let read: Vec<Letter> = entries(&letters).into_iter().map(|it| it.letter).collect();
    assert_eq!(read, [first, other]);
}

#[test]
fn more_letters_than_fit_an_append_are_all_kept() {
    let letters = letters();
    let many: Vec<Letter> = (1..=100).map(|lsn| letter(lsn, "a", "unfit")).collect();
    letters.append(&many).unwrap();
    assert_eq!(entries(&letters).len(), 100);
    assert_eq!(letters.waiting().unwrap(), 100);
}

#[test]
fn the_last_attempt_counts() {
    let letters = letters();
    letters.append(&[letter(5, "a", "unfit")]).unwrap();
    let lsn = entries(&letters)[0].lsn;
    let attempt = |refused: Option<&str>| Attempt {
        letter: lsn,
        receiver: "otlp=http://there".to_owned(),
        refused: refused.map(str::to_owned),
        when: Timestamp::from_nanos(99),
    };
    letters.record(&[attempt(Some("still unfit"))]).unwrap();
    assert_eq!(letters.waiting().unwrap(), 1);
    letters.record(&[attempt(None)]).unwrap();
    assert_eq!(letters.waiting().unwrap(), 0);
    assert_eq!(entries(&letters)[0].attempt, Some(attempt(None)));
}

#[test]
fn a_reason_without_end_is_cut_between_characters() {
    let why = "ä".repeat(4_000);
    let kept = decode_letter(&encode_letter(&letter(1, "a", &why)))
        .unwrap()
        .why;
    assert!(kept.len() <= TEXT_LEN_MAX && why.starts_with(&kept));
}

/// The maps are held against the document elsewhere, and here against the bytes.
#[test]
fn bytes_lie_where_the_maps_say() {
    let check = |bytes: &[u8], map: &[Field], values: &[u64]| {
        for (field, value) in map.iter().zip(values) {
            let mut number = [0; 8];
            number[..field.len].copy_from_slice(&bytes[field.at..field.at + field.len]);
            assert_eq!(u64::from_le_bytes(number), *value, "{}", field.name);
        }
    };
    let letter = letter(5, "a", "unfit");
    let bytes = encode_letter(&letter);
    check(&bytes, &LETTER_MAP[..7], &[1, 1, 17, 5, 77, 5, 3]);
    assert_eq!(bytes[32..LETTER_HEAD_LEN], [9; 16]);
    assert!(bytes[LETTER_HEAD_LEN..].starts_with(b"aotlp=http://thereunfit"));
    let attempt = Attempt {
        letter: Lsn::new(6),
        receiver: "there".to_owned(),
        refused: Some("no".to_owned()),
        when: Timestamp::from_nanos(8),
    };
    let bytes = encode_attempt(&attempt);
    check(&bytes, &ATTEMPT_MAP, &[1, 1, 5, 2, 8, 6]);
    assert_eq!(&bytes[ATTEMPT_HEAD_LEN..], b"thereno");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), version: bool) {
        let mut bytes = bytes;
        if let (true, Some(first)) = (version, bytes.first_mut()) {
            *first = VERSION;
        }
        drop(decode_letter(&bytes));
        drop(decode_attempt(&bytes));
    }

    #[test]
    fn a_letter_cut_short_is_refused(len in 0_usize..200) {
        let bytes = encode_letter(&letter(5, "a", "unfit"));
        prop_assume!(len < bytes.len());
        prop_assert!(decode_letter(&bytes[..len]).is_err());
    }
}
