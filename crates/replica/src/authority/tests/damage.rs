//! Copies of several records, torn, rotten and in each other's places: what is opened, or not.

use super::*;

/// What one copy of the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Old,
    New,
    /// As torn by a crash, or rotten.
    Bad,
}

use Part::{Bad, New, Old};

const ALL: [Part; 3] = [Old, New, Bad];

fn file_of(parts: [Part; COPIES]) -> sim::Disk {
    let old = copies(&kept(5));
    let disk = kept(6);
    let new = copies(&disk);
    let blocks: Vec<Vec<u8>> = parts
        .into_iter()
        .enumerate()
        .map(|(index, part)| match part {
            Old => old[index].clone(),
            New => new[index].clone(),
            Bad => {
                let mut torn = new[index].clone();
                torn[512..].copy_from_slice(&old[index][512..]);
                torn
            }
        })
        .collect();
    put(&disk, &blocks);
    disk
}

/// All 81 mixtures of the record before, the one after and bytes that do not verify, by count.
///
/// Proves: AUT-2
#[test]
fn two_that_agree_on_the_highest_record_are_opened_and_nothing_less() {
    for index in 0..ALL.len().pow(4) {
        let parts: [Part; COPIES] = std::array::from_fn(|place| {
            ALL[index / ALL.len().pow(u32::try_from(place).unwrap()) % 3]
        });
        let count = |part| parts.iter().filter(|found| **found == part).count();
        let expected = if count(New) >= 2 {
            Some(6)
        } else if count(Old) >= 2 {
            Some(5)
        } else {
            None
        };
        let disk = file_of(parts);
        let before = bytes(&disk);
        let found = open(&disk);
        match (expected, found) {
            (Some(expected), Ok((authority, opened))) => {
                assert_eq!(number(&authority), expected, "{parts:?}");
                let winner = if expected == 6 { New } else { Old };
                assert_eq!(opened.mended, COPIES - count(winner), "{parts:?}");
                assert_eq!(opened.forgot_later, expected == 5 && count(New) == 1);
                let whole = kept(expected);
                assert!(bytes(&disk) == bytes(&whole), "{parts:?} is not mended");
            }
            (None, Err(error)) => {
                assert_eq!(error.kind(), Kind::Corrupt, "{parts:?}: {error}");
                assert!(
                    bytes(&disk) == before,
                    "{parts:?}: a refusal changed the file"
                );
            }
            (expected, found) => panic!("{parts:?}: {found:?}, expected {expected:?}"),
        }
    }
}

/// One bit in each sector of each copy, and each copy as a whole.
#[test]
fn rot_of_any_two_copies_changes_nothing_and_of_three_is_refused() {
    let whole = bytes(&kept(6));
    for sector in (0..FILE_LEN).step_by(512) {
        let disk = kept(6);
        disk.rot(path(), sector + 200, 0x10).unwrap();
        let (authority, opened) = open(&disk).unwrap();
        assert_eq!(
            (number(&authority), opened.mended),
            (6, 1),
            "sector {sector}"
        );
        assert!(bytes(&disk) == whole, "sector {sector} is not mended");
    }
    for spared in 0..COPIES {
        for other in 0..COPIES {
            let disk = kept(6);
            for index in (0..COPIES).filter(|index| *index != spared && *index != other) {
                disk.rot(path(), index * COPY_LEN + 300, 1).unwrap();
            }
            if spared == other {
                let error = open(&disk).unwrap_err();
                assert_eq!(error.kind(), Kind::Corrupt);
                assert_eq!(
                    error.to_string(),
                    "the authority record does not verify: 1 of 4 copies verify, no two of them \
                     agree; this node has to be rebuilt as another one, /node/authority"
                );
            } else {
                let (authority, opened) = open(&disk).unwrap();
                assert_eq!((number(&authority), opened.mended), (6, 2));
            }
        }
    }
}

