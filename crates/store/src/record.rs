//! The journal record of one commit. The byte map is in docs/format/store.md.
//!
//! The journal's own checksum covers every byte, so there is none here; a record that does not
//! decode is damage of our own making or another version's, never a torn write.

use lsm_tree::Slice;
use wal::RecordKind;
use world::Timestamp;

use crate::{TableId, cursor::Cursor, writes::Writes};

/// Kind of the records of commits. Records of other kinds belong to other owners of the journal.
pub(crate) const COMMIT: RecordKind = RecordKind(16);
pub(crate) const VERSION: u8 = 1;
pub(crate) const HEADER_LEN: usize = 16;
pub(crate) const CHANGE_HEADER_LEN: usize = 12;
pub(crate) const FLAG_ONCE: u8 = 1;
const LIVE: u8 = 1;
const DELETED: u8 = 0;

/// What the journal takes as one record, and therefore the writes of one transaction.
pub const RECORD_LEN_MAX: usize = 16 << 20;
/// Far below the 65,535 bytes that the tables can hold: whole keys stand in their indexes.
pub const KEY_LEN_MAX: usize = 8 << 10;
/// Half a record, so that a value always fits one with its key.
pub const VALUE_LEN_MAX: usize = 8 << 20;
/// An idempotency key is an identifier, not a document. Arbitrary.
pub const ONCE_LEN_MAX: usize = 256;

/// A commit as it was read back.
#[derive(Debug)]
pub(crate) struct CommitRecord {
    pub(crate) time: Timestamp,
    pub(crate) once: Option<Slice>,
    pub(crate) changes: Vec<RecordedChange>,
}

#[derive(Debug)]
pub(crate) struct RecordedChange {
    pub(crate) table: TableId,
    pub(crate) key: Slice,
    pub(crate) value: Option<Slice>,
}

/// Bytes that `writes` take as a record.
pub(crate) fn encoded_len(writes: &Writes, once: Option<&[u8]>) -> usize {
    HEADER_LEN
        + once.map_or(0, |key| 2 + key.len())
        + writes.count() * CHANGE_HEADER_LEN
        + writes.bytes()
}

/// Callers have checked every length against the limits above.
pub(crate) fn encode(writes: &Writes, time: Timestamp, once: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(encoded_len(writes, once));
    bytes.push(VERSION);
    bytes.push(if once.is_some() { FLAG_ONCE } else { 0 });
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&len_u32(writes.count()).to_le_bytes());
    bytes.extend_from_slice(&time.nanos().to_le_bytes());
    if let Some(once) = once {
        bytes.extend_from_slice(&len_u16(once.len()).to_le_bytes());
        bytes.extend_from_slice(once);
    }
    for (table, keys) in writes.tables() {
        for (key, value) in keys {
            let value_len = value.as_ref().map_or(0, |value| value.len());
            bytes.extend_from_slice(&table.0.to_le_bytes());
            bytes.extend_from_slice(&len_u16(key.len()).to_le_bytes());
            bytes.push(if value.is_some() { LIVE } else { DELETED });
            bytes.push(0);
            bytes.extend_from_slice(&len_u32(value_len).to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value.as_ref().map_or(&[], |value| value));
        }
    }
    bytes
}

/// `Err` says what is wrong with the record.
pub(crate) fn decode(bytes: &[u8]) -> Result<CommitRecord, String> {
    let mut cursor = Cursor::new(bytes);
    let short = || format!("commit record of {} bytes ends early", bytes.len());
    let version = cursor.u8().ok_or_else(short)?;
    if version != VERSION {
        return Err(format!(
            "commit record has version {version}, this program reads {VERSION}"
        ));
    }
    let flags = cursor.u8().ok_or_else(short)?;
    if flags & !FLAG_ONCE != 0 {
        return Err(format!("commit record has unknown flags {flags:#04x}"));
    }
    let reserved = cursor.u16().ok_or_else(short)?;
    if reserved != 0 {
        return Err(format!("commit record has {reserved:#06x} where 0 belongs"));
    }
    let count = cursor.u32().ok_or_else(short)?;
    let time = Timestamp::from_nanos(cursor.u64().ok_or_else(short)?);
    let once = if flags & FLAG_ONCE != 0 {
        let len = usize::from(cursor.u16().ok_or_else(short)?);
        Some(Slice::from(cursor.take(len).ok_or_else(short)?))
    } else {
        None
    };
    let count = usize::try_from(count).map_err(|_| short())?;
    // Before the allocation: each change takes at least its header.
    if count > cursor.len() / CHANGE_HEADER_LEN {
        return Err(short());
    }
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        changes.push(decode_change(&mut cursor).ok_or_else(short)??);
    }
    if !cursor.is_empty() {
        return Err(format!("commit record has {} bytes too many", cursor.len()));
    }
    Ok(CommitRecord {
        time,
        once,
        changes,
    })
}

