//! `docs/format/authority.md` against the constants, and bytes that must stay readable.

use super::{super::copy, *};
use crate::machine::{Config, Mode, Policy, Position, Replaced, Version};

const DOCUMENT: &str = include_str!("../../../../../docs/format/authority.md");

#[test]
fn the_byte_map_says_what_the_constants_say() {
    let (_, after) = DOCUMENT.split_once("<!-- map copy -->\n").unwrap();
    let rows: Vec<Vec<String>> = after
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect();
    let expected: Vec<Vec<String>> = copy::MAP
        .iter()
        .map(|field| {
            vec![
                field.at.to_string(),
                field.len.to_string(),
                field.name.to_owned(),
            ]
        })
        .collect();
    assert_eq!(rows, expected);
    for pair in copy::MAP.windows(2) {
        assert!(pair[0].at + pair[0].len <= pair[1].at, "{pair:?} overlap");
    }
    let last = copy::MAP.last().unwrap();
    assert!(last.at + last.len <= COPY_LEN);
    for number in [FILE_LEN, COPY_LEN, HISTORY_MAX, REASON_LEN_MAX] {
        assert!(DOCUMENT.contains(&format!(" {number} ")), "{number}");
    }
    assert!(DOCUMENT.contains(&format!("`{}`", "HFAUTHO\\0")));
    assert_eq!(copy::MAGIC_BYTES, *b"HFAUTHO\0");
}

/// Every field at its largest, and with other values than its neighbours.
fn full() -> Entry {
    let epoch = |number: u64| EpochStart {
        epoch: Epoch(number),
        id: EpochId(u128::from(number) << 100),
        first: Lsn::new(number * 3),
    };
    Entry {
        sequence: u64::MAX,
        record: Record {
            promised: (Epoch(9 << 50), EpochId(u128::MAX - 1), NodeId(u128::MAX)),
            granted: (Epoch(8 << 50), EpochId(8), NodeId(3)),
            holders: testing::nodes(100..100 + HOLDERS_MAX as u128),
            start: Some(epoch(8 << 50)),
            previous_end: Position {
                epoch: Epoch(7),
                lsn: Lsn::new(77),
            },
            config: Config {
                version: Version {
                    epoch: Epoch(5),
                    number: 6,
                },
                members: testing::nodes(1..=16),
                mode: Mode::Sync(u32::MAX),
                policy: Policy::Wait,
                previous: Some(Replaced {
                    members: testing::nodes(2..=17),
                    mode: Mode::All,
                }),
            },
            is_amnesiac: true,
            reason: "r".repeat(REASON_LEN_MAX),
        },
        history: (1..=HISTORY_MAX as u64).map(epoch).collect(),
        birth: u128::MAX - 5,
        written: time(u64::MAX),
        predecessor: Digest([0xAA; 32]),
    }
}

#[test]
fn what_was_written_is_read_back_field_by_field() {
    let empty = Entry {
        sequence: 1,
        record: Record {
            holders: testing::nodes([]),
            reason: String::new(),
            config: testing::config(0, Mode::Async),
            ..testing::record()
        },
        history: Vec::new(),
        birth: 0,
        written: time(0),
        predecessor: Digest([0; 32]),
    };
    for entry in [full(), empty] {
        let block = copy::encode(owner(), &entry).unwrap();
        let blocks: Vec<_> = (0..COPIES)
            .map(|index| {
                let mut block = block.clone();
                copy::set_index(&mut block, index);
                Some(block)
            })
            .collect();
        let found = copy::choose(&blocks).unwrap();
        assert_eq!((found.owner, found.entry), (owner(), entry));
    }
}

/// Bytes that verify and say what no record says: not taken for one, and no panic.
#[test]
fn counts_and_codes_beyond_their_room_are_refused() {
    for field in [
        copy::MODE,
        copy::POLICY,
        copy::REPLACED_MODE,
        copy::MEMBERS_COUNT,
        copy::REPLACED_COUNT,
        copy::HOLDERS_COUNT,
        copy::REASON_LEN,
    ] {
        for value in [3, 1000, u32::MAX] {
            let mut block = copy::encode(owner(), &full()).unwrap();
            field.put(&mut block, &value.to_le_bytes());
            let is_count = !field.name.ends_with("mode") && field != copy::POLICY;
            if is_count && value == 3 {
                continue;
            }
            let digest = copy::digest(&block);
            copy::DIGEST.put(&mut block, &digest.0);
            let blocks: Vec<_> = (0..COPIES)
                .map(|index| {
                    copy::set_index(&mut block, index);
                    Some(block.clone())
                })
                .collect();
            let fault = copy::choose(&blocks).unwrap_err();
            assert!(
                matches!(fault, Fault::Damaged(_)),
                "{}: {value}",
                field.name
            );
        }
    }
}