/// Every bit of a copy: none may change and verify.
#[test]
fn a_copy_with_any_bit_changed_does_not_verify() {
    let sound = kept(6);
    let mut blocks: Vec<_> = copies(&sound).into_iter().map(Some).collect();
    for at in 0..COPY_LEN {
        for bit in 0..8 {
            let flip = |blocks: &mut Vec<Option<Vec<u8>>>| {
                blocks[2].as_mut().unwrap()[at] ^= 1 << bit;
            };
            flip(&mut blocks);
            let found = copy::choose(&blocks).unwrap();
            assert_eq!(
                found.agrees,
                [true, true, false, true],
                "byte {at} bit {bit}"
            );
            flip(&mut blocks);
        }
    }
}

#[test]
fn a_copy_in_the_place_of_another_does_not_count() {
    let blocks = copies(&kept(6));
    for (order, mended) in [
        ([0, 1, 3, 2], Some(2)),
        ([0, 1, 2, 2], Some(1)),
        ([0, 1, 1, 1], Some(2)),
        ([1, 0, 3, 3], None),
        ([0, 0, 0, 0], None),
        ([3, 2, 1, 0], None),
    ] {
        let disk = kept(6);
        let moved: Vec<Vec<u8>> = order.iter().map(|&from| blocks[from].clone()).collect();
        put(&disk, &moved);
        match (open(&disk), mended) {
            (Ok((authority, opened)), Some(mended)) => {
                assert_eq!(
                    (number(&authority), opened.mended),
                    (6, mended),
                    "{order:?}"
                );
            }
            (Err(error), None) => assert_eq!(error.kind(), Kind::Corrupt, "{order:?}"),
            (found, _) => panic!("{order:?}: {found:?}"),
        }
    }
}

/// Two records of one number, of two copies each: no crash leaves that.
#[test]
fn two_pairs_of_one_sequence_are_refused() {
    let disk = kept(5);
    let first = copies(&kept(6));
    let (mut authority, _) = open(&disk).unwrap();
    authority.keep(&record(6), BIRTH, time(7)).unwrap();
    let mut second = copies(&disk);
    second[..2].clone_from_slice(&first[..2]);
    put(&disk, &second);
    let error = open(&disk).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(
        error.to_string().contains("two different records"),
        "{error}"
    );
}

#[test]
fn a_shorter_file_and_lost_blocks_are_mended_like_rot() {
    for len in [3 * COPY_LEN, 2 * COPY_LEN + 100] {
        let disk = kept(6);
        let file = disk.open(path(), Open::Write).unwrap();
        file.set_len(len as u64).unwrap();
        file.sync_all().unwrap();
        let mended = COPIES - len / COPY_LEN;
        assert_eq!(open(&disk).unwrap().1.mended, mended);
        assert_eq!(bytes(&disk).len(), FILE_LEN);
    }
    // Blocks that the disk does not read any more and takes writes for: three others are enough.
    let disk = kept(6);
    disk.make_unreadable(path(), 2 * COPY_LEN as u64 + 512, 512)
        .unwrap();
    let (mut authority, opened) = open(&disk).unwrap();
    assert_eq!((opened.mended, authority.sound_copies()), (1, 3));
    keep(&mut authority, 7).unwrap();
    assert_eq!(number(&authority), 7);
    disk.make_unreadable(path(), 0, 1).unwrap();
    assert_eq!(keep(&mut authority, 8).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_record_of_another_node_journal_or_format_is_told_from_damage() {
    let disk = kept(6);
    for other in [
        Owner {
            cluster: 0xC2,
            ..owner()
        },
        Owner {
            node: NodeId(2),
            ..owner()
        },
        Owner {
            journal: Identity {
                generation: Generation(2),
                ..owner().journal
            },
            ..owner()
        },
    ] {
        let error = Authority::open(&disk, path(), other).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    let mut blocks = copies(&disk);
    for block in &mut blocks {
        copy::VERSION.put(block, &2_u32.to_le_bytes());
        let digest = copy::digest(block);
        copy::DIGEST.put(block, &digest.0);
    }
    put(&disk, &blocks);
    let error = open(&disk).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(
        error
            .to_string()
            .contains("format version 2, this program reads 1")
    );
}
