//! What is in the records of a simulated journal, and in the parts of a base.

use replica::machine::{self, ANNOUNCEMENT, Entry, EpochStart};
use wal::{Lsn, RecordKind};

use super::derived::{Map, Version};

pub(crate) const KIND: RecordKind = RecordKind(1);

/// One record of a client's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Of the operation; no two have the same.
    pub(crate) number: u64,
    pub(crate) index: u8,
    pub(crate) key: u8,
}

const LEN: usize = 10;

impl Payload {
    pub(crate) fn bytes(self, padding: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEN + padding);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&[self.index, self.key]);
        bytes.resize(LEN + padding, self.key);
        bytes
    }

    /// `None` of records of the machine's own.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        if entry.kind != KIND {
            return None;
        }
        let (number, rest) = entry.bytes.split_first_chunk::<8>()?;
        Some(Self {
            number: u64::from_le_bytes(*number),
            index: *rest.first()?,
            key: *rest.get(1)?,
        })
    }
}

const VERSION_LEN: usize = 25;

pub(crate) fn part(map: &[(u8, Version)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(map.len() * VERSION_LEN);
    for (key, version) in map {
        bytes.push(*key);
        bytes.extend_from_slice(&version.lsn.get().to_le_bytes());
        bytes.extend_from_slice(&version.number.to_le_bytes());
        bytes.extend_from_slice(&version.digest.to_le_bytes());
    }
    bytes
}

pub(crate) fn map(bytes: &[u8]) -> Map {
    let number = |bytes: &[u8]| {
        let bytes = bytes.try_into().expect("eight bytes of a version");
        u64::from_le_bytes(bytes)
    };
    let versions = bytes.chunks_exact(VERSION_LEN).map(|it| {
        let version = Version {
            lsn: Lsn::new(number(&it[1..9])),
            number: number(&it[9..17]),
            digest: number(&it[17..]),
        };
        (it[0], version)
    });
    versions.collect()
}

/// The epoch that a record announces.
pub(crate) fn announced(entry: &Entry) -> Option<EpochStart> {
    if entry.kind != ANNOUNCEMENT {
        return None;
    }
    machine::announced(entry.position.lsn, &entry.bytes).map(|(start, _)| start)
}