/// `None` when the bytes end early.
fn decode_change(cursor: &mut Cursor<'_>) -> Option<Result<RecordedChange, String>> {
    let table = TableId(cursor.u32()?);
    let key_len = usize::from(cursor.u16()?);
    let live = cursor.u8()?;
    let reserved = cursor.u8()?;
    let value_len = usize::try_from(cursor.u32()?).ok()?;
    let key = cursor.take(key_len)?;
    let value = cursor.take(value_len)?;
    // The tables take no empty key; without this check one would end the process.
    if key.is_empty() {
        return Some(Err("commit record has an empty key".to_owned()));
    }
    let value = match (live, value_len) {
        (LIVE, _) => Some(Slice::from(value)),
        (DELETED, 0) => None,
        _ => return Some(Err(format!("commit record has a change of kind {live}"))),
    };
    if reserved != 0 {
        return Some(Err(format!("commit record has {reserved} where 0 belongs")));
    }
    Some(Ok(RecordedChange {
        table,
        key: Slice::from(key),
        value,
    }))
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("lengths of a transaction are checked when it is written")
}

pub(crate) fn len_u16(len: usize) -> u16 {
    u16::try_from(len).expect("lengths of keys are checked when they are written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writes = Writes::default();
        writes.set(TableId(16), b"key", Some(b"value"));
        writes.set(TableId(16), b"gone", None);
        writes.set(TableId(17), b"empty", Some(b""));
        encode(&writes, Timestamp::from_nanos(7), Some(b"request"))
    }

    #[test]
    fn a_commit_reads_back_as_it_was_written() {
        let commit = decode(&sample()).unwrap();
        assert_eq!(commit.time.nanos(), 7);
        assert_eq!(commit.once.as_deref(), Some(b"request".as_slice()));
        let changes: Vec<_> = commit
            .changes
            .iter()
            .map(|change| {
                let value = change
                    .value
                    .as_ref()
                    .map(|value| value.escape_ascii().to_string());
                (change.table.0, change.key.escape_ascii().to_string(), value)
            })
            .collect();
        let expected = [
            (16, "gone", None),
            (16, "key", Some("value")),
            (17, "empty", Some("")),
        ]
        .map(|(table, key, value)| (table, key.to_owned(), value.map(str::to_owned)));
        assert_eq!(changes, expected);
    }

    #[test]
    fn the_length_is_known_before_encoding() {
        let mut writes = Writes::default();
        writes.set(TableId(16), b"key", Some(b"value"));
        writes.set(TableId(16), b"key", Some(b"longer value"));
        writes.set(TableId(16), b"key", None);
        writes.set(TableId(16), b"other", Some(b"x"));
        for once in [None, Some(b"request".as_slice())] {
            let bytes = encode(&writes, Timestamp::from_nanos(7), once);
            assert_eq!(bytes.len(), encoded_len(&writes, once));
        }
    }

    #[test]
    fn the_bytes_of_a_commit_are_these() {
        let mut writes = Writes::default();
        writes.set(TableId(16), b"k", Some(b"val"));
        writes.set(TableId(17), b"gone", None);
        let bytes = encode(&writes, Timestamp::from_nanos(0x0102), Some(b"id"));
        let expected: &[&[u8]] = &[
            &[1, 1, 0, 0, 2, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0],
            &[2, 0, b'i', b'd'],
            &[16, 0, 0, 0, 1, 0, 1, 0, 3, 0, 0, 0, b'k', b'v', b'a', b'l'],
            &[17, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
            b"gone",
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_record_cut_anywhere_is_refused() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len} bytes are not enough");
        }
        let longer = [bytes, vec![0]].concat();
        assert!(decode(&longer).is_err());
    }

    #[test]
    fn no_flipped_bit_makes_decoding_panic() {
        let bytes = sample();
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[index] ^= 1 << bit;
                if let Ok(commit) = decode(&damaged) {
                    assert!(commit.changes.iter().all(|change| !change.key.is_empty()));
                }
            }
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_anything_is_allocated() {
        let mut bytes = sample();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode(&bytes).is_err());
    }
}
