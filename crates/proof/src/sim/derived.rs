//! What a node's owner makes of its log: a map of keys, of which some prefix is durable.
//!
//! Each key keeps what all records made of it, not only the last one: a record that was applied twice, or
//! that is in no log any more, stays visible however often the key is written after it.
//!
//! It can go back as far as its last base, and it can tell what changed since any position from
//! there on: the most an owner can do, so that the machine's every choice is possible.

use std::collections::BTreeMap;

use replica::machine::Position;
use wal::Lsn;

use super::payload::{self, Payload};

pub(crate) type Map = BTreeMap<u8, Version>;

/// What a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// The last record that wrote it, and of which operation.
    pub(crate) lsn: Lsn,
    pub(crate) number: u64,
    /// Of all records that wrote it, in order.
    pub(crate) digest: u64,
}

impl Version {
    /// FNV-1a over what it was, and position and operation of the record.
    fn written(self, position: Position, payload: Payload) -> Self {
        let Payload { number, index, .. } = payload;
        let lsn = position.lsn;
        let words = [position.epoch.0, lsn.get(), number, u64::from(index)];
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        let digest = bytes.fold(self.digest ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            lsn,
            number,
            digest,
        }
    }
}

/// A record applied to a state.
pub(crate) fn write(map: &mut Map, position: Position, payload: Payload) {
    let version = map.entry(payload.key).or_default();
    *version = version.written(position, payload);
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Derived {
    base: Lsn,
    at_base: Map,
    /// Applied since the base, in order; records of other kinds change nothing.
    changes: Vec<(Position, Payload)>,
    applied: Lsn,
    durable: Lsn,
    now: Map,
}

impl Derived {
    pub(crate) fn applied(&self) -> Lsn {
        self.applied
    }

    pub(crate) fn durable(&self) -> Lsn {
        self.durable
    }

    pub(crate) fn base(&self) -> Lsn {
        self.base
    }

    pub(crate) fn map(&self) -> &Map {
        &self.now
    }

    pub(crate) fn apply(&mut self, position: Position, payload: Option<Payload>) {
        self.applied = position.lsn;
        if let Some(payload) = payload {
            self.changes.push((position, payload));
            write(&mut self.now, position, payload);
        }
    }

    pub(crate) fn flush(&mut self, to: Lsn) {
        self.durable = self.durable.max(to.min(self.applied));
    }

    /// What a crash leaves, or what a cut of the log allows where the durable part lies below it.
    pub(crate) fn go_back(&mut self, to: Lsn) {
        let to = to.max(self.base);
        self.changes.retain(|(position, _)| position.lsn <= to);
        self.applied = self.applied.min(to);
        self.durable = self.durable.min(to);
        self.now = self.at(to);
    }

    pub(crate) fn at(&self, lsn: Lsn) -> Map {
        let mut map = self.at_base.clone();
        let upto = self
            .changes
            .partition_point(|(position, _)| position.lsn <= lsn);
        for (position, payload) in &self.changes[..upto] {
            write(&mut map, *position, *payload);
        }
        map
    }

    /// Begins anew at a base, with what is kept of before.
    pub(crate) fn begin(&mut self, base: Lsn, kept: Map) {
        *self = Self {
            base,
            at_base: kept.clone(),
            changes: Vec::new(),
            applied: base,
            durable: base,
            now: kept,
        };
    }

    /// A part of a base: of a state that stands at the base, whatever was applied behind it since.
    pub(crate) fn store(&mut self, bytes: &[u8]) {
        for (key, version) in payload::map(bytes) {
            self.at_base.insert(key, version);
        }
        self.now = self.at(self.applied);
    }

    /// Keys changed after `since`, or all.
    pub(crate) fn changed(&self, since: Option<Lsn>) -> Map {
        let map = self.at(self.durable);
        let since = since.unwrap_or(Lsn::ZERO);
        map.into_iter().filter(|(_, it)| it.lsn > since).collect()
    }
}
