//! Random histories, and one byte of their exports changed.

use proptest::{prelude::*, test_runner::Config};

use super::*;

/// What happens on a site.
#[derive(Clone, Debug)]
enum Step {
    Scan(u8, Vec<(u8, u8)>),
    Seal,
    Record,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdicts = prop::collection::vec((0..5_u8, 0..5_u8), 0..6);
    let step = prop_oneof![
        5 => (0..3_u8, verdicts).prop_map(|(host, verdicts)| Step::Scan(host, verdicts)),
        2 => Just(Step::Seal),
        1 => Just(Step::Record),
    ];
    prop::collection::vec(step, 1..14)
}

fn make(steps: &[Step]) -> Place {
    let place = Place::new();
    for step in steps {
        match step {
            Step::Scan(host, verdicts) => {
                let names = ["a", "b", "c", "d", "e"];
                let verdicts: BTreeMap<&str, Judged> = verdicts
                    .iter()
                    .map(|(rule, verdict)| {
                        (
                            names[usize::from(*rule)],
                            Judged::ALL[usize::from(*verdict)],
                        )
                    })
                    .collect();
                let verdicts: Vec<(&str, Judged)> = verdicts.into_iter().collect();
                place.scan(&format!("host-{host}"), &verdicts);
            }
            Step::Seal => drop(place.seal(Reason::Asked)),
            Step::Record => place.record("h"),
        }
    }
    place.seal(Reason::Asked);
    place
}

proptest! {
    #![proptest_config(Config { cases: 12, failure_persistence: None, ..Config::default() })]

    /// Proves: LED-10, SVC-4
    #[test]
    fn any_byte_of_any_export_that_is_changed_is_found(
        steps in steps(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 40),
    ) {
        let place = make(&steps);
        let key = place.key().public();
        for kind in [Kind::Ledger, Kind::Audit] {
            place.verify(kind).unwrap();
            let bytes = place.export(&asked(kind), false).unwrap();
            verify(&bytes, Some(&key)).unwrap();
            for (at, flip) in &edits {
                let mut edited = bytes.clone();
                edited[at.index(bytes.len())] ^= flip;
                prop_assert!(verify(&edited, Some(&key)).is_err(), "byte {}", at.index(bytes.len()));
                // As somebody would who has no key: the last line is made again for what is there.
                let remade = remade(&edited);
                prop_assert!(verify(&remade, Some(&key)).is_err(), "byte {}", at.index(bytes.len()));
            }
        }
    }
}

/// The same lines, with a last line of their own.
fn remade(bytes: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    lines.pop();
    let mut made = lines.concat();
    let end = Line::End {
        lines: lines.len() as u64,
        sha256: digest(&made),
        signature: None,
    };
    made.extend(end.bytes());
    made
}
